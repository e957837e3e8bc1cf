"""The machine: its TensorRT, GPU, platform and memory, and TensorRT's log."""
