"""The LoRA of an opened model: adapter file and scale in, the factor that llama.cpp multiplies by out."""

from __future__ import annotations

import math
from pathlib import Path

from ...models.bundle import Manifest
from ...models.errors import BundleError, InputError
from .llama import Adapter, Context, Model


class Lora:
    """A bundle's adapter, where it has one, the scale that is asked for, and the one that the context works at."""

    scale: float
    """For questions about audio, from the next one on."""

    def __init__(self, model: Model, path: Path | None, manifest: Manifest, scale: float | None) -> None:
        """scale: None, as exported. Raises BundleError for another adapter than the manifest's, InputError."""
        self._manifest = manifest
        self._adapter = None if path is None else open_adapter(model, path, manifest)
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
