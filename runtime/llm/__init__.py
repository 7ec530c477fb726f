"""The language model: prompts and audio tokens -> llama.cpp -> text."""
