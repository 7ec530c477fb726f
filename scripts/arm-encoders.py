"""What the shipped bundles' encoders make of the demo's clips, by the runtime: into a file, or against such a file.

    arm-encoders.py write FILE.npz        here
    arm-encoders.py compare FILE.npz      on another processor: status 1 where an output is further off than ALLOWED

Without the language model, PyAV and soxr: what onnxruntime and numpy alone need runs under emulation too.
"""

from __future__ import annotations

import platform
import sys
import wave
from pathlib import Path

import numpy as np
import onnxruntime
from auricle.models.bundle import SHIPPED, shipped_bundle
from auricle.runtime.bundle import open_bundle
from auricle.runtime.families.registry import ENCODERS
from auricle.runtime.system.ort import OrtOptions, open_session

ALLOWED = 0.03
"""Relative rms of int8: a float's last bit turns a rounding to eight bits, here and there, and from there on in every
layer; less than what int8 itself costs Whisper (3.4 %, docs/performance.md)."""
CLIPS = ("birds", "command")
Outputs = dict[str, np.ndarray]


def read_wav(path: Path) -> np.ndarray:
    """Mono, 16 kHz, 16 bits -> float32."""
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def outputs_of(name: str) -> Outputs:
    """Every stage of CLIPS, by bundle, clip and stage."""
    bundle = open_bundle(name)
    options = OrtOptions("cpu", 1)
    graphs = bundle.manifest.graphs
    sessions = {n: open_session(bundle.path(g.file), g.inputs, g.outputs, options) for n, g in graphs.items()}
    encoders = ENCODERS[bundle.manifest.family](sessions, bundle.manifest.spec, bundle.directory)
    found: Outputs = {}
    for clip in CLIPS:
        waveform = read_wav(shipped_bundle() / "clips" / f"{clip}.wav")
        for stage, values in encoders.stages(waveform).items():
            found[f"{name} {clip} {stage}"] = values
    encoders.close()
    return found


def compare(found: Outputs, expected: Outputs) -> int:
    """A line for each output; 1 where one is too far off."""
    status = 0
    for name, values in found.items():
        reference = expected[name]
        error = np.inf
        if values.shape == reference.shape:
            error = float(np.sqrt(np.mean((values - reference) ** 2) / np.mean(reference**2)))
        right = error <= ALLOWED  # never of what is no number
        print(f"{name} {list(values.shape)}: relative rms {error:.4%}" + ("" if right else f", over {ALLOWED:.0%}"))
        status |= not right
    return int(status)


def main(command: str, file: str) -> int:
    print(f"{platform.machine()}, onnxruntime {onnxruntime.__version__}, numpy {np.__version__}")
    found = {key: values for name in SHIPPED for key, values in outputs_of(name).items()}
    if command == "compare":
        with np.load(file) as expected:
            return compare(found, dict(expected))
    np.savez(file, **found)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
