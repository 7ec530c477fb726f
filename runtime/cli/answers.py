"""Answers on the command line: answer events -> text as it is decoded, or one JSON object, on standard output."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ...models.dataclass_json import encode
from ...models.errors import AuricleError
from ...models.interruption import interruptible
from ...models.program import tell
from ..engine import Answer
from ..events import AnswerEvent, Final, FinishReason, Piece, SegmentStarted, TimedWord
from ..llm.grammar.json_schema import JsonSchema
from ..llm.stopping import REMEDIES
from ..output.cues import plain
from ..output.remarks import clock, remark
from ..output.terminal import waiting
from .options import with_keywords

Row = tuple[float, float, str, FinishReason, float | None, float | None, tuple[TimedWord, ...]]
"""Start, end and text of a segment; why its answer ended, how sure it was, its support, when its words were said."""


@dataclass
class Collected:
    """A clip's answers until its end, or until something interrupted it."""

    finals: list[Final] = field(default_factory=list[Final])
    started: SegmentStarted | None = None
    """The segment that was not finished."""
    text: str = ""
    """Its answer so far."""
    interruption: Exception | KeyboardInterrupt | None = None
    """What ended it before its end."""

    def rows(self) -> list[Row]:
        """Each segment, the unfinished one last."""
        rows: list[Row] = [
            (f.start_s, f.end_s, f.text, f.finish_reason, f.avg_logprob, f.support, _timed(f)) for f in self.finals
        ]
        unfinished = self.started
        if unfinished is None:
            return rows
        return [*rows, (unfinished.start_s, unfinished.end_s, self.text.strip(), "end", None, None, ())]


def _timed(final: Final) -> tuple[TimedWord, ...]:
    return tuple(word for word in final.words if isinstance(word, TimedWord))


def collect(events: Iterable[AnswerEvent], show: Callable[[AnswerEvent], None]) -> Collected:
    """Shows each event. What was decoded is kept, whatever ends it."""
    collected = Collected()
    try:
        for event in interruptible(events):
            if isinstance(event, SegmentStarted):
                collected.started = event
                collected.text = ""
            elif isinstance(event, Piece):
                collected.text += event.text
            else:
                collected.finals.append(event)
                collected.started = None
            show(event)
    except (Exception, KeyboardInterrupt) as interruption:
        collected.interruption = interruption
    return collected


def print_text(events: Iterable[AnswerEvent], held: bool = False) -> Collected:
    """Text as it comes; of a clip in several segments each has a line with its time.

    held: a segment's text when it is known to be supported, and no sooner.
    """
    span = ""
    spinner = waiting("listening")

    def show(event: AnswerEvent) -> None:
        nonlocal span
        if isinstance(event, SegmentStarted):
            span = "" if event.alone else f"[{clock(event.start_s)}-{clock(event.end_s)}] "
            spinner.start()
            return
        if held and (isinstance(event, Piece) or not event.supported):
            return
        spinner.stop()
        ending = f"{event.text}\n" if held else "\n"
        print(span, end=event.text if isinstance(event, Piece) else ending, flush=True)
        span = ""
        for word in event.words if isinstance(event, Final) else ():
            if isinstance(word, TimedWord):
                print(f"  {word.start_s:8.2f} {word.end_s:8.2f}  {plain(word.text)}", flush=True)

    spinner.start()
    try:
        collected = collect(events, show)
    finally:
        spinner.stop()
    if collected.started is not None and collected.text and not held:
        print(flush=True)
    return collected


def print_json(events: Iterable[AnswerEvent], prompt: str, keywords: Sequence[str]) -> Collected:
    """One object, `complete` when nothing interrupted it; a clip that cannot be read at all has none."""
    collected = collect(events, lambda _: None)
    text = "\n".join(text for _, _, text, reason, *_ in collected.rows() if text and reason != "unsupported")
    if text or not isinstance(collected.interruption, AuricleError):
        answer = with_keywords(encode(Answer(text, prompt, tuple(collected.finals))), keywords)
        print(json.dumps(answer | {"complete": collected.interruption is None}, ensure_ascii=False))
    return collected


def report_cut(final: Final, schema: JsonSchema | None) -> bool:
    """`cut_remark`'s line on standard error, if there is one; whether the answer's JSON is not whole."""
    line, half = cut_remark(final, schema)
    if line:
        tell(f"auricle: {line}")
    return half


def cut_remark(final: Final, schema: JsonSchema | None) -> tuple[str, bool]:
    """A line where an answer is withheld, its time was over or its JSON is not whole; whether it is not whole.

    The text itself looks like any other.
    """
    half = schema is not None and not schema.is_held(final.text, final.finish_reason)
    if not half and final.finish_reason != "time":
        return remark(final), False
    n = len(final.token_ids)
    over = f"cut after {_tokens(n)}, when its time was over: {REMEDIES['time']}"
    what = half_json(final.finish_reason, n) if half else over
    return f"[{clock(final.start_s)}-{clock(final.end_s)}] {what}", half


def half_json(finish_reason: FinishReason, n_tokens: int) -> str:
    """Why an answer of so many tokens is not the JSON that its schema asks for, and what to do."""
    if finish_reason in REMEDIES:
        return f"the JSON is not complete after {_tokens(n_tokens)}: {REMEDIES[finish_reason]}"
    return f"the answer, {_tokens(n_tokens)}, is no JSON that holds the schema: ask again, or simplify the schema"


def _tokens(n: int) -> str:
    return "1 token" if n == 1 else f"{n} tokens"


def timing_line(final: Final) -> str:
    """What each stage of one segment took, in milliseconds."""
    t = final.timings
    stages = ", ".join(f"{name} {ms:.0f}" for name, ms in t.stages.items())
    return (
        f"[{final.start_s:.1f}-{final.end_s:.1f} s] encoders {t.encoders_ms:.0f} ms ({stages}), "
        f"prefill {t.prefill_ms:.0f} ms, {t.n_new_tokens} tokens {t.decode_ms:.0f} ms; "
        f"first token after {t.ttft_ms:.0f} ms, all {t.total_ms:.0f} ms"
    )
