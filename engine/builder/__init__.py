"""From an ONNX graph to an engine file, and proof of what was compiled."""
