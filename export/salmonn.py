"""SALMONN: Whisper + BEATs + Vicuna + SALMONN's own checkpoint -> one bundle.

sources -> whisper.onnx, beats.onnx, qformer.onnx -> llm.gguf [, lora.gguf] -> parity -> manifest, renamed into place
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import sentencepiece
import torch

from ..models import beats, qformer, whisper
from ..models.bundle import (
    ADAPTER_FILE,
    LLM_FILE,
    SCHEMA_VERSION,
    GenerationInfo,
    LlmInfo,
    Manifest,
    ParityReport,
    PromptInfo,
    Provenance,
    QuantizationInfo,
    SelfCheck,
    SourceFile,
    graph_interfaces,
)
from ..models.codec import decode, encode
from ..models.errors import CheckpointError
from ..models.salmonn import FAMILY, MAX_NEW_TOKENS, PREFIX, SUFFIX, SalmonnSpec
from . import parity
from .beats import AudioEncoder, export_beats, load_beats
from .bundle import Staging, refuse_existing
from .checkpoint import load_section
from .fingerprint import check_base
from .graph import Arrays, to_fp16
from .hub import model_name
from .int8 import to_int8
from .llm import Llm, LoraMode, export_llm, read_llm
from .lora import Lora, read_lora, require_fit
from .progress import Report
from .provenance import hash_sources, salmonn_sources, stat_key
from .qformer import LoadedQFormer, QFormerOptions, export_qformer, load_qformer
from .reference import ReferenceLlm
from .whisper import SpeechEncoder, export_whisper, load_whisper

INT8_BUDGET = 0.05  # relative rms one int8 graph may add; the layers that cost more stay in float
LICENCES = (
    "SALMONN code and checkpoint: Apache-2.0",
    "BEATs: MIT",
    "Whisper: MIT (OpenAI), Apache-2.0 (Hugging Face card)",
    "Vicuna: 13B v1.1 under LLaMA's non-commercial terms, 7B v1.5 under the Llama 2 community licence",
)


@dataclass(frozen=True)
class SalmonnExport:
    """What `earshot-export salmonn` was asked for."""

    whisper: Path
    beats: Path
    vicuna: Path
    salmonn: Path
    out: Path
    encoders: str = "int8"
    llm: str = "q4_k_m"
    lora: LoraMode = "merged"
    lora_scale: float | None = None
    lora_alpha: float = 32.0
    second_per_window: float = 0.333333
    second_stride: float = 0.333333
    qformer_heads: int | None = None
    name: str | None = None
    licence: tuple[str, ...] = LICENCES
    force: bool = False
    threads: int | None = None


@dataclass(frozen=True)
class Parts:
    """The checkpoints, opened and found to fit together."""

    spec: SalmonnSpec
    whisper: SpeechEncoder
    beats: AudioEncoder
    qformer: LoadedQFormer
    llm: Llm
    lora: Lora
    notes: tuple[str, ...]


def export_salmonn(options: SalmonnExport, report: Report) -> Manifest:
    """Makes the bundle, going on with the parts an earlier run finished. Raises EarshotError."""
    refuse_existing(options.out)
    parts = open_parts(options)
    files = salmonn_sources(options.whisper, options.beats, options.vicuna, options.salmonn)
    with Staging(options.out, report) as staging:
        sources = staging.part("sources", stat_key(files), lambda _: ((), encode(hash_sources(files, report))))
        versions = [metadata.version(name) for name in ("earshot", "torch", "onnx", "onnxruntime")]
        digest = repr([versions, *((s["role"], s["sha256"]) for s in sources)])
        float_layers = _export_graphs(staging, parts, options, digest, report)
        _export_llm(staging, parts, options, digest, report)
        manifest = _manifest(options, parts, sources, float_layers)
        report_, check = _parity(staging, manifest, parts, digest, report)
        if not options.force:
            parity.refuse_beyond_tolerance(report_, manifest)
        return staging.finish(replace(manifest, parity=report_, self_check=check))


def open_parts(options: SalmonnExport) -> Parts:
    """Reads every checkpoint and checks each against the others. Raises CheckpointError."""
    state = load_section(options.salmonn, "model", "a SALMONN checkpoint (salmonn_v1.pth)")
    _refuse_foreign(state, options.salmonn)
    lora = read_lora(state, options.lora_alpha, options.salmonn.name)
    llm = read_llm(options.vicuna)
    whisper_spec, whisper = load_whisper(options.whisper)
    beats_spec, beats = load_beats(options.beats)
    windows = QFormerOptions(
        options.qformer_heads,
        second_per_window=options.second_per_window,
        second_stride=options.second_stride,
    )
    qformer = load_qformer(state, whisper_spec, beats_spec, windows, options.salmonn)
    spec = SalmonnSpec(whisper_spec, beats_spec, qformer.spec, llm.spec, lora.spec)
    if qformer.spec.d_llm != llm.spec.hidden:
        raise CheckpointError(
            f"{options.salmonn} speaks to a language model {qformer.spec.d_llm} wide, {options.vicuna} is "
            f"{llm.spec.hidden} wide: SALMONN-13B goes with vicuna-13b-v1.1, SALMONN-7B with vicuna-7b-v1.5"
        )
    require_fit(lora, llm.spec, llm.directory.name)
    if not options.force:
        check_base(llm.spec, llm.fingerprint)
    notes = tuple(f"unknown key in {options.salmonn.name}: {key}" for key in qformer.unknown_keys)
    return Parts(
        spec,
        SpeechEncoder(whisper, qformer.ln_speech).eval(),
        AudioEncoder(beats, qformer.ln_audio).eval(),
        qformer,
        llm,
        lora,
        notes,
    )


def _refuse_foreign(state: Mapping[str, torch.Tensor], path: Path) -> None:
    if "patch_embedding.weight" in state:
        raise CheckpointError(f"{path} is a BEATs checkpoint: give it as --beats, and salmonn_v1.pth as --salmonn")


def _export_graphs(
    staging: Staging, parts: Parts, options: SalmonnExport, digest: str, report: Report
) -> dict[str, tuple[str, ...]]:
    """The three graphs at the wanted precision; returns what int8 left in float."""
    spec = parts.spec
    feeds = parity.features(spec.whisper)
    writers: dict[str, Callable[[Path], object]] = {
        "whisper": lambda path: export_whisper(parts.whisper.encoder, parts.whisper.ln_speech, spec.whisper, path),
        "beats": lambda path: export_beats(parts.beats.beats, parts.beats.ln_audio, path),
        "qformer": lambda path: export_qformer(parts.qformer.folded(), path),
    }
    with torch.no_grad():
        speech = [parts.whisper(torch.from_numpy(f[whisper.INPUT])).numpy() for f in feeds["whisper"]]
        audio = [parts.beats(torch.from_numpy(f[beats.INPUT])).numpy() for f in feeds["beats"]]
    feeds["qformer"] = [{qformer.SPEECH_INPUT: s, qformer.AUDIO_INPUT: a} for s, a in zip(speech, audio, strict=True)]
    float_layers: dict[str, tuple[str, ...]] = {}
    for done, (name, write) in enumerate(writers.items()):
        report(f"export {name}", done, len(writers))
        key = f"{digest} {options.encoders} {INT8_BUDGET} {encode(spec)}"
        note = staging.part(
            name, key, lambda d, n=name, w=write: _write_graph(d, n, w, options.encoders, feeds[n], report)
        )
        if options.encoders == "int8":
            float_layers[name] = tuple(note["float_layers"])
    return float_layers


def _write_graph(
    directory: Path, name: str, write: Callable[[Path], object], precision: str, feeds: list[Arrays], report: Report
) -> tuple[tuple[str, ...], Any]:
    path, full = directory / f"{name}.onnx", directory / f"{name}.fp32.onnx"
    note: dict[str, Any] = {"float_layers": []}
    try:
        write(full if precision != "fp32" else path)
        if precision == "fp16":
            to_fp16(full, path)
        elif precision == "int8":
            int8 = to_int8(full, path, feeds, INT8_BUDGET, report)
            note = {"float_layers": list(int8.float_layers), "error": int8.error}
    finally:
        for leftover in directory.glob(f"{name}.fp32.onnx*"):
            leftover.unlink()
    return tuple(sorted(p.name for p in directory.glob(f"{name}.onnx*"))), note


def _export_llm(staging: Staging, parts: Parts, options: SalmonnExport, digest: str, report: Report) -> None:
    threads = options.threads or max(1, (os.cpu_count() or 2) - 1)

    def build(directory: Path) -> tuple[tuple[str, ...], Any]:
        written = export_llm(
            parts.llm,
            parts.lora,
            directory,
            quantization=options.llm,
            mode=options.lora,
            lora_scale=options.lora_scale,
            n_threads=threads,
            force=options.force,
            progress=report,
        )
        return tuple(path.name for path in written), {}

    key = f"{digest} {options.llm} {options.lora} {options.lora_scale} {options.lora_alpha}"
    staging.part("llm", key, build)


def _parity(
    staging: Staging, manifest: Manifest, parts: Parts, digest: str, report: Report
) -> tuple[ParityReport, SelfCheck]:
    scale = manifest.llm.lora_scale
    reference = parity.Reference(
        parts.whisper,
        parts.beats,
        parts.qformer.reference,
        ReferenceLlm(parts.llm.weights, parts.llm.spec, parts.lora, scale),
    )

    def build(directory: Path) -> tuple[tuple[str, ...], Any]:
        return (), [encode(part) for part in parity.check_parity(directory, manifest, reference, report)]

    key = f"{digest} {encode(manifest.spec)} {encode(manifest.quantization)} {encode(manifest.llm)}"
    note = staging.part("parity", key, build)
    return decode(ParityReport, note[0]), decode(SelfCheck, note[1])


def _manifest(
    options: SalmonnExport, parts: Parts, sources: list[Any], float_layers: dict[str, tuple[str, ...]]
) -> Manifest:
    vocabulary = parts.llm.vocabulary
    scale = parts.lora.spec.scale if options.lora_scale is None else options.lora_scale
    said = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in ("out", "licence", "threads")}
    return Manifest(
        schema_version=SCHEMA_VERSION,
        family=FAMILY,
        name=options.name or options.out.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        synthetic=False,
        spec=parts.spec,
        graphs=graph_interfaces(parts.spec),
        llm=LlmInfo(
            file=LLM_FILE,
            lora="none" if options.lora == "adapter" else "merged",
            lora_scale=scale,
            adapter=None if options.lora == "merged" else ADAPTER_FILE,
        ),
        prompt=PromptInfo(
            prefix=PREFIX,
            suffix=SUFFIX,
            prefix_ids=(vocabulary.bos, *_piece_ids(options.vicuna / "tokenizer.model", PREFIX)),
            bos_id=vocabulary.bos,
            eos_id=vocabulary.eos,
        ),
        generation=GenerationInfo(MAX_NEW_TOKENS, beams=1),
        quantization=QuantizationInfo(options.encoders, options.llm, float_layers),  # pyright: ignore
        licences=options.licence,
        provenance=Provenance(
            earshot=metadata.version("earshot"),
            packages={p: metadata.version(p) for p in ("torch", "transformers", "onnx", "onnxruntime", "gguf")}
            | {"python": platform.python_version()},
            options={name: _said(value) for name, value in said.items()},
            base_fingerprint=parts.llm.fingerprint.as_text(),
            sources=tuple(decode(SourceFile, source) for source in sources),
            notes=parts.notes,
        ),
        parity=None,
        self_check=None,
        files=(),
    )


def _piece_ids(path: Path, text: str) -> list[int]:
    """SentencePiece's own ids, which the GGUF vocabulary must give too."""
    processor: Any = sentencepiece.SentencePieceProcessor(model_file=str(path))  # pyright: ignore
    return list(processor.encode(text))


def _said(value: object) -> str:
    """Paths by their last name: where a file lay on the exporting machine is nobody's business."""
    if isinstance(value, Path):
        return model_name(value) if value.is_dir() else value.name
    return str(value)
