"""What remains after a search: run folders, leaderboards, exports. Importing this package imports nothing else."""
