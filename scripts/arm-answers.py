"""Greedy answers on this processor against the references': both golden checkpoints, from sound to token ids.

    arm-answers.py SALMONN_BUNDLE SALM_BUNDLE     exported in float32; status 1 where an id differs

Then the demo says one of its clips, quantized as it is shipped.
"""

from __future__ import annotations

import platform
import sys
import time
from pathlib import Path

import numpy as np
from auricle.models.bundle import shipped_bundle
from auricle.runtime.engine import EngineOptions, load
from auricle.runtime.llm.options import LlmOptions
from auricle.runtime.llm.sampling import Generation
from auricle.runtime.system.ort import OrtOptions

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
GREEDY = Generation(max_new_tokens=16)
OPTIONS = EngineOptions(OrtOptions("cpu", 1), LlmOptions(n_threads=1))
SAID = "turn on the kitchen dishwasher"


def reference(folder: str, clip: str) -> tuple[np.ndarray, str, tuple[int, ...]]:
    """A clip, float32 at 16 kHz, what is asked about it, and the ids of the answer."""
    with np.load(GOLDEN / folder / f"{clip}.npz") as arrays:
        if "ids_greedy" in arrays:
            return arrays["pcm_float32"], "asr", tuple(arrays["ids_greedy"].tolist())
        prompt = str(arrays["prompt"]).removeprefix("USER: <Speech><SpeechHere></Speech> ")
        ids = arrays["ids_beams1"][1:]  # behind BOS
        return arrays["pcm_float32"], prompt.removesuffix("\nASSISTANT:"), tuple(ids.tolist())


def main(salmonn: str, salm: str) -> int:
    """A line for each clip; the exit status."""
    print(platform.machine())
    status = 0
    for folder, bundle in (("salmonn-tiny", salmonn), ("salm-tiny", salm)):
        with load(bundle, options=OPTIONS) as engine:
            for clip in ("jfk_11s", "noise_1s"):
                waveform, prompt, expected = reference(folder, clip)
                started = time.monotonic()
                found = engine.ask(waveform, prompt, GREEDY).segments[0].token_ids
                right = found == expected
                print(
                    f"{folder} {clip}: {'the same' if right else 'other than the'} {len(expected)} tokens, "
                    f"{time.monotonic() - started:.0f} s"
                )
                status |= not right
    with load(options=OPTIONS) as engine:
        said = engine.ask(shipped_bundle() / "clips" / "command.wav", "asr").text
        print(f"demo: {said!r}")
        status |= said != SAID
    return int(status)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
