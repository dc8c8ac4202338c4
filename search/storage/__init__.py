"""Stores checkpoints and the copy of a run, and limits the disk that a run uses.

May import, of this package: nothing but `search.defaults`.
"""
