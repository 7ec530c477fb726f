"""Tracks and channels: what is selected is heard, and silence says where else there is sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE
from auricle.models.errors import AudioError, InputError
from auricle.runtime.audio.decode import as_waveform, read_audio
from auricle.runtime.audio.selection import Selection
from auricle.runtime.audio.silence import silent_array, silent_file
from numpy.typing import NDArray
from tracks import write_tracks

TONE = np.rint(9000 * np.sin(np.arange(SAMPLE_RATE) / 20)).astype(np.int16)
NOTHING = np.zeros_like(TONE)


@pytest.mark.parametrize(
    ("tracks", "selection", "sentence"),
    [
        ([(NOTHING, TONE)], Selection(), "the right channel has sound: --channel 2"),
        ([(TONE, NOTHING)], Selection(channel=2), "the left channel has sound: --channel 1"),
        ([(NOTHING, NOTHING, NOTHING, TONE, NOTHING, TONE)], Selection(), "channel 4 has sound: --channel 4"),
        ([(TONE, -TONE)], Selection(mix=True), "the left channel has sound: --channel 1"),
        ([(NOTHING,), (TONE,)], Selection(track=1), "track 2 has sound: --track 2"),
        ([(TONE,), (NOTHING,)], Selection(track=2), "track 1 has sound: --track 1"),
        ([(NOTHING,), (NOTHING, TONE)], Selection(track=1), "of track 2 has sound: --track 2 --channel 2"),
        ([(NOTHING, TONE), (NOTHING,)], Selection(track=1), "the right channel has sound: --track 1 --channel 2"),
        ([(NOTHING,), (NOTHING, NOTHING)], Selection(), "check the recording"),
    ],
)
def test_silence_says_where_there_is_sound(
    tmp_path: Path, tracks: list[tuple[NDArray[np.int16], ...]], selection: Selection, sentence: str
) -> None:
    path = write_tracks(tmp_path / "a.mkv", *tracks)
    assert not read_audio(path, selection).any()
    error = str(silent_file(path, selection, "a.mkv"))
    assert error.startswith("a.mkv is silent: ") and sentence in error
    if "--" in sentence:
        options = error.split("--")[1:]
        numbers = {word.split()[0]: int(word.split()[1]) for word in options}
        found = Selection(numbers.get("track"), numbers.get("channel"))
        assert read_audio(path, found).any()  # it is where the sentence says


def test_arrays_have_channels_too() -> None:
    stereo = np.stack([NOTHING, TONE], 1)
    np.testing.assert_array_equal(as_waveform(stereo, SAMPLE_RATE, Selection(channel=2)), TONE / np.float32(32768))
    said = str(silent_array(stereo, SAMPLE_RATE, Selection(), "the clip"))
    assert said == "the clip is silent: the right channel has sound: Selection(channel=2)"
    assert "microphone" in str(silent_array(NOTHING, SAMPLE_RATE, Selection(), "the clip"))


def test_what_is_not_there(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "a.mkv", (TONE, TONE))
    for selection, sentence in (
        (Selection(track=2), "has no sound track 2: it has one, leave --track out"),
        (Selection(channel=3), "has no channel 3: it has 2, give --channel 1 to 2"),
    ):
        with pytest.raises(AudioError, match=sentence):
            read_audio(path, selection)
    with pytest.raises(AudioError, match="the array has no channel 2: it has one"):
        as_waveform(TONE, SAMPLE_RATE, Selection(channel=2))
    for wrong in ((0, None, False), (None, -1, False), (None, 1, True)):
        with pytest.raises(InputError):
            Selection(*wrong)
