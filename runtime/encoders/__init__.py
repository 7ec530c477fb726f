"""Encoders: waveform -> features -> ONNX Runtime -> audio tokens."""
