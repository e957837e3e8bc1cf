"""Doubles that execute: TensorRT and CUDA as our code sees them, on a machine with neither.

`gpu` is the card: memory, streams, events and graphs, with a book of everything that was done wrong. `cuda_bindings`
and `pycuda` are faces of it, shaped as the real packages. `trt` is TensorRT of one version, with exactly that version's
names, and answers with ONNX Runtime. None of them knows any time: nothing here can give a latency.
"""
