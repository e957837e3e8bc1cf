"""Synthetic recordings of faces."""
