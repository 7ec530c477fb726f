"""Research checkpoints in, Earshot bundles out."""
