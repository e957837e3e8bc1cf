"""Decoding of videos and still pictures: one reader for training, calibration and run."""
