"""Ray Tune: searcher, scheduler, callback and trainable connect it to policy and record; cluster and slots.

May import, of this package: policy, storage, monitor, cli; and `search.defaults`.
"""
