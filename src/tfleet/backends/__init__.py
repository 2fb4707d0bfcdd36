"""Where replicas run: start, watch and stop them."""
