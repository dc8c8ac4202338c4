"""Where checkpoints and the copy of a run are, and how much disk a run may use.

May import, of this package: nothing but `search.defaults`.
"""
