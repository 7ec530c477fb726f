"""Prompt tokenization: a question and keywords in, the ids around its audio out, by a bundle's templates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn
from unicodedata import normalize

from ...models.bundle import Manifest
from ...models.errors import BundleError, InputError
from ...models.prompt import PROMPT, SYSTEM, require_keywords
from .boosting import Boost, KeywordBoost, unboosted
from .llama import Model

Turn = tuple[tuple[int, ...], ...]
"""Ids around the audios of one question: one text more than audios."""


class Prompts:
    """How one opened model is asked. Raises BundleError when the model does not speak as the manifest says."""

    def __init__(self, model: Model, manifest: Manifest, keyword_boost: float | None = None) -> None:
        """keyword_boost: nats that tokens of listed words gain; 0 lists them in the prompt alone; None: as fits."""
        spec = manifest.spec
        self.info = info = manifest.prompt
        self._model = model
        self._keywords: tuple[str, ...] = ()
        self._boost_nats = spec.keyword_boost if keyword_boost is None else keyword_boost
        self._lists = spec.lists_keywords or not self._boost_nats
        self.boost: Boost = unboosted
        if info.eos_id not in model.eos:
            raise BundleError(
                f"{model.path} does not stop at token {info.eos_id}, as the manifest says: export the bundle again"
            )
        ids = self.turn(next(iter(info.tasks.values())))[0]
        if ids != info.prefix_ids:
            raise BundleError(
                f"{model.path} tokenizes the prompt's start as {list(ids)}, but the manifest says"
                f" {list(info.prefix_ids)}: the tokenizer is another one, export the bundle again"
            )

    @property
    def keywords(self) -> tuple[str, ...]:
        """Words that may occur in the audio: from here on they are listed or boosted. At most info.max_keywords."""
        return self._keywords

    @keywords.setter
    def keywords(self, words: Sequence[str]) -> None:
        listed = require_keywords(words)
        most = self.info.max_keywords
        if len(listed) > most:
            raise InputError(f"{len(listed)} keywords were given, at most {most} are read: leave some out")
        self._spells_no_special(" ".join(listed))
        self._keywords = listed
        if listed and self._boost_nats:
            self.boost = KeywordBoost(listed, self._boost_nats, self.tokenize, self._model.piece)
        else:
            self.boost = unboosted

    def turn(self, prompt: str, keywords: Sequence[str] | None = None) -> Turn:
        """A question about audio, as the first of a conversation; keywords: others than ours. Raises InputError."""
        tag = self.info.audio_tag
        self._spells_no_special(prompt.replace(tag, " ") if tag else prompt)
        words = self._keywords if keywords is None else keywords
        words = words if self._lists else ()
        first, *rest = (self.tokenize(text) for text in self.info.texts(prompt, words))
        return ((*self.info.start_ids, *first), *(tuple(ids) for ids in rest))

    def around(self, prompt: str, keywords: Sequence[str] | None = None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids before and after the one clip that the prompt asks about. Raises InputError when it asks about more."""
        turn = self.turn(prompt, keywords)
        if len(turn) != 2:
            raise InputError(f"the prompt asks about {len(turn) - 1} clips, but one is given: name the audio once")
        return turn[0], turn[1]

    def text_turn(self, prompt: str) -> tuple[int, ...]:
        """A question without audio, without what begins a conversation."""
        self._spells_no_special(prompt)
        return tuple(self.tokenize(self.info.text_turn.replace(PROMPT, prompt.strip())))

    def answer(self, text: str) -> tuple[int, ...]:
        """What was answered, as its ids. Raises InputError."""
        self._spells_no_special(text)
        return tuple(self.tokenize(text.strip()))

    def head(self, system: str | None) -> tuple[int, ...]:
        """What stands before all turns."""
        words = (system or "").strip()
        self._spells_no_special(words)
        return (*self.info.start_ids, *(self.tokenize(self.info.system.replace(SYSTEM, words)) if words else ()))

    def tokenize(self, text: str) -> list[int]:
        """Ids of one text between audios, no BOS. Raises InputError.

        Where the templates have no special tokens none is parsed: "</s>" in a prompt is four letters, though
        SALMONN's reference makes an EOS of it.
        """
        try:
            composed = normalize(self.info.normalization, text) if self.info.normalization else text
            ids = self._model.tokenize(composed, self.info.special_tokens)
        except UnicodeEncodeError as error:
            raise InputError(f"the prompt is not text at character {error.start}: write it again") from None
        if not self.info.special_tokens and self._model.specials.intersection(ids):
            _refuse(text)
        return ids

    def _spells_no_special(self, words: str) -> None:
        """A user's words must not end a turn, or begin one, or name audio where none is heard."""
        if self.info.special_tokens:
            tags = {self.info.audio_tag} if self.info.audio_tag else set[str]()
            if any(text and text in words for text in self._model.special_texts | tags):
                _refuse(words)


def _refuse(text: str) -> NoReturn:
    raise InputError(f"the prompt {text!r} spells a control token of this model: leave that out")
