"""SALM: FastConformer, projection, language model and LoRA of one NeMo checkpoint, Qwen3's tokenizer -> one bundle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...models.audio import Waveform
from ...models.encoders.fastconformer import FEATURIZER, INPUT, OUTPUT, Featurizer, features
from ...models.errors import CheckpointError, InputError
from ...models.families.salm import AUDIO_TAG, FAMILY, MAX_NEW_TOKENS, SalmSpec, prompt_info
from .. import parity
from ..encoders.fastconformer import Loaded, export_fastconformer, load_fastconformer, write_featurizer
from ..family import Family
from ..formats.byte_bpe import text_encoder
from ..formats.checkpoint import open_weights, read_json
from ..graphs.onnx_graph import Arrays
from ..llm.export import read_salm_llm
from ..llm.lora import read_salm_lora, salm_lora_spec
from ..options import ExportOptions
from ..provenance import salm_sources

LICENCES = ("canary-qwen-2.5b: CC-BY-4.0 (NVIDIA)", "Qwen3: Apache-2.0")
MOST_SECONDS = 300  # the encoder attends to all of a clip at once
_RIGHT = "give the directory of nvidia/canary-qwen-2.5b, or of another NeMo SALM"


@dataclass(frozen=True)
class SalmExport(ExportOptions):
    """What `auricle-export salm` was asked for."""

    checkpoint: Path
    qwen: Path
    longest_seconds: float = 40.0


def open_family(options: SalmExport) -> Family:
    """Reads the checkpoint and checks its parts against each other. Raises CheckpointError."""
    if not 1 <= options.longest_seconds <= MOST_SECONDS:
        raise InputError(f"--longest-seconds {options.longest_seconds:g} must be 1 to {MOST_SECONDS}")
    where = options.checkpoint / "config.json"
    config = read_json(where)
    _check_prompt(config, where)
    weights = open_weights(options.checkpoint)
    loaded = load_fastconformer(config, weights, where)
    llm = read_salm_llm(weights, options.qwen)
    lora = read_salm_lora(weights, salm_lora_spec(config, str(where)))
    spec = SalmSpec(replace(loaded.spec, seconds=options.longest_seconds), llm.spec, lora.spec)
    if spec.fastconformer.d_llm != llm.spec.hidden:
        raise CheckpointError(
            f"{options.checkpoint} projects to {spec.fastconformer.d_llm} values, but {options.qwen} reads"
            f" {llm.spec.hidden}: give the Qwen3 that its config.json names ({config.get('pretrained_llm')})"
        )
    encode_text = text_encoder(options.qwen)
    return Family(
        family=FAMILY,
        spec=spec,
        prompt=prompt_info(encode_text, llm.vocabulary.eos),
        tokenize=encode_text,
        max_new_tokens=MAX_NEW_TOKENS,
        llm=llm,
        lora=lora,
        graphs={"fastconformer": lambda path: export_fastconformer(loaded.module, spec.fastconformer, path)},
        feeds=lambda: _feeds(loaded, spec),
        data_files={FEATURIZER: lambda path: write_featurizer(path, loaded.fb, loaded.window)},
        stages=lambda clip: _stages(loaded, clip),
        sources=salm_sources(options.checkpoint, options.qwen),
    )


def _check_prompt(config: dict[str, object], where: Path) -> None:
    """The prompt is not in any file: only the one that is known is exported."""
    known = {"prompt_format": "qwen", "audio_locator_tag": AUDIO_TAG}
    for key, wanted in known.items():
        if (found := config.get(key)) != wanted:
            raise CheckpointError(f"{where} has {key} {found!r}, where {wanted!r} is known: {_RIGHT}")


def _feeds(loaded: Loaded, spec: SalmSpec) -> dict[str, list[Arrays]]:
    return {"fastconformer": [{INPUT: _features(loaded, clip)} for clip in parity.calibration_clips(spec.n_samples)]}


def _stages(loaded: Loaded, clip: Waveform) -> dict[str, NDArray[np.float32]]:
    """The graph's output as torch computes it."""
    with torch.no_grad():
        return {OUTPUT: loaded.module(torch.from_numpy(_features(loaded, clip)))[0].numpy()}


def _features(loaded: Loaded, clip: Waveform) -> NDArray[np.float32]:
    return features(clip, Featurizer(loaded.fb, loaded.window))
