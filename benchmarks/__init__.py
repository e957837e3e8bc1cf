"""Benchmarks of a bundle: load, baselines, sensors, roofline, statistics and the report."""
