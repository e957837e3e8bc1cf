"""Baselines: other programs and our own runtime, timed in one run."""
