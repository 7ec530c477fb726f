"""The machine: ONNX Runtime sessions, cores and memory, stderr."""
