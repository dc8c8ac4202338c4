"""The parameters of a training: their names, types, limits and defaults, and how files and flags give them.

Imports nothing of the other rooms.
"""
