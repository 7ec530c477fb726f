"""Encoders: research checkpoint -> torch module -> ONNX graph."""
