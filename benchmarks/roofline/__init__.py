"""Roofline: lower bounds of a graph's time on a device, computed from documents."""
