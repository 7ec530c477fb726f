"""Local agreement: the hypotheses of successive updates -> stable text, and the interim rest that may still change."""

from __future__ import annotations

from ..events import Word


class Agreement:
    """Words of one segment. What the last `n` hypotheses begin with alike is stable, and stays."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._last: list[list[str]] = []
        self._since: list[float] = []
        self.stable: list[str] = []

    def push(self, text: str, heard_s: float) -> None:
        """A new hypothesis, made of the audio up to heard_s."""
        words = text.split()
        self._date(words, heard_s)
        self._last = [*self._last, words][-self._n :]
        if len(self._last) == self._n:
            agreed = _common_start(self._last)
            if agreed[: len(self.stable)] == self.stable:
                self.stable = agreed

    def caption(self) -> tuple[str, str]:
        """(stable, unstable) text: the newest hypothesis, its beginning replaced by what is stable."""
        newest = self._last[-1] if self._last else []
        return " ".join(self.stable), " ".join(newest[len(self.stable) :])

    def words(self, end_s: float) -> tuple[Word, ...]:
        """The newest hypothesis' words, each with the audio received when it first stood in its place.

        end_s: of the segment; an update may have taken in more of the pause behind it.
        """
        newest = self._last[-1] if self._last else []
        return tuple(Word(word, min(at, end_s)) for word, at in zip(newest, self._since, strict=True))

    def n_revised(self) -> int:
        """How many words of the stable text the newest hypothesis does not have in their place."""
        newest = self._last[-1] if self._last else []
        return sum(newest[at : at + 1] != [word] for at, word in enumerate(self.stable))

    def _date(self, words: list[str], heard_s: float) -> None:
        before = self._last[-1] if self._last else []
        same = [at < len(before) and word == before[at] for at, word in enumerate(words)]
        self._since = [self._since[at] if kept else heard_s for at, kept in enumerate(same)]


def _common_start(hypotheses: list[list[str]]) -> list[str]:
    common: list[str] = []
    for words in zip(*hypotheses, strict=False):
        if len(set(words)) > 1:
            break
        common.append(words[0])
    return common
