"""Compilation of ONNX graphs to engine files, and proof of the compiled precision."""
