"""Cues by the times of words: width, length and order, whatever the words and their times are."""

from __future__ import annotations

from itertools import pairwise

import pytest
from auricle.runtime.events import Word
from auricle.runtime.output.cues import Cue, columns, cues, harmless, plain, word_cues, wrap
from hypothesis import given, settings
from hypothesis import strategies as st

TEXT = "the quick brown fox jumps over the lazy dog and goes on to where nobody has ever seen a fox"


def words(text: str, heard_s: list[float]) -> list[Word]:
    return [Word(word, at) for word, at in zip(text.split(), heard_s, strict=True)]


def steadily(text: str, start_s: float, end_s: float, hop_s: float = 0.5) -> list[Word]:
    """Spoken at one speed, each word heard at the end of its hop."""
    each = text.split()
    spoken = [start_s + (end_s - start_s) * (i + 1) / len(each) for i in range(len(each))]
    return words(text, [min(end_s, start_s + hop_s * -(-(at - start_s) // hop_s)) for at in spoken])


def shown(cues: list[Cue]) -> list[str]:
    return [" ".join(cue.lines) for cue in cues]


said = st.lists(
    st.text(min_size=1, max_size=60) | st.sampled_from(["I", "word", "你好世界" * 30, "\x1b[2J"]), max_size=60
)


@settings(max_examples=150, deadline=None)
@given(texts=said, start_s=st.floats(0, 1e5), length_s=st.floats(0.05, 30), data=st.data())
def test_any_words_make_sound_cues(texts: list[str], start_s: float, length_s: float, data: st.DataObject) -> None:
    end_s = start_s + length_s
    times = data.draw(st.lists(st.floats(start_s, end_s), min_size=len(texts), max_size=len(texts)))
    cues = word_cues(start_s, end_s, [Word(text, at) for text, at in zip(texts, times, strict=True)])
    assert all(1 <= len(cue.lines) <= 2 and all(0 < columns(line) <= 42 for line in cue.lines) for cue in cues)
    assert all(before.end_ms <= after.start_ms for before, after in pairwise(cues))
    assert all(cue.start_ms < cue.end_ms for cue in cues)
    if cues and length_s >= 1.01 * len(cues):  # there is time for them
        assert cues[0].start_ms >= round(start_s * 1000) and cues[-1].end_ms <= round(end_s * 1000)
        assert all(1000 <= cue.end_ms - cue.start_ms <= 7000 for cue in cues)


def test_every_word_is_shown_once_and_in_order() -> None:
    cues = word_cues(10.0, 20.0, steadily(TEXT, 10.0, 20.0))
    assert " ".join(shown(cues)) == TEXT


def test_cues_change_about_when_their_words_are_heard() -> None:
    """The first half is said at once, then there is a pause: the cue of the second half does not begin in it."""
    first, second = TEXT.split()[:9], TEXT.split()[9:]
    cues = word_cues(0.0, 16.0, words(TEXT, [*[2.0] * len(first), *[14.0 + 0.1 * i for i in range(len(second))]]))
    late = next(cue for cue in cues if "nobody" in " ".join(cue.lines))
    assert late.start_ms >= 7000 and cues[0].lines[0].startswith("the quick")


def test_a_word_that_was_revised_bounds_those_before_it() -> None:
    """An early word that came late was still spoken before the next one, which was heard earlier."""
    cues = word_cues(0.0, 30.0, words("a b c d", [29.0, 3.0, 3.5, 4.0]))
    assert shown(cues) == ["a b c d"] and cues[0].end_ms - cues[0].start_ms <= 7000 and cues[0].start_ms == 0


def test_cues_are_alike_in_length() -> None:
    lengths = [cue.end_ms - cue.start_ms for cue in word_cues(0.0, 15.0, steadily(TEXT, 0.0, 15.0))]
    assert len(lengths) == 3 and max(lengths) < 1.5 * min(lengths)


@pytest.mark.parametrize(("length_s", "n"), [(0.3, 1), (1.0, 1), (6.9, 1)])
def test_a_short_segment_is_one_cue(length_s: float, n: int) -> None:
    cues = word_cues(5.0, 5.0 + length_s, words("turn on the light", [5.0 + length_s] * 4))
    assert len(cues) == n and cues[0].start_ms == 5000 and cues[0].end_ms == round((5 + length_s) * 1000)


def test_more_text_than_time_is_shared_out() -> None:
    cues = word_cues(0.0, 2.0, words(" ".join(["loud"] * 100), [2.0] * 100))
    assert len(cues) > 2 and cues[-1].end_ms == 2000


def test_nothing_said() -> None:
    assert word_cues(0.0, 2.0, []) == [] == word_cues(0.0, 2.0, [Word("\x00", 1.0)])


def test_what_controls_a_terminal_or_turns_text_round_is_not_shown() -> None:
    hostile = "\u202eab\u2066 \x1b[2J\u200b\ufeff \rc\ud800\x9b\u2029"
    assert harmless(f" {hostile}\n") == " ab [2J c\n" and plain(f" {hostile}\n") == "ab [2J c"
    joined = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f52c"
    assert harmless(joined) == joined == plain(joined)
    assert plain("a \u202e b") == "a b"


CLUSTERS = {
    "Thai vowel and tone": ("ที่", 1),
    "Devanagari vowel sign": ("हि", None),
    "Devanagari conjunct": ("क्षि", None),
    "Tamil vowel sign": ("நி", None),
    "Khmer": ("ស្ត្រី", None),
    "emoji with a variation selector": ("❤️", 2),
    "keycap": ("1️⃣", 2),
    "flag": ("🇩🇪", 2),
    "flag of a part of a country": ("🏴\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f", 2),
    "family": ("👨\u200d👩\u200d👧\u200d👦", 2),
    "skin tone": ("👍🏽", 2),
    "Hangul jamo": ("\u1100\u1161\u11a8", 2),
    "Hangul syllable": ("각", 2),
    "accent": ("e\u0301", 1),
    "wide": ("你", 2),
}
"""What a reader calls one character, and its columns where all terminals agree."""


@pytest.mark.parametrize("name", CLUSTERS)
def test_characters_are_counted_and_kept_whole(name: str) -> None:
    cluster, width = CLUSTERS[name]
    assert plain(cluster) == cluster
    assert columns(cluster) == (width or columns(cluster)) and 1 <= columns(cluster) <= 2
    lines = wrap(f"x{cluster * 100}")
    assert len(lines) > 2 and "".join(lines) == f"x{cluster * 100}"
    assert all(columns(line) <= 42 and len(line.removeprefix("x")) % len(cluster) == 0 for line in lines)
    assert all(columns(line) > 40 for line in lines[:-1])


def test_a_tag_is_shown_in_a_flag_alone() -> None:
    """Elsewhere it is text that nobody sees."""
    assert harmless("a\U000e0068\U000e0069\U000e007f 🏴\U000e0068") == "a 🏴"


THAI = "วันนี้อากาศดีมากและฉันอยากไปเดินเล่นที่ชายหาดกับเพื่อนของฉันหลังจากทำงานเสร็จแล้วเราจะกินข้าวด้วยกัน"


def test_words_of_a_language_without_blanks_are_cues_with_times() -> None:
    cues = word_cues(0.0, 12.0, [Word(THAI, 12.0)])
    assert "".join(line for cue in cues for line in cue.lines) == THAI
    starts = [line[0] for cue in cues for line in cue.lines]
    assert all(columns(start) == 1 and start not in "\u0e33" for start in starts)


def test_what_has_no_width_has_its_time_all_the_same() -> None:
    assert [(cue.start_ms, cue.end_ms) for cue in cues(0.0, 2.0, "\u200c")] == [(0, 2000)]
