"""What runs here: TensorRT, GPU, platform, memory, logs."""
