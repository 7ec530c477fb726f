"""One engine and several threads: in turns the answers are the same, at the same moment the second is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from auricle.models.audio import Waveform
from auricle.models.errors import RunError
from auricle.runtime.chat import Chat
from auricle.runtime.engine import Engine, load
from auricle.runtime.events import Final, Piece
from auricle.runtime.live.captions import LiveOptions, captions
from auricle.runtime.llm.sampling import Generation
from auricle.runtime.sources.playback import FilePlayback

GREEDY = Generation(max_new_tokens=8)
JFK = Path(__file__).parent / "golden" / "jfk.wav"


@pytest.fixture(scope="module")
def engine(golden_bundle: Path) -> Iterator[Engine]:
    with load(golden_bundle) as opened:
        yield opened


@pytest.fixture(scope="module")
def clips(golden: Path) -> list[Waveform]:
    return [np.load(golden / "salmonn-tiny" / f"{name}.npz")["pcm_float32"] for name in ("jfk_11s", "noise_1s")]


@pytest.fixture(scope="module")
def texts(engine: Engine, clips: list[Waveform]) -> list[str]:
    """What each clip is answered when nothing disturbs."""
    found = [engine.ask(clip, "asr", GREEDY).text for clip in clips]
    assert len(set(found)) == 2
    return found


def elsewhere(work: Callable[[], Any]) -> Any:
    """What another thread makes of it."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(timeout=60)


def uses(engine: Engine, clip: Waveform) -> list[Callable[[], Any]]:
    """Everything public that works with the engine's state."""
    return [
        lambda: engine.ask(clip, "asr", GREEDY),
        lambda: list(engine.stream(clip, "asr", GREEDY)),
        lambda: list(engine.stream_text("Hello", GREEDY)),
        lambda: list(Chat(engine, clip).ask("asr", GREEDY)),
        lambda: list(captions(FilePlayback(JFK, "fast"), engine, LiveOptions(vad=False, generation=GREEDY))),
        lambda: engine.encode(clip),
        lambda: setattr(engine, "keywords", ()),
        engine.close,
    ]


@pytest.mark.parametrize("stage", ["encoders.encode", "llm.prefill", "llm.generate", "llm.feed"])
def test_a_second_thread_is_refused_at_once(
    engine: Engine, clips: list[Waveform], texts: list[str], stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, name = stage.split(".")
    before = getattr(getattr(engine, part), name)
    refused: list[int] = []

    def disturbed(*arguments: Any, **options: Any) -> Any:
        found = before(*arguments, **options)
        if not refused:
            for number, use in enumerate(uses(engine, clips[1])):
                with pytest.raises(RunError, match="at work in another thread: use it from one at a time"):
                    elsewhere(use)
                refused.append(number)
        return found

    monkeypatch.setattr(getattr(engine, part), name, disturbed)
    finals = [event for event in engine.stream(clips[0], "asr", GREEDY) if isinstance(event, Final)]
    assert len(refused) == 8 and finals[0].text == texts[0]


def test_threads_in_turns_are_answered_alike(engine: Engine, clips: list[Waveform], texts: list[str]) -> None:
    for n in (0, 1, 0):
        assert elsewhere(lambda n=n: engine.ask(clips[n], "asr", GREEDY).text) == texts[n]
    events = engine.stream(clips[0], "asr", GREEDY)
    last = [elsewhere(lambda: next(events, None)) for _ in range(12)]  # each event in a thread of its own
    assert [event.text for event in last if isinstance(event, Final)] == [texts[0]]


def test_threads_at_once_never_get_a_wrong_answer(engine: Engine, clips: list[Waveform], texts: list[str]) -> None:
    start = threading.Barrier(3)

    def work(n: int) -> list[str]:
        start.wait()
        found: list[str] = []
        for _ in range(8):
            try:
                events = list(engine.stream(clips[n], "asr", GREEDY))
                found += [event.text for event in events if isinstance(event, Final)]
            except RunError:
                found.append("refused")
        return found

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(work, [0, 1, 0]))
    for n, answers in zip([0, 1, 0], found, strict=True):
        assert set(answers) <= {texts[n], "refused"}
    assert engine.ask(clips[0], "asr", GREEDY).text == texts[0]


def test_an_answer_that_another_question_ended_is_not_gone_on_with(
    engine: Engine, clips: list[Waveform], texts: list[str]
) -> None:
    first = engine.stream(clips[0], "asr", GREEDY)
    assert isinstance([next(first), next(first)][1], Piece)
    assert elsewhere(lambda: engine.ask(clips[1], "asr", GREEDY).text) == texts[1]
    with pytest.raises(RunError, match="this answer ended when another question was read"):
        list(first)
    not_begun = engine.stream(clips[0], "asr", GREEDY)
    next(not_begun)
    assert engine.ask(clips[1], "asr", GREEDY).text == texts[1]
    assert [event.text for event in not_begun if isinstance(event, Final)] == [texts[0]]
