"""ONNX graphs: built, rewritten, quantized, compared, and turned into TensorRT engines."""
