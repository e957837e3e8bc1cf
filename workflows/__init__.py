"""Compositions of several packages, one file a verb."""
