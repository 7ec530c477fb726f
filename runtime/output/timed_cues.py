"""Subtitle cues of words whose times are known: words -> cues that are shown while their words are said."""

from __future__ import annotations

from collections.abc import Sequence

from ..events import TimedWord
from .cues import LONGEST_MS, MAX_LINES, SHORTEST_MS, Cue, plain, wrap

PAUSE_MS = 1000  # silence between two words that ends a cue


def timed_cues(words: Sequence[TimedWord]) -> list[Cue]:
    """Each begins with its first word and ends with its last; it may stay for a second, until the next begins."""
    groups: list[list[TimedWord]] = []
    for word in words:
        if not plain(word.text):
            continue
        if groups and _fits([*groups[-1], word]):
            groups[-1].append(word)
        else:
            groups.append([word])
    return _cues(groups)


def single_cues(words: Sequence[TimedWord]) -> list[Cue]:
    """One for each word, exactly as long as it was said."""
    return [Cue(_ms(word.start_s), _ms(word.end_s), tuple(wrap(text))) for word in words if (text := plain(word.text))]


def _fits(group: list[TimedWord]) -> bool:
    before, last = group[-2:]
    if _ms(last.start_s) - _ms(before.end_s) >= PAUSE_MS or _ms(last.end_s) - _ms(group[0].start_s) > LONGEST_MS:
        return False
    return len(wrap(_text(group))) <= MAX_LINES


def _cues(groups: list[list[TimedWord]]) -> list[Cue]:
    starts = [_ms(group[0].start_s) for group in groups]
    found: list[Cue] = []
    for group, start, following in zip(groups, starts, [*starts[1:], None], strict=True):
        end = _ms(group[-1].end_s)
        longer = max(end, start + SHORTEST_MS)
        lines = wrap(_text(group))
        n_shown = sum(len(line.split(" ")) for line in lines)
        times = tuple(_ms(word.start_s) for word in group) if n_shown == len(group) else ()  # none was broken
        found.append(Cue(start, longer if following is None else max(end, min(longer, following)), tuple(lines), times))
    return found


def _text(group: list[TimedWord]) -> str:
    return " ".join(plain(word.text) for word in group)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
