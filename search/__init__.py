"""The driver: the only package that knows Ray. Importing it imports nothing else."""
