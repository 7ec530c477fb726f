"""Evaluation of `small` in training: recordings of people, held-out sentences by a held-out voice -> word error.

Word error in lower case without punctuation. People's recordings are only ever looked at: none chooses a checkpoint.

`python -m auricle.export.training.small.evaluate --work DIR --out DIR` writes both as sound files with a table each,
for `auricle-bench quality --data DIR/people.tsv` and whatever else reads `audio <TAB> text`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ....models.audio import SAMPLE_RATE, Waveform
from ....models.corpus.people import Recording
from ..salmonn.evaluate import edits
from .corpus import MAX_SECONDS, Texts, held_out_clip


def held_out(texts: Texts, n: int) -> list[Recording]:
    """Held-out sentences by flite's slt, who is held out whole."""
    clips = [(seed, held_out_clip(texts, seed)) for seed in range(n)]
    return [Recording(f"slt {seed}", clip.waveform, clip.utterance.text) for seed, clip in clips if clip.utterance]


def word_error(
    recordings: Sequence[Recording], transcribe: Callable[[Waveform], str], show: bool = False
) -> tuple[float, list[str]]:
    """Word edits over words of reference, and the hypotheses; a recording over 10 s is transcribed in halves."""
    n_edits = n_words = 0
    hypotheses: list[str] = []
    for recording in recordings:
        n_parts = -(-len(recording.waveform) // int(MAX_SECONDS * SAMPLE_RATE))
        parts = np.array_split(recording.waveform, n_parts)
        hypothesis = " ".join(transcribe(part) for part in parts)
        n_edits += edits(recording.text.split(), hypothesis.split())
        n_words += len(recording.text.split())
        hypotheses.append(hypothesis)
        if show:
            print(f"    {recording.name}: {hypothesis}", flush=True)
    return n_edits / max(n_words, 1), hypotheses
