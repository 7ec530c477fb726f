"""What a quantization is calibrated on: the demo's clips, a folder of recordings, lines of text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from auricle.export import pipeline
from auricle.export.formats.sentencepiece import text_encoder
from auricle.export.llm.calibration import calibration
from auricle.models.audio import SAMPLE_RATE
from auricle.models.errors import AudioError, InputError
from auricle.models.families import salm, salmonn
from auricle.models.prompt import PromptInfo

VICUNA = Path(__file__).parents[2] / "golden" / "salmonn-tiny" / "checkpoint" / "vicuna"
JFK = Path(pipeline.__file__).parent / "jfk.wav"


@pytest.fixture(scope="module")
def info() -> PromptInfo:
    return salmonn.prompt_info(text_encoder(VICUNA), 1, 2)


def test_the_demos_clips_with_their_own_prompts(info: PromptInfo) -> None:
    found = calibration(None, info)
    assert len(found.examples) == 10
    first = found.examples[0]
    assert (first.prompt, first.answer) == (info.tasks["asr"], "turn on the kitchen dishwasher")
    assert found.examples[1].prompt == "According to the speech, what is the task?"
    assert 0 < len(first.waveform(SAMPLE_RATE)) <= SAMPLE_RATE


def test_a_family_is_asked_only_what_it_knows() -> None:
    known = salm.prompt_info(lambda _: [1], 2)
    answers = [(each.prompt, each.answer) for each in calibration(None, known).examples]
    assert {prompt for prompt, _ in answers} == {known.tasks["asr"]}
    assert [answer for _, answer in answers][:2] == ["turn on the kitchen dishwasher", None]


def test_a_folder_of_recordings(info: PromptInfo, tmp_path: Path) -> None:
    for name in ("b.wav", "a.wav", ".hidden.wav"):
        (tmp_path / name).write_bytes(JFK.read_bytes())
    (tmp_path / "a.txt").write_text(" and so \n")
    (tmp_path / "b.txt").write_text("\n")
    (tmp_path / "list.json").write_text("[]")
    found = calibration(tmp_path, info)
    assert [(each.audio, each.answer) for each in found.examples] == [
        (tmp_path / "a.wav", "and so"),
        (tmp_path / "b.wav", None),
    ]
    assert found.name == tmp_path.name and {each.prompt for each in found.examples} == {info.tasks["asr"]}
    assert len(found.examples[0].waveform(2 * SAMPLE_RATE)) == 2 * SAMPLE_RATE
    key = found.key
    (tmp_path / "a.txt").write_text("and so my")
    assert calibration(tmp_path, info).key != key


def test_lines_of_text(info: PromptInfo, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one line\n\n another \n")
    found = calibration(tmp_path / "text.txt", info)
    assert [(each.audio, each.prompt) for each in found.examples] == [(None, "one line"), (None, "another")]


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda place: place.mkdir(), "holds no recordings"),
        (lambda place: None, "cannot be read"),
        (lambda place: place.write_text("\n"), "holds no text"),
        (lambda place: place.write_bytes(JFK.read_bytes()), "is not text in UTF-8"),
    ],
)
def test_nothing_to_hear_is_said(make: Callable[[Path], Any], word: str, info: PromptInfo, tmp_path: Path) -> None:
    make(tmp_path / "given")
    with pytest.raises(InputError, match=word):
        calibration(tmp_path / "given", info)


def test_a_file_that_is_no_recording_is_named(info: PromptInfo, tmp_path: Path) -> None:
    (tmp_path / "notes.pdf").write_bytes(b"%PDF-1.4 nothing to hear")
    (example,) = calibration(tmp_path, info).examples
    with pytest.raises(AudioError, match=r"notes\.pdf is not audio"):
        example.waveform(SAMPLE_RATE)
