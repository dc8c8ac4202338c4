"""Reads and writes the Parquet files of a run: match tables, bootstraps, sample images; export formats.

Imports the record.
"""
