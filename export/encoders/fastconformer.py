"""FastConformer, adapter and projection of a NeMo SALM checkpoint -> a module -> their graph.

Source: NeMo speechlm2/modules/perception.py, asr/modules/conformer_encoder.py (docs/reference.md §7.1-7.3, §7.5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ...models.audio import SAMPLE_RATE
from ...models.encoders.fastconformer import (
    FRAMES_AXIS,
    HOP_LENGTH,
    INPUT,
    LOG_GUARD,
    N_BINS,
    N_FFT,
    OUTPUT,
    PRE_EMPHASIS,
    SUBSAMPLING,
    WIN_LENGTH,
    AdapterSpec,
    FastConformerSpec,
)
from ...models.errors import CheckpointError
from ..formats.checkpoint import Weights, require_shape
from ..graphs.onnx_graph import save_graph
from ..graphs.weightless import SaveGraph, weightless
from .fastconformer_modules import FastConformer, Perception

_PREFIX = "perception."
_FB = f"{_PREFIX}preprocessor.featurizer.fb"
_WINDOW = f"{_PREFIX}preprocessor.featurizer.window"
_COUNTER = ".num_batches_tracked"  # of a BatchNorm: how long it was trained
_RENAMES = (
    (r"^adapter\.", "modality_adapter."),
    (r"\.subsampling\.layers\.", ".pre_encode.conv."),
    (r"\.subsampling\.linear\.", ".pre_encode.out."),
    (r"\.relative_k_proj\.", ".linear_pos."),
    (r"\.([qkv])_proj\.", r".linear_\1."),
    (r"\.o_proj\.", ".linear_out."),
    (r"\.bias_([uv])$", r".pos_bias_\1"),
    (r"\.conv\.norm\.", ".conv.batch_norm."),
)
"""transformers' names of tensors -> NeMo's."""

Wanted = Mapping[str, tuple[object, tuple[object, ...]]]
"""key -> (what NeMo takes when it is not said, what is known here)."""

_FRONT_END: Wanted = {
    "sample_rate": (16000, (SAMPLE_RATE,)),
    "normalize": ("per_feature", ("per_feature",)),
    "window_size": (0.02, (WIN_LENGTH / SAMPLE_RATE,)),
    "window_stride": (0.01, (HOP_LENGTH / SAMPLE_RATE,)),
    "n_window_size": (None, (None, WIN_LENGTH)),
    "n_window_stride": (None, (None, HOP_LENGTH)),
    "n_fft": (None, (N_FFT, None)),
    "preemph": (PRE_EMPHASIS, (PRE_EMPHASIS,)),
    "mag_power": (2.0, (2.0,)),
    "log": (True, (True,)),
    "log_zero_guard_type": ("add", ("add",)),
    "log_zero_guard_value": (LOG_GUARD, (LOG_GUARD,)),
    "exact_pad": (False, (False,)),
    "frame_splicing": (1, (1,)),
}
_CONFORMER: Wanted = {
    "reduction": (None, (None,)),
    "self_attention_model": ("rel_pos", ("rel_pos",)),
    "att_context_size": (None, ([-1, -1], [[-1, -1]], None)),
    "att_context_style": ("regular", ("regular",)),
    "untie_biases": (True, (True,)),
    "conv_norm_type": ("batch_norm", ("batch_norm",)),
    "conv_context_style": ("regular", ("regular",)),
    "use_bias": (True, (True,)),
}
_SUBSAMPLING: Wanted = {
    "subsampling": ("striding", ("dw_striding",)),
    "subsampling_factor": (4, (SUBSAMPLING,)),
    "causal_downsampling": (False, (False,)),
}


@dataclass(frozen=True)
class Loaded:
    """The perception part of a checkpoint, in float32."""

    spec: FastConformerSpec
    module: Perception
    fb: NDArray[np.float32]
    """Mel filter bank [n_mels, N_BINS], as the checkpoint has it."""
    window: NDArray[np.float32]
    """[WIN_LENGTH]."""


def load_fastconformer(config: Mapping[str, Any], weights: Weights, where: Path | str) -> Loaded:
    """Read `perception.*` of a SALM checkpoint; `config` is its whole config.json, `where` what messages call it.

    Raises CheckpointError for a structure that is not known here, and for missing, unknown or misshapen tensors.
    """
    spec, scale_input = _read_spec(config, where)
    with torch.device("meta"):
        module = Perception(spec, scale_input)
    expected = {name: tuple(x.shape) for name, x in module.state_dict().items() if not name.endswith(_COUNTER)}
    names = {name: _nemo_name(name) for name in expected}
    weights.require([*names.values(), _FB, _WINDOW], "SALM checkpoint")
    _refuse_unknown(weights, {*names.values(), _FB, _WINDOW}, where)
    state = {
        name: require_shape(weights.get(names[name]), shape, names[name], where).clone()
        for name, shape in expected.items()
    }
    fb = require_shape(weights.get(_FB), (1, spec.n_mels, N_BINS), _FB, where)[0].numpy().copy()
    window = require_shape(weights.get(_WINDOW), (WIN_LENGTH,), _WINDOW, where).numpy().copy()
    weights.close()
    module.load_state_dict(state, strict=False, assign=True)
    return Loaded(spec, module.eval().requires_grad_(False), fb, window)


def weightless_fastconformer(spec: FastConformerSpec) -> FastConformer:
    """The graph's module of these sizes without weights, for `skeleton.RandomWeights` to export."""
    with torch.device("meta"):
        module = FastConformer(Perception(spec), spec)
    return weightless(module)


def export_fastconformer(
    module: Perception | FastConformer, spec: FastConformerSpec, path: Path, save: SaveGraph = save_graph
) -> None:
    """Write fastconformer.onnx in float32, or as `save` does."""
    graph = module if isinstance(module, FastConformer) else FastConformer(module, spec)
    example = torch.zeros(1, spec.n_mels, 20 * SUBSAMPLING + 3)
    save(graph, {INPUT: example}, {OUTPUT: (1, "n_tokens", spec.d_llm)}, path, {INPUT: {2: FRAMES_AXIS}})


def write_featurizer(path: Path, fb: NDArray[np.float32], window: NDArray[np.float32]) -> None:
    """Write the tables that the runtime's front end reads."""
    np.savez(path, fb=fb, window=window)


def _read_spec(config: Mapping[str, Any], where: Path | str) -> tuple[FastConformerSpec, bool]:
    """Sizes, and whether the encoder scales its input."""
    perception = _Section(config, "", where).section("perception", "AudioPerceptionModule")
    if perception.get("rote") is not None:
        raise CheckpointError(
            f"{where} rotates the encoder's output by time (perception.rote), which is not known here"
        )
    front_end = perception.section("preprocessor", "AudioToMelSpectrogramPreprocessor")
    front_end.require(_FRONT_END)
    encoder = perception.section("encoder", "ConformerEncoder")
    encoder.require({**_CONFORMER, **_SUBSAMPLING})
    sizes = _sizes(encoder)
    n_mels = front_end.size("features", 64)
    encoder.require({"feat_in": (None, (n_mels,))})
    if n_mels % SUBSAMPLING:
        raise CheckpointError(f"{where} has {n_mels} mel bands, which is not a multiple of {SUBSAMPLING}")
    channels = (
        sizes["d_model"]
        if encoder.get("subsampling_conv_channels", -1) == -1
        else encoder.size("subsampling_conv_channels")
    )
    spec = FastConformerSpec(
        **sizes,
        subsampling_channels=channels,
        d_llm=perception.size("output_dim"),
        n_mels=n_mels,
        adapter=_read_adapter(perception, sizes["d_model"]),
    )
    return spec, bool(encoder.get("xscaling", True))


def _read_adapter(perception: _Section, d_encoder: int) -> AdapterSpec | None:
    adapter = perception.section("modality_adapter")
    adapter.require({"output_dim": (None, (None,))})
    kind = adapter.kind()
    if kind == "IdentityConnector":
        adapter.require({"d_model": (d_encoder, (d_encoder,))})
        return None
    if kind != "ConformerEncoder":
        raise CheckpointError(
            f"{adapter.where} has the modality adapter {kind}: IdentityConnector and ConformerEncoder are known here"
        )
    if adapter.get("subsampling", "striding"):
        adapter.require({"subsampling_factor": (4, (1,))})
    adapter.require({**_CONFORMER, "feat_in": (None, (d_encoder,))})
    return AdapterSpec(**_sizes(adapter), scale_input=bool(adapter.get("xscaling", True)))


def _sizes(section: _Section) -> dict[str, int]:
    d_model = section.size("d_model")
    n_heads = section.size("n_heads", 4)
    kernel = section.size("conv_kernel_size", 31)
    half = (kernel - 1) // 2
    section.require({"feat_out": (-1, (-1, None, d_model)), "conv_context_size": (None, (None, [half, half]))})
    if d_model % (2 * n_heads) or kernel % 2 == 0:
        raise CheckpointError(
            f"{section.where} says {section.name} d_model={d_model}, n_heads={n_heads}, conv_kernel_size={kernel}: "
            "heads should share the width evenly and the kernel should have a middle"
        )
    return {
        "d_model": d_model,
        "n_layers": section.size("n_layers"),
        "n_heads": n_heads,
        "d_ffn": d_model * section.size("ff_expansion_factor", 4),
        "conv_kernel": kernel,
    }


class _Section:
    """A part of config.json that knows its place."""

    def __init__(self, values: Mapping[str, Any], name: str, where: Path | str) -> None:
        self.name = name
        self.where = where
        self._values = values

    def get(self, key: str, default: object = None) -> object:
        return self._values.get(key, default)

    def section(self, key: str, kind: str = "") -> _Section:
        """A part of this part, of one NeMo class where it says so. Raises CheckpointError."""
        name = f"{self.name}.{key}".strip(".")
        inner = self._values.get(key)
        if not isinstance(inner, dict):
            raise CheckpointError(f"{self.where} has no {name}: it is not the configuration of a NeMo SALM")
        section = _Section(cast(dict[str, Any], inner), name, self.where)
        if kind and section.kind() not in ("", kind):
            raise CheckpointError(f"{self.where} has a {section.kind()} as {name}, where {kind} is known here")
        return section

    def kind(self) -> str:
        """The NeMo class it configures, or nothing."""
        return str(self._values.get("_target_") or self._values.get("target") or "").rpartition(".")[2]

    def size(self, key: str, default: int | None = None) -> int:
        value = self._values.get(key, default)
        if type(value) is not int or value <= 0:
            raise CheckpointError(f"{self.where} says {self.name}.{key}={value!r}, which should be a positive number")
        return value

    def require(self, wanted: Wanted) -> None:
        for key, (default, known) in wanted.items():
            value = self._values.get(key, default)
            if value not in known:
                raise CheckpointError(f"{self.where} says {self.name}.{key}={value!r}: only {known[0]!r} is known here")


def _nemo_name(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return _PREFIX + name


def _refuse_unknown(weights: Weights, known: set[str], where: Path | str) -> None:
    unknown = [n for n in weights.names() if n.startswith(_PREFIX) and n not in known and not n.endswith(_COUNTER)]
    if unknown:
        listed = ", ".join(unknown[:12]) + (f" and {len(unknown) - 12} more" if len(unknown) > 12 else "")
        raise CheckpointError(f"{where} holds {len(unknown)} tensors that its configuration does not explain: {listed}")
