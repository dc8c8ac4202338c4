"""What is derived from a run folder: the leaderboard and epochs as rows, the winner's configuration, an opened run.

Imports the record, the tables and the verdicts.
"""
