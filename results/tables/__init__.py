"""Parquet files of a run: how they are read and written, match tables, samples of images.

Imports the record.
"""
