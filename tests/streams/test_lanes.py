"""Lanes: sessions on one engine's weights, whose turns run side by side; each stream says what it says alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.models.errors import InputError, RunError
from auricle.runtime.__main__ import main
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.cli import commands
from auricle.runtime.cli.serve import ServeCommand
from auricle.runtime.engine import Engine, EngineOptions, load
from auricle.runtime.events import Final
from auricle.runtime.live.captions import LiveOptions, captions
from auricle.runtime.live.estimate import estimate_costs
from auricle.runtime.llm.llama import Floats
from auricle.runtime.llm.options import LlmOptions
from auricle.runtime.llm.sampling import Generation
from auricle.runtime.scheduler import Priority, Scheduler
from auricle.runtime.server.openai.realtime.answers import Memory, Question
from auricle.runtime.server.options import ServerOptions
from auricle.runtime.server.service import Service
from auricle.runtime.sources.playback import FilePlayback
from auricle.runtime.stream_load import Load
from auricle.runtime.system import machine
from live_client import say, started
from live_client import until as hear_until
from served import serving

from .live_sessions import until

FINAL, UPDATE, BATCH = Priority
NOISE = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
CLIPS = ("command", "weather", "reminder", "shopping")


@pytest.fixture(scope="module")
def clips(engine: Engine) -> list[Waveform]:
    silence = np.zeros(SAMPLE_RATE, np.float32)
    return [np.concatenate([read_audio(engine.bundle.path(f"clips/{name}.wav")), silence]) for name in CLIPS]


def test_as_many_turns_as_lanes_run_at_a_time(engine: Engine) -> None:
    scheduler = Scheduler(engine, n_lanes=2)
    third = threading.Event()

    def ask() -> None:
        with scheduler.stream().turn(FINAL):
            third.set()

    with scheduler.stream().turn(UPDATE) as first:
        with scheduler.stream().turn(UPDATE) as second:
            assert {first, second} == set(engine.lanes(2)) and scheduler.n_busy == 2
            waiting = threading.Thread(target=ask)
            waiting.start()
            until(lambda: scheduler.waiting()[FINAL] == 1)
            assert not third.is_set()
        waiting.join(10)
        assert third.is_set()
    assert scheduler.n_busy == 0


def test_a_stream_comes_back_to_the_lane_that_knows_its_sound(engine: Engine) -> None:
    scheduler = Scheduler(engine, n_lanes=3)
    streams = [scheduler.stream() for _ in range(3)]
    with streams[0].turn(UPDATE) as a, streams[1].turn(UPDATE) as b, streams[2].turn(UPDATE) as c:
        before = [a, b, c]
    for n in (1, 0, 2, 1):
        with streams[n].turn(UPDATE) as again:
            assert again is before[n]


def test_keywords_and_lora_scale_are_of_the_stream_whatever_the_lane(engine: Engine) -> None:
    scheduler = Scheduler(engine, n_lanes=2)
    listening, plain = scheduler.stream(), scheduler.stream()
    listening.keywords, listening.lora_scale = ("lamp",), 0.5
    for blocked in engine.lanes(2):
        with scheduler.stream().turn(FINAL) as other:
            if other is not blocked:
                continue
            with listening.turn(UPDATE) as own:
                assert own is not blocked and own.keywords == ("lamp",) and own.llm.lora_scale == 0.5
            with plain.turn(UPDATE) as own:
                assert own.keywords == () and own.llm.lora_scale == plain.lora_scale != 0.5


@pytest.mark.parametrize("n_lanes", [2, 3])
def test_streams_on_several_lanes_say_what_they_say_alone(engine: Engine, clips: list[Waveform], n_lanes: int) -> None:
    """Six at once: token for token, and with the same confidence."""
    options = LiveOptions(hop_ms=1000, also=("keywords",))

    def listen(scheduler: Scheduler, clip: Waveform) -> list[object]:
        heard = captions(FilePlayback(clip, "fast"), engine, options, scheduler.stream())
        return [(e.text, e.token_ids, e.also, e.avg_logprob) for e in heard if isinstance(e, Final)]

    alone = [listen(Scheduler(engine), clip) for clip in clips]
    assert all(len(finals) == 1 for finals in alone)
    scheduler = Scheduler(engine, n_lanes=n_lanes)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda n: listen(scheduler, clips[n % 4]), range(12)))
    assert found == alone * 3


def test_a_lane_has_a_cache_of_its_own_and_the_weights_of_all(engine: Engine, clips: list[Waveform]) -> None:
    expected = [engine.ask(clip, "asr").text for clip in clips]
    first, second = engine.lanes(2)
    assert first is engine and second.llm.weights is first.llm.weights and second.encoders is first.encoders
    with ThreadPoolExecutor(2) as pool:
        halves = pool.map(lambda lane: [lane.ask(clip, "asr").text for clip in clips], (first, second))
        assert list(halves) == [expected, expected]


def test_a_lane_without_memory_is_a_sentence(
    engine: Engine, clips: list[Waveform], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = engine.lanes(3)

    def refuse(*_: object) -> None:
        raise RunError("no memory for a KV cache of 512 positions")

    monkeypatch.setattr("auricle.runtime.engine._open_llm", refuse)
    with pytest.raises(RunError, match=r"^only 3 of 5 lanes can be opened, ask for no more: no memory"):
        engine.lanes(5)
    assert engine.lanes(3) == there and engine.ask(clips[0], "asr").text


def test_lanes_end_with_their_engine(golden_bundle: Path) -> None:
    opened = load(golden_bundle)
    _, lane = opened.lanes(2)
    assert opened.lanes(2)[1] is lane
    opened.close()
    opened.close()
    for each in (opened, lane):
        with pytest.raises(RunError, match="open the bundle again"):
            each.ask(NOISE, "asr")


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "f32"])
def test_an_answer_does_not_depend_on_the_threads_that_compute_it(kv_type: str, clips: list[Waveform]) -> None:
    """To the last bit: a pass has all cores when its lane is alone and one when it is not."""
    found: list[Floats] = []
    with load(None, EngineOptions(llm=LlmOptions(kv_type=kv_type, n_threads=2))) as opened:
        tokens = opened.encode(clips[1]).audio_tokens
        prompt = opened.prompt.prompt_for("asr")
        for n_sessions in (1, 2):
            llm = opened.llm
            llm.share_cores(n_sessions)
            logits = [llm.prefill(tokens, prompt)]
            for _ in range(8):
                logits.append(llm.feed([int(logits[-1].argmax())])[-1])
            found.append(np.stack(logits))
    assert np.array_equal(found[0], found[1])


def test_small_models_have_a_lane_for_each_core_and_large_ones_a_single_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "default_threads", lambda: 3)
    assert [machine.usual_lanes(size) for size in (1 << 20, 200 << 20, 4 << 30)] == [3, 3, 1]
    monkeypatch.setattr(machine, "default_threads", lambda: 64)
    assert machine.usual_lanes(1 << 20) == machine.USUAL_LANES
    threads = [machine.llm_threads(size, None, n) for size in (1 << 20, 200 << 20, 4 << 30) for n in (1, 2)]
    assert threads == [1, 1, 64, 1, 64, 64]
    assert [machine.llm_threads(200 << 20, 8, n) for n in (1, 2)] == [8, 1]


def test_two_lanes_hold_twice_as_much() -> None:
    loads = [Load(n) for n in (1, 2)]
    for each in loads:
        each.update.add(0.4, 2.0)
        each.add_final(0.4, 4.0)
        for stream in range(4):
            each.begin(stream)
    assert [each.of(8) for each in loads] == pytest.approx([0.8, 0.4])
    one, two = (each.hop_s(0.1) for each in loads)
    assert one == 2.0 and two == pytest.approx(0.2 / (0.2 - 0.05))


def test_the_first_estimate_is_of_as_many_as_there_are_lanes(engine: Engine) -> None:
    seen: list[int] = []
    scheduler = Scheduler(engine, lambda *_: seen.append(scheduler.n_busy), n_lanes=2)
    estimate_costs(engine, scheduler)
    assert scheduler.load.of(1) > 0 and max(seen) >= 1


def test_a_conversation_goes_on_in_whichever_lane_is_free(engine: Engine, clips: list[Waveform]) -> None:
    service = Service(engine, ServerOptions(port=0, lanes=2))
    questions = [Question((str(n),), engine.prompt.prompt_for("asr"), clip, "") for n, clip in enumerate(clips[:2])]

    def converse(blocked: int | None) -> list[str]:
        """Two questions; for the second one, the lane that holds the conversation is taken where that is asked."""
        memory, stream, said = Memory(), service.stream(), []
        past: list[Question] = []
        for n, question in enumerate(questions):
            asked = [*past, question]
            if n == blocked:
                with service.stream().turn(FINAL) as taken:
                    assert taken is stream.lane
                    events = [*memory.answer(service, stream, "", asked, Generation(max_new_tokens=12))]
                    assert stream.lane is not taken
            else:
                events = [*memory.answer(service, stream, "", asked, Generation(max_new_tokens=12))]
            final = next(event for event in events if isinstance(event, Final))
            said.append(final.text)
            past.append(Question(question.ids, question.prompt, question.sound, final.text))
        return said

    try:
        assert converse(blocked=1) == converse(blocked=None)
    finally:
        service.close()


def test_a_server_with_lanes_answers_files_and_streams_at_once(engine: Engine) -> None:
    """Eight clients at the same time, each with a clip of its own."""
    paths = [engine.bundle.path(f"clips/{name}.wav") for name in CLIPS]
    expected = [engine.ask(path, "asr").text for path in paths]

    with serving(engine, ServerOptions(port=0, lanes=2)) as running:

        def file(n: int) -> str:
            files = {"file": (paths[n].name, paths[n].read_bytes())}
            address = f"{running.url}/v1/audio/transcriptions"
            return httpx.post(address, files=files, data={"model": "auricle-demo"}, timeout=60).json()["text"]

        def stream(n: int) -> str:
            with started(running) as connection:
                say(connection, np.concatenate([read_audio(paths[n]), np.zeros(SAMPLE_RATE, np.float32)]))
                return hear_until(connection, "final")[-1]["text"]

        with ThreadPoolExecutor(8) as clients:
            told = list(clients.map(lambda n: (file if n < 4 else stream)(n % 4), range(8)))
    assert told == expected * 2


def test_no_lanes_and_too_many_are_refused() -> None:
    for n in (0, 65):
        with pytest.raises(InputError, match=f"lanes={n} is not possible"):
            ServerOptions(port=0, lanes=n)


@pytest.mark.parametrize(("words", "lanes"), [([], None), (["--lanes", "3"], 3)])
def test_the_command_says_how_many(words: list[str], lanes: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[ServeCommand] = []
    monkeypatch.setattr(commands, "serve", lambda command: given.append(command) or 0)
    assert main(["serve", *words]) == 0
    assert given[0].server.lanes == lanes
