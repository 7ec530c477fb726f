"""Hugging Face ids -> local paths: with --download only, and only the files that are read."""

from __future__ import annotations

import re
from pathlib import Path

from ..models.errors import AuricleError, InputError, RunError, missing_package

_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SAFETENSORS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
_GPTQ = ("quantize_config.json", "gptq_model-*.safetensors", "gptq_model-*.index.json")
_TORCH = ("pytorch_model.bin", "pytorch_model-*.bin", "gptq_model-*.bin", "pytorch_model.bin.index.json")
_BYTE_LEVEL = ("tokenizer.json", "tokenizer_config.json")  # where there is no SentencePiece model
WANTED = {
    "whisper": ("config.json",),
    "vicuna": ("config.json", "tokenizer.model", *_GPTQ),
    "checkpoint": ("config.json",),
    "qwen": ("config.json", "tokenizer.json", "tokenizer_config.json"),
    "beats": ("*.pt",),
    "salmonn": ("*.pth",),
    "aligner": ("config.json", "generation_config.json", "tokenizer.json"),
}
"""What an option reads beside the weights of a model directory."""


def require_given(role: str, given: Path, download: bool) -> None:
    """Raises InputError for a path that is not there, unless it is an id that may be fetched."""
    if given.exists():
        return
    if not _ID.fullmatch(given.as_posix()):
        raise InputError(f"{given} does not exist: give --{role} a local path, or with --download a Hugging Face id")
    if not download:
        raise InputError(f"{given} does not exist here: if it is a Hugging Face id, add --download to fetch it")


def local_path(role: str, given: Path, download: bool, quiet: bool = False) -> Path:
    """`given` when it exists or is no id; else, with `download`, where the model now lies on this machine.

    role: one of WANTED. Raises InputError for a model that is not there; RunError when the download fails.
    """
    model = given.as_posix()
    if given.exists() or not download or not _ID.fullmatch(model):
        return given
    if role in ("beats", "salmonn"):
        return _only_file(_fetch(model, WANTED[role], quiet), WANTED[role][0], model)
    if role == "qwen":  # its weights are in the checkpoint
        return _fetch(model, WANTED[role], quiet)
    directory = _fetch(model, (*WANTED[role], *_SAFETENSORS), quiet)
    if role == "vicuna" and not (directory / "tokenizer.model").exists():
        _fetch(model, _BYTE_LEVEL, quiet)
    if any(next(directory.glob(name), None) for name in (*_SAFETENSORS, *_GPTQ[1:])):
        return directory
    return _fetch(model, (*WANTED[role], *_TORCH), quiet)


def model_name(directory: Path) -> str:
    """A model directory's name; of a snapshot in Hugging Face's cache, the model's: models--lmsys--vicuna-7b-v1.5."""
    real = directory.resolve()
    return real.parent.parent.name if real.parent.name == "snapshots" else real.name


def _fetch(model: str, patterns: tuple[str, ...], quiet: bool) -> Path:
    try:
        import huggingface_hub as hub
    except ModuleNotFoundError as error:
        raise missing_package(error, "export") from None
    if quiet:
        hub.utils.disable_progress_bars()
    try:
        return Path(hub.snapshot_download(model, allow_patterns=list(patterns)))
    except Exception as error:  # the hub's, its transport's and the disk's, without one root
        raise _refusal(model, error) from error


def _refusal(model: str, error: Exception) -> AuricleError:
    from huggingface_hub.errors import RepositoryNotFoundError

    if isinstance(error, RepositoryNotFoundError):
        return InputError(f"Hugging Face has no model {model}, or shows it only after `hf auth login`: check the id")
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    return RunError(f"{model} was not downloaded ({reason}): fetch it some other way and give its local path")


def _only_file(directory: Path, pattern: str, model: str) -> Path:
    found = sorted(directory.glob(pattern))
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in found) or "none"
    raise InputError(f"{model} should hold one {pattern} file and holds {names}: download one, and give its path")
