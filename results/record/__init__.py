"""The record of a run: events in, all that is known of its trials out. `events.jsonl` is the truth of a run folder.

Imports nothing of the other rooms.
"""
