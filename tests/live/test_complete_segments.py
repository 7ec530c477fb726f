"""Live tells of complete segments with their sound, to who answers them himself."""

from __future__ import annotations

import json

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.engine import load
from auricle.runtime.events import Caption, Final, SegmentComplete, SessionEnded, SpeechStarted
from auricle.runtime.live.captions import LiveOptions, captions
from auricle.runtime.sources.playback import FilePlayback


@pytest.mark.parametrize("decode", [True, False])
def test_each_is_told_before_its_final_or_in_its_place(decode: bool) -> None:
    with load() as engine:
        folder = engine.bundle.path("clips")
        names = [row["file"] for row in json.loads((folder / "clips.json").read_text())][:2]
        sound = np.concatenate([np.pad(read_audio(folder / name), (0, SAMPLE_RATE)) for name in names])
        options = LiveOptions(segments=True, decode=decode)
        events = [
            each for each in captions(FilePlayback(sound, "fast"), engine, options) if not isinstance(each, Caption)
        ]
    ended = events.pop()
    assert isinstance(ended, SessionEnded)
    assert ended.captured_s == pytest.approx(ended.decoded_s + ended.skipped_s) and (ended.decoded_s > 0) == decode
    kinds = [SpeechStarted, SegmentComplete, Final] if decode else [SpeechStarted, SegmentComplete]
    assert [type(event) for event in events] == kinds * 2
    for started, complete, *final in zip(*[iter(events)] * len(kinds), strict=True):
        assert isinstance(started, SpeechStarted) and isinstance(complete, SegmentComplete)
        assert (started.start_s, complete.reason) == (complete.start_s, "pause")
        assert all((each.start_s, each.end_s) == (complete.start_s, complete.end_s) for each in final)
        start, end = round(complete.start_s * SAMPLE_RATE), round(complete.end_s * SAMPLE_RATE)
        np.testing.assert_array_equal(complete.waveform, sound[start:end])
