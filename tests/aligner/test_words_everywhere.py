"""A bundle with an aligner: every way to a transcript has words with times, and they are the same words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

pytest.importorskip("torch")
from auricle.models.bundle import shipped_bundle
from auricle.runtime.__main__ import main
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.engine import Engine, load
from auricle.runtime.events import Final, TimedWord
from auricle.runtime.live.captions import LiveOptions, captions
from auricle.runtime.sources.playback import FilePlayback
from served import serving

SAID = "turn on the kitchen dishwasher"


@pytest.fixture(scope="module")
def engine(bundle: Path) -> Iterator[Engine]:
    with load(bundle) as opened:
        yield opened


def require_words(words: list[tuple[str, float, float]], end_s: float) -> None:
    assert " ".join(word for word, _, _ in words) == SAID
    before_s = 0.0
    for _, start_s, stop_s in words:
        assert before_s <= start_s < stop_s <= end_s
        before_s = stop_s


def test_ask_and_caption_tell_them(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = bundle / "clips" / "command.wav"
    assert main(["ask", str(clip), "asr", "--words", "--json", "--bundle", str(bundle)]) == 0
    (segment,) = json.loads(capsys.readouterr().out)["segments"]
    require_words([(w["text"], w["start_s"], w["end_s"]) for w in segment["words"]], segment["end_s"])
    assert main(["caption", str(clip), "--words", "--format", "vtt", "--bundle", str(bundle)]) == 0
    shown = capsys.readouterr().out
    assert len(re.findall(r"<\d\d:\d\d:\d\d\.\d{3}>", shown)) == len(SAID.split())
    assert main(["caption", str(clip), "--words", "--format", "srt", "--bundle", str(bundle)]) == 0
    assert capsys.readouterr().out.count("-->") == len(SAID.split())


def test_without_the_part_it_is_refused_before_anything_is_heard(capsys: pytest.CaptureFixture[str]) -> None:
    clip = shipped_bundle() / "clips" / "command.wav"
    assert main(["ask", str(clip), "asr", "--words"]) == 2
    assert "aligner" in capsys.readouterr().err


def test_live_finals_have_them(engine: Engine) -> None:
    clip = read_audio(engine.bundle.path("clips/command.wav"))
    (final,) = [event for event in captions(FilePlayback(clip, "fast"), engine) if isinstance(event, Final)]
    words = [word for word in final.words if isinstance(word, TimedWord)]
    require_words([(word.text, word.start_s, word.end_s) for word in words], final.end_s)
    described = [*captions(FilePlayback(clip, "fast"), engine, LiveOptions("audiocaption"))]
    assert not any(
        isinstance(word, TimedWord) for event in described if isinstance(event, Final) for word in event.words
    )


def test_the_server_gives_them_where_they_are_asked_for(engine: Engine) -> None:
    form = {"model": "whisper-1", "response_format": "verbose_json"}
    with serving(engine) as running:

        def transcribe(**more: str) -> dict[str, list[dict[str, float]]]:
            files = {"file": engine.bundle.path("clips/command.wav").read_bytes()}
            answer = httpx.post(f"{running.url}/v1/audio/transcriptions", files=files, data=form | more, timeout=60)
            return answer.raise_for_status().json()

        found = transcribe(**{"timestamp_granularities[]": "word"})
        require_words([(str(w["word"]), w["start"], w["end"]) for w in found["words"]], 10.0)
        assert "words" not in transcribe()
