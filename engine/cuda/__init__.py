"""The CUDA layer: memory, streams, events and graphs, on pycuda or cuda-python."""
