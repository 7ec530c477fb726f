"""Words: error rates by precision, LoRA scale and keyword list."""
