"""The worker: gradient function, training loop, strategies, evaluation, export (imports TensorFlow)."""
