"""Divergence: the same audio and the same tokens through two bundles of one model -> what a quantization changed.

The reference answers greedily and keeps, of every segment, its encoders' outputs and its logits before each token of
its own answer, the end included. Another bundle is then made to say those tokens (teacher forcing), once hearing the
reference's audio tokens (the language model alone) and once its own (the whole chain), and the two are compared.

    KL(reference || this) = sum over the vocabulary of p (log p - log q), nats per token; 0 where both are the same
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...models.audio import Waveform
from ...models.encoders import qformer
from ...models.errors import InputError, RunError
from ...runtime.engine import Engine
from ...runtime.llm.sampling import Generation
from ...runtime.llm.session import Llm

Floats = NDArray[np.float32]
AUDIO_TOKENS = qformer.OUTPUT  # of every family
VOCABULARY = "vocabulary.txt"


@dataclass(frozen=True)
class Distance:
    """Between next tokens, over all tokens of all segments."""

    kl: float
    """Mean, nats."""
    kl_p95: float
    agreement: float
    """Share of tokens where both find the same one likeliest, 0 to 1."""


@dataclass(frozen=True)
class Comparison:
    """One bundle against the reference."""

    n_segments: int
    n_tokens: int
    llm: Distance
    """The language model alone, hearing what the reference's heard."""
    chain: Distance
    """Encoders and language model."""
    errors: dict[str, tuple[float, ...]]
    """Relative root mean square of the differences of each stage's output, by segment."""


def keep(engine: Engine, waveform: Waveform, prompt: str, ids: Sequence[int], ended: bool, path: Path) -> int:
    """Write what the reference hears and says of one segment; returns the file's bytes. Raises RunError.

    ended: the answer has an end token, whose logits count too.
    """
    outputs = engine.encoders.stages(waveform)
    logits = forced_logits(engine.llm, outputs[AUDIO_TOKENS], prompt, ids, ended)
    try:
        with path.open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                waveform=waveform,
                prompt=np.array(prompt),
                ids=np.array(ids, np.int64),
                ended=np.array(ended),
                logits=logits,
                **{f"stage_{name}": output for name, output in outputs.items()},
            )
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror}): point TMPDIR to a larger disk") from None
    return path.stat().st_size


def keep_vocabulary(llm: Llm, folder: Path) -> None:
    """What `compare` holds other bundles' vocabularies against."""
    (folder / VOCABULARY).write_text(_vocabulary(llm), encoding="ascii")


def compare(engine: Engine, paths: Sequence[Path]) -> Comparison:
    """This bundle against what the reference kept. Raises InputError for another vocabulary."""
    if (paths[0].parent / VOCABULARY).read_text(encoding="ascii") != _vocabulary(engine.llm):
        raise InputError(f"{engine.bundle.directory} has another vocabulary than the reference: compare one model's")
    found = [_compare_one(engine, path) for path in paths]
    errors = {name: tuple(one.errors[name] for one in found) for name in found[0].errors}
    llm = [one.llm for one in found]
    chain = [one.chain for one in found]
    return Comparison(len(found), sum(len(kl) for kl, _ in llm), _distance(llm), _distance(chain), errors)


def forced_logits(llm: Llm, audio_tokens: Floats, prompt: str, ids: Sequence[int], ended: bool) -> Floats:
    """Logits [n, vocab] before each id of an answer, and before its end: what the model would say at each place."""
    rows = [llm.prefill(audio_tokens, prompt, Generation(max_new_tokens=len(ids) + 1))[np.newaxis]]
    if ids:
        rows.append(llm.feed(ids, every=True))
    logits = np.concatenate(rows)
    return logits if ended else logits[: len(ids)]


def divergence(reference: Floats, logits: Floats) -> NDArray[np.float64]:
    """KL(reference || this) of each row of logits [n, vocab], nats; in float64."""
    p = _log_softmax(reference)
    q = _log_softmax(logits)
    return np.maximum(0.0, (np.exp(p) * (p - q)).sum(axis=-1))


def relative_error(reference: Floats, output: Floats) -> float:
    """Root mean square of the differences by that of the reference."""
    difference = output.astype(np.float64) - reference
    return float(np.sqrt((difference**2).sum() / max(1e-30, float((reference.astype(np.float64) ** 2).sum()))))


_Rows = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""KL and agreement of each token."""


@dataclass(frozen=True)
class _One:
    llm: _Rows
    chain: _Rows
    errors: dict[str, float]


def _compare_one(engine: Engine, path: Path) -> _One:
    with np.load(path) as kept:
        arrays: dict[str, NDArray[np.float32]] = {name: kept[name] for name in kept.files}
    prompt = str(arrays["prompt"])
    ids = [int(token) for token in arrays["ids"]]
    ended = bool(arrays["ended"])
    outputs = engine.encoders.stages(arrays["waveform"])
    reference = {name: arrays[f"stage_{name}"] for name in outputs}

    def rows(audio_tokens: Floats) -> _Rows:
        logits = forced_logits(engine.llm, audio_tokens, prompt, ids, ended)
        allowed = engine.llm.allowed(logits.copy())
        wanted = engine.llm.allowed(arrays["logits"].copy())
        return divergence(arrays["logits"], logits), allowed.argmax(axis=-1) == wanted.argmax(axis=-1)

    errors = {name: relative_error(reference[name], outputs[name]) for name in outputs}
    return _One(rows(reference[AUDIO_TOKENS]), rows(outputs[AUDIO_TOKENS]), errors)


def _distance(found: Sequence[_Rows]) -> Distance:
    kl = np.concatenate([each for each, _ in found])
    agreed = np.concatenate([each for _, each in found])
    return Distance(float(kl.mean()), float(np.quantile(kl, 0.95, method="inverted_cdf")), float(agreed.mean()))


def _log_softmax(logits: Floats) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _vocabulary(llm: Llm) -> str:
    """A digest of every piece, in order."""
    pieces = "\0".join(llm.text([token]) for token in range(llm.spec.vocab))
    return hashlib.sha256(pieces.encode()).hexdigest()
