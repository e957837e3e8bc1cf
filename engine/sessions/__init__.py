"""One compiled graph with its buffers, by backend."""
