"""The parameter server: partition, optimizers, coordinator, ledger (no TensorFlow)."""
