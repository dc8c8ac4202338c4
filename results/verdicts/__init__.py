"""Which differences between trials are significant: comparisons, ties, published tables.

Imports the record and the tables.
"""
