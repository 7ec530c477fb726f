"""Cues of words whose times are known: where they are cut, and single words in srt and vtt."""

from __future__ import annotations

from itertools import pairwise

from auricle.runtime.events import TimedWord
from auricle.runtime.output.subtitles import TimedText, format_captions
from auricle.runtime.output.timed_cues import timed_cues

WORDS = (TimedWord("one", 0.5, 0.7, 0.9), TimedWord("<two>", 0.8, 1.1, 0.9), TimedWord("three", 4.1, 4.3, 0.9))
CAPTION = TimedText(0.0, 6.0, "one <two> three", words=WORDS)


def test_a_pause_ends_a_cue_and_a_short_one_stays_for_a_second() -> None:
    first, second = timed_cues(WORDS)
    assert (first.start_ms, first.end_ms, first.lines) == (500, 1500, ("one <two>",))
    assert (second.start_ms, second.end_ms, second.word_ms) == (4100, 5100, (4100,))


def test_no_cue_is_longer_than_its_lines_or_runs_into_the_next() -> None:
    words = [TimedWord("syllables", n / 2, n / 2 + 0.5, 1.0) for n in range(60)]
    found = timed_cues(words)
    assert sum(len(cue.word_ms) for cue in found) == 60
    assert all(len(cue.lines) <= 2 and cue.end_ms - cue.start_ms <= 7000 for cue in found)
    assert all(a.end_ms <= b.start_ms for a, b in pairwise(found))


def test_words_have_marks_in_vtt_and_cues_in_srt() -> None:
    vtt = format_captions([CAPTION], "vtt", by_word=True)
    assert "<00:00:00.500>one <00:00:00.800>&lt;two&gt;" in vtt and "00:00:04.100 --> 00:00:05.100" in vtt
    assert "<00:00:00.500>" not in format_captions([CAPTION], "vtt")
    srt = format_captions([CAPTION], "srt", by_word=True)
    assert srt.startswith("1\n00:00:00,500 --> 00:00:00,700\none\n") and srt.count("-->") == 3


def test_json_lines_have_words_where_there_are_any() -> None:
    assert '"words": [{"text": "one", "start_s": 0.5, "end_s": 0.7, "probability": 0.9}' in format_captions(
        [CAPTION], "jsonl"
    )
    assert "words" not in format_captions([TimedText(0.0, 6.0, "one")], "jsonl")
