"""Live commands: `listen` and `assist`, and what they share: sources, signals, keys."""
