"""Figures of a run: Plotly figures for the report page and notebooks, Matplotlib figures for publications.

Imports views, tables and the record.
"""
