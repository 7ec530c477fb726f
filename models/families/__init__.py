"""Specs of the families: encoders, language model and prompts put together."""
