"""Word times: dynamic time warping, words and their tokens, the order and length that every word keeps."""

from __future__ import annotations

import numpy as np
import pytest
from auricle.runtime.aligner.aligner import _apart  # pyright: ignore[reportPrivateUsage]
from auricle.runtime.aligner.sound import within_sound
from auricle.runtime.aligner.timing import first_columns, token_frames
from auricle.runtime.aligner.words import word_tokens
from hypothesis import given, settings
from hypothesis import strategies as st


def plain_first_columns(matrix: np.ndarray) -> list[int]:
    """openai/whisper's definition, cell by cell."""
    n, m = matrix.shape
    cost = np.full((n + 1, m + 1), np.inf)
    trace = np.full((n + 1, m + 1), -1)
    cost[0, 0] = 0
    for j in range(1, m + 1):
        for i in range(1, n + 1):
            both, down, across = cost[i - 1, j - 1], cost[i - 1, j], cost[i, j - 1]
            step = 0 if both < down and both < across else 1 if down < both and down < across else 2
            cost[i, j] = (both, down, across)[step] - matrix[i - 1, j - 1]
            trace[i, j] = step
    trace[0, :], trace[:, 0] = 2, 1
    i, j = n, m
    first = [0] * n
    while i > 0:
        first[i - 1] = max(j - 1, 0)
        i, j = (i - 1, j - 1) if trace[i, j] == 0 else (i - 1, j) if trace[i, j] == 1 else (i, j - 1)
    return first


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 12), m=st.integers(1, 30), seed=st.integers(0, 99), levels=st.sampled_from([2, 1000]))
def test_the_path_is_the_definitions(n: int, m: int, seed: int, levels: int) -> None:
    matrix = np.random.default_rng(seed).integers(-levels, levels, (n, m)).astype(np.float64)
    assert first_columns(matrix).tolist() == plain_first_columns(matrix)


def test_tokens_begin_where_their_attention_lies() -> None:
    """Three heads that look at frames 0, 20, 50 and 70 while a prompt of two, three tokens and the end are read."""
    scores = np.random.default_rng(0).normal(0, 0.1, (3, 6, 100)).astype(np.float32)
    for row, (start, end) in enumerate([(0, 20), (20, 50), (50, 70), (70, 90)], 1):
        scores[:, row, start:end] += 4
    frames = token_frames(scores, 2, 90)
    np.testing.assert_allclose(frames, [0, 20, 50, 70], atol=2)


@given(
    spans=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=40), n=st.integers(40, 60)
)
def test_words_keep_their_order_their_length_and_inside(spans: list[tuple[int, int]], n: int) -> None:
    found = _apart(spans, n)
    flat = [at for span in found for at in span]
    assert flat == sorted(flat) and flat[0] >= 0 and flat[-1] <= n
    assert all(start < end for start, end in found)


def test_punctuation_has_no_time_of_its_own() -> None:
    pieces = dict(enumerate([b' "', b"Well", b",", b" it", b"'s", b"...", b" --"]))
    ids = {' "Well,': [0, 1, 2], " it's": [3, 4], " --": [6]}
    words = word_tokens("\"Well,  it's\n--", lambda text: ids[text], pieces.__getitem__)
    assert [(word.text, word.first, word.end) for word in words] == [('"Well,', 1, 2), ("it's", 0, 2), ("--", 0, 1)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "\u4eca\u65e5\u306f\u3001\u300c\u826f\u3044\u300d\u3002",
            "\u4eca|\u65e5|\u306f\u3001|\u300c\u826f|\u3044\u300d\u3002",
        ),
        ("\u6211\u7528iPhone15\u62cd", "\u6211|\u7528|iPhone15|\u62cd"),
        ("\u30ab\u30fc x(y) \u4eba\u3005", "\u30ab\u30fc|x(y)|\u4eba\u3005"),
        ("\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u0e2a|\u0e27\u0e31|\u0e2a|\u0e14\u0e35"),
    ],
    ids=["Japanese", "Chinese", "marks", "Thai"],
)
def test_without_blanks_characters_are_words(text: str, words: str) -> None:
    found = word_tokens(text, lambda part: list(part.encode()), lambda token: bytes([token]))
    assert [word.text for word in found] == words.split("|")
    ids = [token for word in found for token in word.ids]
    assert bytes(ids).decode() == "".join(f" {part}" for part in text.split())


def test_a_token_of_two_characters_keeps_them_together() -> None:
    pieces = [b" ", "\u4eca\u65e5".encode(), "\u306f".encode()[:2], "\u306f".encode()[2:]]
    found = word_tokens("\u4eca\u65e5\u306f", lambda _: [0, 1, 2, 3], pieces.__getitem__)
    assert [(word.text, word.ids) for word in found] == [("\u4eca\u65e5", (0, 1)), ("\u306f", (2, 3))]


def test_a_pause_belongs_to_no_word() -> None:
    """Half a second of noise, 3 s of silence, half a second of noise: two words that share the pause give it up."""
    noise = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    clip = np.concatenate([noise, np.zeros(48_000, np.float32), noise])
    assert within_sound([(0, 100), (100, 200)], [3, 3], clip, 320) == [(0, 25), (175, 200)]
    assert within_sound([(0, 20), (20, 200)], [3, 3], clip, 320) == [(0, 20), (175, 200)]
    assert within_sound([(60, 100)], [3], clip, 320) == [(60, 100)]
    assert within_sound([(0, 25), (25, 170), (175, 200)], [3, 4, 1], clip, 320)[1:] == [(175, 195), (195, 200)]


def test_short_silence_at_a_words_ends_is_its_own() -> None:
    clip = np.concatenate([np.zeros(960, np.float32), np.full(3200, 0.1, np.float32), np.zeros(960, np.float32)])
    assert within_sound([(0, 16)], [3], clip, 320) == [(0, 16)]
