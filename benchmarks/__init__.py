"""Measuring a bundle: load, statistics, peers, the machine beside the numbers, one report."""
