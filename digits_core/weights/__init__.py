"""The shipped weights of the tiny model, trained on drawn digits.

Files, and no code.
"""
