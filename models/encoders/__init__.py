"""Specs of the encoders and their numpy front ends: waveform -> features."""
