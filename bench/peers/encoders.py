"""Contestants for BEATs on 30 s and for the Q-Former behind both encoders: the same random weights for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.audio import SAMPLE_RATE, synthetic_clip
from ...models.encoders import beats, qformer
from ..result import OURS
from . import onnx_graphs
from .task import SEED, Contestant, Task, Work


def file(task: Task, name: str) -> Path:
    """Where a graph written for these sizes lies."""
    spec = onnx_graphs.spec_of(task)
    width = spec.beats.d_model if task.part == "beats" else spec.qformer.d_llm
    return onnx_graphs.graph_file(task.work / f"{task.part}-{width}", name)


def feeds(task: Task) -> dict[str, NDArray[np.float32]]:
    """A whole window: BEATs' fbank of a synthetic clip, or normalised speech and audio as the LayerNorms leave them."""
    from ...models.encoders.beats import fbank

    spec = onnx_graphs.spec_of(task)
    clip = synthetic_clip(SEED, spec.whisper.n_samples / SAMPLE_RATE)
    if task.part == "beats":
        return {beats.INPUT: fbank(clip)}
    rng = np.random.default_rng(SEED)
    n_tokens = spec.beats.n_tokens(beats.n_frames(len(clip)))
    return {
        qformer.SPEECH_INPUT: rng.standard_normal((1, spec.whisper.n_positions, spec.whisper.d_model), np.float32),
        qformer.AUDIO_INPUT: rng.standard_normal((1, n_tokens, spec.beats.d_model), np.float32),
    }


def module(task: Task) -> Any:
    """The part in torch as it was published: BEATs behind its LayerNorm, or the plain Q-Former."""
    from ...export.encoders.beats import AudioEncoder, Beats
    from ...export.encoders.qformer import ReferenceQFormer

    spec = onnx_graphs.spec_of(task)
    torch = onnx_graphs.torch_with(task.threads)
    if task.part == "beats":
        return AudioEncoder(Beats(spec.beats), torch.nn.LayerNorm(spec.beats.d_model)).eval().requires_grad_(False)
    plain = ReferenceQFormer(spec.qformer).eval().requires_grad_(False)
    plain.query.normal_()
    return plain


def write_full(task: Task) -> None:
    """Our fp32 graph: BEATs, or the folded Q-Former."""
    from ...export.encoders.beats import export_beats
    from ...export.encoders.qformer import FoldedQFormer, export_qformer

    def write(path: Path) -> None:
        whole = module(task)
        if task.part == "beats":
            export_beats(whole.beats, whole.ln_audio, path)
        else:
            export_qformer(FoldedQFormer(whole), path)

    onnx_graphs.write_once(file(task, "fp32"), write)


def write_plain(task: Task) -> None:
    """The plain Q-Former by torch.onnx, for these lengths."""
    from ...export.graphs.onnx_graph import save_graph

    spec = onnx_graphs.spec_of(task)
    torch = onnx_graphs.torch_with(task.threads)
    inputs = {name: torch.from_numpy(values) for name, values in feeds(task).items()}
    outputs = {qformer.OUTPUT: (1, spec.n_audio_tokens, spec.qformer.d_llm)}
    onnx_graphs.write_once(file(task, "plain"), lambda path: save_graph(module(task), inputs, outputs, path))


def write_ours(task: Task) -> None:
    """The int8 graph by the exporter's own rule, unless a graph or a bundle was given."""
    if task.graph is None and task.bundle is None:
        write_full(task)
        onnx_graphs.write_int8(file(task, "fp32"), file(task, "auricle-int8"), [feeds(task)])


def write_plain_int8(task: Task) -> None:
    """The int8 graph by onnxruntime's quantize_dynamic."""
    write_full(task)
    onnx_graphs.write_plain_int8(file(task, "fp32"), file(task, "plain-int8"))


def open_ours(task: Task) -> Work:
    """The exporter's graph, or the one that was given."""
    path = onnx_graphs.our_graph(task, task.part, file(task, "auricle-int8"))
    return onnx_graphs.open_ours(path, onnx_graphs.interface(task, task.part), feeds(task), task.threads)


def open_default(name: str) -> Callable[[Task], Work]:
    """One of the graphs that were written, by onnxruntime's defaults."""
    return lambda task: onnx_graphs.open_default(file(task, name), feeds(task), task.threads)


def open_torch(task: Task) -> Work:
    """The module in float32."""
    return onnx_graphs.open_torch(module(task), feeds(task), task.threads)


def contestants(task: Task) -> dict[str, Contestant]:
    """In the order of running."""
    if task.part == "beats":
        return {
            OURS: Contestant(open_ours, write_ours),
            "torch fp32": Contestant(open_torch),
            "onnxruntime fp32": Contestant(open_default("fp32"), write_full),
            "plain int8": Contestant(open_default("plain-int8"), write_plain_int8),
        }
    return {
        OURS: Contestant(open_ours, write_ours),
        "torch fp32, plain": Contestant(open_torch),
        "onnxruntime fp32, plain": Contestant(open_default("plain"), write_plain),
        "onnxruntime fp32, folded": Contestant(open_default("fp32"), write_full),
    }
