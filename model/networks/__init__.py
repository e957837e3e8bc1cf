"""Network architectures, their configuration, weights and costs."""
