"""Trained models after a search: retraining, model folders, scoring again at other thresholds.

May import, of this package: every other room; and `search.defaults`.
"""
