"""Segments that are decoded together or side by side say what each says alone, in order; a fault takes none along."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.models.bundle import shipped_bundle
from auricle.models.errors import AudioError, InputError, RunError
from auricle.runtime.__main__ import main
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.audio.split import Segment
from auricle.runtime.batch import answer_segments, stream_in_batches
from auricle.runtime.encoders.base import EncodedSegment
from auricle.runtime.engine import Engine, EngineOptions, load
from auricle.runtime.events import AnswerEvent, Final, Piece, SegmentStarted, Timings
from auricle.runtime.llm.options import LlmOptions
from auricle.runtime.llm.sampling import Generation
from served import write_wav

CLIPS = shipped_bundle() / "clips"
NO_TIMINGS = Timings({}, 0.0, 0.0, 0.0, 0, 0)
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


def without_times(events: Iterator[AnswerEvent]) -> list[object]:
    return [replace(event, timings=NO_TIMINGS) if isinstance(event, Final) else event for event in events]


@pytest.mark.parametrize("lanes", [2, 3, 7])
@pytest.mark.parametrize(
    "generation",
    [
        Generation(max_new_tokens=40),
        Generation(max_new_tokens=12, temperature=0.8, seed=3),
        Generation(max_new_tokens=12, beams=2),
    ],
    ids=["greedy", "sampled", "beams"],
)
def test_side_by_side_they_say_to_the_last_bit_what_each_says_alone(
    engine: Engine, segments: list[Segment], lanes: int, generation: Generation
) -> None:
    """Confidence included, and piece by piece."""
    prompt = engine.prompt.prompt_for("asr")
    alone = without_times(answer_segments(engine, segments, prompt, generation))
    assert without_times(answer_segments(engine, segments, prompt, generation, lanes=lanes)) == alone
    assert sum(isinstance(event, Final) for event in alone) == len(NAMES)


def test_side_by_side_all_listen_for_the_keywords_at_the_lora_scale(engine: Engine, segments: list[Segment]) -> None:
    prompt, generation = engine.prompt.prompt_for("asr"), Generation(max_new_tokens=24)
    plain = without_times(answer_segments(engine, segments, prompt, generation))
    trained = engine.llm.lora_scale
    try:
        engine.keywords = ("bicycle", "lamp")
        if engine.bundle.manifest.llm.adapter:
            engine.llm.set_lora_scale(0.25 * trained)
        alone = without_times(answer_segments(engine, segments, prompt, generation))
        assert alone != plain
        assert without_times(answer_segments(engine, segments, prompt, generation, lanes=2)) == alone
        assert engine.keywords == ("bicycle", "lamp")
    finally:
        engine.keywords = ()
        if engine.bundle.manifest.llm.adapter:
            engine.llm.set_lora_scale(trained)
    assert without_times(answer_segments(engine, segments, prompt, generation, lanes=2)) == plain


def test_batches_side_by_side_are_told_in_order(engine: Engine, recording: Waveform) -> None:
    together = [event.text for event in finals(stream_in_batches(engine, recording, "asr", 2))]
    found = finals(stream_in_batches(engine, recording, "asr", 2, lanes=2))
    assert [event.text for event in found] == together
    assert [event.start_s for event in found] == sorted(event.start_s for event in found)


def test_what_was_heard_before_a_fault_is_answered_side_by_side_too(engine: Engine, segments: list[Segment]) -> None:
    def broken() -> Iterator[Segment]:
        yield from segments[:4]
        raise AudioError("the rest is not there: copy the file again")

    prompt = engine.prompt.prompt_for("asr")
    answered: list[Final] = []
    with pytest.raises(AudioError):
        for event in answer_segments(engine, broken(), prompt, engine.defaults, lanes=2):
            answered += [event] if isinstance(event, Final) else []
    assert len(answered) == 4


def test_an_answer_that_fails_is_told_behind_those_before_it(
    engine: Engine, segments: list[Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled = segments[2].waveform
    encode = engine.encoders.encode

    def failing(waveform: Waveform, short: bool | None = None) -> EncodedSegment:
        if waveform is spoiled:
            raise RunError("no memory")
        return encode(waveform, short)

    monkeypatch.setattr(engine.encoders, "encode", failing)
    prompt, answered = engine.prompt.prompt_for("asr"), list[Final]()
    with pytest.raises(RunError, match="no memory"):
        for event in answer_segments(engine, segments, prompt, engine.defaults, lanes=2):
            answered += [event] if isinstance(event, Final) else []
    assert len(answered) == 2
    assert engine.ask(CLIPS / "command.wav", "asr").text  # nothing is left behind


def test_who_stops_listening_waits_for_no_further_segment(engine: Engine, segments: list[Segment]) -> None:
    heard: list[int] = []

    def counted() -> Iterator[Segment]:
        for n in range(50):
            heard.append(n)
            yield segments[n % 5]

    events = answer_segments(engine, counted(), engine.prompt.prompt_for("asr"), engine.defaults, lanes=2)
    next(event for event in events if isinstance(event, Final))
    cast(Generator[AnswerEvent], events).close()
    assert len(heard) <= 4
    assert engine.ask(CLIPS / "command.wav", "asr").text


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
    for words in (["--lanes", "1"], ["--lanes", "1", "--batch", "4"], ["--lanes", "2"], []):
        assert main(["caption", str(clip), "--format", "srt", *words]) == 0
        shown.append(capsys.readouterr().out)
    assert len(set(shown)) == 1 and shown[0].count("-->") > 2
    assert main(["caption", str(clip), "--lanes", "0"]) == 2
    assert main(["caption", str(clip), "--batch", "4", "--beams", "2"]) == 2
    assert main(["caption", str(clip), "--batch", "99"]) == 2
    refused = capsys.readouterr()
    assert refused.out == "" and refused.err.count("\n") == 3
