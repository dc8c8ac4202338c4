"""Detection of house-number digits: data, model, training, evaluation. Importing it imports nothing else."""

from digits_core.without_compiler import spare_the_compiler

spare_the_compiler()
