"""The report page: one HTML file with leaderboard, figures and images of a run.

Imports figures, views, verdicts, tables and the record.
"""
