"""Synthetic bundles: a model's sizes -> a full-size bundle of random weights, before 30 GB are downloaded.

Speed and memory depend on the shapes and types of the weights, not on their values: the encoders' work is the product
of matrices, decoding reads every weight once per token, whatever it is. So the graphs are exported by the code that
exports the real ones, every block of the language model has the type llama.cpp's quantizer would give it, and the
manifest says `synthetic`. Weights are written as they are drawn: no model is ever in memory.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ...models.bundle import (
    LLM_FILE,
    GenerationInfo,
    LlmInfo,
    Manifest,
    Provenance,
    QuantizationInfo,
    read_manifest,
    shipped_bundle,
)
from ...models.errors import InputError
from ...models.families.registry import FAMILIES, RELEASED, FamilySpec
from ...models.manifest_versions import SCHEMA_VERSION
from ...models.precision import PRECISIONS, Precision
from ...models.prompt import PromptInfo
from ...runtime.system.machine import memory_bytes
from ..bundle import Staging
from ..formats.gguf_writer import require_free_space
from ..graphs.int4 import write_int4
from ..graphs.int8 import write_uncalibrated
from ..llm.export import VOCABULARY_BYTES
from ..llm.quantize import require_type
from ..progress import Progress, Report, no_report
from .families import SyntheticFamily, WriteGraph, synthetic_family
from .random_graph import RandomWeights, module_bytes
from .random_llm import random_tensors, write_random_llm

MODELS = (*RELEASED, "demo")
MEMORY_BYTES = 1_500_000_000  # that making any bundle may take, the libraries' own included
LICENCE = "none needed: random weights of this project, they know nothing"
_QUANTIZERS = {"int8": write_uncalibrated, "int4": write_int4}


@dataclass(frozen=True)
class _Plan:
    """What was asked for, found possible."""

    model: str
    llm: str
    encoders: Precision
    out: Path
    seed: int
    spec: FamilySpec
    family: SyntheticFamily

    @property
    def key(self) -> str:
        """What a part of an unfinished run must have been made from to be used again."""
        versions = [metadata.version(name) for name in ("auricle", "torch", "onnx", "onnxruntime", "gguf")]
        return repr((versions, self.model, self.llm, self.encoders.name, self.seed))


def run(arguments: argparse.Namespace) -> None:
    """Handles `auricle-bench synth`: model, llm, encoders, out, seed. Prints one line."""
    with Progress() as progress:
        manifest = synthesize(
            arguments.model, arguments.llm, arguments.encoders, arguments.out, arguments.seed, progress.report
        )
    gigabytes = sum(entry.size for entry in manifest.files) / 1e9
    kind = f"{arguments.model}, encoders {arguments.encoders}, llm {arguments.llm}"
    print(f"{arguments.out}: {gigabytes:.2f} GB of random weights, {kind}")


def synthesize(model: str, llm: str, encoders: str, out: Path, seed: int = 0, report: Report = no_report) -> Manifest:
    """Write a bundle of random weights to `out`, going on with the parts an earlier run finished.

    model: one of MODELS. llm: one of LLM_TYPES. Raises InputError for anything else, for an `out` that exists, and
    before anything is written when disk or memory will not do.
    """
    plan = _plan(model, llm, encoders, out, seed)
    vocabulary = plan.family.vocabulary()
    prompt = plan.family.prompt(vocabulary)
    with Staging(out, report) as staging:
        writers = plan.family.graphs
        for done, (name, write) in enumerate(writers.items()):
            report(f"export {name}", done, len(writers))
            staging.part(name, plan.key, _graph_builder(plan, name, write))
        for name, write_data in plan.family.data_files.items():
            staging.part(name, plan.key, _data_builder(name, write_data))

        def write_llm(directory: Path) -> tuple[tuple[str, ...], Any]:
            write_random_llm(plan.spec.llm, vocabulary, directory / LLM_FILE, llm, seed, report)
            return (LLM_FILE,), {}

        staging.part("llm", plan.key, write_llm)
        return staging.finish(_manifest(plan, prompt))


def _plan(model: str, llm: str, encoders: str, out: Path, seed: int) -> _Plan:
    require_type(llm)
    if encoders not in PRECISIONS:
        raise InputError(f"{encoders!r} is no precision of the encoders: choose {', '.join(PRECISIONS)}")
    if model not in MODELS:
        raise InputError(f"{model!r} is not a model whose shapes are known: choose {', '.join(MODELS)}")
    spec = RELEASED.get(model) or read_manifest(shipped_bundle()).spec
    plan = _Plan(model, llm, PRECISIONS[encoders], out, seed, spec, synthetic_family(spec))
    what = f"{model} {llm} with {encoders} encoders"
    require_free_space(_nearest(out), disk_bytes(spec, llm, encoders) - _written(out), what)
    available = _available_memory()
    if 0 < available < MEMORY_BYTES:
        raise InputError(
            f"{what} needs {MEMORY_BYTES / 1e9:.1f} GB of memory to be made, {available / 1e9:.1f} GB are available: "
            "close other programs, or make it elsewhere and copy it"
        )
    return plan


def disk_bytes(spec: FamilySpec, llm: str, encoders: str) -> int:
    """Free space that the bundle takes while it is made: a quantized graph lies beside the fp32 one it is made from."""
    precision = PRECISIONS[encoders]
    done = highest = 0
    for make in synthetic_family(spec).weightless.values():
        module = make()
        passing = module_bytes(module, PRECISIONS["fp32"]) if precision.integer else 0
        done += module_bytes(module, precision)
        highest = max(highest, done + passing)
    done += VOCABULARY_BYTES + sum(tensor.n_bytes for tensor in random_tensors(spec.llm, llm, seed=0))
    return max(highest, done)


Builder = Callable[[Path], tuple[tuple[str, ...], Any]]


def _graph_builder(plan: _Plan, name: str, write: WriteGraph) -> Builder:
    def build(directory: Path) -> tuple[tuple[str, ...], Any]:
        path = directory / f"{name}.onnx"
        full = directory / f"{name}.fp32.onnx"
        try:
            integer = plan.encoders.integer
            write(full if integer else path, RandomWeights(plan.seed, half=plan.encoders.name == "fp16"))
            if integer:  # every layer: what finer ones would save are errors, and these weights err
                _QUANTIZERS[plan.encoders.name](full, path)
        finally:
            for leftover in directory.glob(f"{name}.fp32.onnx*"):
                leftover.unlink()
        return tuple(sorted(p.name for p in directory.glob(f"{name}.onnx*"))), {}

    return build


def _data_builder(name: str, write: Callable[[Path], object]) -> Builder:
    def build(directory: Path) -> tuple[tuple[str, ...], Any]:
        write(directory / name)
        return (name,), {}

    return build


def _manifest(plan: _Plan, prompt: PromptInfo) -> Manifest:
    spec = plan.spec
    return Manifest(
        schema_version=SCHEMA_VERSION,
        family=next(name for name, kind in FAMILIES.items() if isinstance(spec, kind)),  # pyright: ignore
        name=plan.out.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        synthetic=True,
        spec=spec,
        graphs=spec.graphs,
        llm=LlmInfo(LLM_FILE, lora="merged", lora_scale=spec.lora.scale, adapter=None, chats=False),
        prompt=prompt,
        generation=GenerationInfo(plan.family.max_new_tokens, beams=1, min_avg_logprob=None),
        quantization=QuantizationInfo(
            plan.encoders.name, plan.llm, {name: () for name in spec.graphs} if plan.encoders.integer else {}
        ),
        licences=(LICENCE,),
        provenance=Provenance(
            auricle=metadata.version("auricle"),
            packages={p: metadata.version(p) for p in ("torch", "transformers", "onnx", "onnxruntime", "gguf")}
            | {"python": platform.python_version()},
            options={"model": plan.model, "llm": plan.llm, "encoders": plan.encoders.name, "seed": str(plan.seed)},
            base_fingerprint={},
            sources=(),
            notes=(f"random weights in the shapes of {plan.model}: for measuring speed and memory only",),
        ),
        parity=None,
        self_check=None,
        files=(),
    )


def _nearest(out: Path) -> Path:
    """The closest directory above `out` that exists: its disk is the one that is written."""
    return next(parent for parent in out.absolute().parents if parent.is_dir())


def _written(out: Path) -> int:
    """Bytes that an unfinished run left, which are used again or replaced."""
    partial = out.with_name(out.name + ".partial")
    return sum(file.stat().st_size for file in partial.glob("*")) if partial.is_dir() else 0


def _available_memory() -> int:
    """Bytes that can be had without swapping; all the memory where the system does not say, 0 if not even that."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return memory_bytes()
