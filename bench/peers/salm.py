"""Contestants for the FastConformer on 30 s, and for the transcript of a clip of 11 s.

fastconformer   ours int8, transcribe.cpp Q8_0 (its own clock), torch fp32
transcribe      the whole of a SALM: features, encoder, 138 audio tokens read, an answer; ours beside transcribe.cpp
Everybody has random weights of the same shape, though not the same ones: their outputs are not compared.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.audio import SAMPLE_RATE
from ...models.bundle import read_manifest
from ...models.encoders.fastconformer import INPUT
from ...models.errors import InputError
from ...models.families.salm import SALM, SalmSpec
from ...models.prompt import first_task
from ..result import OURS
from . import onnx_graphs
from .canary_format import MOST_TOKENS, open_canary, write_canary
from .task import SEED, Contestant, Outcome, Task, Work, whole_or_absent

_TRANSCRIBE_CPP = "transcribe-cpp==0.4.1"
_SECONDS = {"fastconformer": 30.0, "transcribe": 11.0}
_SMALL = {"n_layers": 1, "vocab": 4096}  # a language model that only the encoder's contest has to open


def spec_of(task: Task) -> SalmSpec:
    """The bundle's, or the released one, whose encoder has task.layers layers. Raises InputError."""
    spec = replace(SALM, fastconformer=replace(SALM.fastconformer, n_layers=task.layers))
    if task.bundle is not None:
        spec = read_manifest(task.bundle).spec
        if not isinstance(spec, SalmSpec):
            raise InputError(f"{task.bundle} is no SALM: give one, or none")
    return spec


def clip(task: Task) -> NDArray[np.float32]:
    """Real speech, repeated."""
    from ...runtime.audio.decode import read_audio

    with resources.as_file(resources.files("auricle.export") / "jfk.wav") as path:
        return np.resize(read_audio(path), round(_SECONDS[task.part] * SAMPLE_RATE))


def feeds(task: Task) -> dict[str, NDArray[np.float32]]:
    """features [1, n_mels, n_frames]."""
    from ...export.synthetic.families import hann, mel_bank
    from ...models.encoders.fastconformer import Featurizer, features

    return {INPUT: features(clip(task), Featurizer(mel_bank(spec_of(task).fastconformer.n_mels), hann()))}


def file(task: Task, name: str) -> Path:
    """Where something written for these sizes lies."""
    spec = spec_of(task).fastconformer
    directory = task.work / f"fastconformer-{spec.d_model}x{spec.n_layers}"
    return onnx_graphs.graph_file(directory, name) if name == "auricle-int8" else directory / name


def write_ours(task: Task) -> None:
    """The int8 graph of random weights, as `synth` makes it, unless a graph or a bundle was given."""
    from ...export.encoders.fastconformer import export_fastconformer, weightless_fastconformer
    from ...export.graphs.int8 import write_uncalibrated
    from ...export.synthetic.random_graph import RandomWeights

    spec = spec_of(task).fastconformer

    def write(path: Path) -> None:
        full = path.with_name("full.onnx")
        export_fastconformer(weightless_fastconformer(spec), spec, full, RandomWeights(SEED))
        write_uncalibrated(full, path)
        for leftover in path.parent.glob("full.onnx*"):
            leftover.unlink()

    if task.graph is None and task.bundle is None:
        onnx_graphs.write_once(file(task, "auricle-int8"), write)


def open_ours(task: Task) -> Work:
    """The exporter's graph, or the one that was given; its output is not kept."""
    info = spec_of(task).graphs["fastconformer"]
    written = file(task, "auricle-int8") if task.bundle is None else task.bundle / info.file
    work = onnx_graphs.open_ours(task.graph or written, info, feeds(task), task.threads)
    return Work(lambda: Outcome(work.timed().shape))


def open_torch(task: Task) -> Work:
    """transformers' encoder and NeMo's projection in float32."""
    from ...export.encoders.fastconformer_modules import Perception

    onnx_graphs.torch_with(task.threads)
    module = Perception(spec_of(task).fastconformer).eval().requires_grad_(False)
    work = onnx_graphs.open_torch(module, feeds(task), task.threads)
    return Work(lambda: Outcome(work.timed().shape))


def write_theirs(task: Task) -> None:
    """transcribe.cpp's file: Q8_0, or the language model in the bundle's type."""
    spec, quantization = _theirs(task)
    path = file(task, _their_name(task, quantization))
    if not path.exists():
        with whole_or_absent(path) as temporary:
            write_canary(temporary, spec, quantization, _n_said(task))


def open_theirs(task: Task) -> Work:
    """Their encoder alone, or the whole transcription."""
    path = file(task, _their_name(task, _theirs(task)[1]))
    return open_canary(path, clip(task), task.threads, encoder_alone=task.part == "fastconformer")


def _theirs(task: Task) -> tuple[SalmSpec, str]:
    spec = spec_of(task)
    if task.part == "fastconformer":
        return replace(spec, llm=replace(spec.llm, **_SMALL)), "q8_0"
    return spec, read_manifest(_bundle(task)).quantization.llm


def _bundle(task: Task) -> Path:
    if task.bundle is None:
        raise InputError("a bundle is needed: give --bundle DIR, such as one that auricle-bench synth made")
    return task.bundle


def _their_name(task: Task, quantization: str) -> str:
    return f"{task.part}-{quantization}-{_n_said(task)}.gguf"


def _n_said(task: Task) -> int:
    """Tokens of their answer; the encoder's contest needs none."""
    return min(task.tokens, MOST_TOKENS) if task.part == "transcribe" else 0


def open_whole(task: Task) -> Work:
    """engine.hear, the prefill behind the kept prefix, as in a conversation, and as many passes as an answer takes."""
    from ...runtime.engine import EngineOptions, load
    from ...runtime.llm.options import LlmOptions
    from ...runtime.llm.sampling import Generation
    from ...runtime.system.ort import OrtOptions

    bundle = _bundle(task)
    options = EngineOptions(OrtOptions("cpu", task.threads), LlmOptions(n_threads=task.threads, n_gpu_layers=0))
    engine = load(bundle, options)
    waveform = clip(task)
    prompt = first_task(engine.prompt)
    # random weights may stop anywhere; the last pass says that nothing follows
    generation = Generation(max_new_tokens=_n_said(task) + 1, ignore_eos=True)

    def run() -> Outcome:
        engine.llm.prefill(engine.encode(waveform).audio_tokens, prompt, generation)
        ids = tuple(engine.llm.generate(generation))[:-1]
        return Outcome(shape=(len(ids),))

    return Work(run)


def contestants(task: Task) -> dict[str, Contestant]:
    """In the order of running."""
    theirs: dict[str, Any] = {"prepare": write_theirs, "pip": _TRANSCRIBE_CPP}
    if task.part == "transcribe":
        return {OURS: Contestant(open_whole), "transcribe-cpp": Contestant(open_theirs, **theirs)}
    return {
        OURS: Contestant(open_ours, write_ours),
        "transcribe-cpp q8_0": Contestant(open_theirs, **theirs),
        "torch fp32": Contestant(open_torch),
    }
