"""Sessions: one compiled graph with its buffers, by backend."""
