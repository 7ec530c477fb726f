"""Cues of words whose times are known: where they are cut, and single words in srt and vtt."""

from __future__ import annotations

from itertools import pairwise

from auricle.runtime.events import TimedWord
from auricle.runtime.output.subtitles import TimedText, format_captions
from auricle.runtime.output.timed_cues import timed_cues

WORDS = (TimedWord("one", 0.5, 0.7, 0.9), TimedWord("<two>", 0.8, 1.1, 0.9), TimedWord("three", 4.1, 4.3, 0.9))
CAPTION = TimedText(0.0, 6.0, "one <two> three", words=WORDS)


def test_a_pause_ends_a_cue_and_a_short_one_stays_for_a_second() -> None:
    first, second = timed_cues(WORDS, CAPTION.text)
    assert (first.start_ms, first.end_ms, first.lines) == (500, 1500, ("one <two>",))
    assert (second.start_ms, second.end_ms, second.marks) == (4100, 5100, (((0, 4100),),))


def test_no_cue_is_longer_than_its_lines_or_runs_into_the_next() -> None:
    words = [TimedWord("syllables", n / 2, n / 2 + 0.5, 1.0) for n in range(60)]
    found = timed_cues(words, " ".join(word.text for word in words))
    assert sum(len(line) for cue in found for line in cue.marks) == 60
    assert all(len(cue.lines) <= 2 and cue.end_ms - cue.start_ms <= 7000 for cue in found)
    assert all(a.end_ms <= b.start_ms for a, b in pairwise(found))


def test_words_have_marks_in_vtt_and_cues_in_srt() -> None:
    vtt = format_captions([CAPTION], "vtt", by_word=True)
    assert "<00:00:00.500>one <00:00:00.800>&lt;two&gt;" in vtt and "00:00:04.100 --> 00:00:05.100" in vtt
    assert "<00:00:00.500>" not in format_captions([CAPTION], "vtt")
    srt = format_captions([CAPTION], "srt", by_word=True)
    assert srt.startswith("1\n00:00:00,500 --> 00:00:00,700\none\n") and srt.count("-->") == 3


def test_words_without_blanks_between_them_stay_so() -> None:
    text = "\u4eca\u65e5\u306f\u3001 OK\u3067\u3059"
    said = ("\u4eca\u65e5", "\u306f\u3001", "OK", "\u3067", "\u3059")
    words = tuple(TimedWord(word, n / 2, n / 2 + 0.5, 1.0) for n, word in enumerate(said))
    (cue,) = timed_cues(words, text)
    assert cue.lines == (text,)
    vtt = format_captions([TimedText(0.0, 3.0, text, words=words)], "vtt", by_word=True)
    marks = [f"<00:00:0{n // 2}.{n % 2 * 5}00>{word}" for n, word in enumerate(said)]
    assert f"{marks[0]}{marks[1]} {marks[2]}{marks[3]}{marks[4]}\n" in vtt


def test_a_word_that_is_broken_over_two_lines_leaves_its_cue_without_marks() -> None:
    word = "\u4eca" * 20 + "a" * 10
    (cue,) = timed_cues([TimedWord(word, 0.0, 1.0, 1.0)], word)
    assert "".join(cue.lines) == word and len(cue.lines) == 2 and not cue.marks


def test_json_lines_have_words_where_there_are_any() -> None:
    assert '"words": [{"text": "one", "start_s": 0.5, "end_s": 0.7, "probability": 0.9}' in format_captions(
        [CAPTION], "jsonl"
    )
    assert "words" not in format_captions([TimedText(0.0, 6.0, "one")], "jsonl")
