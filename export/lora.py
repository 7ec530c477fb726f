"""SALMONN's LoRA: read, merge, or write as an adapter that llama.cpp loads. Source: docs/reference.md §4.3, §5.1."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch

from ..models.errors import CheckpointError, InputError
from ..models.llm import TARGETS, LlmSpec, LoraSpec
from .gguf_file import ARCHITECTURE, Tensor, rotary_rows, write_tensors
from .progress import Report, no_report

PREFIX = "llama_model.base_model.model.model.layers."
_KEY = re.compile(re.escape(PREFIX) + r"(\d+)\.self_attn\.(\w+)\.lora_([AB])\.default\.weight$")
_GGUF_NAMES = {"q_proj": "attn_q", "v_proj": "attn_v"}


@dataclass(frozen=True)
class Lora:
    """Pairs by (layer, target): a [rank, hidden] and b [n_out, rank], float32."""

    spec: LoraSpec
    hidden: int
    n_layers: int
    pairs: dict[tuple[int, str], tuple[torch.Tensor, torch.Tensor]]

    def merged(self, weight: torch.Tensor, layer: int, target: str, scale: float) -> torch.Tensor:
        """weight + scale * b @ a in float32, for a target of this adapter; any other weight as it is."""
        pair = self.pairs.get((layer, target))
        if pair is None:
            return weight
        a, b = pair
        return torch.addmm(weight.float(), b, a, alpha=scale)


def read_lora(state: Mapping[str, torch.Tensor], alpha: float, where: str = "the SALMONN checkpoint") -> Lora:
    """Every A and B of the LoRA in a SALMONN state dict, rank from their shapes; alpha is not in the file.

    Raises CheckpointError naming what is missing, misshapen or unknown; the reference loads it in silence.
    """
    if not 0 < alpha < math.inf:
        raise InputError(f"LoRA's alpha {alpha} is not possible: SALMONN was trained with 32")
    found: dict[tuple[int, str, str], torch.Tensor] = {}
    unknown: list[str] = []
    for name, tensor in state.items():
        match = _KEY.match(name)
        if match and match[2] in TARGETS:
            found[int(match[1]), match[2], match[3]] = tensor.detach().float()
        elif ".lora_" in name:
            unknown.append(name)
    if not found:
        raise CheckpointError(f"{where} holds no LoRA ({PREFIX}...): it is not a SALMONN checkpoint")
    if unknown:
        raise CheckpointError(f"{where} adapts {unknown[0]}; SALMONN adapts {' and '.join(TARGETS)} only")
    n_layers = 1 + max(layer for layer, _, _ in found)
    _require_pairs(found, n_layers, where)
    rank, hidden = found[0, TARGETS[0], "A"].shape
    pairs = {(n, t): (found[n, t, "A"], found[n, t, "B"]) for n in range(n_layers) for t in TARGETS}
    for (layer, target), (a, b) in pairs.items():
        if a.shape != (rank, hidden) or b.ndim != 2 or b.shape[1] != rank:
            raise CheckpointError(
                f"{where}: layer {layer}'s {target} LoRA has A {list(a.shape)} and B {list(b.shape)}, "
                f"which do not fit rank {rank} and width {hidden}"
            )
    return Lora(LoraSpec(int(rank), alpha), int(hidden), n_layers, pairs)


def _require_pairs(found: dict[tuple[int, str, str], torch.Tensor], n_layers: int, where: str) -> None:
    wanted = [(n, target, side) for n in range(n_layers) for target in TARGETS for side in "AB"]
    absent = [key for key in wanted if key not in found]
    missing = [f"{PREFIX}{n}.self_attn.{target}.lora_{side}.default.weight" for n, target, side in absent]
    if missing:
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        raise CheckpointError(f"{where} lacks {len(missing)} LoRA tensors: {', '.join(missing[:8])}{more}")


def require_fit(lora: Lora, spec: LlmSpec, where: str) -> None:
    """Raises CheckpointError when the LoRA was trained on a language model of another size."""
    if (lora.hidden, lora.n_layers) != (spec.hidden, spec.n_layers):
        raise CheckpointError(
            f"the SALMONN checkpoint adapts a language model {lora.hidden} wide with {lora.n_layers} layers, "
            f"but {where} is {spec.hidden} wide with {spec.n_layers} layers: "
            "SALMONN-13B goes with lmsys/vicuna-13b-v1.1, SALMONN-7B with lmsys/vicuna-7b-v1.5"
        )
    heights = {"q_proj": spec.hidden, "v_proj": spec.d_kv}
    for (layer, target), (_, b) in lora.pairs.items():
        if b.shape[0] != heights[target]:
            raise CheckpointError(
                f"layer {layer}'s {target} LoRA has {b.shape[0]} rows, but {where} has {heights[target]}"
            )


def write_adapter(path: Path, lora: Lora, spec: LlmSpec, progress: Report = no_report) -> None:
    """Write the LoRA as a GGUF adapter in float32.

    llama.cpp adds `factor * alpha / rank * b @ a`, where factor is what llama_set_adapters_lora is given. For
    a LoRA scale s on the base alone the factor is s * rank / alpha (1.0 at SALMONN's 4.0); on weights with
    the LoRA merged at m (`earshot.lora_scale` in their file) it is (s - m) * rank / alpha.
    """
    require_fit(lora, spec, path.name)
    writer = gguf.GGUFWriter(None, ARCHITECTURE)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name("SALMONN LoRA")
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, lora.spec.alpha)
    write_tensors(writer, path, _adapter_tensors(lora, spec), "write LoRA", progress)


def _adapter_tensors(lora: Lora, spec: LlmSpec) -> Iterator[Tensor]:
    for (layer, target), (a, b) in lora.pairs.items():
        rows = rotary_rows(b.numpy(), spec.n_heads) if target == "q_proj" else b.numpy()
        for side, values in (("a", a.numpy()), ("b", rows)):
            name = f"blk.{layer}.{_GGUF_NAMES[target]}.weight.lora_{side}"
            yield Tensor(name, values.shape, np.float32, lambda values=values: values)
