"""One contestant in a process of its own: `python -m auricle.bench.peers.worker NAME prepare|serve TASK`, TASK as JSON.

    prepare   writes the files the contestant needs, and ends
    serve     opens, runs once to warm up, says so; then one timed run for every line "run", until standard input ends

Every answer is one line of JSON on standard output. Whatever the libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, TextIO

from ...models.errors import AuricleError
from ..machine.timing import reset_peak, resident_bytes
from .task import Contestant, Outcome, Task, Work, output_file

PARTS = {
    "whisper": "whisper",
    "beats": "encoders",
    "qformer": "encoders",
    "decode": "llm",
    "prefill": "llm",
    "answer": "answer",
    "fastconformer": "salm",
    "transcribe": "salm",
    "recordings": "recordings",
}
"""Which module knows the contestants of a part."""
_PACKAGES = {
    "torch": "torch",
    "transformers": "transformers",
    "onnxruntime": "onnxruntime",
    "llama_cpp": "llama-cpp-python",
    "ik_llama_cpp": "ik-llama-cpp-python",
    "ctranslate2": "ctranslate2",
    "transcribe_cpp": "transcribe-cpp",
    "_pywhispercpp": "pywhispercpp",
    "pywhispercpp": "pywhispercpp",
    "faster_whisper": "faster-whisper",
    "optimum": "optimum-onnx",
}


def contestants(task: Task) -> Mapping[str, Contestant]:
    """Name -> contestant, ours first."""
    return import_module(f".{PARTS[task.part]}", __package__).contestants(task)


def main(arguments: Sequence[str]) -> int:
    """Exit status 0: all was answered; 1: the last line says what went wrong."""
    name, verb, text = arguments
    answers = _own_output()
    task = Task.from_json(text)
    try:
        contestant = contestants(task)[name]
        if verb == "prepare":
            if contestant.prepare is not None:
                contestant.prepare(task)
            _say(answers, {"prepared": name})
        else:
            _serve(contestant, name, task, answers)
    except ModuleNotFoundError as error:
        _say(answers, {"missing": (error.name or str(error)).split(".")[0]})
        return 1
    except AuricleError as error:
        _say(answers, {"error": str(error)})
        return 1
    except Exception as error:  # any library's own: the parent makes a sentence of it
        _say(answers, {"error": f"{type(error).__name__}: {_first_line(error)}"})
        return 1
    return 0


def _serve(contestant: Contestant, name: str, task: Task, answers: TextIO) -> None:
    work = contestant.open(task)
    outcome = _once(work)
    _keep(outcome, output_file(task, name))
    reset_peak()
    versions = {package: metadata.version(package) for module, package in _PACKAGES.items() if module in sys.modules}
    _say(answers, {"ready": name, "versions": versions, "resident": resident_bytes("VmRSS"), **_account(outcome)})
    idle_from = time.process_time()
    for line in sys.stdin:
        if line.strip() == "run":
            idle = time.process_time() - idle_from
            _say(answers, {**_timed(work), "idle_cpu_s": idle})
            idle_from = time.process_time()


def _once(work: Work) -> Outcome:
    if work.before:
        work.before()
    return work.timed()


def _timed(work: Work) -> dict[str, Any]:
    if work.before:
        work.before()
    wall = time.perf_counter()
    cpu = time.process_time()
    outcome = work.timed()
    wall = time.perf_counter() - wall
    cpu = time.process_time() - cpu
    counted = wall if outcome.seconds is None else outcome.seconds
    return {"wall_s": counted, "cpu_s": cpu, "peak": resident_bytes("VmHWM"), **_account(outcome)}


def _account(outcome: Outcome) -> dict[str, Any]:
    """The proof of work: what came out."""
    proof: dict[str, Any] = {"shape": list(outcome.shape), "tokens": list(outcome.tokens), "texts": list(outcome.texts)}
    if outcome.values is not None:
        proof["rms"] = float((outcome.values.astype("float64") ** 2).mean() ** 0.5)
    return proof


def _keep(outcome: Outcome, path: Path) -> None:
    """The output, for the parent to compare with another contestant's."""
    path.unlink(missing_ok=True)
    if outcome.values is not None:
        import numpy as np

        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, outcome.values)


def _own_output() -> TextIO:
    """Standard output for answers only: what C libraries print there goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _say(answers: TextIO, answer: Mapping[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
