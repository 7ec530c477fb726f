"""How many positions of a context a question and its answer take."""

from __future__ import annotations

from ...models.bundle import Manifest
from .sampling import Generation

LEAST = 512  # prefix, SALMONN's 88 audio tokens, a long prompt and 200 new tokens fit
SUFFIX = 64  # ids behind the audio, usually fewer
STEP = 256


def usual_room(manifest: Manifest) -> int:
    """For a question about the longest clip, so that the cache need not grow while someone waits."""
    n_question = len(manifest.prompt.prefix_ids) + manifest.spec.n_audio_tokens + SUFFIX
    return max(LEAST, -(-(n_question + manifest.generation.max_new_tokens) // STEP) * STEP)


def cells(n_prompt: int, generation: Generation) -> int:
    """Beams share what was read, not what they say."""
    return n_prompt + generation.beams * generation.max_new_tokens


def sequences(beams: int) -> int:
    """One, or the parents and the children of beam search and what they share."""
    return 1 if beams == 1 else 1 + 2 * beams


def no_room(n_prompt: int, generation: Generation, n_cells: int, beams: int | None = None) -> str:
    """What to tell whoever asked too much."""
    beams = beams or generation.beams
    new = beams * generation.max_new_tokens
    each = f"{beams} beams of {generation.max_new_tokens} new ones" if beams > 1 else f"{new} new ones"
    return (
        f"the question has {n_prompt} tokens, which makes {n_prompt + new} with {each}, but {n_cells} fit:"
        f" shorten it to {max(0, n_cells - new)} tokens, or lower max_new_tokens"
    )
