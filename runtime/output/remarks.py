"""Remarks: events -> the short texts beside captions (time, cut answers, keywords)."""

from __future__ import annotations

from ..events import (
    AudioDropped,
    Caption,
    DeviceFound,
    DeviceLost,
    DeviceMuted,
    Final,
    KeywordsRead,
    Lagging,
    LiveEvent,
    SessionEnded,
)
from .cues import also_lines, plain

NAMED = 20  # words that are named of a long list
LEAST_S = 0.05  # of what is told in tenths


def was_cut(finish_reason: str) -> bool:
    """Whether an answer would have gone on: not at its own end, nor at a stop sequence."""
    return finish_reason not in ("eos", "stop")


def final_lines(final: Final) -> list[str]:
    """The text, with its time, and the answers to further questions; "..." where the model was stopped."""
    text = plain(final.text) if final.supported else ""
    also = also_lines(final.also)
    if not text:
        return also
    cut = " ..." if was_cut(final.finish_reason) else ""
    return [f"[{clock(final.start_s)}-{clock(final.end_s)}] {text}{cut}", *also]


def keywords_line(event: KeywordsRead) -> str:
    """Which words are used, and which were left out."""
    used = ", ".join(map(plain, event.words)) or "no words"
    if event.problem is not None:
        return f"[{clock(event.start_s)}] {plain(event.problem)}; still listening for {used}"
    named = ", ".join(map(plain, event.left_out[:NAMED])) + (" ..." if len(event.left_out) > NAMED else "")
    n = len(event.left_out)
    more = f"; {n} more were left out, for {len(event.words)} are read: {named}" if n else ""
    return f"[{clock(event.start_s)}] listening for {used}{more}"


def _lost_sound(seconds: float) -> str:
    if not seconds:
        return "some sound was"
    return f"{seconds:.2f} s of sound were" if seconds >= 0.005 else "less than 0.01 s of sound was"


def remark(event: LiveEvent) -> str:
    """A sentence about what is no speech, or text that nobody is taken to have said; empty for the rest."""
    if isinstance(event, Final) and not event.supported:
        return f"[{clock(event.start_s)}-{clock(event.end_s)}] support {event.support or 0:.2f}: withheld"
    if isinstance(event, Final) and event.text and not event.confident:
        return f"[{clock(event.start_s)}-{clock(event.end_s)}] not sure of this ({event.avg_logprob or 0:.2f})"
    if isinstance(event, AudioDropped):
        return f"[{clock(event.start_s)}] {_lost_sound(event.seconds)} lost"
    if isinstance(event, DeviceLost):
        return f"[{clock(event.start_s)}] {plain(event.name)} is gone; it is waited for"
    if isinstance(event, DeviceFound):
        lost = f", {event.seconds_lost:.1f} s were lost" if event.seconds_lost >= LEAST_S else ""
        return f"[{clock(event.start_s)}] {plain(event.name)} is back{lost}"
    if isinstance(event, DeviceMuted):
        muted = f"{plain(event.name)} has given nothing but zeros for {event.seconds:.0f} s"
        return f"[{clock(event.start_s)}] {muted}: unmute it, or allow access in the system's settings"
    if isinstance(event, KeywordsRead):
        return keywords_line(event)
    if isinstance(event, Lagging):
        return (
            f"[{clock(event.heard_s)}] this machine is slower than the hop: updates come every {event.every_s:.1f} s; "
            "--context short, --settle or a longer --hop-ms help"
        )
    if isinstance(event, SessionEnded):
        ahead = f"; {event.speculated_s:.1f} s of work in pauses, {event.wasted_s:.1f} s of it in vain"
        return (
            f"{event.captured_s:.1f} s of sound: {event.decoded_s:.1f} s heard, {event.skipped_s:.1f} s silent, "
            f"{event.dropped_s:.1f} s lost{ahead if event.speculated_s >= LEAST_S else ''}"
        )
    return ""


def update_line(caption: Caption, before: Caption | None) -> str:
    """How long an update took, how much audio lay between it and the last one, and the ratio of the two."""
    since = before.end_s if before is not None and before.start_s == caption.start_s else caption.start_s
    every_s = max(caption.end_s - since, 1e-3)
    latency_ms = caption.work.latency_ms
    return f"update {latency_ms:.0f} ms every {every_s:.1f} s, {latency_ms / 1e3 / every_s:.2f} x real time"


def clock(seconds: float) -> str:
    """Minutes, seconds and tenths: 1:02.5."""
    minutes, tenths = divmod(round(seconds * 10), 600)
    return f"{minutes}:{tenths / 10:04.1f}"
