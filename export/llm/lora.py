"""A LoRA: SALMONN's or a SALM checkpoint -> weights with it merged, or an adapter that llama.cpp loads.

Source: docs/reference.md §4.3, §5.1, §7.4, §7.5.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import gguf
import numpy as np
import torch

from ...models.errors import CheckpointError, InputError
from ...models.llm import CANARY_QWEN_LORA, SALMONN_LORA, TARGETS, LlmSpec, LoraSpec
from ..formats.checkpoint import Weights
from ..formats.gguf_writer import Tensor, rotary_rows, write_tensors
from ..formats.tensor_names import PROJECTIONS, SALM_LLM, gguf_name, projection_shape, rotary_heads
from ..progress import Report, no_report

PREFIX = "llama_model.base_model.model.model.layers."
SALM_PREFIX = f"{SALM_LLM}model.layers."
_WRITES_HIDDEN = ("o_proj", "down_proj")  # every other projection reads it
PLAIN: dict[str, object] = {
    **dict.fromkeys(("use_rslora", "use_dora", "use_qalora", "lora_bias", "fan_in_fan_out"), False),
    "ensure_weight_tying": False,
    **{key: {} for key in ("rank_pattern", "alpha_pattern", "loftq_config")},
    **dict.fromkeys(("exclude_modules", "modules_to_save", "target_parameters", "trainable_token_indices"), None),
    **dict.fromkeys(("layers_to_transform", "layers_pattern", "layer_replication", "alora_invocation_tokens"), None),
    **dict.fromkeys(("megatron_config", "eva_config", "corda_config", "lora_ga_config", "velora_config"), None),
    **dict.fromkeys(("monteclora_config", "arrow_config", "kasa_config", "use_bdlora"), None),
    "bias": "none",
    "peft_type": "LORA",
}
"""Fields of peft's LoraConfig that make another adapter of it, and the value with which they do not: peft's default."""
HARMLESS = {
    **dict.fromkeys(("task_type", "auto_mapping", "base_model_name_or_path", "revision", "peft_version"), "names"),
    **dict.fromkeys(("lora_dropout", "inference_mode"), "training alone"),
    "runtime_config": "where peft computes",
    "megatron_core": "read with megatron_config alone",
    "qalora_group_size": "read with use_qalora alone",
}
"""Fields that change nothing of what the adapter computes, and why."""
READ = ("r", "lora_alpha", "target_modules", "init_lora_weights")
_STARTS = (None, True, False, "gaussian", "orthogonal")  # other init_lora_weights change the base weights too
_ADAPTED = re.compile(r"\.(lora|hada|lokr|oft|boft|vera|ia3|modules_to_save|token_adapter|trainable_tokens)[_.]")
"""In names of tensors that peft trains, of whatever kind."""


@dataclass(frozen=True)
class Lora:
    """Pairs by (layer, target): a [rank, n_in] and b [n_out, rank], float32."""

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


@dataclass(frozen=True)
class _Place:
    """Where a LoRA lies, and what to say when something is wrong with it."""

    prefix: str
    where: str
    family: str  # "SALMONN", "SALM"
    adapts: str  # who says which targets there are


def read_lora(state: Mapping[str, torch.Tensor], alpha: float, where: str = "the SALMONN checkpoint") -> Lora:
    """Every A and B of the LoRA in a SALMONN state dict, rank from their shapes; alpha is not in the file.

    Raises CheckpointError naming what is missing, misshapen or unknown; the reference loads it in silence.
    """
    _require_alpha(alpha, SALMONN_LORA.alpha, "SALMONN")
    place = _Place(PREFIX, where, "SALMONN", "SALMONN adapts")
    keys = _find(state, TARGETS, place)
    return _lora({key: state[name].detach().float() for key, name in keys.items()}, alpha, TARGETS, place)


def read_salm_lora(weights: Weights, spec: LoraSpec) -> Lora:
    """Every A and B of the LoRA in a SALM checkpoint, which must be what its config.json says (`salm_lora_spec`).

    Raises CheckpointError naming what is missing, misshapen, of another rank, or adapted and not said to be.
    """
    place = _Place(SALM_PREFIX, str(weights.source), "SALM", "its config.json says")
    keys = _find(weights.names(), spec.targets, place)
    pairs = {key: weights.get(name).detach().float() for key, name in keys.items()}
    weights.close()
    lora = _lora(pairs, spec.alpha, spec.targets, place)
    if lora.spec != spec:
        raise CheckpointError(
            f"{weights.source} holds a LoRA of rank {lora.spec.rank}, but its config.json says r {spec.rank}: "
            "they belong to different models, download both again"
        )
    return lora


def salm_lora_spec(config: Mapping[str, Any], where: str = "config.json") -> LoraSpec:
    """The `lora` section of a SALM's config.json. Raises CheckpointError for what peft can do and we cannot."""
    section = config.get("lora")
    if not isinstance(section, dict):
        raise CheckpointError(f"{where} has no lora section: Auricle exports SALM checkpoints with a LoRA")
    lora = cast(dict[str, Any], section)
    for key, value in lora.items():
        if not _is_plain(key, value):
            raise CheckpointError(f"{where} has lora.{key} {value!r}: Auricle exports a plain LoRA only")
    rank = lora.get("r")
    alpha = lora.get("lora_alpha")
    targets = lora.get("target_modules")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank <= 0:
        raise CheckpointError(f"{where} has lora.r {rank!r}: it should be a whole number above 0")
    if not isinstance(alpha, (int, float)) or isinstance(alpha, bool):
        raise CheckpointError(f"{where} has lora.lora_alpha {alpha!r}: it should be a number above 0")
    _require_alpha(float(alpha), CANARY_QWEN_LORA.alpha, "canary-qwen")
    named = [str(target) for target in targets] if isinstance(targets, list) else []
    strange = [target for target in named if target not in PROJECTIONS]
    if not named or strange:
        raise CheckpointError(
            f"{where} has lora.target_modules {strange[0] if strange else targets!r}: "
            f"Auricle exports a LoRA on {', '.join(PROJECTIONS)}"
        )
    return LoraSpec(rank, float(alpha), tuple(target for target in PROJECTIONS if target in named))


def _is_plain(key: str, value: object) -> bool:
    """Whether a field leaves the adapter a plain LoRA; one that nobody here knows does only where it says nothing."""
    if key == "init_lora_weights":
        return value in _STARTS
    if key in READ or key in HARMLESS or value is None or value in ({}, [], ""):
        return True
    return key in PLAIN and (value is False or value == PLAIN[key])


def _require_alpha(alpha: float, usual: float, model: str) -> None:
    if not 0 < alpha < math.inf:
        raise InputError(f"LoRA's alpha {alpha} is not possible: {model} was trained with {usual:g}")


def _find(names: Iterable[str], targets: tuple[str, ...], place: _Place) -> dict[tuple[int, str, str], str]:
    """(layer, target, A or B) -> name, all of them there and no others."""
    modules = "|".join(PROJECTIONS[target].replace(".", r"\.") for target in targets)
    key = re.compile(re.escape(place.prefix) + rf"(\d+)\.({modules})\.lora_([AB])\.default\.weight$")
    found: dict[tuple[int, str, str], str] = {}
    unknown: list[str] = []
    for name in names:
        if match := key.match(name):
            found[int(match[1]), match[2].split(".")[1], match[3]] = name
        elif _ADAPTED.search(name):
            unknown.append(name)
    if not found and not unknown:
        raise CheckpointError(f"{place.where} holds no LoRA ({place.prefix}...): it is not a {place.family} checkpoint")
    if unknown:
        raise CheckpointError(f"{place.where} adapts {unknown[0]}; {place.adapts} {' and '.join(targets)} only")
    n_layers = 1 + max(layer for layer, _, _ in found)
    wanted = [(n, target, side) for n in range(n_layers) for target in targets for side in "AB"]
    absent = [wanted_key for wanted_key in wanted if wanted_key not in found]
    missing = [f"{place.prefix}{n}.{PROJECTIONS[target]}.lora_{side}.default.weight" for n, target, side in absent]
    if missing:
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        raise CheckpointError(f"{place.where} lacks {len(missing)} LoRA tensors: {', '.join(missing[:8])}{more}")
    return found


def _lora(
    found: Mapping[tuple[int, str, str], torch.Tensor], alpha: float, targets: tuple[str, ...], place: _Place
) -> Lora:
    n_layers = 1 + max(layer for layer, _, _ in found)
    pairs = {(n, t): (found[n, t, "A"], found[n, t, "B"]) for n in range(n_layers) for t in targets}
    first = {target: pairs[0, target] for target in targets}
    rank = first[targets[0]][0].shape[0]
    for (layer, target), (a, b) in pairs.items():
        width = first[target][0].shape[-1]
        if a.shape != (rank, width) or b.ndim != 2 or b.shape[1] != rank:
            raise CheckpointError(
                f"{place.where}: layer {layer}'s {target} LoRA has A {list(a.shape)} and B {list(b.shape)}, "
                f"which do not fit rank {rank} and width {width}"
            )
    a, b = first[targets[0]]
    hidden = b.shape[0] if targets[0] in _WRITES_HIDDEN else a.shape[1]
    return Lora(LoraSpec(int(rank), alpha, targets), int(hidden), n_layers, pairs)


def require_fit(lora: Lora, spec: LlmSpec, where: str) -> None:
    """Raises CheckpointError when the LoRA was trained on a language model of another size."""
    if (lora.hidden, lora.n_layers) != (spec.hidden, spec.n_layers):
        family = "SALM"
        remedy = "the checkpoint is not whole, download it again"
        if spec.architecture == "llama":
            family = "SALMONN"
            remedy = "SALMONN-13B goes with lmsys/vicuna-13b-v1.1, SALMONN-7B with lmsys/vicuna-7b-v1.5"
        raise CheckpointError(
            f"the {family} checkpoint adapts a language model {lora.hidden} wide with {lora.n_layers} layers, "
            f"but {where} is {spec.hidden} wide with {spec.n_layers} layers: {remedy}"
        )
    for (layer, target), (a, b) in lora.pairs.items():
        found = (b.shape[0], a.shape[1])
        wanted = projection_shape(spec, target)
        if found != wanted:
            raise CheckpointError(
                f"layer {layer}'s {target} LoRA is for a weight {list(found)}, but {where}'s is {list(wanted)}"
            )


def write_adapter(path: Path, lora: Lora, spec: LlmSpec, progress: Report = no_report) -> None:
    """Write the LoRA, which fits the model (`require_fit`), as a GGUF adapter in float32.

    llama.cpp adds `factor * alpha / rank * b @ a`, where factor is what llama_set_adapters_lora is given. For
    a LoRA scale s on the base alone the factor is s * rank / alpha (1.0 at SALMONN's 4.0, at canary-qwen's 2.0);
    on weights with the LoRA merged at m (`auricle.lora_scale` in their file) it is (s - m) * rank / alpha.
    """
    writer = gguf.GGUFWriter(None, spec.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name("SALMONN LoRA" if spec.architecture == "llama" else "SALM LoRA")
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, lora.spec.alpha)
    write_tensors(writer, path, _adapter_tensors(lora, spec), "write LoRA", progress)


def _adapter_tensors(lora: Lora, spec: LlmSpec) -> Iterator[Tensor]:
    for (layer, target), (a, b) in lora.pairs.items():
        heads = rotary_heads(spec, target)
        rows = rotary_rows(b.numpy(), heads) if heads else b.numpy()
        weight = gguf_name(f"model.layers.{layer}.{PROJECTIONS[target]}.weight")
        for side, values in (("a", a.numpy()), ("b", rows)):
            yield Tensor(f"{weight}.lora_{side}", values.shape, np.float32, lambda values=values: values)
