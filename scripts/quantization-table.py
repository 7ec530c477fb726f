"""The table of docs/quantization.md: what calibration is worth at each type, on the demo model.

    .venv/bin/python scripts/quantization-table.py [--clips 200] [--draws 3] [--types q4_k_m,gptq-q4_0,...]

Everything is measured as `auricle-bench quality` measures its `kl`: the f32 model hears held-out clips and answers,
every quantization is made to say these answers hearing the same audio tokens. The clips are those of its --seed 1 to 3.
What is calibrated on is drawn --draws times from training's own clips or sentences. The gptq types need the extra
[gptq].
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from auricle.bench.quality.divergence import divergence, forced_logits
from auricle.export.families.salmonn import SalmonnExport, open_family
from auricle.export.formats.imatrix_file import write_imatrix
from auricle.export.llm.calibration import Example, calibration
from auricle.export.llm.export import write_gguf
from auricle.export.llm.gptq import Rounding
from auricle.export.llm.imatrix import Passage, gather, passages_of
from auricle.export.llm.quantize import DEFAULT_TABLES, TableTypes, quantize
from auricle.export.llm.torch_reference import ReferenceLlm
from auricle.export.options import EMBEDDING_BESIDE_GPTQ
from auricle.models.bundle import LLM_FILE
from auricle.models.corpus import examples as corpus
from auricle.models.corpus.sentences import sample_utterance
from auricle.models.encoders.qformer import OUTPUT
from auricle.models.llm import GPTQ_TYPES
from auricle.models.locations import weights_folder
from auricle.runtime.bundle import Bundle, open_bundle
from auricle.runtime.engine import Engine, EngineOptions
from auricle.runtime.llm.options import LlmOptions
from auricle.runtime.system.ort import OrtOptions

DEMO, REFERENCE = Path("checkpoints/demo"), Path("build/demo-f32")
SEEDS = (1, 2, 3)
N_CALIBRATION = 60  # clips of one draw
FINE_EMBEDDING = TableTypes(embedding=EMBEDDING_BESIDE_GPTQ)
TYPES = "q4_k_m,q4_k_m embedding q8_0,q4_0,q4_0 embedding q8_0,gptq-q4_0,q4_1 embedding q8_0,gptq-q4_1,iq4_xs,q3_k_m"


def quiet(*_: object) -> None:
    """No progress."""


def _demo(out: Path) -> SalmonnExport:
    """As the Makefile exports it; a checkpoint without whisper/ names another's."""
    settings = json.loads((DEMO / "args.json").read_text(encoding="utf-8"))
    given = settings.get("whisper")
    return SalmonnExport(
        out=out,
        whisper=weights_folder() / given["name"] if given else DEMO / "whisper",
        beats=DEMO / "beats.pt",
        vicuna=DEMO / "vicuna",
        salmonn=DEMO / "salmonn.pth",
        qformer_heads=settings["qformer_heads"],
        second_per_window=settings["second_per_window"],
        second_stride=settings["second_per_window"],
        hears=settings.get("hears", "window"),
        longest_seconds=settings.get("longest_seconds"),
    )


class Table:
    """The opened checkpoint and what the f32 model says."""

    def __init__(self, folder: Path, n_clips: int) -> None:
        self.folder = folder
        self.family = open_family(_demo(folder / "out"))
        lora = self.family.lora
        self.merge = (lora, lora.spec.scale)
        self.llm = ReferenceLlm(self.family.llm.weights, self.family.llm.spec, *self.merge)
        write_gguf(self.family.llm, folder / "f16.gguf", "f16", self.merge)
        self.bundle = open_bundle(REFERENCE)
        for name in [*(g.file for g in self.bundle.manifest.graphs.values()), "manifest.json"]:
            (folder / name).symlink_to((REFERENCE / name).resolve())
        with self._engine(REFERENCE) as engine:
            self.said = {seed: [_say(engine, e) for e in _held_out(n_clips, seed)] for seed in SEEDS}

    def passages(self, examples: list[Example], waves: dict[Path, np.ndarray]) -> list[Passage]:
        """From examples whose recordings are files, or in memory."""
        family = self.family

        def hear(example: Example) -> np.ndarray:
            assert example.audio is not None
            wave = waves.get(example.audio)
            wave = example.waveform(family.spec.n_samples) if wave is None else wave
            return family.stages(wave)[OUTPUT]

        return passages_of(examples, self.llm, family.prompt, family.tokenize, hear, quiet)

    def heard(self, seed: int) -> list[Passage]:
        """Clips as training draws them, with their questions and answers."""
        rng, waves, examples = random.Random(seed), dict[Path, np.ndarray](), list[Example]()
        for index in range(N_CALIBRATION):
            clip = corpus.training_clip((1000 + seed) * 100_003 + index)
            task = corpus.training_task(clip, rng)
            answer = corpus.expected_answer(clip.utterance, clip.sound, task)
            waves[Path(f"{index}")] = clip.waveform
            examples.append(Example(Path(f"{index}"), corpus.task_prompt(task), answer or None))
        return self.passages(examples, waves)

    def read(self, seed: int, n_positions: int) -> list[Passage]:
        """Training's sentences, eight to a line, as many positions."""
        rng, lines, n = random.Random(seed), list[str](), 0
        while n < n_positions:
            lines.append(" ".join(sample_utterance(rng, "train").text for _ in range(8)))
            n += len(self.family.tokenize(lines[-1]))
        return self.passages([Example(None, line, None) for line in lines], {})

    def kl(self, quantization: str, passages: list[Passage] | None) -> list[float]:
        """Mean over the tokens of each seed's answers, nats."""
        kind, _, fine = quantization.partition(" ")
        source, weighed, target = self.folder / "f16.gguf", None, self.folder / LLM_FILE
        if passages and kind in GPTQ_TYPES:
            source, fine = self.folder / "gptq.gguf", "finer"
            rounding = Rounding(self.llm, passages, kind == "gptq-q4_0", quiet)
            write_gguf(self.family.llm, source, "f16", self.merge, quiet, rounding)
        elif passages:
            weighed = self.folder / "im.gguf"
            write_imatrix(weighed, gather(self.llm, passages, ("draw",), quiet))
        tables = FINE_EMBEDDING if fine else DEFAULT_TABLES
        quantize(source, target, GPTQ_TYPES.get(kind, kind), imatrix=weighed, tables=tables)
        with self._engine(self.folder) as engine:
            return [_distance(engine, self.said[seed]) for seed in SEEDS]

    def _engine(self, folder: Path) -> Engine:
        options = EngineOptions(OrtOptions(provider="cpu"), LlmOptions(n_gpu_layers=0))
        return Engine(Bundle(folder, self.bundle.manifest), options)


def _held_out(n: int, seed: int) -> list[corpus.Example]:
    return [*corpus.held_out("seen", n, seed), *corpus.sound_examples(-(-n // 2), seed)]


Said = tuple[np.ndarray, str, tuple[int, ...], bool, np.ndarray]


def _say(engine: Engine, example: corpus.Example) -> Said:
    heard = engine.encoders.stages(example.clip.waveform)[OUTPUT]
    answer = engine.ask(example.clip.waveform, example.prompt)
    (final,) = answer.segments
    ended = final.finish_reason == "eos"
    return (
        heard,
        answer.prompt,
        final.token_ids,
        ended,
        forced_logits(engine.llm, heard, answer.prompt, final.token_ids, ended),
    )


def _distance(engine: Engine, said: list[Said]) -> float:
    rows = [divergence(logits, forced_logits(engine.llm, *question)) for *question, logits in said]
    return float(np.concatenate(rows).mean())


def main() -> None:
    """Prints a line per type and calibration: KL by seed of the clips, their mean, and that by plain's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--types", default=TYPES)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="auricle-table-") as folder:
        table = Table(Path(folder), arguments.clips)
        print({seed: sum(len(said[-1]) for said in table.said[seed]) for seed in SEEDS}, "tokens by seed", flush=True)
        draws = range(1, arguments.draws + 1)
        heard = [table.heard(seed) for seed in draws]
        longest = max(sum(len(p.states) - p.start for p in each) for each in heard)
        calibrations: dict[str, list[list[Passage] | None]] = {
            "none": [None],
            "auto": [table.passages(list(calibration(None, table.family.prompt).examples), {})],
            "recordings": [*heard],
            "text": [table.read(seed, longest) for seed in draws],
        }
        plain: dict[str, float] = {}
        for quantization in arguments.types.split(","):
            kind = GPTQ_TYPES.get(quantization, quantization.partition(" ")[0])
            for name, drawn in calibrations.items():
                if quantization in GPTQ_TYPES and name == "none":
                    continue
                found = [table.kl(quantization, each) for each in drawn]
                means = [fmean(by_seed) for by_seed in found]
                if name == "none":
                    plain.setdefault(kind, means[0])
                spread = f" ± {1e3 * stdev(means):.2f}" if len(means) > 1 else ""
                by_seed = " | ".join(f"{1e3 * fmean(column):.2f}" for column in zip(*found, strict=True))
                ratio = f"{fmean(means) / plain[kind]:.2f}" if kind in plain else "-"
                print(
                    f"| {quantization} | {name} | {by_seed} | {1e3 * fmean(means):.2f}{spread} | {ratio} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
