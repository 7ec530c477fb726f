"""Other runtimes on the same weights and audio, each in a process of its own."""
