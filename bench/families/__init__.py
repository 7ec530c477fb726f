"""Families as the benches see them: stages, sizes, bundles of random weights."""
