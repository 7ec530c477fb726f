"""The grammars of one opened model: rules in, the grammar that reads them out, parsed once."""

from __future__ import annotations

from ..llama import Model
from .gbnf import Grammar

MAX_GRAMMARS = 64  # that are kept; the first to come is the first to go


class Grammars:
    """Each in a sequence of its own, for answers side by side are not equally far. Close it before the model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._kept: dict[tuple[str, int], Grammar] = {}

    def get(self, gbnf: str, sequence: int = 0) -> Grammar:
        """As far as its answer has come. Raises InputError for rules that are none."""
        if (gbnf, sequence) not in self._kept:
            rules = Grammar(self._model, gbnf)
            if len(self._kept) >= MAX_GRAMMARS:
                self._kept.pop(next(iter(self._kept))).close()
            self._kept[gbnf, sequence] = rules
        return self._kept[gbnf, sequence]

    def close(self) -> None:
        """Free all of them. Closing twice is fine."""
        for grammar in self._kept.values():
            grammar.close()
        self._kept.clear()
