"""Live captions: what they say, that it is exact, that nothing is lost, and that it does not depend on the chunks."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import noises
import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.models.errors import InputError, RunError
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.engine import Engine, load
from auricle.runtime.events import (
    AudioDropped,
    Caption,
    DeviceFound,
    DeviceLost,
    Final,
    Lagging,
    LiveEvent,
    SessionEnded,
    SpeechStarted,
    Word,
)
from auricle.runtime.live import incremental
from auricle.runtime.live.captions import Live, LiveOptions, captions, captions_async
from auricle.runtime.live.gate import GateOptions
from auricle.runtime.live.incremental import IncrementalDecoder, IncrementalOptions
from auricle.runtime.llm.sampling import Generation
from auricle.runtime.llm.speculative import reply_to_all
from auricle.runtime.sources.playback import FilePlayback
from auricle.runtime.sources.source import Chunk, SourceItem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SILENCE = np.zeros(SAMPLE_RATE, np.float32)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with load() as opened:
        yield opened


@pytest.fixture(scope="module")
def clips(engine: Engine) -> list[Waveform]:
    folder = engine.bundle.path("clips")
    rows = json.loads((folder / "clips.json").read_text())
    return [
        read_audio(folder / row["file"])
        for row in rows
        if row["task"] not in ("audiocaption", "audio_speech_description")
    ]


@pytest.fixture(scope="module")
def speech(clips: list[Waveform]) -> Waveform:
    """Four spoken commands with pauses between them."""
    return np.concatenate([part for clip in clips[:4] for part in (clip, SILENCE)])


def run(engine: Engine, audio: Waveform, options: LiveOptions | None = None, chunk: int = 1600) -> list[LiveEvent]:
    return list(captions(FilePlayback(audio, "fast", chunk), engine, options))


def without_times(events: list[LiveEvent]) -> list[LiveEvent]:
    """What must not depend on how fast the machine is."""
    plain: list[LiveEvent] = []
    for event in events:
        if isinstance(event, Caption):
            event = replace(event, work=replace(event.work, latency_ms=0.0, encoders_ms=0.0))
        if isinstance(event, Final):
            event = replace(event, timings=None)  # pyright: ignore[reportArgumentType]
        plain.append(event)
    return plain


def in_order(events: list[LiveEvent]) -> int:
    """Holds events to the guarantees at the top of runtime/events.py; how many segments there were."""
    assert isinstance(events[-1], SessionEnded)
    open_since, stable, ended, n_finals = None, list[str](), 0.0, 0
    for event in events[:-1]:
        if isinstance(event, SpeechStarted):
            assert open_since is None and event.start_s >= ended
            open_since, stable = event.start_s, []
        elif isinstance(event, Caption):
            assert event.start_s == open_since and event.end_s > event.start_s
            assert event.stable.split()[: len(stable)] == stable
            stable = event.stable.split()
        elif isinstance(event, Final):
            assert event.start_s == open_since and event.end_s > event.start_s
            assert [word.text for word in event.words] == event.text.split()
            assert all(isinstance(word, Word) and event.start_s < word.heard_s <= event.end_s for word in event.words)
            open_since, ended, n_finals = None, event.end_s, n_finals + 1
        else:
            assert isinstance(event, AudioDropped | DeviceLost | DeviceFound | Lagging)
    assert open_since is None
    return n_finals


def test_what_comes_when(engine: Engine, speech: Waveform) -> None:
    """SpeechStarted, Captions, one Final; segments in order; stable text only grows; the ledger's balance is last."""
    assert in_order(run(engine, speech)) >= 4


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.tuples(st.integers(0, 3), st.floats(0.0, 1.5), st.sampled_from([0.0, 0.0, 0.7])), max_size=4),
    chunk=st.sampled_from([160, 1600, 48_000]),
    agreement=st.integers(1, 3),
    vad=st.booleans(),
)
def test_events_keep_their_order_whatever_is_heard(
    engine: Engine,
    clips: list[Waveform],
    parts: list[tuple[int, float, float]],
    chunk: int,
    agreement: int,
    vad: bool,
) -> None:
    """Any clips in a row, any pauses, sound lost between them or not, any chunks, with and without the gate."""
    items: list[SourceItem] = []
    at = 0
    for index, pause_s, lost_s in parts:
        audio = np.concatenate([clips[index], np.zeros(int(pause_s * SAMPLE_RATE), np.float32)])
        for start in range(0, len(audio), chunk):
            items.append(Chunk((at + start) / SAMPLE_RATE, audio[start : start + chunk]))
        at += len(audio)
        if lost_s:
            items.append(AudioDropped(at / SAMPLE_RATE, lost_s))
            at += round(lost_s * SAMPLE_RATE)
    events = list(captions(Given(*([item] for item in items)), engine, LiveOptions(agreement=agreement, vad=vad)))
    in_order(events)
    balance = events[-1]
    assert isinstance(balance, SessionEnded) and balance.captured_s == pytest.approx(at / SAMPLE_RATE)
    assert balance.captured_s == pytest.approx(balance.decoded_s + balance.skipped_s + balance.dropped_s)


def test_every_sample_is_accounted_for(engine: Engine, speech: Waveform) -> None:
    events = run(engine, speech)
    balance = events[-1]
    assert isinstance(balance, SessionEnded)
    assert balance.captured_s == pytest.approx(len(speech) / SAMPLE_RATE)
    assert balance.captured_s == pytest.approx(balance.decoded_s + balance.skipped_s + balance.dropped_s)
    assert balance.decoded_s == pytest.approx(sum(e.end_s - e.start_s for e in events if isinstance(e, Final)))


def test_the_draft_changes_no_token_and_saves_passes(engine: Engine, clips: list[Waveform]) -> None:
    """Every update of every clip, token by token, against decoding the same audio from scratch."""
    prompt = "Recognize the speech and give me the transcription."
    passes = drafted = accepted = 0
    for clip in clips:
        decoder = IncrementalDecoder(engine, (prompt,), IncrementalOptions())
        state = decoder.create_state()
        for end in [*range(SAMPLE_RATE // 2, len(clip), SAMPLE_RATE // 2), len(clip)]:
            read, state = decoder.step(engine, clip[:end], state)
            scratch, _ = decoder.step(engine, clip[:end], decoder.create_state())
            assert read.replies[0].ids == scratch.replies[0].ids
            reply = read.replies[0]
            assert read.n_steps <= max(0, len(reply.ids) - reply.n_accepted)  # one for each token that differs
            passes, drafted, accepted = passes + read.n_steps, drafted + reply.n_drafted, accepted + reply.n_accepted
    assert accepted > 0.3 * drafted


def test_the_final_is_what_ask_says_of_the_segment(engine: Engine, speech: Waveform) -> None:
    finals = [event for event in run(engine, speech) if isinstance(event, Final)]
    for final in finals:
        segment = speech[round(final.start_s * SAMPLE_RATE) : round(final.end_s * SAMPLE_RATE)]
        answer = engine.ask(segment, "asr", Generation(engine.defaults.max_new_tokens, guard=True))
        assert answer.text == final.text and answer.segments[0].token_ids == final.token_ids


@pytest.mark.parametrize("chunk", [7, 160, 48_000])
def test_chunks_change_nothing(engine: Engine, clips: list[Waveform], chunk: int) -> None:
    audio = np.concatenate([clips[0], SILENCE, clips[1]])
    assert without_times(run(engine, audio, chunk=chunk)) == without_times(run(engine, audio, chunk=1600))


def test_single_samples_change_nothing(engine: Engine, clips: list[Waveform]) -> None:
    audio = np.concatenate([clips[0], SILENCE])
    assert without_times(run(engine, audio, chunk=1)) == without_times(run(engine, audio, chunk=1600))


def test_a_final_does_not_know_what_comes_after(engine: Engine, clips: list[Waveform]) -> None:
    rng = np.random.default_rng(3)
    audio = np.concatenate([clips[0], SILENCE])
    before = [event for event in run(engine, audio) if isinstance(event, Final)]
    longer = np.concatenate([audio, rng.normal(0, 0.05, 2 * SAMPLE_RATE).astype(np.float32), clips[2]])
    after = [event for event in run(engine, longer) if isinstance(event, Final)]
    assert without_times([*before]) == without_times([*after[: len(before)]]) and len(before) == 1


def test_several_questions_share_one_hearing(engine: Engine, clips: list[Waveform]) -> None:
    """The same answers as each question alone."""
    asked = LiveOptions(also=("audiocaption", "slot_filling:room"))
    finals = [event for event in run(engine, clips[0], asked) if isinstance(event, Final)]
    alone = [
        [event.text for event in run(engine, clips[0], LiveOptions(prompt=task)) if isinstance(event, Final)]
        for task in ("asr", "audiocaption", "slot_filling:room")
    ]
    assert [[final.text, *(text for _, text in final.also)] for final in finals] == [
        list(t) for t in zip(*alone, strict=True)
    ]


@pytest.mark.parametrize("options", [LiveOptions(context="short"), LiveOptions(settle_s=0.5)])
def test_the_shortcuts_hear_the_same_stretches(engine: Engine, speech: Waveform, options: LiveOptions) -> None:
    plain, shortcut = run(engine, speech), run(engine, speech, options)
    assert [(e.start_s, e.end_s) for e in plain if isinstance(e, Final)] == [
        (e.start_s, e.end_s) for e in shortcut if isinstance(e, Final)
    ]
    work = [event.work for event in shortcut if isinstance(event, Caption)]
    if options.settle_s is not None:
        assert any(w.n_kept for w in work)
    else:
        assert min(w.n_audio_tokens for w in work) < engine.spec.n_audio_tokens


def test_kept_kv_gives_the_tokens_of_reading_all_again(engine: Engine, clips: list[Waveform]) -> None:
    prompts = ("Recognize the speech and give me the transcription.", "Please describe the audio.")
    for clip in clips:
        short, whole = (engine.encode(clip[:n]).audio_tokens for n in (len(clip) // 2, len(clip)))
        mixed = np.concatenate([short[:3], whole[3:]])
        nothing = [(), ()]
        reply_to_all(engine.llm, short, prompts, nothing, (40, 40))
        kept = reply_to_all(engine.llm, mixed, prompts, nothing, (40, 40), n_kept=3)
        again = reply_to_all(engine.llm, mixed, prompts, nothing, (40, 40))
        assert kept.replies == again.replies


@pytest.mark.parametrize("kind", noises.KINDS)
def test_nothing_is_said_over_silence_and_noise(engine: Engine, kind: str) -> None:
    """A minute each; five in `make soak`."""
    assert said_over(engine, kind, 60.0) == []


def said_over(engine: Engine, kind: str, seconds: float) -> list[str]:
    events = run(engine, noises.noise(kind, seconds))
    return [event.text for event in events if isinstance(event, Final) and event.text]


def test_what_has_settled_is_read_again_for_the_final(engine: Engine, clips: list[Waveform]) -> None:
    """Finals are what they are without it, work that was done ahead in a pause included."""
    for clip in clips:
        for chunk in (1600, 16_000):
            plain, settled = (
                run(engine, clip, LiveOptions(settle_s=settle_s, hop_ms=200), chunk) for settle_s in (None, 0.2)
            )
            assert any(event.work.n_kept for event in settled if isinstance(event, Caption))
            assert finals(settled) == finals(plain)


def finals(events: list[LiveEvent]) -> list[tuple[str, float | None]]:
    return [(event.text, event.avg_logprob) for event in events if isinstance(event, Final)]


def test_a_large_language_model_keeps_what_has_settled(
    engine: Engine, speech: Waveform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept(options: LiveOptions) -> int:
        return sum(event.work.n_kept for event in run(engine, speech, options) if isinstance(event, Caption))

    assert kept(LiveOptions()) == 0
    monkeypatch.setattr(incremental, "SETTLES_FROM_BYTES", 0)
    assert kept(LiveOptions()) == kept(LiveOptions(settle_s=1.0)) > 0
    assert kept(LiveOptions(settle_s=60.0)) == 0


def test_a_question_in_between_changes_nothing(engine: Engine, clips: list[Waveform]) -> None:
    options = LiveOptions(settle_s=0.3)
    alone = [event.text for event in run(engine, clips[0], options) if isinstance(event, Final)]
    texts: list[str] = []
    for event in captions(FilePlayback(clips[0], "fast", 1600), engine, options):
        engine.ask(clips[1], "asr")
        texts += [event.text] if isinstance(event, Final) else []
    assert texts == alone


def test_a_prompt_without_room_is_refused_at_once(engine: Engine, clips: list[Waveform]) -> None:
    live = Live(engine, FilePlayback(clips[0], "fast"))
    with pytest.raises(InputError, match="fit"):
        live.ask("word " * 3000)
    with pytest.raises(InputError, match="fit"):
        Live(engine, FilePlayback(clips[0], "fast"), LiveOptions(generation=Generation(5000), prompt="audiocaption"))
    assert [event.text for event in live if isinstance(event, Final)]


def test_cancelled_async_captions_leave_the_engine_alone(
    engine: Engine, clips: list[Waveform], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever cancels may close the engine next: no thread may be inside it any more."""
    inside, encode = threading.Event(), engine.encode
    busy: list[bool] = []

    def slowly(waveform: Waveform, short: bool = False) -> object:
        busy.append(True)
        inside.set()
        time.sleep(0.3)
        encoded = encode(waveform, short)
        busy.clear()
        return encoded

    async def cancelled() -> None:
        async for _ in captions_async(FilePlayback(clips[0], "fast"), engine):
            pass

    async def session() -> None:
        task = asyncio.create_task(cancelled())
        await asyncio.to_thread(inside.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    monkeypatch.setattr(engine, "encode", slowly)
    asyncio.run(session())
    assert not busy


def test_a_closed_engine_says_so(clips: list[Waveform]) -> None:
    with load() as opened:
        pass
    with pytest.raises(RunError, match="closed"):
        opened.ask(clips[0], "asr")


def test_stop_from_another_thread_ends_the_session(engine: Engine, speech: Waveform) -> None:
    live = Live(engine, FilePlayback(speech, "realtime"))
    threading.Timer(0.7, live.stop).start()
    events = list(live)
    assert isinstance(events[-1], SessionEnded) and events[-1].captured_s < 3.0


def test_async_captions_are_the_same(engine: Engine, clips: list[Waveform]) -> None:
    async def collect() -> list[LiveEvent]:
        return [event async for event in captions_async(FilePlayback(clips[0], "fast", 1600), engine)]

    assert without_times(asyncio.run(collect())) == without_times(run(engine, clips[0]))


def test_a_slow_model_loses_nothing(engine: Engine, clips: list[Waveform], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times slower: fewer updates, said so, the same final and the same balance."""
    audio = np.concatenate([clips[1], SILENCE])
    usual = run(engine, audio)
    clock = Clock()
    encode = engine.encode

    def slowly(waveform: Waveform, short: bool = False) -> object:
        clock.now += 1.7
        return encode(waveform, short)

    monkeypatch.setattr(engine, "encode", slowly)
    events = list(captions(Playback(audio, clock), engine))
    assert [e.text for e in events if isinstance(e, Final)] == [e.text for e in usual if isinstance(e, Final)]
    assert events[-1] == usual[-1]
    assert any(isinstance(event, Lagging) for event in events)
    assert sum(isinstance(e, Caption) for e in events) < sum(isinstance(e, Caption) for e in usual)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0


class Playback:
    """A file at real pace by a clock of ours."""

    realtime = True

    def __init__(self, audio: Waveform, clock: Clock) -> None:
        self._audio, self._clock, self._given, self._closed = audio, clock, 0, False

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        if self._given == len(self._audio) or self._closed:
            return None
        self._clock.now += timeout_s
        end = min(len(self._audio), int(self._clock.now * SAMPLE_RATE))
        chunk = Chunk(self._given / SAMPLE_RATE, self._audio[self._given : end])
        self._given = end
        return [chunk] if len(chunk.waveform) else []

    def close(self) -> None:
        self._closed = True


class Given:
    """Chunks and gaps, one list a read."""

    realtime = False

    def __init__(self, *reads: list[SourceItem]) -> None:
        self._reads = list(reads)

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        return self._reads.pop(0) if self._reads else None

    def close(self) -> None:
        self._reads.clear()


@pytest.mark.parametrize("together", [True, False])
def test_a_gap_ends_the_segment_and_is_told(engine: Engine, clips: list[Waveform], together: bool) -> None:
    """Half a sentence, a lost second, another sentence: both are decoded, the gap stands between them in time."""
    half, other = clips[0][: len(clips[0]) // 2], np.concatenate([clips[1], SILENCE])
    start_s = len(half) / SAMPLE_RATE
    gap = AudioDropped(start_s, 1.0)
    items: list[SourceItem] = [Chunk(0.0, half), gap, Chunk(start_s + 1.0, other)]
    source = Given(items) if together else Given(*([item] for item in items))
    events = [event for event in captions(source, engine) if not isinstance(event, Caption)]
    first, second = (event for event in events if isinstance(event, Final))
    assert events.index(first) < events.index(gap) < events.index(second)
    assert first.end_s <= start_s and second.start_s >= start_s + 1.0
    balance = events[-1]
    assert isinstance(balance, SessionEnded) and balance.dropped_s == 1.0
    assert balance.captured_s == pytest.approx(balance.decoded_s + balance.skipped_s + 1.0)


def test_a_microphone_that_comes_back_goes_on(engine: Engine, clips: list[Waveform]) -> None:
    start_s = len(clips[0]) / SAMPLE_RATE
    lost, found = DeviceLost(start_s, "headset"), DeviceFound(start_s + 30.0, "headset", 30.0)
    source = Given([Chunk(0.0, clips[0]), lost], [], [found, Chunk(start_s + 30.0, clips[0])])
    events = list(captions(source, engine))
    first, second = (event for event in events if isinstance(event, Final))
    assert first.text == second.text and second.start_s >= start_s + 30.0
    assert lost in events and found in events


@pytest.mark.parametrize(
    "wrong",
    [
        {"hop_ms": 1.0},
        {"agreement": 0},
        {"context": "long"},
        {"settle_s": -1.0},
        {"prompt": " "},
        {"generation": Generation(beams=2)},
        {"generation": Generation(temperature=0.5)},
        {"also": ("",)},
        {"generation": Generation(repetition_penalty=1.5)},
    ],
)
def test_impossible_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        LiveOptions(**wrong)  # pyright: ignore[reportArgumentType]


def test_no_segment_is_longer_than_the_window(engine: Engine, clips: list[Waveform]) -> None:
    audio = np.concatenate([*clips, *clips])
    options = LiveOptions(vad=False, gate=GateOptions(max_segment_s=30.0), hop_ms=5000)
    finals = [event for event in run(engine, audio, options, 16_000) if isinstance(event, Final)]
    assert max(final.end_s - final.start_s for final in finals) <= engine.spec.seconds
    assert finals[0].start_s == 0.0 and all(a.end_s == b.start_s for a, b in pairwise(finals))
