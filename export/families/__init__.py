"""Families: the checkpoints of one model -> the parts of its bundle."""
