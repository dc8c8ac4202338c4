"""Trained models after a search: retraining, ensembles, model folders, sweeping the thresholds of an existing model.

May import, of this package: every other room; and `search.defaults`.
"""
