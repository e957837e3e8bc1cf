"""Checkpoints of other programs, made into ours."""
