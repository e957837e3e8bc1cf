"""A short training of `base`, and INT8 of trained networks."""
