"""Ray: the searcher, scheduler, callback and trainable that translate between Ray and the record; cluster and slots.

May import, of this package: policy, storage, monitor, cli; and `search.defaults`.
"""
