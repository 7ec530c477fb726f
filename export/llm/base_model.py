"""Base model check: a Vicuna's sizes and fingerprint -> which version it is; the wrong one loads and answers nothing.

Source: docs/reference.md §4.5, and the commonest complaint of SALMONN's users (issues 39, 78, 91).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from ...models.errors import CheckpointError
from ...models.llm import VICUNA_7B_V15, VICUNA_13B_V11, LlmSpec
from ..formats.checkpoint import Weights
from ..hub import model_name

HASHED = (
    "model.norm.weight",
    "model.layers.0.input_layernorm.weight",
    "model.layers.0.post_attention_layernorm.weight",
)
VERSIONS = ("0", "1.1", "1.3", "1.5")  # every Vicuna there is
_VERSION = re.compile(r"v(\d+(?:\.\d+)?)(?!\.?\d)|[-_](\d\.\d)(?!\.?\d)")


@dataclass(frozen=True)
class Release:
    """A released SALMONN's base."""

    salmonn: str
    base: str
    version: str
    spec: LlmSpec


RELEASES = (
    Release("SALMONN-13B", "lmsys/vicuna-13b-v1.1", "1.1", VICUNA_13B_V11),
    Release("SALMONN-7B", "lmsys/vicuna-7b-v1.5", "1.5", VICUNA_7B_V15),
)


@dataclass(frozen=True)
class Fingerprint:
    """What tells one base model from another of the same shapes."""

    directory: str  # its name alone, or that of the one file
    name_or_path: str  # from config.json or the file's header; empty when not there
    rms_norm_eps: float
    max_positions: int
    norm_mean: float  # mean of the last norm's weight; near 0 in a delta, which is not a model yet
    sha256: dict[str, str]  # of small tensors, as float32

    def as_text(self) -> dict[str, str]:
        """For the manifest."""
        digests = {f"sha256 of {name}": digest for name, digest in self.sha256.items()}
        return {
            "directory": self.directory,
            "name_or_path": self.name_or_path,
            "rms_norm_eps": f"{self.rms_norm_eps:g}",
            "max_positions": str(self.max_positions),
            **digests,
        }

    @property
    def versions(self) -> tuple[str, ...]:
        """Vicuna versions that the names claim, such as 1.3."""
        names = [Path(name).name.lower() for name in (self.directory, self.name_or_path)]
        matches = [match for name in names if "vicuna" in name for match in _VERSION.finditer(name)]
        return tuple(dict.fromkeys(v for match in matches if (v := match[1] or match[2]) in VERSIONS))


def fingerprint(spec: LlmSpec, weights: Weights, directory: Path, name_or_path: str) -> Fingerprint:
    """Take the fingerprint of a base model: a few kilobytes are read."""
    small = {name: weights.get(name).detach().to(torch.float32) for name in HASHED}
    digests = {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in small.items()}
    mean = float(small[HASHED[0]].mean())
    name = directory.name if directory.is_file() else model_name(directory)
    return Fingerprint(name, name_or_path, spec.rms_norm_eps, spec.max_positions, mean, digests)


def check_base(spec: LlmSpec, found: Fingerprint) -> None:
    """Raises CheckpointError, naming the right model, when this is not the base its SALMONN was trained on.

    Only the released sizes are known; a base of any other size passes.
    """
    for release in RELEASES:
        if _sizes(spec) == _sizes(release.spec):
            doubts = _doubts(found, release)
            if doubts:
                raise CheckpointError(
                    f"{release.salmonn} was trained on {release.base}, but {found.directory} {doubts[0]}: "
                    f"get {release.base}, or --force if you are sure"
                )


def _sizes(spec: LlmSpec) -> tuple[str, int, int, int]:
    """Llama 3.1 8B has Vicuna-7B's width and depth, and another vocabulary."""
    return spec.architecture, spec.hidden, spec.n_layers, spec.vocab


def _doubts(found: Fingerprint, release: Release) -> list[str]:
    right = release.spec
    doubts = [f"calls itself v{version}" for version in found.versions if version != release.version]
    if abs(found.norm_mean) < 0.1:
        doubts.append("holds the difference to LLaMA (a delta), not the model")
    if abs(found.rms_norm_eps - right.rms_norm_eps) > 0.01 * right.rms_norm_eps:
        doubts.append(f"has rms_norm_eps {found.rms_norm_eps:g} instead of {right.rms_norm_eps:g}")
    if found.max_positions != right.max_positions:
        doubts.append(f"has {found.max_positions} positions instead of {right.max_positions}")
    return doubts
