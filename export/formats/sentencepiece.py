"""The SentencePiece vocabulary of a LLaMA, as llama.cpp wants it. Source: docs/reference.md §4.2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import gguf

from ...models.errors import CheckpointError
from ...models.git_lfs import refuse_pointer

BPE = 2  # TrainerSpec.ModelType
BYTE = 6  # ModelProto.SentencePiece.Type; the numbers are those of GGUF's token types too
N_BYTES = 256


@dataclass(frozen=True)
class Vocabulary:
    """One entry per piece; types: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte."""

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    types: tuple[int, ...]
    bos: int
    eos: int
    unk: int

    def __len__(self) -> int:
        return len(self.pieces)

    def add_to(self, writer: gguf.GGUFWriter) -> None:
        """The vocabulary's part of a GGUF file's header.

        BOS is never added by the tokenizer: SALMONN's two prompt halves must not get one each.
        """
        writer.add_tokenizer_model("llama")
        writer.add_token_list(self.pieces)
        writer.add_token_scores(self.scores)
        writer.add_token_types(self.types)
        writer.add_bos_token_id(self.bos)
        writer.add_eos_token_id(self.eos)
        writer.add_unk_token_id(self.unk)
        writer.add_add_bos_token(False)
        writer.add_add_eos_token(False)
        writer.add_add_space_prefix(True)


def text_encoder(directory: Path) -> Callable[[str], list[int]]:
    """A text to SentencePiece's own ids, dummy prefix included, which the GGUF vocabulary must give too.

    The directory's tokenizer is one that `read_vocabulary` has read.
    """
    import sentencepiece

    processor = cast(Any, sentencepiece).SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    return lambda text: list(processor.encode(text))


def vocabulary_encoder(vocabulary: Vocabulary) -> Callable[[str], list[int]]:
    """The same of a vocabulary that lies in no directory."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as proto

    model = cast(Any, proto).ModelProto()
    for piece, score, kind in zip(vocabulary.pieces, vocabulary.scores, vocabulary.types, strict=True):
        model.pieces.add(piece=piece, score=score, type=kind)
    trainer = model.trainer_spec
    trainer.model_type = BPE
    trainer.byte_fallback = True
    trainer.vocab_size = len(vocabulary)
    trainer.bos_id, trainer.eos_id, trainer.unk_id = vocabulary.bos, vocabulary.eos, vocabulary.unk
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = False
    processor = cast(Any, sentencepiece).SentencePieceProcessor(model_proto=model.SerializeToString())
    return lambda text: list(processor.encode(text))


def read_vocabulary(path: Path) -> Vocabulary:
    """Read a tokenizer.model.

    Raises CheckpointError when it is missing, damaged, or splits text in a way llama.cpp would not repeat:
    anything but a byte-pair model with byte pieces and the identity normalizer, as every LLaMA has.
    """
    model = _parse(path)
    trainer = model.trainer_spec
    normalizer = model.normalizer_spec
    pieces = tuple(entry.piece for entry in model.pieces)
    types = tuple(int(entry.type) for entry in model.pieces)
    if trainer.model_type != BPE or trainer.treat_whitespace_as_suffix:
        raise CheckpointError(f"{path} is not a byte-pair SentencePiece model, which is what LLaMA uses")
    if types.count(BYTE) != N_BYTES:
        raise CheckpointError(f"{path} has {types.count(BYTE)} byte pieces; LLaMA's tokenizer has {N_BYTES}")
    plain = normalizer.add_dummy_prefix and not normalizer.remove_extra_whitespaces
    if normalizer.name != "identity" or not plain:
        raise CheckpointError(
            f"{path} normalizes text ({normalizer.name or 'unnamed'!r}); LLaMA's tokenizer is 'identity' "
            "with a dummy prefix and keeps extra spaces"
        )
    if min(trainer.bos_id, trainer.eos_id, trainer.unk_id) < 0:
        raise CheckpointError(f"{path} lacks <s>, </s> or <unk>: it is not LLaMA's tokenizer")
    scores = tuple(float(entry.score) for entry in model.pieces)
    return Vocabulary(pieces, scores, types, int(trainer.bos_id), int(trainer.eos_id), int(trainer.unk_id))


def _parse(path: Path) -> Any:
    from sentencepiece import sentencepiece_model_pb2 as proto

    if not path.is_file():
        raise CheckpointError(f"{path} is missing: a LLaMA directory holds its SentencePiece tokenizer.model")
    refuse_pointer(path, CheckpointError)
    model = cast(Any, proto).ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError, a module of its own
        raise CheckpointError(f"{path} is no SentencePiece model, or is damaged: download it again") from error
    if not model.pieces:
        raise CheckpointError(f"{path} holds no pieces: download it again")
    return model
