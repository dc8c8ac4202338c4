"""The shipped weights: files only."""
