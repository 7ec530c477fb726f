"""Greedy answers with layers of the language model on a device, against none there: status 1 where a token differs.

    vulkan-answers.py [BUNDLE...]     default: the demos

With llama.cpp's Vulkan backend (make vulkan-test), or any other that offloads.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from auricle.models.bundle import SHIPPED
from auricle.runtime.engine import EngineOptions, load
from auricle.runtime.llm.llama import can_offload
from auricle.runtime.llm.options import LlmOptions
from auricle.runtime.llm.sampling import Generation
from auricle.runtime.system.ort import OrtOptions

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "salmonn-tiny"
LAYERS = (0, 1, 2, -1)
GREEDY = Generation(max_new_tokens=16)


def clip(name: str) -> np.ndarray:
    """A golden clip, float32 at 16 kHz."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return arrays["pcm_float32"]


def main(bundles: list[str]) -> int:
    """A line for each bundle and clip; the exit status."""
    if not can_offload():
        print("this llama.cpp finds no device to offload to")
        return 1
    status = 0
    clips = {name: clip(name) for name in ("jfk_11s", "noise_1s")}
    for bundle in bundles:
        said: dict[str, dict[int, tuple[int, ...]]] = {name: {} for name in clips}
        for n in LAYERS:
            with load(bundle, options=EngineOptions(OrtOptions("cpu"), LlmOptions(n_gpu_layers=n))) as engine:
                for name, waveform in clips.items():
                    said[name][n] = engine.ask(waveform, "asr", GREEDY).segments[0].token_ids
        for name, by_layers in said.items():
            same = len({*by_layers.values()}) == 1
            of = f"layers {', '.join(map(str, LAYERS))} on the device"
            print(f"{bundle} {name}: {'the same tokens' if same else by_layers}, {of}")
            status |= not same
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or [*SHIPPED]))
