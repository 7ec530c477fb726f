"""Latency of live text: what was shown and when, what was spoken and when -> delays, and words taken back.

Two clocks: `wall_s`, seconds since the first sample was spoken, and `heard_s`, the audio that an update had heard; the
second knows nothing of computation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...models.errors import InputError
from ...runtime.events import Caption
from ..word_errors import WordErrors, matches, normalized, total, word_errors

SAID_S = 0.2
"""A word that ended so long before an update's end can be in its caption."""


@dataclass(frozen=True)
class Moment:
    """When something was shown."""

    heard_s: float
    wall_s: float


@dataclass(frozen=True)
class SpokenWord:
    """A word of the reference and where it ends in the audio."""

    end_s: float
    word: str


@dataclass(frozen=True)
class ShownWord:
    """A word of the final text, and since when it had stood in its place."""

    word: str
    unstable: Moment
    stable: Moment
    """Of text that no longer changes; with the final text at the latest."""


@dataclass(frozen=True)
class ShownSegment:
    """What a viewer saw of one segment."""

    start_s: float
    end_s: float
    words: tuple[ShownWord, ...]
    n_erased: int
    """Words shown that the next text did not have in their place, summed over all updates."""


@dataclass
class Screen:
    """The text of the segment that is being spoken, as it changes."""

    words: list[str] = field(default_factory=list[str])
    since: list[Moment] = field(default_factory=list[Moment])
    stable: list[str] = field(default_factory=list[str])
    stable_since: list[Moment] = field(default_factory=list[Moment])
    n_erased: int = 0

    def show(self, stable: Sequence[str], unstable: Sequence[str], now: Moment) -> None:
        """The next text; a word that stood in the same place before has been there since then."""
        words = [*stable, *unstable]
        self.n_erased += erased(self.words, words)
        kept = [at < len(self.words) and self.words[at] == word for at, word in enumerate(words)]
        self.since = [self.since[at] if same else now for at, same in enumerate(kept)]
        self.stable_since += [now] * (len(stable) - len(self.stable))
        self.words, self.stable = words, list(stable)

    def finish(self, start_s: float, end_s: float, words: Sequence[str], now: Moment) -> ShownSegment:
        """The final text: all of it is stable now."""
        before, stable_since = self.stable, self.stable_since
        self.show([], words, now)
        shown = tuple(
            ShownWord(word, self.since[at], stable_since[at] if before[at : at + 1] == [word] else now)
            for at, word in enumerate(words)
        )
        return ShownSegment(start_s, end_s, shown, self.n_erased)


def erased(before: Sequence[str], after: Sequence[str]) -> int:
    """Words to delete from the end of one text before the next can be made by appending (Arivazhagan et al., 2020)."""
    return len(before) - next((at for at, word in enumerate(before) if after[at : at + 1] != [word]), len(before))


def normalized_erasure(segments: Sequence[ShownSegment]) -> float:
    """Words taken back per word of the final texts; 0: nothing ever flickered."""
    return sum(segment.n_erased for segment in segments) / max(1, sum(len(segment.words) for segment in segments))


def laal(delays: Sequence[float], source: float, n_reference: int) -> float:
    """Length-adaptive average lagging of one segment, as SimulEval defines it (Papi et al., 2022), in delays' unit.

    delays: of each word of the hypothesis, since the segment began; source: how long the segment is. Compares with
    somebody who writes at an even pace from the first moment to the segment's end; words behind the first that came
    after that end do not count.
    """
    if delays[0] > source:
        return delays[0]
    pace = source / max(len(delays), n_reference)
    counted = next((n for n, delay in enumerate(delays, 1) if delay >= source), len(delays))
    return sum(delay - n * pace for n, delay in enumerate(delays[:counted])) / counted


def matched(spoken: Sequence[SpokenWord], shown: Sequence[ShownWord]) -> list[tuple[SpokenWord, ShownWord]]:
    """The words that were spoken and heard alike, punctuation and case apart."""
    by_speech = [(key, each) for each in spoken if (key := "".join(normalized(each.word)))]
    by_caption = [(key, each) for each in shown if (key := "".join(normalized(each.word)))]
    pairs = matches([key for key, _ in by_speech], [key for key, _ in by_caption])
    return [(by_speech[at][1], by_caption[to][1]) for at, to in pairs]


def read_words(path: Path, seconds: float) -> list[SpokenWord]:
    """`end_s <TAB> word` a line, in the order they are spoken, in a recording of so many seconds. Raises InputError."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give lines of a time, a tab and a word") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text at byte {error.start}: save it as UTF-8") from None
    words: list[SpokenWord] = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not (number == 1 and line.lower().startswith("end")):
            words.append(_word(f"{path}:{number}", line, words[-1].end_s if words else 0.0, seconds))
    if not words:
        raise InputError(f"{path} holds no words: give lines of the time a word ends, a tab and the word")
    return words


def _word(where: str, line: str, earliest: float, latest: float) -> SpokenWord:
    cells = [cell.strip() for cell in line.split("\t")]
    if len(cells) != 2 or len(cells[1].split()) != 1:
        raise InputError(f"{where} is {line.strip()!r}: write the second a word ends at, a tab and that one word")
    try:
        end_s = float(cells[0])
    except ValueError:
        end_s = math.nan
    if not earliest <= end_s <= latest:
        raise InputError(
            f"{where} ends at {cells[0]!r}, but words end one after another between {earliest:g} s and the end of the"
            f" recording at {latest:.2f} s: mend the time"
        )
    return SpokenWord(end_s, cells[1])


def caption_errors(captions: Sequence[Caption], spoken: Sequence[SpokenWord]) -> WordErrors:
    """Of all captions, stable and unstable text, against the words of their segment that had ended SAID_S before."""
    found: list[WordErrors] = []
    for caption in captions:
        said = [each.word for each in spoken if caption.start_s < each.end_s <= caption.end_s - SAID_S]
        found.append(word_errors(" ".join(said), f"{caption.stable} {caption.unstable}"))
    return total(found)
