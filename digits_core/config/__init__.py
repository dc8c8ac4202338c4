"""The parameters of a training: names, types, limits and defaults, and how files and flags set them.

Imports nothing from the other rooms.
"""
