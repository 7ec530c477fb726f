"""Subtitle cues of words whose times are known: words -> cues that are shown while their words are said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..events import TimedWord
from .cues import LONGEST_MS, MAX_LINES, SHORTEST_MS, Cue, plain, wrap

PAUSE_MS = 1000  # silence between two words that ends a cue


@dataclass(frozen=True)
class _Shown:
    """A word as a cue shows it."""

    text: str
    is_spaced: bool
    """A blank stands before it: not so between the words of Chinese, Japanese or Thai."""
    start_ms: int
    end_ms: int


def timed_cues(words: Sequence[TimedWord], text: str) -> list[Cue]:
    """Each begins with its first word and ends with its last; it may stay for a second, until the next begins.

    text: what the words are of, in order.
    """
    groups: list[list[_Shown]] = []
    for word in _shown(words, text):
        if groups and _fits([*groups[-1], word]):
            groups[-1].append(word)
        else:
            groups.append([word])
    return _cues(groups)


def single_cues(words: Sequence[TimedWord]) -> list[Cue]:
    """One for each word, exactly as long as it was said."""
    return [Cue(_ms(word.start_s), _ms(word.end_s), tuple(wrap(text))) for word in words if (text := plain(word.text))]


def _shown(words: Sequence[TimedWord], text: str) -> list[_Shown]:
    found: list[_Shown] = []
    at = 0
    for word in words:
        begin = text.find(word.text, at)
        is_spaced = begin < 0 or text[begin - 1 : begin].isspace()
        at = max(at, begin + len(word.text))
        if shown := plain(word.text):
            found.append(_Shown(shown, is_spaced, _ms(word.start_s), _ms(word.end_s)))
    return found


def _fits(group: list[_Shown]) -> bool:
    before, last = group[-2:]
    if last.start_ms - before.end_ms >= PAUSE_MS or last.end_ms - group[0].start_ms > LONGEST_MS:
        return False
    return len(wrap(_text(group))) <= MAX_LINES


def _cues(groups: list[list[_Shown]]) -> list[Cue]:
    starts = [group[0].start_ms for group in groups]
    found: list[Cue] = []
    for group, start, following in zip(groups, starts, [*starts[1:], None], strict=True):
        end = group[-1].end_ms
        longer = max(end, start + SHORTEST_MS)
        lines = wrap(_text(group))
        end = longer if following is None else max(end, min(longer, following))
        found.append(Cue(start, end, tuple(lines), _marks(group, lines)))
    return found


def _marks(group: list[_Shown], lines: Sequence[str]) -> tuple[tuple[tuple[int, int], ...], ...]:
    """(column, ms) of the words that begin in each line; none where a word was broken over two."""
    left = iter(group)
    found: list[tuple[tuple[int, int], ...]] = []
    for line in lines:
        marks: list[tuple[int, int]] = []
        at = 0
        while at < len(line):
            if line[at] == " ":
                at += 1
                continue
            word = next(left)
            if not line.startswith(word.text, at):
                return ()
            marks.append((at, word.start_ms))
            at += len(word.text)
        found.append(tuple(marks))
    return tuple(found)


def _text(group: list[_Shown]) -> str:
    return "".join(f" {word.text}" if word.is_spaced else word.text for word in group).strip()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
