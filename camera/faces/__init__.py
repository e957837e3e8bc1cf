"""Faces in a frame: detection, tracking, and what is fit to be read."""
