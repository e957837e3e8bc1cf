"""From a checkpoint to the graphs of a bundle."""
