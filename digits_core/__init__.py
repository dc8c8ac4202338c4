"""Detection of house-number digits: data, model, training, evaluation. Importing it imports nothing else."""
