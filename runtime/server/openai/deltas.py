"""Deltas: pieces of one answer or several -> what follows the text that was sent, the answers stripped and joined."""

from __future__ import annotations


class Deltas:
    """What is sent only grows: space is held back until it is known whether text follows it."""

    def __init__(self, between: str = " ") -> None:
        self._between = between
        self._held = ""
        """Space that belongs to the text only if more follows."""
        self._begun = False
        """There is text of this segment."""

    def add(self, piece: str) -> str:
        """What can be sent now."""
        text = piece if self._begun else piece.lstrip()
        shown = text.rstrip()
        if not shown:
            self._held += text if self._begun else ""
            return ""
        delta = self._held + shown
        self._held = text[len(shown) :]
        self._begun = True
        return delta

    def end_segment(self) -> None:
        """Another answer follows."""
        if self._begun:
            self._held = self._between
        self._begun = False
