"""Resuming from a finished checkpoint: the official formats -> modules."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import LlamaForCausalLM
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from ....models.encoders.beats import BeatsSpec
from ....models.encoders.whisper import WhisperSpec
from ....models.errors import CheckpointError
from ...encoders.beats import Beats, load_beats
from ...encoders.qformer import QFormerOptions, load_qformer
from ...encoders.whisper import load_whisper
from ...formats.checkpoint import load_torch
from ..bridge import Bridge

_LLM = "llama_model."


def load_speech_encoder(folder: Path, whisper: WhisperEncoder) -> None:
    """whisper/. Raises CheckpointError."""
    whisper.load_state_dict(load_whisper(folder / "whisper")[1].state_dict())


def load_sound_encoder(folder: Path, beats: Beats, predictor: nn.Linear) -> None:
    """beats.pt. Raises CheckpointError."""
    beats.load_state_dict(load_beats(folder / "beats.pt")[1].state_dict())
    state = load_torch(folder / "beats.pt")["model"]
    predictor.load_state_dict({kind: state[f"predictor.{kind}"] for kind in ("weight", "bias")})


def load_llm(folder: Path, llm: LlamaForCausalLM) -> None:
    """vicuna/, without the adapter."""
    llm.load_state_dict(LlamaForCausalLM.from_pretrained(folder / "vicuna", dtype=torch.float32).state_dict())


def load_bridge(folder: Path, bridge: Bridge, whisper: WhisperSpec, beats: BeatsSpec) -> None:
    """salmonn.pth without its adapter: the Q-Former and what stands around it. Raises CheckpointError."""
    path = folder / "salmonn.pth"
    options = QFormerOptions(bridge.spec.n_heads, bridge.spec.n_layers)
    found = load_qformer(load_torch(path)["model"], whisper, beats, options, path)
    bridge.qformer.load_state_dict(found.reference.state_dict())
    bridge.ln_speech.load_state_dict(found.ln_speech.state_dict())
    bridge.ln_audio.load_state_dict(found.ln_audio.state_dict())


def load_adapter(folder: Path, llm: PeftModel) -> None:
    """Of salmonn.pth the adapter alone. Raises CheckpointError."""
    path = folder / "salmonn.pth"
    state: dict[str, Tensor] = load_torch(path)["model"]
    adapter = {name.removeprefix(_LLM): value for name, value in state.items() if name.startswith(_LLM)}
    unknown = llm.load_state_dict(adapter, strict=False).unexpected_keys
    if unknown or not adapter:
        raise CheckpointError(f"{path} holds another adapter than this training's: {unknown[:3] or 'none'}")
