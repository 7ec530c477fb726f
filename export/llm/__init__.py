"""Language models: checkpoint and LoRA -> quantized GGUF."""
