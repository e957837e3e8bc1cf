"""Load generators: how a bundle is asked while it is timed."""
