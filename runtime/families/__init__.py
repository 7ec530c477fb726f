"""Families: which encoders a bundle has and how their outputs become audio tokens."""
