"""The files a bundle is made from: which they are, whether they are still the same, their digests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..models.bundle import SourceFile, sha256_of
from ..models.errors import CheckpointError
from .encoders.whisper import whisper_files
from .formats.byte_bpe import is_byte_level
from .formats.checkpoint import weight_files
from .formats.gptq_checkpoint import CONFIG_FILE
from .progress import Report, counter

QWEN_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True)
class Source:
    """One file that is read, and the option that led to it."""

    role: str
    path: Path


def salmonn_sources(whisper: Path, beats: Path, vicuna: Path, salmonn: Path) -> tuple[Source, ...]:
    """What an export of SALMONN reads, and nothing else that lies in the same directories."""
    used = {
        "whisper": whisper_files(whisper),
        "beats": [beats],
        "vicuna": [vicuna] if vicuna.is_file() else _directory_files(vicuna),
        "salmonn": [salmonn],
    }
    return tuple(Source(role, path) for role, paths in used.items() for path in paths)


def _directory_files(vicuna: Path) -> list[Path]:
    tokenizer = ("tokenizer.json", "tokenizer_config.json") if is_byte_level(vicuna) else ("tokenizer.model",)
    gptq = [vicuna / CONFIG_FILE] if (vicuna / CONFIG_FILE).is_file() else []
    return [vicuna / "config.json", *(vicuna / name for name in tokenizer), *gptq, *weight_files(vicuna)]


def salm_sources(checkpoint: Path, qwen: Path) -> tuple[Source, ...]:
    """What an export of a SALM reads."""
    used = {
        "checkpoint": [checkpoint / "config.json", *weight_files(checkpoint)],
        "qwen": [qwen / name for name in QWEN_FILES if (qwen / name).is_file()],
    }
    return tuple(Source(role, path) for role, paths in used.items() for path in paths)


def stat_key(sources: tuple[Source, ...]) -> str:
    """Changes when a file does, without reading it."""
    return repr([(str(s.path), s.path.stat().st_size, s.path.stat().st_mtime_ns) for s in sources])


def hash_sources(sources: tuple[Source, ...], report: Report) -> list[SourceFile]:
    """Name, size and sha256 of each. Raises CheckpointError for one that cannot be read."""
    tick = counter(report, "read sources", sum(source.path.stat().st_size for source in sources))
    return [_hashed(source, tick) for source in sources]


def _hashed(source: Source, tick: Callable[[int], None]) -> SourceFile:
    path = source.path
    try:
        return SourceFile(source.role, path.name, path.stat().st_size, sha256_of(path, tick))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): check its permissions and its disk") from None
