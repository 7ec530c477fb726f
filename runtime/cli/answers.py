"""Answers on the command line: answer events -> text or JSON on standard output."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ...models.dataclass_json import encode
from ...models.errors import AuricleError
from ..engine import Answer
from ..events import AnswerEvent, Final, FinishReason, Piece, SegmentStarted
from ..llm.stopping import REMEDIES
from ..output.remarks import clock
from ..output.terminal import waiting
from .options import with_keywords


@dataclass
class Collected:
    """What was said about a clip until its end, or until something stopped it."""

    finals: list[Final] = field(default_factory=list[Final])
    started: SegmentStarted | None = None
    """The segment that was not finished."""
    words: str = ""
    """What was said about it."""
    stopped: AuricleError | KeyboardInterrupt | None = None

    def rows(self) -> list[tuple[float, float, str, FinishReason]]:
        """Start, end and text of each segment, the unfinished one last, and why its answer ended."""
        rows: list[tuple[float, float, str, FinishReason]] = [
            (final.start_s, final.end_s, final.text, final.finish_reason) for final in self.finals
        ]
        unfinished = self.started
        if unfinished is None:
            return rows
        return [*rows, (unfinished.start_s, unfinished.end_s, self.words.strip(), "end")]


def collect(events: Iterable[AnswerEvent], show: Callable[[AnswerEvent], None]) -> Collected:
    """Shows each event. What was said is kept, whatever ends it."""
    said = Collected()
    try:
        for event in events:
            if isinstance(event, SegmentStarted):
                said.started = event
                said.words = ""
            elif isinstance(event, Piece):
                said.words += event.text
            else:
                said.finals.append(event)
                said.started = None
            show(event)
    except (AuricleError, KeyboardInterrupt) as stopped:
        said.stopped = stopped
    return said


def print_text(events: Iterable[AnswerEvent]) -> Collected:
    """Text as it comes; of a clip in several segments each has a line with its time."""
    span = ""
    spinner = waiting("listening")

    def show(event: AnswerEvent) -> None:
        nonlocal span
        if isinstance(event, SegmentStarted):
            span = "" if event.alone else f"[{clock(event.start_s)}-{clock(event.end_s)}] "
            spinner.start()
            return
        spinner.stop()
        print(span, end=event.text if isinstance(event, Piece) else "\n", flush=True)
        span = ""

    spinner.start()
    try:
        said = collect(events, show)
    finally:
        spinner.stop()
    if said.started is not None and said.words:
        print(flush=True)
    return said


def print_json(events: Iterable[AnswerEvent], prompt: str, keywords: Sequence[str]) -> Collected:
    """One object, `complete` when nothing stopped it; a clip of which nothing can be heard has none."""
    said = collect(events, lambda _: None)
    text = "\n".join(text for _, _, text, _ in said.rows() if text)
    if text or not isinstance(said.stopped, AuricleError):
        answer = with_keywords(encode(Answer(text, prompt, tuple(said.finals))), keywords)
        print(json.dumps(answer | {"complete": said.stopped is None}, ensure_ascii=False))
    return said


def name_what_was_cut(final: Final, arguments: Namespace) -> bool:
    """On standard error, where an answer's time was over or its JSON is not whole; whether it is not.

    The text itself looks like any other.
    """
    half = arguments.json_schema is not None and final.finish_reason in REMEDIES
    if half or final.finish_reason == "time":
        span = f"{clock(final.start_s)}-{clock(final.end_s)}"
        n = len(final.token_ids)
        tokens = "1 token" if n == 1 else f"{n} tokens"
        what = f"the JSON is not complete after {tokens}" if half else f"cut after {tokens}, when its time was over"
        print(f"auricle: [{span}] {what}: {REMEDIES[final.finish_reason]}", file=sys.stderr)
    return half


def timing_line(final: Final) -> str:
    t = final.timings
    stages = ", ".join(f"{name} {ms:.0f}" for name, ms in t.stages.items())
    return (
        f"[{final.start_s:.1f}-{final.end_s:.1f} s] encoders {t.encoders_ms:.0f} ms ({stages}), "
        f"prefill {t.prefill_ms:.0f} ms, {t.n_new_tokens} tokens {t.decode_ms:.0f} ms; "
        f"first token after {t.ttft_ms:.0f} ms, all {t.total_ms:.0f} ms"
    )
