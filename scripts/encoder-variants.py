"""Ways to quantize a SALMONN's encoders that auricle-export does not offer, as bundles to be measured: `make encoders`.

    .venv/bin/python scripts/encoder-variants.py FP32_BUNDLE OUT...

The name of each OUT says what its graphs are made by:

    int8-dynamic   onnxruntime's quantize_dynamic, on the linear layers
    int8-static    onnxruntime's quantize_static, calibrated on the demo's clips
    int4-all       our int4 with no layer left at 8 bits

All else is the fp32 bundle's. An OUT that exists is kept.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from auricle.bench.peers.onnx_graphs import Feeds, quantize_dynamic, quantize_static, salmonn_of
from auricle.export.graphs.int4 import write_int4
from auricle.export.graphs.onnx_graph import run_graph
from auricle.models.audio import MIN_MODEL_SECONDS, SAMPLE_RATE
from auricle.models.bundle import file_entry, shipped_bundle, write_manifest
from auricle.models.encoders import beats, qformer, whisper
from auricle.models.encoders.beats import fbank
from auricle.models.encoders.whisper import log_mel
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.bundle import Bundle, open_bundle

Quantize = Callable[[Path, Path, Sequence[Feeds]], None]
WAYS: dict[str, tuple[str, Quantize]] = {
    "int8-dynamic": ("int8", lambda source, path, _: quantize_dynamic(source, path)),
    "int8-static": ("int8", quantize_static),
    "int4-all": ("int4", lambda source, path, _: write_int4(source, path)),
}
"""What the manifest calls the precision, and how a graph is made."""


def heard(bundle: Bundle) -> dict[str, list[Feeds]]:
    """What each graph reads of the demo's clips."""
    spec, least = salmonn_of(bundle.manifest), round(MIN_MODEL_SECONDS * SAMPLE_RATE)
    feeds: dict[str, list[Feeds]] = {"whisper": [], "beats": [], "qformer": []}
    for file in sorted((shipped_bundle() / "clips").glob("*.wav")):
        clip = read_audio(file)[: spec.n_samples]
        padded = np.pad(clip, (0, max(0, least - len(clip))))
        mel, bank = {whisper.INPUT: log_mel(clip, spec.whisper)}, {beats.INPUT: fbank(padded)}
        speech, audio = (
            run_graph(bundle.path(bundle.manifest.graphs[name].file), feed)[0]
            for name, feed in (("whisper", mel), ("beats", bank))
        )
        feeds["whisper"].append(mel)
        feeds["beats"].append(bank)
        feeds["qformer"].append({qformer.SPEECH_INPUT: speech, qformer.AUDIO_INPUT: audio})
    return feeds


def write(bundle: Bundle, out: Path, feeds: dict[str, list[Feeds]]) -> None:
    """A bundle beside the fp32 one."""
    precision, quantize = WAYS[out.name]
    manifest, partial = bundle.manifest, out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    graphs = {graph.file: name for name, graph in manifest.graphs.items()}
    for entry in manifest.files:
        if entry.path in graphs:
            quantize(bundle.path(entry.path), partial / entry.path, feeds[graphs[entry.path]])
        elif not entry.path.startswith(tuple(graphs)):
            shutil.copyfile(bundle.path(entry.path), partial / entry.path)
    files = tuple(file_entry(partial, path.name) for path in sorted(partial.iterdir()))
    quantization = replace(manifest.quantization, encoders=precision)  # pyright: ignore
    changed = replace(manifest, name=out.name, quantization=quantization, parity=None, self_check=None, files=files)
    write_manifest(partial, changed)
    partial.rename(out)


def main() -> None:
    """Writes what is missing."""
    source, *outs = map(Path, sys.argv[1:])
    bundle = open_bundle(source)
    feeds = heard(bundle)
    for out in outs:
        if not out.exists():
            write(bundle, out, feeds)
            print(out)


if __name__ == "__main__":
    main()
