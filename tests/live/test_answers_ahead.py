"""The assistant's answers that are begun in a pause: the same as without, held back, and taken back without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from auricle.models.audio import Waveform
from auricle.runtime.assistant import Assistant
from auricle.runtime.assistant_options import AssistantOptions
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.engine import Engine, load
from auricle.runtime.events import Answered, AssistantEvent, KeywordsRead, Piece, SessionEnded, SpeechEnded
from auricle.runtime.keywords import Keywords
from auricle.runtime.llm.sampling import Generation
from fake_microphone import Speaker, silence

OPTIONS = AssistantOptions(prompt="asr", generation=Generation(20))


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with load() as opened:
        yield opened


@pytest.fixture(scope="module")
def clips(engine: Engine) -> list[Waveform]:
    folder = engine.bundle.path("clips")
    return [read_audio(folder / f"{name}.wav") for name in ("command", "reminder", "weather")]


@pytest.fixture(scope="module")
def hesitant(clips: list[Waveform]) -> Waveform:
    """Three sentences, each with a pause inside that is too short to end it."""
    parts = [[clip[: len(clip) // 2], silence(0.36), clip[len(clip) // 2 :], silence(1.0)] for clip in clips]
    return np.concatenate([part for sentence in parts for part in sentence])


def run(engine: Engine, audio: Waveform, options: AssistantOptions) -> list[AssistantEvent]:
    return list(Assistant(engine, options).run(Speaker(audio)))


def without_times(events: list[AssistantEvent]) -> list[AssistantEvent]:
    plain: list[AssistantEvent] = []
    for event in events:
        if isinstance(event, Answered):
            event = replace(event, timings=None)  # pyright: ignore[reportArgumentType]
        elif isinstance(event, SessionEnded):
            event = replace(event, speculated_s=0.0, wasted_s=0.0)
        plain.append(event)
    return plain


@pytest.mark.parametrize("remember", [True, False])
def test_it_changes_nothing_that_is_told(engine: Engine, hesitant: Waveform, remember: bool) -> None:
    """Whole answers in one conversation, though some were begun and taken back."""
    options = replace(OPTIONS, remember=remember)
    ahead, plain = run(engine, hesitant, options), run(engine, hesitant, replace(options, speculate=False))
    assert without_times(ahead) == without_times(plain)
    assert sum(isinstance(event, Answered) for event in ahead) == 3
    balance, nothing = ahead[-1], plain[-1]
    assert isinstance(balance, SessionEnded) and isinstance(nothing, SessionEnded)
    assert balance.speculated_s > balance.wasted_s > 0 == nothing.speculated_s


def test_the_answer_is_there_when_the_pause_is_over(
    engine: Engine, clips: list[Waveform], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held back until then: the first piece is told with nothing left to decode."""
    source = Speaker(np.concatenate([clips[0], silence(1.5)]))
    decoded_at: list[int] = []
    feed = engine.llm.feed

    def noting(ids: Any, every: bool = False) -> Any:
        decoded_at.append(source.n_read)
        return feed(ids, every)

    monkeypatch.setattr(engine.llm, "feed", noting)
    told = [
        (event, source.n_read) for event in Assistant(engine, replace(OPTIONS, generation=Generation(4))).run(source)
    ]
    ended_at = next(at for event, at in told if isinstance(event, SpeechEnded))
    assert decoded_at and max(decoded_at) < ended_at
    assert min(at for event, at in told if isinstance(event, Piece)) == ended_at
    (answered,) = [event for event, _ in told if isinstance(event, Answered)]
    assert answered.finish_reason == "length" and len(answered.token_ids) == 4


def test_an_answer_goes_on_where_it_was_when_the_pause_was_over(engine: Engine, clips: list[Waveform]) -> None:
    """A token every 32 ms: the pause is over before the answer."""
    options = replace(OPTIONS, generation=Generation(40, ignore_eos=True))
    audio = np.concatenate([clips[0], silence(3.0)])
    ahead, plain = run(engine, audio, options), run(engine, audio, replace(options, speculate=False))
    assert without_times(ahead) == without_times(plain)


def test_an_intent_is_told_once_and_none_of_what_was_taken_back(engine: Engine, hesitant: Waveform) -> None:
    intents: list[Any] = []
    schema = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
    options = AssistantOptions("asr", json_schema=schema, generation=Generation(30), min_avg_logprob=-100)
    events = list(Assistant(engine, options, intents.append).run(Speaker(hesitant)))
    assert [event.intent for event in events if isinstance(event, Answered)] == intents and len(intents) == 3


def test_keywords_that_change_in_the_pause_are_listened_for(
    engine: Engine, clips: list[Waveform], tmp_path: Path
) -> None:
    """The answer that was begun without them is taken back."""
    file = tmp_path / "words.txt"
    file.write_text("potatoes")

    class Writing(Speaker):
        def read(self, timeout_s: float) -> Any:
            if self.n_read > len(clips[0]) + 4000 and "kitchen" not in file.read_text():
                file.write_text("kitchen, bedroom")
            return super().read(timeout_s)

    audio = np.concatenate([clips[0], silence(1.5)])
    options = replace(OPTIONS, keywords=Keywords((), file))
    events = list(Assistant(engine, options).run(Writing(audio)))
    engine.keywords = ()
    assert [event.words for event in events if isinstance(event, KeywordsRead)] == [
        ("potatoes",),
        ("kitchen", "bedroom"),
    ]
    balance = events[-1]
    assert isinstance(balance, SessionEnded) and balance.wasted_s == balance.speculated_s > 0
    (answered,) = [event for event in events if isinstance(event, Answered)]
    assert answered.n_turns == 1


def test_stop_in_the_pause_answers_nothing(engine: Engine, clips: list[Waveform]) -> None:
    assistant = Assistant(engine, OPTIONS)

    class Stopping(Speaker):
        def read(self, timeout_s: float) -> Any:
            if self.n_read > len(clips[0]) + 3000:
                assistant.stop()
            return super().read(timeout_s)

    events = list(assistant.run(Stopping(np.concatenate([clips[0], silence(1.5)]))))
    (answered,) = [event for event in events if isinstance(event, Answered)]
    assert (answered.finish_reason, answered.text, answered.n_turns) == ("end", "", 0)
