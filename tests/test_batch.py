"""Segments that are decoded together say what each says alone, in order, and a fault takes none of them along."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.models.bundle import shipped_bundle
from auricle.models.errors import AudioError, InputError
from auricle.runtime.__main__ import main
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.audio.split import Segment
from auricle.runtime.batch import answer_segments, stream_in_batches
from auricle.runtime.engine import Engine, EngineOptions, load
from auricle.runtime.events import AnswerEvent, Final, Piece, SegmentStarted
from auricle.runtime.llm.options import LlmOptions
from auricle.runtime.llm.sampling import Generation
from served import write_wav

CLIPS = shipped_bundle() / "clips"
NAMES = ("command", "reminder", "shopping", "weather", "unseen-voice")


@pytest.fixture(scope="module", params=["demo", "demo-salm"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with load(request.param) as opened:
        yield opened


@pytest.fixture(scope="module")
def segments() -> list[Segment]:
    """One a clip, as a long recording would be cut; no two of one length."""
    waveforms = [read_audio(CLIPS / f"{name}.wav") for name in NAMES]
    return [Segment(20.0 * n, waveform, silent=False, last=False) for n, waveform in enumerate(waveforms)]


@pytest.fixture(scope="module")
def recording() -> Waveform:
    """Longer than the window: several segments."""
    pause = np.zeros(2 * SAMPLE_RATE, np.float32)
    parts = [part for name in NAMES for part in (read_audio(CLIPS / f"{name}.wav"), pause)]
    return np.concatenate(parts * 2)


def finals(events: Iterator[AnswerEvent]) -> list[Final]:
    return [event for event in events if isinstance(event, Final)]


@pytest.mark.parametrize("batch", [2, 3, 16])
def test_together_they_say_what_each_says_alone(engine: Engine, segments: list[Segment], batch: int) -> None:
    prompt, generation = engine.prompt.prompt_for("asr"), Generation(max_new_tokens=40)
    alone = finals(answer_segments(engine, segments, prompt, generation))
    together = finals(answer_segments(engine, segments, prompt, generation, batch))
    assert [(f.start_s, f.end_s, f.text, f.token_ids, f.finish_reason) for f in together] == [
        (f.start_s, f.end_s, f.text, f.token_ids, f.finish_reason) for f in alone
    ]
    assert len({f.text for f in together}) == len(NAMES)
    pairs = [(a.avg_logprob, b.avg_logprob) for a, b in zip(alone, together, strict=True)]
    assert all(a is not None and b is not None and abs(a - b) < 0.01 for a, b in pairs)
    assert [f.confident for f in together] == [f.confident for f in alone]
    again = finals(answer_segments(engine, segments, prompt, generation))
    assert [f.token_ids for f in again] == [f.token_ids for f in alone]


@pytest.mark.parametrize("name", ["golden", "demo", "demo-salm"])
def test_with_a_cache_of_f32_nothing_is_rounded_otherwise(
    golden_bundle: Path, segments: list[Segment], name: str
) -> None:
    """So nothing of one segment reaches another. A larger model rounds otherwise all the same (docs/performance.md)."""
    with load(golden_bundle if name == "golden" else name, EngineOptions(llm=LlmOptions(kv_type="f32"))) as engine:
        prompt, generation = engine.prompt.prompt_for("asr"), Generation(max_new_tokens=12)
        alone = finals(answer_segments(engine, segments, prompt, generation))
        together = finals(answer_segments(engine, segments, prompt, generation, 5))
    assert [f.token_ids for f in together] == [f.token_ids for f in alone]
    np.testing.assert_allclose(
        [f.avg_logprob or 0.0 for f in together], [f.avg_logprob or 0.0 for f in alone], rtol=0, atol=1e-5
    )


def test_a_recording_is_told_in_order(engine: Engine, recording: Waveform) -> None:
    alone = list(engine.stream(recording, "asr"))
    together = list(stream_in_batches(engine, recording, "asr", 4))
    assert [f.text for f in finals(iter(together))] == [f.text for f in finals(iter(alone))]
    kinds = "".join(type(event).__name__[0] for event in together)
    assert len(finals(iter(together))) > 2 and kinds.replace("SPF", "").replace("SF", "") == ""
    starts = [event.start_s for event in together if isinstance(event, SegmentStarted)]
    assert starts == sorted(starts) == [f.start_s for f in finals(iter(together))]
    assert "".join(e.text for e in together if isinstance(e, Piece)) == "".join(f.text for f in finals(iter(alone)))


def test_each_ends_for_its_own_reason(engine: Engine, segments: list[Segment]) -> None:
    prompt = engine.prompt.prompt_for("asr")
    for generation in (
        Generation(max_new_tokens=3),
        Generation(max_new_tokens=40, stop=(" the",)),
        Generation(max_new_tokens=40, max_seconds=1e-6),
        Generation(max_new_tokens=40, gbnf="root ::= [a-z ]+"),
    ):
        alone = finals(answer_segments(engine, segments, prompt, generation))
        together = finals(answer_segments(engine, segments, prompt, generation, 5))
        assert [(f.text, f.finish_reason) for f in together] == [(f.text, f.finish_reason) for f in alone], generation


def test_what_was_heard_before_a_fault_is_answered(engine: Engine, segments: list[Segment]) -> None:
    def broken() -> Iterator[Segment]:
        yield from segments[:3]
        raise AudioError("the rest is not there: copy the file again")

    answered: list[Final] = []
    with pytest.raises(AudioError):
        for event in answer_segments(engine, broken(), engine.prompt.prompt_for("asr"), engine.defaults, 8):
            answered += [event] if isinstance(event, Final) else []
    assert len(answered) == 3


def test_a_silent_clip_is_told(engine: Engine) -> None:
    silence = np.zeros(40 * SAMPLE_RATE, np.float32)
    with pytest.raises(AudioError, match="silent"):
        list(stream_in_batches(engine, silence, "asr", 4))


def test_what_cannot_be_decoded_together_is_refused(engine: Engine, recording: Waveform) -> None:
    with pytest.raises(InputError, match="greedily: give beams=1"):
        next(stream_in_batches(engine, recording, "asr", 2, Generation(beams=2)))
    for batch in (0, -1, 33):
        with pytest.raises(InputError, match="must be from 1 to 32"):
            next(stream_in_batches(engine, recording, "asr", batch))


def test_a_prompt_about_two_clips_is_refused_as_it_is_alone(recording: Waveform) -> None:
    with load("demo-salm") as engine:
        tag = engine.prompt.audio_tag
        for batch in (1, 4):
            with pytest.raises(InputError, match="the prompt asks about 2 clips, but 1 clip was given"):
                next(stream_in_batches(engine, recording, f"compare {tag} and {tag}", batch))


def test_caption_writes_the_same(recording: Waveform, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = tmp_path / "talk.wav"
    write_wav(clip, recording)
    shown: list[str] = []
    for batch in ("1", "4"):
        assert main(["caption", str(clip), "--format", "srt", "--batch", batch]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] and shown[0].count("-->") > 2
    assert main(["caption", str(clip), "--batch", "4", "--beams", "2"]) == 2
    assert main(["caption", str(clip), "--batch", "99"]) == 2
    refused = capsys.readouterr()
    assert refused.out == "" and refused.err.count("\n") == 2
