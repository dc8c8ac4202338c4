"""The record of a run: reads and writes `events.jsonl` and derives the state of all trials from it.

Imports no other room.
"""
