"""Latency, stability and memory of live captions."""
