"""Base of `small`: SmolLM2's GGUF package -> a Hugging Face directory of the very weights that it will run with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from ....models.errors import InputError

FILE = "model.gguf"


def write_base(package: Path, out: Path) -> None:
    """Dequantize `package`/model.gguf into `out`, float16: config.json, model.safetensors, tokenizer.json. Made once.

    Raises InputError where the package has not been fetched.
    """
    if (out / "config.json").exists():
        return
    if not (package / FILE).is_file():
        raise InputError(f"{package / FILE} is missing: run make real-weights SET=training")
    quantized: Any = AutoModelForCausalLM.from_pretrained(package, gguf_file=FILE, dtype=torch.float32)
    config = {name: value for name, value in quantized.config.to_dict().items() if name != "quantization_config"}
    plain = LlamaForCausalLM(LlamaConfig(**config))
    plain.load_state_dict(quantized.state_dict())
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    plain.to(torch.float16).save_pretrained(part)  # pyright: ignore
    AutoTokenizer.from_pretrained(package, gguf_file=FILE).save_pretrained(part)
    part.rename(out)


def open_base(folder: Path) -> tuple[LlamaForCausalLM, Any]:
    """The language model in bfloat16, frozen, and its tokenizer."""
    llm = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval().requires_grad_(False)
    return llm, AutoTokenizer.from_pretrained(folder)
