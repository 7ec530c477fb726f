"""Checkpoint of the demo in the official formats, for the ordinary exporter (docs/reference.md §2, §5)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import LlamaForCausalLM
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from ...encoders.beats import Beats, cfg_from_spec, official_state
from ..bridge import Bridge
from .bridge import LORA_ALPHA, SPEC

_BERT = "speech_Qformer.bert."
_HF_TO_SALMONN = (("layernorm.", "embeddings.LayerNorm."), (".attention.attention.", ".attention.self."))
_CROSS = (".crossattention.attention.", ".crossattention.self.")


def write_checkpoint(
    out: Path,
    whisper: WhisperEncoder,
    beats: Beats,
    predictor: nn.Linear,
    llm: LlamaForCausalLM,
    tokenizer: Path,
    trained: dict[str, Tensor],
) -> None:
    """Write whisper/, beats.pt, vicuna/, salmonn.pth and args.json (what no file of the format holds) into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    _write_whisper(out / "whisper", whisper)
    state = {**official_state(beats), "predictor.weight": predictor.weight, "predictor.bias": predictor.bias}
    model = {name: tensor.detach().clone() for name, tensor in state.items()}
    cfg = {**cfg_from_spec(beats.spec), "predictor_class": predictor.out_features}
    torch.save({"cfg": cfg, "model": model}, out / "beats.pt")
    llm.half().save_pretrained(out / "vicuna")
    shutil.copyfile(tokenizer, out / "vicuna" / "tokenizer.model")
    torch.save({"model": trained}, out / "salmonn.pth")
    args = {"lora_alpha": LORA_ALPHA, "qformer_heads": SPEC.n_heads, "second_per_window": SPEC.second_per_window}
    (out / "args.json").write_text(json.dumps(args, indent=2) + "\n")


def trained_state(bridge: Bridge, lora: dict[str, Tensor]) -> dict[str, Tensor]:
    """Everything SALMONN's own checkpoint holds, by its names: `lora` is the adapter as peft names it in the model."""
    state = {"speech_query_tokens": bridge.qformer.query}
    for name in ("ln_speech", "ln_audio"):
        norm = getattr(bridge, name)
        state |= {f"{name}.weight": norm.weight, f"{name}.bias": norm.bias}
    for kind in ("weight", "bias"):
        state[f"speech_llama_proj.{kind}"] = getattr(bridge.qformer.projection, kind)
    state |= {_BERT + _salmonn_name(name): value for name, value in bridge.qformer.qformer.state_dict().items()}
    state |= {f"llama_model.{name}": value for name, value in lora.items()}
    return {name: value.detach().float().contiguous().clone() for name, value in state.items()}


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """The adapter's tensors out of a peft model: base_model.model.….lora_A.default.weight and lora_B."""
    return {name: value for name, value in model.state_dict().items() if ".lora_A." in name or ".lora_B." in name}


def _salmonn_name(name: str) -> str:
    if ".crossattention." in name:
        return name.replace(*_CROSS)
    for hf, salmonn in _HF_TO_SALMONN:
        if name.startswith(hf) or (hf.startswith(".") and hf in name):
            return name.replace(hf, salmonn, 1)
    return name


def _write_whisper(folder: Path, whisper: WhisperEncoder) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.encoder.{name}": value.contiguous().clone() for name, value in whisper.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    whisper.config.architectures = ["WhisperForConditionalGeneration"]
    whisper.config.save_pretrained(folder)
