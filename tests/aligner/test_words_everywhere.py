"""A bundle with an aligner: every way to a transcript has words with times, and they are the same words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest

pytest.importorskip("torch")
from auricle.models.audio import Waveform
from auricle.models.bundle import shipped_bundle
from auricle.runtime.__main__ import main
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.audio.split import Segment
from auricle.runtime.batch import answer_segments
from auricle.runtime.engine import Engine, load
from auricle.runtime.events import Caption, Final, TimedWord
from auricle.runtime.live.captions import Live, LiveOptions, captions
from auricle.runtime.llm.sampling import Generation
from auricle.runtime.sources.playback import FilePlayback
from fake_microphone import Speaker
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


def test_segments_that_are_decoded_together_have_those_of_each_alone(engine: Engine) -> None:
    paths = [engine.bundle.path(f"clips/{name}.wav") for name in ("command", "weather", "shopping")]
    segments = [Segment(20.0 * n, read_audio(path), silent=False) for n, path in enumerate(paths)]
    prompt, generation = engine.prompt.prompt_for("asr"), replace(engine.defaults, words=True, min_support=0.0)
    alone, together = (
        [event for event in answer_segments(engine, segments, prompt, generation, n) if isinstance(event, Final)]
        for n in (1, 3)
    )
    assert [final.words for final in together] == [final.words for final in alone]
    assert [final.support for final in together] == [final.support for final in alone]
    assert all(isinstance(final.words[0], TimedWord) for final in together)


def test_words_are_timed_while_others_use_the_engine(engine: Engine) -> None:
    """Side by side, and in no turn: a caption that was decoded ahead is shown with its words whoever is at work."""
    clip = read_audio(engine.bundle.path("clips/command.wav"))
    lanes = engine.lanes(2)
    assert lanes[1].aligner is engine.aligner
    expected = engine.aligner.words(clip, SAID)
    prompt = engine.prompt.prompt_for("asr")

    def timed(n: int) -> bool:
        return lanes[n % 2].aligner.words(clip, SAID) == expected

    with engine.exclusive, ThreadPoolExecutor(4) as pool:
        assert all(pool.map(timed, range(12)))
    segments = [Segment(20.0 * n, clip, silent=False) for n in range(6)]
    generation = replace(engine.defaults, words=True, min_support=0.0)
    alone, beside = (
        [event for event in answer_segments(engine, segments, prompt, generation, lanes=n) if isinstance(event, Final)]
        for n in (1, 2)
    )
    assert [(f.words, f.support) for f in beside] == [(f.words, f.support) for f in alone]


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


@pytest.mark.parametrize("most", [0.0, 1e6])
def test_live_captions_have_them_where_they_cost_little(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, most: float
) -> None:
    """The first segment tells what they cost."""
    monkeypatch.setattr("auricle.runtime.live.timed.MOST", most)
    clip = read_audio(engine.bundle.path("clips/command.wav"))
    twice = np.concatenate([clip, np.zeros(16_000, np.float32), clip, np.zeros(16_000, np.float32)])
    options = LiveOptions(hop_ms=250, speculate=False)
    events = [*captions(FilePlayback(twice, "fast"), engine, options)]
    first, second = (at for at, event in enumerate(events) if isinstance(event, Final))
    shown = [event for event in events if isinstance(event, Caption)]
    assert not any(event.words for event in events[:first] if isinstance(event, Caption))
    later = [event for event in events[first:second] if isinstance(event, Caption) and event.stable]
    assert later and len(shown) > len(later)
    for event in later:
        assert [word.text for word in event.words] == (event.stable.split() if most else [])
        times = [at for word in event.words for at in (word.start_s, word.end_s)]
        assert times == sorted(times) and all(event.start_s <= at <= event.end_s for at in times)


def test_nothing_is_aligned_once_the_pause_is_over(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The final's words are computed while the gate waits, once, and are those that it would have had without."""
    clip = read_audio(engine.bundle.path("clips/command.wav"))
    audio = np.concatenate([clip, np.zeros(16_000, np.float32)])
    source = Speaker(audio)
    aligned_at: list[int] = []
    aligned = engine.aligned

    def noting(final: Final, waveform: Waveform, generation: Generation) -> Final:
        aligned_at.append(source.n_read)
        return aligned(final, waveform, generation)

    monkeypatch.setattr(engine, "aligned", noting)
    live = Live(engine, source, LiveOptions(hop_ms=30_000))
    ((final, at),) = [(event, source.n_read) for event in live if isinstance(event, Final)]
    assert live.was_ready and len(aligned_at) == 1 and aligned_at[0] < at
    plain = Live(engine, Speaker(audio), LiveOptions(hop_ms=30_000, speculate=False))
    (late,) = [event for event in plain if isinstance(event, Final)]
    assert final.words == late.words and final.support == late.support and final.finish_reason == late.finish_reason
    assert live.speculated.n_used == 1 and live.speculated.wasted_s == 0 == plain.speculated.seconds


def test_words_keep_their_order_over_the_cut_of_two_segments(engine: Engine) -> None:
    """Speech without a pause that is longer than the model's window is cut inside."""
    clip = read_audio(engine.bundle.path("clips/command.wav"))
    spoken = clip[np.abs(clip) > 1e-3]
    long = np.tile(spoken, 1 + 12 * 16_000 // len(spoken))
    finals = engine.ask((long, 16_000), "asr", Generation(words=True)).segments
    assert len(finals) > 1
    before_s = 0.0
    for final in finals:
        words = [word for word in final.words if isinstance(word, TimedWord)]
        assert [word.text for word in words] == final.text.split()
        for word in words:
            assert max(before_s, final.start_s) <= word.start_s < word.end_s <= final.end_s
            before_s = word.end_s


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
