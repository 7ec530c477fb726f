"""Announcements of a telephone exchange, read by one woman: Debian's asterisk-core-sounds-en -> recordings with words.

Held out whole, for evaluation alone: the nearest thing to a thousand words of a person that a package registry holds.
Source: asterisk-core-sounds-en-g722 (16 kHz), transcripts of asterisk-core-sounds-en; Allison Smith, CC BY-SA 3.0.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import av
import numpy as np

from ....models.audio import SAMPLE_RATE, Waveform
from ....models.corpus.people import Recording
from ....models.errors import InputError
from .corpus import MAX_SECONDS

SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
TRANSCRIPTS = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
MIN_WORDS = 3
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_PLAIN = re.compile(r"[a-z' ]+")


def announcements(sounds: Path = SOUNDS, transcripts: Path = TRANSCRIPTS) -> list[Recording]:
    """Those of MIN_WORDS or more, up to MAX_SECONDS, whose words can be told from how they are written.

    Raises InputError where the packages are not installed.
    """
    if not sounds.is_dir() or not transcripts.is_file():
        raise InputError(
            f"{sounds} or {transcripts} is missing: install the Debian packages asterisk-core-sounds-en-g722 and "
            "asterisk-core-sounds-en"
        )
    found: list[Recording] = []
    for line in gzip.decompress(transcripts.read_bytes()).decode().splitlines():
        name, _, written = line.partition(":")
        path = sounds / f"{name}.g722"
        words = as_read(written)
        if words is None or not path.is_file():
            continue
        if path.stat().st_size <= MAX_SECONDS * 8000:  # 64 kbit/s
            found.append(Recording(name, _read(path), words))
    return found


def as_read(written: str) -> str | None:
    """A transcript in lower case without punctuation, digits as words; None where that is not how it is read.

    Capitals in a row are letters read one by one or a word, brackets say what is heard: neither can be told.
    """
    if re.search(r"[A-Z]{2}|[A-Za-z]-|(?<![\w'])[B-HJ-Zb-hj-z] ", written):
        return None
    spelled = re.sub(r"\b\d\b", lambda digit: _DIGITS[int(digit[0])], written)
    plain = " ".join(re.sub(r"[.,!?;]", " ", spelled).lower().split())
    return plain if _PLAIN.fullmatch(plain) and len(plain.split()) >= MIN_WORDS else None


def _read(path: Path) -> Waveform:
    with av.open(str(path), format="g722") as container:
        assert container.streams.audio[0].rate == SAMPLE_RATE, path
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return (np.concatenate(frames) / 32768).astype(np.float32)
