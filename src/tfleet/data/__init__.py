"""Index-addressable datasets and their adapters."""
