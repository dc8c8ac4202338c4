"""Which differences between trials are real: comparisons, ties, published tables.

Imports the record and the tables.
"""
