"""The training of the demo: SALMONN at a small size."""
