"""Answers of faces: a stream each, smoothing, a gate, events, and where they go."""
