"""A small Whisper with its decoder -> the part of a bundle that times words."""
