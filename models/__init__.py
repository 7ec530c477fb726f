"""The contract between export, runtime and bench: specs, prompts, the bundle's manifest.

Standard library and numpy only.
"""
