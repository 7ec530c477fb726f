"""The voice assistant: when it answers, when it stops, what it remembers, speaks and returns as JSON."""

from __future__ import annotations

import errno
import io
import json
import sys
import threading
import time
import wave
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.models.corpus.examples import INTENT_PROMPT
from auricle.models.errors import InputError, RunError
from auricle.runtime.__main__ import main
from auricle.runtime.assistant import Assistant
from auricle.runtime.assistant_options import AssistantOptions
from auricle.runtime.cli.live import assist as assist_module
from auricle.runtime.engine import EncodedSegment, Engine, load
from auricle.runtime.events import Answered, AssistantEvent, Piece, SessionEnded, SpeechEnded, SpeechStarted
from auricle.runtime.live.gate import GateOptions, Opened, SpeechGate
from auricle.runtime.live.segmenter import Segmenter
from auricle.runtime.live.silero import FRAME_LENGTH, VadState
from auricle.runtime.llm.conversation import Conversation
from auricle.runtime.llm.sampling import Generation
from auricle.runtime.llm.session import Llm
from auricle.runtime.sources.playback import FilePlayback
from auricle.runtime.sources.source import Chunk
from memory import held_bytes
from voices import say, wait_for

FRAME = 512
QUIET = np.zeros(2 * SAMPLE_RATE, np.float32)
TALK = (np.sin(np.arange(2 * SAMPLE_RATE) / 5) * 0.5).astype(np.float32)
TURN = np.concatenate([TALK, QUIET])
SWITCH: dict[str, Any] = {
    "type": "object",
    "properties": {"action": {"enum": ["turn on", "turn off"]}, "level": {"enum": [1, 2]}},
    "required": ["action", "level"],
}
INTENT: dict[str, Any] = {
    "type": "object",
    "properties": {name: {"type": "string", "maxLength": 20} for name in ("action", "device", "room")},
    "required": ["action", "device", "room"],
    "additionalProperties": False,
}
SHORT = AssistantOptions(generation=Generation(8))
LONG = AssistantOptions(generation=Generation(60))


class Loudness:
    """A speech gate's ear that takes every loud frame for speech."""

    def create_state(self) -> VadState:
        return VadState((np.zeros(0, np.float32), np.zeros(0, np.float32)), np.zeros(0, np.float32))

    def step(self, samples: Waveform, state: VadState) -> tuple[list[float], VadState]:
        return [float(frame.max() > 0.1) for frame in np.abs(samples.reshape(-1, FRAME_LENGTH))], state


class Script:
    """A source that is as far as it was read: every read is 32 ms later, whatever the clock says."""

    def __init__(self, audio: Waveform, realtime: bool = True) -> None:
        self.realtime = realtime
        self._audio, self._at, self._closed = audio, 0, threading.Event()

    def read(self, timeout_s: float) -> list[Any] | None:
        if self._at >= len(self._audio) or self._closed.is_set():
            return None
        chunk = Chunk(self._at / SAMPLE_RATE, self._audio[self._at : self._at + FRAME])
        self._at += FRAME
        return [chunk]

    def close(self) -> None:
        self._closed.set()


@pytest.fixture(scope="module")
def opened(golden_bundle: Path) -> Iterator[Engine]:
    with load(golden_bundle) as engine:
        yield engine


@pytest.fixture
def engine(opened: Engine, golden: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The golden model, which hears the golden clip in everything that is loud."""
    tokens = np.load(golden / "salmonn-tiny" / "jfk_11s.npz")["audio_tokens"]
    monkeypatch.setattr(opened, "encode", lambda _waveform: EncodedSegment(tokens, {"whisper": 1.0}, 1.0))  # pyright: ignore
    monkeypatch.setattr("auricle.runtime.assistant.open_gate", lambda *_, **__: SpeechGate(Loudness(), GateOptions()))
    return opened


def run(
    engine: Engine, audio: Waveform, options: AssistantOptions = SHORT, realtime: bool = True
) -> list[AssistantEvent]:
    return list(Assistant(engine, options).run(Script(audio, realtime)))


def answers(events: list[AssistantEvent]) -> list[Answered]:
    return [event for event in events if isinstance(event, Answered)]


def kinds(events: list[AssistantEvent]) -> list[str]:
    """The order of events; Pieces in a row are one."""
    names = [type(event).__name__ for event in events]
    return [name for at, name in enumerate(names) if name != "Piece" or names[at - 1] != "Piece"]


def test_what_comes_when(engine: Engine) -> None:
    events = run(engine, np.concatenate([QUIET, TURN, TURN]))
    segment = ["SpeechStarted", "SpeechEnded", "Piece", "Answered"]
    assert kinds(events) == [*segment, *segment, "SessionEnded"]
    text = ""
    for event in events:
        if isinstance(event, SpeechEnded):
            text = ""
        elif isinstance(event, Piece):
            text += event.text
        elif isinstance(event, Answered):
            assert text.strip() == event.text
            assert event.finish_reason == "length" and not event.interrupted
            assert event.timings.n_new_tokens == len(event.token_ids) == 8
    first, second = answers(events)
    assert (first.n_turns, second.n_turns) == (1, 2)
    assert first.start_s == pytest.approx(1.8, abs=0.05)
    assert first.end_s == pytest.approx(4.2, abs=0.05)
    assert second.start_s > first.end_s


def test_turns_share_one_conversation(engine: Engine) -> None:
    """What is answered is what a conversation by itself says."""
    found = answers(run(engine, np.concatenate([TURN, TURN, TURN])))
    conversation, heard = Conversation(engine.llm), engine.encode(TALK)
    for answered in found:
        conversation.prefill_audio(heard.audio_tokens, answered.prompt, 8)
        assert tuple(conversation.answer(Generation(8))) == answered.token_ids
    assert found[0].token_ids != found[1].token_ids


def test_without_memory_every_turn_stands_alone(engine: Engine) -> None:
    found = answers(run(engine, np.concatenate([TURN, TURN]), replace(SHORT, remember=False)))
    assert found[0].token_ids == found[1].token_ids
    assert found[1].n_turns == 1


def test_every_sample_is_accounted_for(engine: Engine) -> None:
    for options in (SHORT, LONG, replace(LONG, barge_in=False)):
        audio = np.concatenate([TURN, TURN[: 3 * SAMPLE_RATE], TALK, TURN, TALK])
        events = run(engine, audio, options)
        balance, found = events[-1], answers(events)
        assert isinstance(balance, SessionEnded)
        assert balance.captured_s == pytest.approx(len(audio) / SAMPLE_RATE)
        assert balance.captured_s == pytest.approx(balance.decoded_s + balance.skipped_s)
        assert balance.decoded_s == pytest.approx(sum(a.end_s - a.start_s for a in found))


class TestBargeIn:
    """Script gives 32 ms with every poll, and there is one poll before each token."""

    def test_no_token_is_decoded_after_the_gate_has_opened(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log: list[str] = []
        poll, feed, hear = Segmenter.poll, Llm.feed, Conversation.prefill_audio

        def poll_and_tell(ear: Segmenter, timeout_s: float) -> Any:
            events = poll(ear, timeout_s)
            log.append("opened" if any(isinstance(event, Opened) for event in events or ()) else "poll")
            return events

        def feed_and_tell(llm: Llm, ids: Any, every: bool = False) -> Any:
            log.append("token")
            return feed(llm, ids, every)

        def hear_and_tell(*given: Any) -> None:
            hear(*given)
            log.append("question")

        monkeypatch.setattr(Segmenter, "poll", poll_and_tell)
        monkeypatch.setattr(Llm, "feed", feed_and_tell)
        monkeypatch.setattr(Conversation, "prefill_audio", hear_and_tell)
        events = run(engine, np.concatenate([TALK, QUIET[:SAMPLE_RATE], TALK, QUIET]), LONG)
        first, second = answers(events)
        assert first.interrupted and second.n_turns == 2
        answer = log[log.index("question") : log.index("opened", log.index("question")) + 1]
        assert answer.count("token") == len(first.token_ids) - 1  # the last token is never fed
        assert answer[1:] == ["poll", *["poll", "token"] * (len(first.token_ids) - 1), "opened"]
        after = log[log.index("opened", log.index("question")) + 1 :]
        assert "token" not in after[: after.index("poll")]
        assert kinds(events)[:7] == [*["SpeechStarted", "SpeechEnded", "Piece", "Answered"], *kinds(events)[:3]]

    def test_what_was_said_so_far_stays(self, engine: Engine) -> None:
        first, second = answers(run(engine, np.concatenate([TALK, QUIET[:SAMPLE_RATE], TALK, QUIET]), LONG))
        assert 0 < len(first.token_ids) < 60
        conversation, heard = Conversation(engine.llm), engine.encode(TALK)
        conversation.prefill_audio(heard.audio_tokens, first.prompt, 60)
        assert tuple(islice(conversation.answer(Generation(60)), len(first.token_ids))) == first.token_ids
        conversation.prefill_audio(heard.audio_tokens, first.prompt, 60)
        assert list(conversation.answer(Generation(60)))[: len(second.token_ids)] == list(second.token_ids)

    def test_speech_while_the_model_still_reads_comes_before_the_first_token(self, engine: Engine) -> None:
        class Burst(Script):
            """All of it at once."""

            def read(self, timeout_s: float) -> list[Any] | None:
                chunks: list[Any] = []
                while (found := super().read(timeout_s)) is not None:
                    chunks += found
                return chunks or None

        audio = np.concatenate([TURN, TURN])
        first, second = answers(list(Assistant(engine, SHORT).run(Burst(audio))))
        assert first.interrupted and first.token_ids == () and first.text == ""
        assert second.finish_reason == "length" and second.n_turns == 2

    def test_it_can_be_switched_off(self, engine: Engine) -> None:
        audio = np.concatenate([TALK, QUIET[:SAMPLE_RATE], TALK, QUIET])
        found = answers(run(engine, audio, replace(LONG, barge_in=False)))
        assert [(len(a.token_ids), a.finish_reason) for a in found] == [(60, "length")] * 2

    def test_a_file_at_full_speed_is_not_taken_for_somebody_who_interrupts(self, engine: Engine) -> None:
        audio = np.concatenate([TALK, QUIET[:SAMPLE_RATE], TALK, QUIET])
        assert not any(a.interrupted for a in answers(run(engine, audio, LONG, realtime=False)))


def test_stop_ends_an_answer(engine: Engine) -> None:
    assistant = Assistant(engine, LONG)
    events: list[AssistantEvent] = []
    for event in assistant.run(Script(np.concatenate([TURN, TURN]))):
        events.append(event)
        if isinstance(event, Piece):
            assistant.stop()
            assistant.stop()
    (answered,) = answers(events)
    assert answered.finish_reason == "end" and len(answered.token_ids) < 60
    assert isinstance(events[-1], SessionEnded)
    assert events[-1].captured_s == pytest.approx(events[-1].decoded_s + events[-1].skipped_s)


class Endless(Script):
    """Gives what it has even when it is closed, as a pipe does."""

    def close(self) -> None:
        pass


def test_stop_before_the_session_ends_it_at_once(engine: Engine) -> None:
    early, late = Assistant(engine, SHORT), Assistant(engine, SHORT)
    early.stop()
    found = [list(early.run(Endless(TURN)))]
    events = late.run(Endless(TURN))
    late.stop()
    found.append(list(events))
    assert [kinds(events) for events in found] == [["SessionEnded"]] * 2
    late.stop()
    assert answers(list(late.run(Script(TURN))))[0].finish_reason == "length"


def test_a_loop_is_ended_and_forgotten(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auricle.runtime.llm.stopping.sound_length", lambda ids: min(len(ids), 3))  # pyright: ignore
    (answered,) = answers(run(engine, TURN))
    assert answered.finish_reason == "loop" and len(answered.token_ids) == 3


def test_a_closed_session_can_be_left_in_the_middle(engine: Engine) -> None:
    source = Script(TURN)
    events = Assistant(engine, SHORT).run(source)
    assert isinstance(next(events), SpeechStarted)
    events.close()  # pyright: ignore
    assert source.read(0.0) is None


class TestJson:
    def test_every_answer_is_an_intent(self, engine: Engine) -> None:
        switched: list[Any] = []
        options = AssistantOptions(json_schema=SWITCH, generation=Generation(40))
        events = list(Assistant(engine, options, switched.append).run(Script(np.concatenate([TURN] * 3), False)))
        assert [a.intent for a in answers(events)] == [json.loads(a.text) for a in answers(events)] == switched
        assert all(set(intent) == {"action", "level"} for intent in switched) and len(switched) == 3

    @pytest.mark.parametrize("n", [1, 4, 9])
    def test_half_an_answer_is_no_intent(self, engine: Engine, n: int) -> None:
        switched: list[Any] = []
        options = AssistantOptions(json_schema=SWITCH, generation=Generation(n))
        (answered,) = answers(list(Assistant(engine, options, switched.append).run(Script(TURN, False))))
        assert answered.finish_reason == "length" and answered.intent is None and switched == []
        assert not answered.complete

    def test_null_is_an_intent_too(self, engine: Engine) -> None:
        switched: list[Any] = []
        options = AssistantOptions(json_schema={"type": "null"}, generation=Generation(8))
        (answered,) = answers(list(Assistant(engine, options, switched.append).run(Script(TURN, False))))
        assert answered.complete and answered.intent is None and switched == [None]

    def test_an_interrupted_answer_is_no_intent(self, engine: Engine) -> None:
        schema = {"type": "array", "items": {"enum": ["a long word"]}, "minItems": 30}
        audio = np.concatenate([TALK, QUIET[:SAMPLE_RATE], TALK, QUIET])
        options = AssistantOptions(json_schema=schema, generation=Generation(300))
        first = answers(run(engine, audio, options))[0]
        assert first.interrupted and first.intent is None

    def test_what_makes_no_sense_is_refused(self) -> None:
        with pytest.raises(InputError, match="type at /type"):
            AssistantOptions(json_schema={"type": "nonsense"})
        with pytest.raises(InputError, match="not both"):
            AssistantOptions(json_schema=SWITCH, speak=sys.executable)
        with pytest.raises(InputError, match="max_new_tokens=0"):
            AssistantOptions(generation=Generation(0))


class TestDemo:
    """The model that is shipped: a spoken command becomes an intent, and whatever else is heard one as well."""

    @pytest.fixture(scope="class")
    def demo(self) -> Iterator[Engine]:
        with load() as engine:
            yield engine

    def test_a_spoken_command_is_an_intent(self, demo: Engine) -> None:
        jsonschema = pytest.importorskip("jsonschema")
        options = AssistantOptions(INTENT_PROMPT, remember=False, json_schema=INTENT)
        said = ("command", "reminder", "weather", "sum", "shopping", "unseen-voice", "speech-over-rain")
        for name in said:
            source = FilePlayback(demo.bundle.path("clips") / f"{name}.wav", "fast")
            found = answers(list(Assistant(demo, options).run(source)))
            assert found, name
            for answered in found:
                if name == "speech-over-rain":  # "could you turn off the guest room lamp"
                    assert answered.intent == {"action": "turn off", "device": "lamp", "room": "guest room"}
                jsonschema.validate(answered.intent, INTENT)
                assert json.loads(answered.text) == answered.intent


class TestSpoken:
    def test_an_answer_is_spoken_to_its_end(self, engine: Engine, spoken: Path) -> None:
        (answered,) = answers(run(engine, TURN, replace(SHORT, speak=say(spoken)), realtime=False))
        assert "".join(spoken.read_text().split()) == "".join(answered.text.split())

    def test_a_broken_voice_ends_no_answer(self, engine: Engine) -> None:
        events: list[AssistantEvent] = []
        source = Script(np.concatenate([TURN, TURN]), realtime=False)
        with pytest.raises(RunError, match="does not speak"):
            for event in Assistant(engine, replace(LONG, speak="sh -c 'exit 3'")).run(source):
                events.append(event)
                time.sleep(0.02 if isinstance(event, Piece) else 0)  # the command has time to fail in mid-answer
        assert [(a.finish_reason, len(a.token_ids)) for a in answers(events)] == [("length", 60)] * 2
        assert isinstance(events[-1], SessionEnded)

    def test_speech_silences_the_voice_even_after_the_answer(self, engine: Engine, spoken: Path) -> None:
        """Every voice goes on for a minute: the second answer is heard because the first was silenced."""
        options = replace(SHORT, speak=say(spoken, "sleep 60"))
        events = Assistant(engine, options).run(Script(np.concatenate([TURN, TURN])))
        second = next(event for event in events if isinstance(event, Answered) and event.n_turns == 2)
        wait_for(lambda: spoken.exists() and spoken.read_text().strip().endswith(second.text[-5:].strip()))
        events.close()  # pyright: ignore

    def test_its_own_voice_is_not_answered_without_barge_in(self, engine: Engine, spoken: Path) -> None:
        audio = np.concatenate([TALK, QUIET[:SAMPLE_RATE], TALK, QUIET])
        options = replace(LONG, barge_in=False, speak=say(spoken))
        events = run(engine, audio, options)
        assert kinds(events) == ["SpeechStarted", "SpeechEnded", "Piece", "Answered", "SessionEnded"]
        balance = events[-1]
        assert isinstance(balance, SessionEnded)
        assert balance.captured_s == pytest.approx(balance.decoded_s + balance.skipped_s)


@pytest.fixture
def two_commands(golden: Path, tmp_path: Path) -> Path:
    """Real speech, twice, with a pause between."""
    jfk = np.load(golden / "salmonn-tiny" / "jfk_11s.npz")["pcm_float32"][: 3 * SAMPLE_RATE]
    path = tmp_path / "two.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.concatenate([jfk, QUIET, jfk, QUIET]) * 32767).astype("<i2").tobytes())
    return path


def auricle(*words: object) -> int:
    return main([str(word) for word in words])


def test_the_command_answers_a_file(
    golden_bundle: Path, two_commands: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assist = ("assist", two_commands, "--bundle", golden_bundle, "--pace", "fast", "--max-new-tokens", 4)
    assert auricle(*assist) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[0:0")]
    assert len(lines) == 2
    assert auricle(*assist, "--json") == 0
    rows = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert [row["n_turns"] for row in rows if row["event"] == "Answered"] == [1, 2]
    assert rows[-1]["event"] == "SessionEnded"


def test_a_full_standard_output_is_a_sentence(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    source = Script(TURN, realtime=False)

    @contextmanager
    def opened(_arguments: object) -> Generator[Engine]:
        try:
            yield engine
        finally:
            assert source.read(0.0) is None, "the session outlives its engine"

    monkeypatch.setattr(assist_module, "open_engine", opened)
    monkeypatch.setattr(assist_module, "open_source", lambda _arguments: source)
    monkeypatch.setattr(sys, "stdout", Full())
    assert auricle("assist", "clip.wav", "--max-new-tokens", 4) == 1
    said = capsys.readouterr().err
    assert said == "auricle: standard output takes no more (No space left on device): make room\n"


def test_the_command_prints_intents(
    golden_bundle: Path, two_commands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = tmp_path / "switch.json"
    schema.write_text(json.dumps(SWITCH))
    assist = ("assist", two_commands, "--bundle", golden_bundle, "--pace", "fast", "--json-schema", schema)
    assert auricle(*assist, "--no-memory") == 0
    assert [set(json.loads(row)) for row in capsys.readouterr().out.splitlines()] == [{"action", "level"}] * 2
    assert auricle(*assist, "--max-new-tokens", 3) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("raise --max-new-tokens") == 2
    schema.write_text("{")
    assert auricle(*assist) == 2
    assert "no JSON" in capsys.readouterr().err


def test_no_room_for_any_turn_is_a_sentence_at_the_start(
    golden_bundle: Path, two_commands: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assist = ("assist", two_commands, "--bundle", golden_bundle, "--pace", "fast")
    assert auricle(*assist, "--n-ctx", 100) == 2
    assert "but 100 are there" in capsys.readouterr().err
    assert auricle(*assist, "--system", "Listen to me. " * 600) == 2
    assert "but 2048 are there" in capsys.readouterr().err


def test_a_missing_voice_is_a_sentence(golden_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert auricle("assist", "clip.wav", "--bundle", golden_bundle, "--speak", "no-such-voice") == 2
    assert "'no-such-voice', is not there" in capsys.readouterr().err


def test_sessions_leave_nothing_behind(engine: Engine) -> None:
    options = AssistantOptions(json_schema=SWITCH, generation=Generation(30))
    resident: list[int] = []
    for _ in range(20):
        list(Assistant(engine, options).run(FilePlayback(TURN, "fast")))
        resident.append(held_bytes())
    assert resident[-1] - resident[5] < 8 << 20
