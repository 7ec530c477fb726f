"""The LoRA adapter of a bundle: opened, and at which factor it works for the scale that is asked for."""

from __future__ import annotations

import math
from pathlib import Path

from ...models.bundle import Manifest
from ...models.errors import BundleError, InputError
from .llama import Adapter, Model


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
