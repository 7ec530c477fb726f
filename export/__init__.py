"""Research checkpoints in, Auricle bundles out."""
