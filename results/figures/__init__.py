"""Plotly figures of a run; each function takes an opened run and returns a figure.

Imports views, tables and the record.
"""
