"""`small`: a real Whisper and a real language model, and the Q-Former and LoRA trained between them."""
