"""Several clients at once, and clients that go away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
from auricle.runtime.engine import Engine
from auricle.runtime.events import AudioDropped, Caption, SessionEnded, SpeechStarted, Work
from auricle.runtime.scheduler import Priority
from auricle.runtime.server.options import ServerOptions
from auricle.runtime.server.service import Service
from served import Served, serving

WAIT = 10.0  # seconds, for what comes at once
PATH = "/v1/audio/transcriptions"


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def n_sessions(running: Served) -> float:
    text = running.service.metrics.text().decode()
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("auricle_sessions{"))


def test_clients_at_once_are_told_what_each_is_told_alone(client: openai.OpenAI, engine: Engine) -> None:
    create: Any = client.audio.transcriptions.create
    clips = [engine.bundle.path(f"clips/{name}.wav") for name in ("command", "weather", "shopping", "reminder")]
    asked = [{"file": clip, "model": "whisper-1", "prompt": word} for clip in clips for word in ("lamp", "")]
    alone = [create(**each) for each in asked]
    with ThreadPoolExecutor(len(asked)) as threads:
        together = list(threads.map(lambda each: create(**each), asked))
    assert together == alone


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_goes_away_while_it_waits_is_forgotten(served: Served, clip: Path, streamed: bool) -> None:
    with served.service.stream().turn(Priority.FINAL):  # so that it has to wait
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{served.url}{PATH}",
                files={"file": clip.read_bytes()},
                data={"model": "whisper-1", "stream": str(streamed).lower()},
                timeout=0.5,
            )
        until(lambda: not served.service.scheduler.waiting())
    until(lambda: n_sessions(served) == 0)


def test_a_client_that_goes_away_in_the_middle_ends_the_decode(
    served: Served, client: openai.OpenAI, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = engine.bundle.path("clips/reminder.wav")
    feed = engine.llm.feed
    passes: list[int] = []

    def slow_feed(ids: Any, every: bool = False) -> Any:
        passes.append(len(ids))
        time.sleep(0.1)
        return feed(ids, every)

    monkeypatch.setattr(engine.llm, "feed", slow_feed)
    client.audio.transcriptions.create(file=clip, model="whisper-1")
    n_whole = len(passes)
    passes.clear()
    form = {"model": "whisper-1", "stream": "true"}
    with httpx.stream("POST", f"{served.url}{PATH}", files={"file": clip.read_bytes()}, data=form) as answer:
        assert "delta" in next(answer.iter_lines())
    until(lambda: n_sessions(served) == 0)
    with served.service.stream().turn(Priority.FINAL):
        assert len(passes) < n_whole  # the engine is free


def test_uploads_leave_nothing_behind(served: Served, client: openai.OpenAI, clip: Path) -> None:
    client.audio.transcriptions.create(file=clip, model="whisper-1")
    with pytest.raises(openai.BadRequestError):
        client.audio.transcriptions.create(file=clip, model="whisper-1", language="fr")
    with pytest.raises(openai.NotFoundError):
        client.audio.transcriptions.create(file=clip, model="nobody")
    until(lambda: not list(Path(served.service.uploads).iterdir()))


def test_memory_is_given_back_when_sessions_end(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed: list[str] = []
    monkeypatch.setattr(
        "auricle.runtime.server.service.trim_heap", lambda: trimmed.append(threading.current_thread().name)
    )
    with closing(Service(engine, ServerOptions())) as service:
        with service.session("other"):
            for _ in range(3):
                with service.session("other"):
                    pass
                until(lambda: len(trimmed) == 1)  # not again within TRIM_SECONDS
        until(lambda: len(trimmed) == 2)  # nobody is served any more
    assert all(name.startswith("auricle-session") for name in trimmed)


def test_open_work_ends_before_the_server_does(engine: Engine, clip: Path) -> None:
    with ThreadPoolExecutor(1) as threads, serving(engine, ServerOptions(port=0)) as running:
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
        with running.service.stream().turn(Priority.FINAL):
            answer = threads.submit(client.audio.transcriptions.create, file=clip, model="whisper-1")
            until(lambda: running.service.scheduler.waiting().total() == 1)
            running.server.should_exit = True
            until(running.service.stopping.is_set)
        assert answer.result().text == "turn on the kitchen dishwasher"


def test_work_that_does_not_end_in_time_is_cancelled(
    engine: Engine, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("auricle.runtime.server.run.DRAIN_SECONDS", 0.2)
    with ThreadPoolExecutor(1) as threads, serving(engine) as running:
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
        with running.service.stream().turn(Priority.FINAL):  # which lasts
            answer = threads.submit(client.audio.transcriptions.create, file=clip, model="whisper-1")
            until(lambda: running.service.scheduler.waiting().total() == 1)
            running.server.should_exit = True
            error = answer.exception(WAIT)
    assert isinstance(error, openai.InternalServerError) and error.status_code == 503


def test_metrics_count_work_and_hold_no_words(engine: Engine, clip: Path) -> None:
    with serving(engine) as running:
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
        client.audio.transcriptions.create(file=clip, model="whisper-1")
        running.service.metrics.live(AudioDropped(1.0, 2.5), 0.0)
        running.service.metrics.live(SpeechStarted(1.0), 0.0)
        running.service.metrics.live(SessionEnded(9.0, 4.0, 5.0, 0.0, speculated_s=1.5, wasted_s=0.5), 0.0)
        caption = Caption(0.0, 1.0, "secret", "words", (), Work(1.0, 1.0, 1, 0, 0, 0, 1, 1))
        running.service.metrics.live(caption, 0.2)
        with running.service.stream().turn(Priority.FINAL), running.service.session("chat"):
            text = httpx.get(f"{running.url}/metrics").text
        told = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert float(told["auricle_audio_seconds_total"]) == pytest.approx(1.891, abs=0.001)
        assert float(told['auricle_turn_seconds_count{priority="batch"}']) == 1
        assert float(told["auricle_real_time_factor"]) > 0
        assert float(told["auricle_dropped_seconds_total"]) == 2.5
        assert float(told['auricle_speculation_seconds_total{outcome="used"}']) == 1.0
        assert float(told['auricle_speculation_seconds_total{outcome="wasted"}']) == 0.5
        assert float(told['auricle_latency_seconds_sum{kind="update"}']) == 0.2
        assert (told['auricle_sessions{protocol="chat"}'], told['auricle_queue{priority="batch"}']) == ("1.0", "0.0")
        assert "dishwasher" not in text and "secret" not in text
        assert httpx.get(f"{running.url}/health").json() == {"status": "ok", "model": "auricle-demo"}
