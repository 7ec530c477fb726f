"""What GPTQ of one full-size layer takes, on random weights: seconds and peak memory, on a GPU where there is one.

    .venv/bin/python scripts/gptq-layer.py --model salmonn-7b [--positions 2048]

A model is rounded layer after layer with one in memory: its time is this one's, times its layers. Needs the extra
[gptq].
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import replace

import torch
from auricle.export.formats.tensor_names import shapes
from auricle.export.llm.gptq import Rounding, linears
from auricle.export.llm.gptq_linear import require_gptq
from auricle.export.llm.imatrix import Passage
from auricle.export.llm.lora import Lora
from auricle.export.llm.torch_reference import ReferenceLlm
from auricle.models.llm import CANARY_QWEN_LORA, QWEN3_1_7B, SALMONN_LORA, VICUNA_7B_V15, VICUNA_13B_V11

MODELS = {
    "salmonn-7b": (VICUNA_7B_V15, SALMONN_LORA),
    "salmonn-13b": (VICUNA_13B_V11, SALMONN_LORA),
    "canary-qwen-2.5b": (QWEN3_1_7B, CANARY_QWEN_LORA),
}
CLIP = 128  # positions of one recording


class RandomWeights:
    """Stands where a checkpoint does."""

    def __init__(self, sizes: dict[str, tuple[int, ...]]) -> None:
        self._sizes = sizes

    def get(self, name: str) -> torch.Tensor:
        size = self._sizes[name]
        return torch.ones(size) if len(size) == 1 else 0.02 * torch.randn(size)

    def close(self) -> None:
        """Nothing is open."""


def main() -> None:
    """Prints one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", choices=tuple(MODELS), default="salmonn-7b")
    parser.add_argument("--positions", type=int, default=2048)
    arguments = parser.parse_args()
    require_gptq()
    whole, lora = MODELS[arguments.model]
    spec = replace(whole, n_layers=1)
    llm = ReferenceLlm(RandomWeights(shapes(spec)), spec, Lora(lora, spec.hidden, 1, {}), lora.scale)  # type: ignore[arg-type]
    clips = [Passage(torch.randn(CLIP, spec.hidden), 0) for _ in range(-(-arguments.positions // CLIP))]
    before, started = _peak(), time.monotonic()
    rounding = Rounding(llm, clips, True, lambda *_: None)
    for name in linears(spec):
        rounding.take(name)
    seconds = time.monotonic() - started
    gpu = f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB of the GPU" if torch.cuda.is_available() else ""
    print(
        f"{arguments.model}, one layer of {whole.n_layers}, {CLIP * len(clips)} positions, "
        f"{torch.get_num_threads()} threads: "
        f"{seconds:.0f} s, peak {_peak():.1f} GB of memory ({before:.1f} before){gpu}; "
        f"the model in about {seconds * whole.n_layers / 60:.0f} minutes"
    )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
