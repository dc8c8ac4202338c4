"""Views of a run folder: leaderboard and epochs as tables, the winner, data for figures, an opened run.

Imports the record, the tables and the verdicts.
"""
