"""A reader of other programs' checkpoints that runs nothing; only the verb import uses it."""
