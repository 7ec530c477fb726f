"""The export: opened checkpoints of any family -> a verified bundle.

sources hashed [-> imatrix.gguf] -> graphs at the wanted precision, data files -> llm.gguf [, lora.gguf] -> parity
-> manifest, renamed into place. What a family is says its own module.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..models.aligner import VOCABULARY_FILE
from ..models.audio import Waveform
from ..models.bundle import (
    ADAPTER_FILE,
    IMATRIX_FILE,
    LLM_FILE,
    GenerationInfo,
    LlmInfo,
    Manifest,
    ParityReport,
    Provenance,
    QuantizationInfo,
    SelfCheck,
    SourceFile,
    sha256_of,
)
from ..models.dataclass_json import decode, encode
from ..models.encoders.qformer import OUTPUT as AUDIO_TOKENS
from ..models.manifest_versions import SCHEMA_VERSION
from ..models.precision import PRECISIONS, Precision
from . import parity
from .aligner.part import AlignerPart, Floats
from .bundle import Staging
from .family import Family
from .formats.imatrix_file import Importance, read_imatrix, require_match, write_imatrix
from .graphs.float16 import to_fp16
from .graphs.int4 import to_int4
from .graphs.int8 import to_int8
from .graphs.onnx_graph import Arrays
from .hub import model_name
from .llm.calibration import Calibration, calibration
from .llm.export import LlmExport
from .llm.gptq import Rounding, require_groups
from .llm.imatrix import Passage, gather, passages_of
from .llm.torch_reference import ReferenceLlm
from .options import ExportOptions
from .progress import Report
from .provenance import hash_sources, stat_key

_QUANTIZERS = {"int8": to_int8, "int4": to_int4}
"""What makes an integer graph of a float one, by its precision."""
ALIGNER_LICENCE = "aligner: MIT (OpenAI's Whisper)"
PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "gguf")


def assemble(staging: Staging, family: Family, options: ExportOptions, report: Report) -> Manifest:
    """Makes the bundle of an opened family, going on with the parts an earlier run finished. Raises AuricleError.

    What cannot be is refused before anything is written.
    """
    aligner = None if options.aligner is None else AlignerPart(options.aligner)
    if aligner is not None:
        family = replace(family, sources=(*family.sources, *aligner.sources))
    llm = LlmExport(
        llm=family.llm,
        lora=family.lora,
        quantization=options.llm_type,
        mode=options.lora,
        lora_scale=options.lora_scale,
        tables=options.tables(family.llm.spec.tied),
        force=options.force,
    )
    if options.gptq:
        require_groups(family.llm.spec)
    weighing = _weighing(family, options)
    recordings = calibration(options.calibrate, family.prompt) if options.gptq else None
    key = stat_key(family.sources)
    sources = staging.part("sources", key, lambda _: ((), encode(hash_sources(family.sources, report))))
    versions = [metadata.version(name) for name in ("auricle", "torch", "onnx", "onnxruntime")]
    digest = repr([versions, *((s["role"], s["sha256"]) for s in sources)])
    weighed = _export_imatrix(staging, weighing, digest, report)
    float_layers = _export_graphs(staging, family, options, digest, report)
    for name, write in family.data_files.items():
        staging.part(name, f"{digest} {encode(family.spec)}", lambda d, n=name, w=write: _write_data(d, n, w))
    if aligner is not None:
        float_layers |= _export_aligner(staging, aligner, options, digest, report)
    notes = _export_llm(staging, llm, family, options, recordings, f"{digest} {weighed}", report)
    manifest = _manifest(options, family, sources, float_layers, notes, aligner)
    found, check = _parity(staging, manifest, family, aligner, digest, report)
    if not options.force:
        parity.refuse_beyond_tolerance(found, manifest)
    return staging.finish(replace(manifest, parity=found, self_check=check))


@dataclass(frozen=True)
class _Weighing:
    """Where the importance matrix comes from."""

    key: str
    make: Callable[[Report], Importance]


def _weighing(family: Family, options: ExportOptions) -> _Weighing | None:
    """Nothing is measured yet, but what was given is read. Raises InputError."""
    if options.imatrix is None:
        return None
    if isinstance(options.imatrix, Path):
        given = read_imatrix(options.imatrix)
        require_match(given, family.llm.spec, options.imatrix)
        return _Weighing(sha256_of(options.imatrix), lambda _: given)
    recordings = calibration(options.calibrate, family.prompt)
    key = f"{_lora_scale(family, options)} {_calibration_key(family, options, recordings)}"
    return _Weighing(key, lambda report: _gather(family, options, recordings, report))


def _calibration_key(family: Family, options: ExportOptions, recordings: Calibration) -> str:
    """What was listened to, and through what."""
    return f"{recordings.name} {recordings.key} {encode(family.spec)} {encode(family.prompt)} {_packages(options)}"


def _export_imatrix(staging: Staging, weighing: _Weighing | None, digest: str, report: Report) -> str:
    """A part of the bundle, when one is wanted; returns what it was made from."""
    if weighing is None:
        return ""

    def build(directory: Path) -> tuple[tuple[str, ...], Any]:
        write_imatrix(directory / IMATRIX_FILE, weighing.make(report))
        return (IMATRIX_FILE,), {}

    staging.part("imatrix", f"{digest} {weighing.key}", build)
    return weighing.key


def _gather(family: Family, options: ExportOptions, recordings: Calibration, report: Report) -> Importance:
    llm = _reference(family, options)
    return gather(llm, _listen(family, llm, recordings, report), (recordings.name,), report)


def _listen(family: Family, llm: ReferenceLlm, recordings: Calibration, report: Report) -> list[Passage]:
    return passages_of(
        recordings.examples,
        llm,
        family.prompt,
        family.tokenize,
        lambda example: family.stages(example.waveform(family.spec.n_samples))[AUDIO_TOKENS],
        report,
    )


def _reference(family: Family, options: ExportOptions) -> ReferenceLlm:
    return _reference_at(family, _lora_scale(family, options))


def _reference_at(family: Family, lora_scale: float) -> ReferenceLlm:
    return ReferenceLlm(family.llm.weights, family.llm.spec, family.lora, lora_scale, family.llm.rope)


def _export_graphs(
    staging: Staging, family: Family, options: ExportOptions, digest: str, report: Report
) -> dict[str, tuple[str, ...]]:
    """The graphs at the wanted precision; returns what int8 left in float, or int4 at 8 bits."""
    precision = PRECISIONS[options.encoders]
    feeds = family.feeds() if precision.integer else {}
    float_layers: dict[str, tuple[str, ...]] = {}
    for done, (name, write) in enumerate(family.graphs.items()):
        report(f"export {name}", done, len(family.graphs))
        key = f"{digest} {precision} {encode(family.spec)}"
        inputs = feeds.get(name, [])
        note = staging.part(name, key, lambda d, n=name, w=write, f=inputs: _write_graph(d, n, w, precision, f, report))
        if precision.integer:
            float_layers[name] = tuple(note["float_layers"])
    return float_layers


def _write_graph(
    directory: Path,
    name: str,
    write: Callable[[Path], object],
    precision: Precision,
    feeds: list[Arrays],
    report: Report,
) -> tuple[tuple[str, ...], Any]:
    path = directory / f"{name}.onnx"
    full = directory / f"{name}.fp32.onnx"
    note: dict[str, Any] = {"float_layers": []}
    try:
        write(full if precision.name != "fp32" else path)
        if precision.name == "fp16":
            to_fp16(full, path)
        elif precision.integer:
            made = _QUANTIZERS[precision.name](full, path, feeds, precision.budget, report)
            note = {"float_layers": list(made.float_layers), "error": made.error}
    finally:
        for leftover in directory.glob(f"{name}.fp32.onnx*"):
            leftover.unlink()
    return tuple(sorted(p.name for p in directory.glob(f"{name}.onnx*"))), note


def _export_aligner(
    staging: Staging, aligner: AlignerPart, options: ExportOptions, digest: str, report: Report
) -> dict[str, tuple[str, ...]]:
    """Its graphs, in int8 where the encoders are in integers and else in float32; what int8 left in float."""
    precision = PRECISIONS["int8" if PRECISIONS[options.encoders].integer else "fp32"]
    feeds = cache(lambda: aligner.feeds(parity.calibration_clips(aligner.spec.encoder.n_samples)))
    float_layers: dict[str, tuple[str, ...]] = {}

    def build(directory: Path, name: str) -> tuple[tuple[str, ...], Any]:
        inputs = feeds()[name] if precision.integer else []
        made = _write_graph(directory, name, lambda path: aligner.write(name, path), precision, inputs, report)
        if precision.integer:
            aligner.finish(name, directory / f"{name}.onnx")
        return made

    for name in aligner.spec.graphs:
        key = f"{digest} {precision} {encode(aligner.spec)}"
        note = staging.part(name, key, lambda d, n=name: build(d, n))
        if precision.integer:
            float_layers[name] = tuple(note["float_layers"])
    staging.part(VOCABULARY_FILE, digest, lambda d: _write_data(d, VOCABULARY_FILE, aligner.write_vocabulary))
    return float_layers


def _write_data(directory: Path, name: str, write: Callable[[Path], object]) -> tuple[tuple[str, ...], Any]:
    write(directory / name)
    return (name,), {}


def _export_llm(
    staging: Staging,
    llm: LlmExport,
    family: Family,
    options: ExportOptions,
    recordings: Calibration | None,
    digest: str,
    report: Report,
) -> tuple[str, ...]:
    """llm.gguf and the adapter; returns what is to be said of its rounding."""
    threads = options.threads or max(1, (os.cpu_count() or 2) - 1)

    def build(directory: Path) -> tuple[tuple[str, ...], Any]:
        rounding = _rounding(family, options, recordings, report) if recordings else None
        written = llm.write(
            directory,
            n_threads=threads,
            progress=report,
            imatrix=directory / IMATRIX_FILE if options.imatrix else None,
            rounding=rounding,
        )
        notes = [f"GPTQ on {recordings.name}: {rounding.summary()}"] if recordings and rounding else []
        return tuple(path.name for path in written), notes

    key = f"{digest} {options.llm} {options.lora} {options.lora_scale} {family.lora.spec} {llm.tables}"
    return tuple(
        staging.part("llm", f"{key} {_calibration_key(family, options, recordings)}" if recordings else key, build)
    )


def _rounding(family: Family, options: ExportOptions, recordings: Calibration, report: Report) -> Rounding:
    llm = _reference(family, options)
    return Rounding(llm, _listen(family, llm, recordings, report), options.llm_type == "q4_0", report)


def _parity(
    staging: Staging, manifest: Manifest, family: Family, aligner: AlignerPart | None, digest: str, report: Report
) -> tuple[ParityReport, SelfCheck]:
    aligned: Callable[[Waveform], Mapping[str, Floats]] = aligner.stages if aligner else lambda _: {}
    reference = parity.Reference(
        lambda clip: family.stages(clip) | aligned(clip), _reference_at(family, manifest.llm.lora_scale)
    )

    def build(directory: Path) -> tuple[tuple[str, ...], Any]:
        return (), [encode(part) for part in parity.check_parity(directory, manifest, reference, report)]

    key = f"{digest} {encode(manifest.spec)} {encode(manifest.quantization)} {encode(manifest.llm)}"
    note = staging.part("parity", key, build)
    return decode(ParityReport, note[0]), decode(SelfCheck, note[1])


def _manifest(
    options: ExportOptions,
    family: Family,
    sources: list[Any],
    float_layers: dict[str, tuple[str, ...]],
    notes: tuple[str, ...],
    aligner: AlignerPart | None,
) -> Manifest:
    asked = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in ("out", "licence", "threads")}
    return Manifest(
        schema_version=SCHEMA_VERSION,
        family=family.family,  # pyright: ignore
        name=options.name or options.out.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        synthetic=False,
        spec=family.spec,
        graphs=family.spec.graphs,
        llm=LlmInfo(
            file=LLM_FILE,
            lora="none" if options.lora == "adapter" else "merged",
            lora_scale=_lora_scale(family, options),
            adapter=None if options.lora == "merged" else ADAPTER_FILE,
            chats=options.chats,
        ),
        prompt=family.prompt,
        generation=GenerationInfo(family.max_new_tokens, beams=1, min_avg_logprob=options.min_avg_logprob),
        quantization=QuantizationInfo(options.encoders, family.llm.type_name(options.llm_type), float_layers),
        licences=(*options.licence, *((ALIGNER_LICENCE,) if aligner else ())),
        provenance=Provenance(
            auricle=metadata.version("auricle"),
            packages=_packages(options) | {"python": platform.python_version()},
            options={name: _option_text(value) for name, value in asked.items()},
            base_fingerprint=family.llm.fingerprint.as_text(),
            sources=tuple(decode(SourceFile, source) for source in sources),
            notes=family.notes + notes,
        ),
        parity=None,
        self_check=None,
        files=(),
        aligner=aligner and aligner.spec,
    )


def _packages(options: ExportOptions) -> dict[str, str]:
    solver = ["gptqmodel"] if options.gptq and find_spec("gptqmodel") else []
    return {name: metadata.version(name) for name in (*PACKAGES, *solver)}


def _lora_scale(family: Family, options: ExportOptions) -> float:
    return family.lora.spec.scale if options.lora_scale is None else options.lora_scale


def _option_text(value: object) -> str:
    """Paths by their last name: where a file lay on the exporting machine is nobody's business."""
    if isinstance(value, Path):
        return model_name(value) if value.is_dir() else value.name
    return str(value)
