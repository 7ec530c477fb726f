"""Announcements as they are read: transcripts in, plain words out, the rest left out."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
from auricle.export.training.small.announcements import SOUNDS, announcements, as_read


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Press 1 to list users, 2 to exit.", "press one to list users two to exit"),
        ("...in the conference now!", "in the conference now"),
        ("I'm sorry, that's wrong.", "i'm sorry that's wrong"),
        ("dial 600 or extension 1234 now", None),
        ("Welcome to the PBX server", None),
        ("m i s d n", None),
        ("[sound of monkeys screaming]", None),
        ("De-activated for you now.", None),
        ("Too short.", None),
    ],
)
def test_words_are_told_from_how_they_are_written(written: str, expected: str | None) -> None:
    assert as_read(written) == expected


@pytest.mark.skipif(not SOUNDS.is_dir(), reason="asterisk-core-sounds-en-g722 is not installed")
def test_recordings_last_as_long_as_their_words() -> None:
    found = announcements()
    n_words = sum(len(recording.text.split()) for recording in found)
    seconds = sum(len(recording.waveform) for recording in found) / 16000
    assert len(found) > 200 and 2 < n_words / seconds < 4
