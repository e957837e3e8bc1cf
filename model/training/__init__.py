"""The training loop, its recipes and its scores."""
