"""An opened language model's weights, which several sessions may share, and the scale of the LoRA in one of them.

GGUF file, adapter file ─► Weights ─► Llm, Llm, ...    scale ─► Lora ─► the factor that llama.cpp multiplies by
"""

from __future__ import annotations

import math
from pathlib import Path

from ...models.bundle import Manifest
from ...models.errors import BundleError, InputError
from ...models.llm import KV_BLOCK
from ..system.machine import llm_threads
from .llama import Adapter, Context, Model, worth_repacking
from .options import LlmOptions


class Weights:
    """A bundle's GGUF file and its adapter, where it has one, read-only. Close them after the sessions on them.

    Raises BundleError when a file is missing, unreadable or not what the manifest says, InputError for options that
    this model cannot have.
    """

    def __init__(self, path: Path, manifest: Manifest, adapter: Path | None, options: LlmOptions) -> None:
        if options.lora_scale is not None and adapter is None:
            raise InputError(no_adapter(options.lora_scale))
        spec = manifest.spec.llm
        if options.kv_type.startswith("q") and spec.d_head % KV_BLOCK:
            why = f"keeps {KV_BLOCK} values together, but this model's heads are {spec.d_head} wide"
            raise InputError(f"kv_type={options.kv_type} {why}: give f16")
        repack = worth_repacking(manifest.quantization.llm) if options.repack is None else options.repack
        self.model = Model(path, options.n_gpu_layers, repack)
        try:
            self.model.require_sizes(spec)
            self.adapter = None if adapter is None else open_adapter(self.model, adapter, manifest)
        except BaseException:
            self.close()
            raise

    @property
    def n_bytes(self) -> int:
        """Of the GGUF file."""
        return self.model.path.stat().st_size

    def n_threads(self, wanted: int | None, n_sessions: int = 1) -> int:
        """For one of so many sessions that compute at once; see llm_threads."""
        return llm_threads(self.n_bytes, wanted, n_sessions)

    def close(self) -> None:
        """Free them. Twice does no harm."""
        self.model.close()


class Lora:
    """A session's use of the adapter: the scale that is asked for, and the one that the context works at."""

    scale: float
    """For questions about audio, from the next one on."""

    def __init__(self, adapter: Adapter | None, manifest: Manifest, scale: float | None) -> None:
        """scale: None, as exported. Raises InputError for one that is none."""
        self._manifest = manifest
        self._adapter = adapter
        self._applied = 0.0
        lora_factor(manifest, scale)  # or say at once that it is no scale
        self.scale = manifest.llm.lora_scale if scale is None else scale

    @property
    def has_adapter(self) -> bool:
        """Whether the scale can be changed."""
        return self._adapter is not None

    def require(self, scale: float) -> None:
        """Raises InputError when the LoRA cannot be used at this scale."""
        if self._adapter is None:
            raise InputError(no_adapter(scale))
        lora_factor(self._manifest, scale)

    def renew(self, context: Context) -> None:
        """The adapter at `scale` into a context that is new."""
        if self._adapter is not None:
            self._set(self._adapter, context, self.scale)

    def apply(self, context: Context, scale: float) -> bool:
        """Work at this scale from now on; whether it was another, so that nothing that is kept is of use."""
        if self._adapter is None or scale == self._applied:
            return False
        self._set(self._adapter, context, scale)
        return True

    def _set(self, adapter: Adapter, context: Context, scale: float) -> None:
        context.set_adapter(adapter, lora_factor(self._manifest, scale))
        self._applied = scale


def open_adapter(model: Model, path: Path, manifest: Manifest) -> Adapter:
    """Raises BundleError when it is not the adapter that the manifest tells of."""
    adapter = model.adapter(path)
    alpha = manifest.spec.lora.alpha
    if adapter.alpha != alpha:
        raise BundleError(
            f"{path} has alpha {adapter.alpha:g}, but the manifest says {alpha:g}: export the bundle again"
        )
    return adapter


def lora_factor(manifest: Manifest, scale: float | None) -> float:
    """What multiplies alpha / rank, so that merged weights and adapter together are at `scale`; None: as exported."""
    scale = manifest.llm.lora_scale if scale is None else scale
    if not math.isfinite(scale):
        raise InputError(f"lora_scale={scale} is not possible: give a number such as {manifest.spec.lora.scale:g}")
    merged = manifest.llm.lora_scale if manifest.llm.lora == "merged" else 0.0
    return (scale - merged) / manifest.spec.lora.scale


def no_adapter(scale: float) -> str:
    """What to say when a scale is asked for without an adapter."""
    return (
        f"lora_scale={scale:g} needs the LoRA adapter, which this bundle does not have: export it again with"
        " --lora adapter or --lora both"
    )


NO_BASE = (
    "to ask the language model without its LoRA the adapter is needed, which this bundle does not have: export it again"
    " with --lora adapter or --lora both"
)
