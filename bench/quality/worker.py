"""Worker of `auricle-bench quality`: one bundle's answers in a process of their own, whose peak memory is its own.

    python -m auricle.bench.quality.worker JOB RESULT        two JSON files; progress as JSON lines on standard output

The peak is read before anything is compared: what a comparison needs, a user's device does not.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ...models.audio import SAMPLE_RATE
from ...models.dataclass_json import decode, encode
from ...models.errors import AudioError, AuricleError, InputError, RunError
from ...models.prompt import ResolvedPrompt
from ...runtime.engine import Answer, Engine, EngineOptions, load
from ...runtime.llm.options import LlmOptions
from ..datasets import Item, Progress, load_clip
from ..machine.gpu import uses_gpu
from ..machine.timing import resident_bytes
from .divergence import Comparison, compare, keep, keep_vocabulary

KEPT_BYTES = 500_000_000  # of what the reference says; more clips are not compared

_TOLD = "progress: "  # before the worker's own lines; libraries print others


@dataclass(frozen=True)
class Job:
    """What to measure of one bundle."""

    bundle: str
    items: tuple[Item, ...]
    folder: str | None
    """Where the reference keeps what it said; None: nothing is compared."""
    reference: bool
    """This is the reference."""
    seed: int
    """Which clips are compared where all would be too much."""
    kv_type: str = "f16"


@dataclass(frozen=True)
class Reply:
    """The answer to one item."""

    text: str
    seconds: float
    """Of audio."""
    encoders_ms: float
    """Of the first segment."""
    ttft_ms: float
    """The same with the prompt read."""
    decode_ms: float
    total_ms: float
    n_tokens: int
    fault: str | None
    """Why the clip could not be heard: it counts as answered with nothing."""


@dataclass(frozen=True)
class Findings:
    """What the process found out."""

    replies: tuple[Reply, ...]
    peak_bytes: int | None
    """Of resident memory, from the process' start to its last answer."""
    on_gpu: bool
    comparison: Comparison | None


def measure_apart(job: Job, folder: Path, progress: Progress) -> Findings:
    """Do the job in a process of its own; its files lie in `folder`. Raises what it raised, RunError when it died."""
    job_file = folder / "job.json"
    result_file = folder / "result.json"
    log = folder / "log.txt"
    job_file.write_text(json.dumps(encode(job)), encoding="utf-8")
    result_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", __name__, str(job_file), str(result_file)]
    with (
        log.open("wb") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, encoding="utf-8") as process,
    ):
        try:
            for line in process.stdout or ():
                if line.startswith(_TOLD):
                    progress(*json.loads(line.removeprefix(_TOLD)))
        except BaseException:
            process.kill()
            raise
    if not result_file.exists():
        raise RunError(_death(job.bundle, process.returncode, log))
    document = json.loads(result_file.read_text(encoding="utf-8"))
    if "error" in document:
        raise (InputError if document["status"] == 2 else RunError)(document["error"])
    return decode(Findings, document)


def do(job: Job, tell: Progress) -> Findings:
    """The job itself, in this process."""
    with load(job.bundle, EngineOptions(llm=LlmOptions(kv_type=job.kv_type))) as engine:
        _warm_up(engine, job.items)
        answers: list[Answer | AudioError] = []
        replies: list[Reply] = []
        for item in job.items:
            answer, reply = _ask(engine, item)
            answers.append(answer)
            replies.append(reply)
            tell("answers", len(replies), len(job.items))
        peak = resident_bytes()
        if job.folder and job.reference:
            _keep_all(engine, job, answers, tell)
        comparison = _compare(engine, Path(job.folder)) if job.folder else None
    return Findings(tuple(replies), peak, uses_gpu(EngineOptions()), comparison)


def main(job_file: str, result_file: str) -> None:
    """What is raised becomes part of the result."""
    try:
        job = decode(Job, json.loads(Path(job_file).read_text(encoding="utf-8")))
        found = encode(do(job, _tell))
    except AuricleError as error:
        found = {"error": str(error), "status": error.exit_status}
    Path(result_file).write_text(json.dumps(found), encoding="utf-8")


def _tell(stage: str, done: int, total: int) -> None:
    print(_TOLD + json.dumps([stage, done, total]), flush=True)


def _ask(engine: Engine, item: Item) -> tuple[Answer | AudioError, Reply]:
    try:
        waveform = load_clip(item)
        answer = engine.ask(waveform, ResolvedPrompt(item.prompt))
    except AudioError as error:
        return error, Reply("", 0.0, 0.0, 0.0, 0.0, 0.0, 0, f"{item.origin}: {error}")
    timings = [segment.timings for segment in answer.segments]
    return answer, Reply(
        text=" ".join(answer.text.split("\n")),
        seconds=len(waveform) / SAMPLE_RATE,
        encoders_ms=timings[0].encoders_ms,
        ttft_ms=timings[0].ttft_ms,
        decode_ms=sum(each.decode_ms for each in timings),
        total_ms=sum(each.total_ms for each in timings),
        n_tokens=sum(each.n_new_tokens for each in timings),
        fault=None,
    )


def _warm_up(engine: Engine, items: tuple[Item, ...]) -> None:
    """One answer that is not counted: it reads the weights from the disk."""
    for item in items:
        if _ask(engine, item)[1].fault is None:
            return


def _keep_all(engine: Engine, job: Job, answers: list[Answer | AudioError], tell: Progress) -> None:
    """What the reference says of the clips, in an order drawn from the seed, until KEPT_BYTES are full."""
    assert job.folder is not None
    order = random.Random(job.seed).sample(range(len(job.items)), len(job.items))
    keep_vocabulary(engine.llm, Path(job.folder))
    n_bytes = n_kept = 0
    for done, index in enumerate(order, 1):
        answer = answers[index]
        if isinstance(answer, AudioError):
            continue
        segments = (segment for segment in engine.segments(load_clip(job.items[index])) if not segment.silent)
        for segment, final in zip(segments, answer.segments, strict=True):
            path = Path(job.folder) / f"{n_kept}.npz"
            ended = final.finish_reason == "eos"
            n_bytes += keep(engine, segment.waveform, answer.prompt, final.token_ids, ended, path)
            n_kept += 1
        tell("reference", done, len(order))
        if n_bytes >= KEPT_BYTES:
            return


def _compare(engine: Engine, folder: Path) -> Comparison | None:
    paths = sorted(folder.glob("*.npz"), key=lambda path: int(path.stem))
    return compare(engine, paths) if paths else None


def _death(bundle: str, status: int, log: Path) -> str:
    if status == -9:
        return f"measuring {bundle} was killed, as the system does when memory is short: close other programs"
    log_lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    reason = log_lines[-1] if log_lines else "it did not say why"
    return f"measuring {bundle} ended with status {status} ({reason}): try the bundle with auricle verify --run"


if __name__ == "__main__":
    main(*sys.argv[1:])
