"""Plotly pictures of a run; each function takes a run folder and returns a figure."""
