"""What listed words are good for: lists, marks, and the command's record."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from auricle.models.corpus import keyword_cases
from auricle.models.corpus.names import Name, NamedSentence

pytest.importorskip("jiwer")
from auricle.bench.__main__ import main
from auricle.bench.quality import keywords
from auricle.bench.result import Record, read_record
from auricle.runtime.bundle import Bundle, open_bundle
from auricle.runtime.engine import EngineOptions
from auricle.runtime.llm.options import LlmOptions

NAME = Name((("k", "a", "l"), ("f", "i", "n")))
SILENCE = np.zeros(0, np.float32)
CASE = keyword_cases.Case(SILENCE, NamedSentence("call {} on monday", (NAME,)), "call calphyn on monday", "calphyn")
PLAIN = keyword_cases.Case(SILENCE, NamedSentence("turn on the lamp"), "turn on the lamp", None)


@pytest.mark.parametrize(
    ("case", "listed", "answer", "mark"),
    [
        (CASE, ["calphyn", "zorb"], "call calphyn on monday", keyword_cases.Mark(True, 1, 0, 0, 4)),
        (CASE, ["calphyn", "zorb"], "call zorb on monday", keyword_cases.Mark(False, 0, 1, 1, 4)),
        (CASE, [], "call kalfin monday", keyword_cases.Mark(False, 0, 0, 2, 4)),
        (CASE, ["calphyn"], "call calphyn calphyn on monday", keyword_cases.Mark(True, 1, 1, 1, 4)),
        (PLAIN, ["zorb"], "turn on the zorb", keyword_cases.Mark(None, 0, 1, 1, 4)),
        (PLAIN, ["lamp"], "", keyword_cases.Mark(None, 0, 0, 4, 4)),
    ],
)
def test_marks(case: keyword_cases.Case, listed: list[str], answer: str, mark: keyword_cases.Mark) -> None:
    assert keyword_cases.mark(case, listed, answer) == mark


@pytest.mark.parametrize("size", keyword_cases.LIST_SIZES)
def test_lists_hold_the_name_once_and_nothing_else_that_is_said(size: int) -> None:
    listed = keyword_cases.word_list(CASE, size, True, "a")
    assert len(listed) == len(set(listed)) == size and listed.count("calphyn") == 1
    again = keyword_cases.word_list(CASE, size, True, "a")
    assert listed == again != keyword_cases.word_list(CASE, size + 1, True, "b")
    others = keyword_cases.word_list(CASE, size, False, "a")
    assert len(others) == size and not {"calphyn", *["call", "on", "monday"]} & set(others)


@pytest.fixture(scope="module")
def clips() -> Iterator[list[keyword_cases.Case]]:
    if not (shutil.which("espeak-ng") and shutil.which("flite")):
        pytest.skip("needs espeak-ng and flite")
    yield list(keyword_cases.cases(True, 3, 5))


def test_clips_are_the_same_for_a_seed_and_say_one_held_out_name(clips: list[keyword_cases.Case]) -> None:
    again = list(keyword_cases.cases(True, 3, 5))
    for one, other in zip(clips, again, strict=True):
        assert np.array_equal(one.waveform, other.waveform) and one.expected == other.expected
        assert one.name and one.name in one.expected.split()
        assert {name.split for name in one.sentence.names} == {"held_out"}
    assert all(case.name is None for case in keyword_cases.cases(False, 2, 5))


def test_the_command_measures_every_arrangement(
    clips: list[keyword_cases.Case], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["keywords", "--clips", "2", "--seed", "3", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    path = tmp_path / "run.txt"
    path.write_text(said)
    record = read_record(path)
    titles = [arrangement.title for arrangement in keyword_cases.ARRANGEMENTS]
    assert [group for group in record.groups if not group.startswith("all")] == titles
    assert record.subjects[0].family == "salm" and keywords.lines(record)[1].startswith("name, no list")
    places = [record.find(group, "listed") for group in record.groups]
    assert [place.value for place in places if place] == [0.0, 1.0, 5.0, 20.0, 50.0]
    assert all(record.find(group, "wer") for group in record.groups)


def test_lists_that_are_too_long_are_left_out(clips: list[keyword_cases.Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the model reads 30 words, and where it has no room for 20 either."""
    bundle = open_bundle("demo-salm")
    prompt = replace(bundle.manifest.prompt, max_keywords=30)
    few = Bundle(bundle.directory, replace(bundle.manifest, prompt=prompt))
    record = keywords.measure(few, keywords.synthetic_clips(1, 3), 3, lambda *_: None)
    titles = [a.title for a in keyword_cases.ARRANGEMENTS]
    assert [group for group in record.groups if not group.startswith("all")] == [t for t in titles if "50" not in t]
    (said,) = (note for note in record.notes if "left out" in note)
    assert said.startswith("lists of 50 words were left out: 50 keywords were given, at most 30 are read")

    narrow = EngineOptions(llm=LlmOptions(n_ctx=256, n_threads=1))
    unlimited = replace(prompt, transcriptions=())  # answers may have all of max_new_tokens
    without = Bundle(bundle.directory, replace(bundle.manifest, prompt=unlimited))
    record = keywords.measure(without, keywords.synthetic_clips(1, 3), 3, lambda *_: None, narrow)
    assert not [group for group in record.groups if "20" in group or "50" in group]
    assert {"name, no list", "name, 5 listed", "all, no list"} <= set(record.groups)
    assert sum("left out" in note for note in record.notes) == 2 and "20 words" in record.notes[0]


def test_of_recordings_the_rarest_word_is_listed_among_those_of_the_others() -> None:
    clips = [(SILENCE, "please dial the number"), (SILENCE, "the number is unavailable"), (SILENCE, "go on")]
    first, second = keyword_cases.recorded_cases(clips)
    assert (first.name, second.name) == ("please", "unavailable")
    assert first.others == ("unavailable",) and second.others == ("please",)
    assert keyword_cases.word_list(first, 5, True, "a").count("please") == 1
    assert keyword_cases.word_list(second, 5, False, "a") == ["please"]


def test_recordings_are_measured_with_a_boost_and_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo hears its own clip right; an absurd boost writes what was not said."""
    clip = open_bundle("demo").path("clips") / "command.wav"
    table = tmp_path / "clips.tsv"
    table.write_text(f"{clip}\tturn on the dishwasher\n{clip}\tsunflower\n")
    found: dict[str, Record] = {}
    for boost in ("0.5", "20"):
        assert main(["keywords", "demo", "--data", str(table), "--threads", "1", "--keyword-boost", boost]) == 0
        path = tmp_path / f"{boost}.txt"
        path.write_text(capsys.readouterr().out)
        found[boost] = read_record(path)
        assert not [group for group in found[boost].groups if group.startswith("ordinary")]
    absurd, slight = (found[boost].find("name, 20 listed", "inserted") for boost in ("20", "0.5"))
    assert absurd and slight and absurd.value > slight.value


def test_recordings_without_a_word_to_list_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "clips.tsv"
    table.write_text(f"{open_bundle('demo').path('clips') / 'command.wav'}\tgo on\n")
    assert main(["keywords", "demo", "--data", str(table)]) == 2
    assert "says no word of 5 letters" in capsys.readouterr().err
