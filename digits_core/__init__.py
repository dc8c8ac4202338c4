"""Detection of house-number digits: data, model, training, evaluation. Importing this package does not import torch."""

from digits_core.without_compiler import spare_the_compiler

spare_the_compiler()
