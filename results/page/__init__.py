"""The report page: one HTML file of a run, its board, pictures and images.

Imports everything below: figures, views, verdicts, tables, the record.
"""
