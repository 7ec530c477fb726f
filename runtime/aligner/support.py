"""Support: how a recognizer's own text and a given one fit the same sound -> how far it supports the given one.

Both are judged by the recognizer's log probabilities. A text that was said, whoever wrote it down, costs little more
than the one that it would have written itself; one that nobody said costs much more, all over or in a few words: a
clause that was made up between right ones, or the first words of a loop, whose further rounds it takes for granted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MEAN_WEIGHT = 0.88
WORST_WEIGHT = 0.93
BIAS = 6.8
"""A logistic regression: right texts of synthetic speech against wrong ones, by `auricle-bench support`, tiny.en."""
LEAST_OWN = -1.0
"""Nats. An own text whose mean lies below is a guess at sound that is no speech, and no measure for another text."""
LEAST_SUPPORT = 0.5
"""What `assist` asks for where nobody says otherwise: in calibration right and wrong are as likely here."""


@dataclass(frozen=True)
class Evidence:
    """What tells a text that was said from one that was not; both in nats, 0 at best as a rule."""

    mean: float
    """The given text's log probability, the mean of its tokens and end, above that of the own one, or LEAST_OWN."""
    worst: float
    """Of all words, and the end, that which lies furthest below the likeliest tokens in its place, by their mean."""


def evidence(
    given: NDArray[np.float64], likeliest: NDArray[np.float64], lengths: Sequence[int], own: Sequence[float]
) -> Evidence:
    """given, likeliest: log probabilities of a text's tokens and its end, and of the likeliest in the place of each.

    lengths: tokens of each word; own: log probabilities of the recognizer's own text and its end.
    """
    starts = np.cumsum([0, *lengths])
    below = np.add.reduceat(given - likeliest, starts) / np.array([*lengths, 1])
    return Evidence(float(given.mean() - max(np.mean(own), LEAST_OWN)), float(below.min()))


def log_odds(found: Evidence) -> float:
    """Of the text having been said, were as many texts wrong as right."""
    return MEAN_WEIGHT * found.mean + WORST_WEIGHT * found.worst + BIAS


def support_of(found: Evidence) -> float:
    """The same as a chance, 0 to 1."""
    x = log_odds(found)
    return round(1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x)), 4)


def as_sentence(text: str) -> str:
    """As Whisper writes: a text all in lower case or in capitals, or without an end, says nothing by that."""
    text = " ".join(text.split())
    if text.islower() or (text.isupper() and len(text.split()) > 1):
        text = text[:1].upper() + text[1:].lower()
    return f"{text}." if text[-1:].isalnum() else text
