"""Subtitle cues: text and its times -> what a screen shows at once, two lines of 42 columns, as SubRip or WebVTT.

A model's text is not trusted: nothing in it ends a cue or begins one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from wcwidth import iter_graphemes, wcswidth

from ..events import Word

MAX_COLUMNS = 42  # a line of subtitles; an East Asian character takes two
MAX_LINES = 2
SHORTEST_MS, LONGEST_MS = 1000, 7000  # a cue whose words have times
VTT_HEAD = "WEBVTT\n"
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # categories that are not shown, but change what is, or the terminal
_JOINERS = "\u200c\u200d"  # of category Cf; Persian, Hindi and emojis are spelt with them
_FLAG = re.compile("(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f)")  # Cf too: Wales'


@dataclass(frozen=True)
class Cue:
    """What a screen shows at once."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]
    marks: tuple[tuple[tuple[int, int], ...], ...] = ()
    """Of each line (index, ms): where a word begins in it and when, in order; () where that is not known."""


def cues(start_s: float, end_s: float, text: str) -> list[Cue]:
    """Cues that share the time by their length, without a gap between them, each at least 1 ms long."""
    lines = wrap(plain(text))
    blocks = [tuple(lines[i : i + MAX_LINES]) for i in range(0, len(lines), MAX_LINES)]
    weights = [max(1, sum(map(columns, block))) for block in blocks]  # joiners alone have no width
    start_ms = round(start_s * 1000)
    end_ms = round(end_s * 1000)
    found: list[Cue] = []
    done, at = 0, start_ms
    for block, weight in zip(blocks, weights, strict=True):
        done += weight
        until = max(at + 1, start_ms + round((end_ms - start_ms) * done / sum(weights)))
        found.append(Cue(at, until, block))
        at = until
    return found


def word_cues(start_s: float, end_s: float, words: Sequence[Word]) -> list[Cue]:
    """As few cues as hold the words, each 1 to 7 s long and shown about when its words were spoken.

    A segment shorter than 1 s has one shorter cue; where there is more text than time, `cues` shares it out.
    """
    pieces = _pieces(words)
    if not pieces:
        return []
    start_ms = round(start_s * 1000)
    end_ms = round(end_s * 1000)
    times = _times(pieces, start_ms, end_ms)
    ends = _ends([word.text for word in pieces], times)
    if end_ms - start_ms < SHORTEST_MS * len(ends):
        return cues(start_s, end_s, " ".join(word.text for word in pieces))
    bounds = _lengthened([start_ms, *(times[end] for end in ends)], end_ms)
    found: list[Cue] = []
    for (first, last), (begin, until) in zip(pairwise([0, *ends]), pairwise(bounds), strict=True):
        lines = wrap(" ".join(word.text for word in pieces[first:last]))
        found.append(Cue(max(begin, until - LONGEST_MS), until, tuple(lines)))
    return found


def srt_block(number: int, cue: Cue) -> str:
    """One numbered cue. SubRip has no escapes: an arrow keeps one dash."""
    text = "\n".join(re.sub("-{2,}>", "->", line) for line in cue.lines)
    return f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{text}\n"


def vtt_block(cue: Cue, by_word: bool = False) -> str:
    """One cue, escaped. by_word: before each of its words, where they have times, that time."""
    marks = cue.marks if by_word and cue.marks else ((),) * len(cue.lines)
    text = "\n".join(_marked(line, own) for line, own in zip(cue.lines, marks, strict=True))
    return f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{text}\n"


def _marked(line: str, marks: Sequence[tuple[int, int]]) -> str:
    """As WebVTT spells it, a time before each word that has one."""
    parts: list[str] = []
    for (at, ms), end in zip([(0, None), *marks], [*(at for at, _ in marks), len(line)], strict=True):
        mark = "" if ms is None else f"<{_clock(ms, '.')}>"
        parts.append(mark + line[at:end].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
    return "".join(parts)


def plain(text: str) -> str:
    """One line of what is harmless: every run of white space is one blank."""
    return " ".join(harmless(" ".join(text.split())).split())


def also_lines(also: tuple[tuple[str, str], ...]) -> list[str]:
    """Answers to further questions, one line each, indented."""
    return [f"    {plain(prompt)} {plain(answer)}" for prompt, answer in also if plain(answer)]


def harmless(text: str) -> str:
    """Without what controls a terminal or the order of characters, and lone surrogates; line feeds stay."""
    parts = _FLAG.split(text)
    parts[::2] = ["".join(filter(_shown, part)) for part in parts[::2]]
    return "".join(parts)


def _shown(character: str) -> bool:
    return character in "\n" + _JOINERS or unicodedata.category(character) not in _UNSEEN


def columns(text: str) -> int:
    """Width on a screen by grapheme clusters, what a reader calls characters: wide ones count two, lone marks none."""
    if text.isascii():
        return len(text)
    return text.count(" ") + sum(map(_word_columns, text.split(" ")))


@lru_cache(maxsize=4096)
def _word_columns(word: str) -> int:
    return sum(min(max(0, wcswidth(cluster)), 2) for cluster in iter_graphemes(word))


def wrap(text: str) -> list[str]:
    """Lines of at most MAX_COLUMNS, broken at blanks; a word that is longer, or Chinese or Thai, is broken inside."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        joined = f"{line} {word}" if line else word
        if columns(joined) <= MAX_COLUMNS:
            line = joined
            continue
        if line and columns(word) <= MAX_COLUMNS:
            lines.append(line)
            line = word
            continue
        *full, line = _break(joined)
        lines += full
    return [*lines, line] if line else lines


def _break(text: str) -> list[str]:
    """Hard breaks, never inside a grapheme cluster."""
    lines = [""]
    width = 0
    for cluster in iter_graphemes(text):
        step = columns(cluster)
        if width + step > MAX_COLUMNS:
            lines.append("")
            width = 0
        lines[-1] += cluster
        width += step
    return [line.strip() for line in lines if line.strip()]


def _pieces(words: Sequence[Word]) -> list[Word]:
    """Words as they are shown, none wider than a line."""
    return [Word(piece, word.heard_s) for word in words if (text := plain(word.text)) for piece in _break(text)]


def _times(words: list[Word], start_ms: int, end_ms: int) -> list[int]:
    """times[i]: when word i begins, by what is known; times[-1]: when the last one ends.

    A word was spoken before it was heard, and before every later word was; words with the same bound share the time
    since the one before by their width.
    """
    bounds: list[int] = []
    for word in reversed(words):
        heard_ms = min(max(round(word.heard_s * 1000), start_ms), end_ms)
        bounds.append(min(heard_ms, bounds[-1]) if bounds else heard_ms)
    bounds.reverse()
    times = [start_ms]
    at = start_ms
    for bound in sorted(set(bounds)):
        widths = [max(1, columns(word.text)) for word, own in zip(words, bounds, strict=True) if own == bound]
        times += [at + round((bound - at) * sum(widths[: i + 1]) / sum(widths)) for i in range(len(widths))]
        at = bound
    return times


def _ends(texts: list[str], times: list[int]) -> list[int]:
    """Where each cue ends, as a number of words: the fewest cues, and of those the ones most alike in length."""
    best: list[tuple[int, float, int]] = [(0, 0.0, 0)]  # cues, unevenness and where the last one starts, by words
    for end in range(1, len(texts) + 1):
        choices: list[tuple[int, float, int]] = []
        for first in range(end - 1, -1, -1):
            fits = len(wrap(" ".join(texts[first:end]))) <= MAX_LINES and times[end] - times[first] <= LONGEST_MS
            if not fits and first < end - 1:
                break
            n, uneven, _ = best[first]
            choices.append((n + 1, uneven + (times[end] - times[first]) ** 2, first))
        best.append(min(choices))
    ends = [len(texts)]
    while first := best[ends[0]][2]:
        ends.insert(0, first)
    return ends


def _lengthened(bounds: list[int], end_ms: int) -> list[int]:
    """The last cue stays for as long as it may; a cue that is too short takes time from its neighbours."""
    *_, last, end = bounds
    bounds = [*bounds[:-1], max(end, min(end_ms, last + LONGEST_MS))]
    for i in range(1, len(bounds)):
        bounds[i] = min(max(bounds[i], bounds[i - 1] + SHORTEST_MS), end_ms)
    for i in range(len(bounds) - 1, 1, -1):
        bounds[i - 1] = min(bounds[i - 1], bounds[i] - SHORTEST_MS)
    return bounds


def _clock(ms: int, point: str) -> str:
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{ms:03}"
