"""What the demos say and hear: sentences, voices, sounds and the answers expected."""
