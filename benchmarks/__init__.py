"""Measuring a bundle: load, statistics, baselines, the machine beside the numbers, one report."""
