"""Invented but plausible records, one of each kind, for the tests of `compare` and of the report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from auricle.bench.result import SCHEMA, SYNTHETIC, Machine, Measure, Record, Subject

MACHINE = Machine(
    "AMD EPYC 9654 96-Core Processor",
    2,
    16.6,
    None,
    "Linux 6.1.0 x86_64, Python 3.11.2",
    {"auricle": "0.1.0", "onnxruntime": "1.31.1", "llama-cpp-python": "0.3.36", "numpy": "2.4.1"},
)
BIG = Subject("salmonn-13b-int8-q4", "salmonn", True, "int8", "q4_k_m", 9.12)
DEMO = Subject("auricle-demo", "salmonn", False, "int8", "q8_0", 0.0094)


def record(
    command: str,
    subjects: Sequence[Subject],
    settings: dict[str, str],
    measures: Sequence[Measure],
    notes: Sequence[str] = (),
) -> Record:
    said = [f"{s.name}: {SYNTHETIC}" for s in subjects if s.synthetic]
    created = "2026-11-21T14:05:31+00:00"
    return Record(SCHEMA, command, created, MACHINE, tuple(subjects), settings, tuple(measures), (*said, *notes))


def around(middle: float, n: int, seed: int, spread: float = 0.03) -> tuple[float, ...]:
    """n samples with a tail to the right."""
    return tuple(middle * np.exp(np.random.default_rng(seed).normal(0, spread, n)))


def stages(slower: float = 1.0, seed: int = 0) -> Record:
    """`slower` stretches the Whisper encoder alone."""
    sizes = {  # seconds, samples, FLOP, bytes, tokens, share of the limit
        "log_mel": (0.021, 5, 4.1e8, 0.0, 3000, 9),
        "fbank": (0.034, 5, 5.2e8, 0.0, 2998, 7),
        "whisper": (4.9 * slower, 5, 1.94e12, 6.4e8, 1500, 62),
        "beats": (1.31, 5, 2.9e11, 9e7, 1496, 48),
        "qformer": (0.022, 5, 9.9e9, 1e8, 88, 30),
        "hear": (5.7 * slower, 5, 2.24e12, 8.3e8, 88, 60),
        "prefill": (9.4, 5, 2.8e12, 7.9e9, 104, 71),
        "decode": (0.282, 160, 2.6e10, 7.95e9, 1, 88),
    }
    found: list[Measure] = []
    for at, (name, (seconds, n, flop, size, tokens, share)) in enumerate(sizes.items()):
        wall = around(seconds, n, seed + at)
        reading = name == "decode"
        amount = (size if reading else flop) / 1e9
        found += [
            Measure(name, "wall", "s", wall, "lower"),
            Measure(name, "cpu", "s", tuple(1.9 * value for value in wall), "lower"),
            Measure(name, "rate", "GB/s" if reading else "GFLOP/s", tuple(amount / value for value in wall), "higher"),
            Measure(name, "share", "%", tuple(share * seconds / value for value in wall), "higher"),
            Measure(name, "flop", "FLOP", (flop,)),
            Measure(name, "bytes", "B", (size,)),
            Measure(name, "tokens", "", (float(tokens),)),
        ]
        if name not in ("prefill", "decode"):
            found.append(Measure(name, "audio", "s", (30.0,)))
    found += [
        Measure("live update", "no draft", "s", around(13.2, 5, seed + 20), "lower"),
        Measure("live update", "draft", "s", around(4.3, 5, seed + 21), "lower"),
        Measure("live update", "ratio", "", around(0.33, 5, seed + 22), "lower"),
        Measure("open", "wall", "s", (1.81,), "lower"),
        Measure("memory", "peak", "GB", (9.61,), "lower"),
        Measure("machine", "fp32", "GFLOP/s", around(171, 5, seed + 30), "higher"),
        Measure("machine", "int8", "GOP/s", around(645, 5, seed + 31), "higher"),
        Measure("machine", "read", "GB/s", around(31.9, 5, seed + 32), "higher"),
        Measure("whisper kernels", "MatMulInteger", "", (192.0,)),
        Measure("whisper kernels", "DynamicQuantizeLinear", "", (160.0,)),
    ]
    settings = {"seconds": "30", "new tokens": "32", "prompt": "asr", "threads": "2", "runs": "5"}
    return record("stages", [BIG], settings, found, ["whisper ran 192 MatMulInteger, which took 71 % of its time"])


def sweep() -> Record:
    """The trained scale is 4."""
    found: list[Measure] = []
    for scale, wer, tokens in ((0.0, 61.0, 30.0), (2.0, 8.1, 12.0), (4.0, 5.2, 11.0)):
        group = f"scale {scale:g}"
        found += [
            Measure(group, "scale", "", (scale,)),
            Measure(group, "wer", "%", (wer,), "lower"),
            Measure(group, "wer_low", "%", (wer - 2,), "lower"),
            Measure(group, "wer_high", "%", (wer + 2,), "lower"),
            Measure(group, "tokens", "tokens", (tokens,)),
        ]
    settings = {"data": "demo, held-out sentences", "clips": "50", "seed": "1", "trained scale": "4"}
    return record("lora-sweep", [DEMO], settings, found)


def live() -> Record:
    generator = np.random.default_rng(3)
    latency = 150 + 110 * generator.gamma(2.0, 1.0, 240)
    latency[:6] += 400
    encoders = np.clip(latency * 0.42, 60, 190)
    lag = generator.gamma(3.0, 0.22, 310)
    found = [
        Measure("update", "latency", "ms", tuple(latency), "lower"),
        Measure("update", "encoders", "ms", tuple(encoders), "lower"),
        Measure("update", "llm", "ms", tuple(latency - encoders), "lower"),
        Measure("update", "late", "%", (100 * float(np.mean(latency > 500)),), "lower"),
        Measure("update", "passes", "", tuple(float(n) for n in generator.integers(1, 9, 240)), "lower"),
        Measure("update", "tokens", "", tuple(float(n) for n in generator.integers(4, 30, 240))),
        Measure("update", "acceptance", "%", (83.1,), "higher"),
        Measure("update", "backlog", "s", tuple(generator.gamma(1.2, 0.08, 240)), "lower"),
        Measure("speech_end", "waited", "ms", around(81, 22, 1, 0.4), "lower"),
        Measure("speech_end", "first_token", "ms", around(310, 22, 2, 0.2), "lower"),
        Measure("speech_end", "final", "ms", around(522, 22, 3, 0.2), "lower"),
        Measure("words", "wer", "%", (6.2,), "lower"),
        Measure("words", "lag_unstable", "s", tuple(lag + 0.35), "lower"),
        Measure("words", "lag_stable", "s", tuple(1.6 * lag + 0.8), "lower"),
        Measure("words", "laal", "s", (1.71,), "lower"),
        Measure("session", "rtf", "", (0.61,), "lower"),
        Measure("session", "erasure", "", (0.27,), "lower"),
        Measure("session", "memory", "GB", (0.412,), "lower"),
    ]
    settings = {"source": "talk.wav", "seconds": "121.4", "pace": "realtime", "hop_ms": "500", "draft": "yes"}
    return record("live", [DEMO], settings, found, ["a word's lag is counted for words that were heard right"])


def quality(extra: float = 0.0) -> Record:
    """`extra` is added to every word error rate, %."""
    table = {  # encoders, llm, GB, WER, KL, agreement, tokens/s
        "fp32/f32": ("fp32", "f32", 55.1, 4.9, 0.0, 100.0, 1.1),
        "fp16/f16": ("fp16", "f16", 27.6, 4.9, 0.00021, 99.8, 1.9),
        "int8/q8_0": ("int8", "q8_0", 15.1, 5.0, 0.0019, 98.9, 2.2),
        "int8/q5_k_m": ("int8", "q5_k_m", 10.6, 5.2, 0.0102, 97.1, 3.1),
        "int8/q4_k_m": ("int8", "q4_k_m", 9.12, 5.3, 0.0271, 95.2, 3.5),
        "int8/q4_0": ("int8", "q4_0", 8.7, 5.9, 0.0561, 92.8, 3.6),
        "int8/q3_k_m": ("int8", "q3_k_m", 7.6, 6.6, 0.112, 89.9, 3.9),
        "int8/q2_k": ("int8", "q2_k", 6.1, 9.8, 0.414, 80.3, 4.4),
    }
    found: list[Measure] = []
    subjects: list[Subject] = []
    for at, (name, (encoders, llm, size, wer, kl, agreement, speed)) in enumerate(table.items()):
        wer += extra
        subjects.append(Subject(name, "salmonn", False, encoders, llm, size))
        found += [
            Measure(name, "size", "GB", (size,), "lower"),
            Measure(name, "memory", "GB", (size + 0.6,), "lower"),
            Measure(name, "ttft", "ms", around(9000 / speed, 60, at, 0.1), "lower"),
            Measure(name, "tpot", "ms", around(1000 / speed, 60, at + 9, 0.05), "lower"),
            Measure(name, "speed", "tokens/s", (speed,), "higher"),
            Measure(name, "wer", "%", (wer,), "lower"),
            Measure(name, "wer_low", "%", (wer - 1.1,), "lower"),
            Measure(name, "wer_high", "%", (wer + 1.3,), "lower"),
            Measure(name, "audio_kl", "nats", (kl,), "lower"),
            Measure(name, "audio_agreement", "%", (agreement,), "higher"),
        ]
    notes = ["WER: lower case, punctuation dropped; interval: 95 % bootstrap over clips"]
    return record("quality", subjects, {"clips": "60", "seed": "1", "reference": "fp32/f32"}, found, notes)


def peers() -> Record:
    table = {  # wall seconds, GB
        "auricle": (3.81, 0.94),
        "onnxruntime int8, plain": (5.02, 1.31),
        "CTranslate2 int8": (7.63, 1.02),
        "torch bf16": (7.5, 1.9),
        "onnxruntime fp32": (11.8, 3.1),
        "transcribe-cpp Q8_0": (12.8, 0.9),
        "torch fp32": (13.1, 3.4),
        "CTranslate2 fp32": (15.4, 2.9),
        "pywhispercpp Q8_0": (27.7, 0.9),
    }
    found: list[Measure] = []
    ours = around(table["auricle"][0], 5, 0, 0.04)
    for at, (name, (seconds, memory)) in enumerate(table.items()):
        wall = ours if name == "auricle" else around(seconds, 5, at, 0.05)
        found += [
            Measure(name, "wall", "s", wall, "lower"),
            Measure(name, "cpu", "s", tuple(1.93 * value for value in wall), "lower"),
            Measure(name, "memory", "GB", (memory,), "lower"),
        ]
        if name != "auricle":
            ratio = tuple(a / b for a, b in zip(ours, wall, strict=True))
            found += [
                Measure(name, "ratio_wall", "", ratio, "lower"),
                Measure(name, "ratio_cpu", "", ratio, "lower"),
                Measure(name, "ratio_memory", "", (table["auricle"][1] / memory,), "lower"),
            ]
    return record("peers", [], {"part": "whisper", "layers": "32", "rounds": "5", "threads": "2"}, found)


def fit() -> Record:
    """A kind that the report knows nothing about."""
    speeds = {"q2_k": 4.6, "q4_k_m": 3.4, "q8_0": 1.9}
    found = [Measure(name, "speed", "tokens/s", (speed,), "higher") for name, speed in speeds.items()]
    found += [Measure(name, "ttft", "s", (20 / speed,), "lower") for name, speed in speeds.items()]
    return record("fit", [], {"model": "salmonn-13b", "memory": "8GB"}, found)
