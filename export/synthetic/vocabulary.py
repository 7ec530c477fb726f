"""A LLaMA vocabulary without a tokenizer.model: the demo's pieces, the prompts' words, and synthetic ones up to a size.

Vicuna's own vocabulary may not be shipped. This one cuts SALMONN's prompts as Vicuna's does, or nearly (7 ids before
the audio, 21 after it for `asr`), so that measuring a prompt of random weights measures the work of a real one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import accumulate, product
from pathlib import Path
from typing import Any, cast

import gguf
import sentencepiece

from ...models.families.salmonn import PREFIX, SUFFIX, TASKS
from ..formats.sentencepiece import BPE, BYTE, N_BYTES, Vocabulary

NORMAL = 1
_SPACE = "▁"
_N_RESERVED = 3 + N_BYTES  # <unk>, <s>, </s>, bytes
_CUT_AS_VICUNA = (
    *("▁US", "ER", "▁<", "▁</", "Spe", "ech", "ASS", "IST", "ANT"),
    *("▁Rec", "ogn", "ize", "▁trans", "cri", "ption"),
)
_IN_PIECES = ("Recognize", "transcription", "USER", "ASSISTANT", "Speech")
_SYLLABLES = [c + v for c in "bdfghklmnprstvz" for v in ("a", "e", "i", "o", "u", "ar", "en", "is")]


def gguf_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary inside a GGUF file of a LLaMA."""
    fields = gguf.GGUFReader(path).fields

    def column(name: str, convert: Callable[[Any], Any]) -> tuple[Any, ...]:
        field = fields[f"tokenizer.ggml.{name}"]
        return tuple(convert(field.parts[index]) for index in field.data)

    def one(name: str) -> int:
        return column(name, lambda part: int(part[0]))[0]

    return Vocabulary(
        column("tokens", lambda part: bytes(part).decode()),
        column("scores", lambda part: float(part[0])),
        column("token_type", lambda part: int(part[0])),
        one("bos_token_id"),
        one("eos_token_id"),
        one("unknown_token_id"),
    )


def padded(small: Vocabulary, size: int) -> Vocabulary:
    """`small`'s pieces, those of SALMONN's prompts, and synthetic words, `size` in all; reserved ids stay."""
    normal = small.pieces[_N_RESERVED:]
    texts = (PREFIX, SUFFIX, *TASKS.values())
    letters = {letter: None for piece in (*normal, *texts) for letter in piece if not letter.isspace()}
    kept = [piece for piece in normal if len(piece) > 1 and not re.search("[A-Z<>]", piece)]
    merged = list(dict.fromkeys([*_chains(_CUT_AS_VICUNA), *kept]))
    words = [word for text in texts for word in re.findall(r"[^\W\d_]+", text) if word not in _IN_PIECES]
    pieces = dict.fromkeys([*merged, *_joins(_vocabulary(small, [*merged, *letters]), words)])
    n_free = size - _N_RESERVED - len(pieces.keys() | letters.keys())
    synthetic = (_SPACE + "".join(parts) for parts in product(_SYLLABLES, repeat=3))
    new = [piece for piece, _ in zip((p for p in synthetic if p not in pieces), range(n_free), strict=False)]
    return _vocabulary(small, list(dict.fromkeys([*pieces, *new, *letters])))


def piece_ids(vocabulary: Vocabulary, text: str) -> tuple[int, ...]:
    """SentencePiece's ids of a text, dummy prefix included, no BOS."""
    return tuple(_processor(vocabulary).encode(text))


def _vocabulary(small: Vocabulary, pieces: list[str]) -> Vocabulary:
    """Earlier pieces are merged earlier, as a byte-pair model is trained."""
    reserved = slice(0, _N_RESERVED)
    return Vocabulary(
        (*small.pieces[reserved], *pieces),
        (*small.scores[reserved], *(-float(n) for n in range(len(pieces)))),
        (*small.types[reserved], *[NORMAL] * len(pieces)),
        small.bos,
        small.eos,
        small.unk,
    )


def _chains(pieces: Iterable[str]) -> list[str]:
    """Each piece, and before it its beginnings of two letters and more, without which no merge reaches it."""
    return [start for piece in pieces for start in list(accumulate(piece))[1:]]


def _joins(vocabulary: Vocabulary, words: Iterable[str]) -> list[str]:
    """The pieces of each word joined from the left until it is whole. Writing without spaces has no words."""
    processor = _processor(vocabulary)
    short = [word for word in words if ord(word[0]) < 0x2E80]
    return [joined for word in short for joined in list(accumulate(processor.encode(word, out_type=str)))[1:]]


def _processor(vocabulary: Vocabulary) -> Any:
    from sentencepiece import sentencepiece_model_pb2 as proto

    model = cast(Any, proto).ModelProto()
    for piece, score, kind in zip(vocabulary.pieces, vocabulary.scores, vocabulary.types, strict=True):
        model.pieces.add(piece=piece, score=score, type=kind)
    trainer = model.trainer_spec
    normalizer = model.normalizer_spec
    trainer.model_type = BPE
    trainer.byte_fallback = vocabulary.types.count(BYTE) == N_BYTES
    trainer.unk_id = vocabulary.unk
    trainer.bos_id = vocabulary.bos
    trainer.eos_id = vocabulary.eos
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = True
    normalizer.remove_extra_whitespaces = False
    return cast(Any, sentencepiece).SentencePieceProcessor(model_proto=model.SerializeToString())
