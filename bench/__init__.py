"""How fast, how large, how good: measured."""
