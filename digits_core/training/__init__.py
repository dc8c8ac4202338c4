"""The core training function: one configuration, one data set, a report after each epoch.

Imports model, data and evaluation. Does not depend on a search.
"""
