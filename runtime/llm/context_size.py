"""Context size: a question and its generation options in; the positions and sequences that they need out."""

from __future__ import annotations

from collections.abc import Iterator

from ...models.bundle import Manifest
from ...models.errors import InputError
from .sampling import Generation

LEAST = 512  # prefix, SALMONN's 88 audio tokens, a long prompt and 200 new tokens fit
SUFFIX = 64  # ids behind the audio, usually fewer
STEP = 256


def usual_context_size(manifest: Manifest) -> int:
    """For a question about the longest clip, so that the cache need not grow while someone waits."""
    n_question = len(manifest.prompt.prefix_ids) + manifest.spec.n_audio_tokens + SUFFIX
    return max(LEAST, -(-(n_question + manifest.generation.max_new_tokens) // STEP) * STEP)


def required_positions(n_prompt: int, generation: Generation) -> int:
    """Of a question and its answer: beams share the question, not what they answer."""
    return n_prompt + generation.beams * generation.max_new_tokens


def required_sequences(beams: int) -> int:
    """One, or the parents and the children of beam search and what they share."""
    return 1 if beams == 1 else 1 + 2 * beams


def require_room(n_prompt: int, generation: Generation, n_positions: int, beams: int | None = None) -> None:
    """Raises InputError, with the remedy, where a question of n_prompt tokens and its answer do not fit.

    beams: that count, where it is not those of the generation.
    """
    beams = beams or generation.beams
    new = beams * generation.max_new_tokens
    if n_prompt + new <= n_positions:
        return
    each = f"{beams} beams of {generation.max_new_tokens} new ones" if beams > 1 else f"{new} new ones"
    raise InputError(
        f"the question has {n_prompt} tokens, which makes {n_prompt + new} with {each}, but {n_positions} fit:"
        f" shorten it to {max(0, n_positions - new)} tokens, or lower max_new_tokens"
    )


def batches(n: int, size: int) -> Iterator[slice]:
    """n rows in pieces that one pass may have."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
