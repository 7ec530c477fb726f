"""File formats read and written: torch, safetensors, GPTQ, GGUF, SentencePiece, importance matrices."""
