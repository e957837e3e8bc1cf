"""Training loop, recipes and scores."""
