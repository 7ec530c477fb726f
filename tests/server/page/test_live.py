"""/live: what is said is captioned, what is lost is told, who may connect, and what a server says when it stops."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from auricle.models.errors import RunError
from auricle.runtime.engine import Engine
from auricle.runtime.events import Final, Lagging, Timings
from auricle.runtime.server.live_session import LiveSessionEvent, SegmentFailed
from auricle.runtime.server.options import ServerOptions
from auricle.runtime.server.page import live
from auricle.runtime.server.page.protocol import event_json
from live_client import PROTOCOL, hear, opened, say, started, tell, until
from served import Served, serving
from websockets.exceptions import ConnectionClosed, InvalidStatus

from ..realtime_client import at_rate, spoken
from ..test_sessions import n_sessions
from ..test_sessions import until as until_holds

SAID = "turn on the kitchen dishwasher"


def finals(events: list[dict[str, Any]]) -> list[str]:
    return [event["text"] for event in events if event["type"] == "final"]


def code(connection: Any) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            connection.recv(20)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_what_is_said_is_captioned_and_stop_ends_with_the_last_words(served: Served, engine: Engine, rate: int) -> None:
    with started(served, sample_rate=rate, prompt="asr", keywords=["dishwasher"]) as connection:
        say(connection, at_rate(spoken(engine, "command", pause_s=0.0), rate))
        tell(connection, "stop")
        events = until(connection, "ended")
        assert code(connection) == 1000
    [final] = [event for event in events if event["type"] == "final"]
    captions = [event for event in events if event["type"] == "caption"]
    assert final["text"] == SAID and 0 <= final["start_s"] < final["end_s"] < 3 and final["avg_logprob"] <= 0
    assert all(after["stable"].startswith(before["stable"]) for before, after in pairwise(captions))
    ended = events[-1]
    assert ended["captured_s"] == pytest.approx(ended["decoded_s"] + ended["skipped_s"], abs=0.01)


def test_a_commit_ends_a_sentence_and_the_session_goes_on(served: Served, engine: Engine) -> None:
    with started(served) as connection:
        for name in ("command", "weather"):
            say(connection, spoken(engine, name, pause_s=0.0))
            tell(connection, "commit")
        tell(connection, "stop")
        events = until(connection, "ended")
    assert finals(events) == [SAID, "what is the weather in dublin tonight"]
    assert [event["type"] for event in events].count("committed") == 2
    seconds = len(spoken(engine, "command", "weather", pause_s=0)) / 16_000
    assert events[-1]["captured_s"] == pytest.approx(seconds, abs=0.01)


def test_what_the_client_dropped_is_a_gap(served: Served, engine: Engine) -> None:
    with started(served) as connection:
        say(connection, spoken(engine, "command"))
        tell(connection, "dropped", seconds=2.5)
        say(connection, spoken(engine, "command"))
        tell(connection, "stop")
        events = until(connection, "ended")
    [lost] = [event for event in events if event["type"] == "lost"]
    assert lost["seconds"] == 2.5 and events[-1]["dropped_s"] == pytest.approx(2.5)
    first, second = [event for event in events if event["type"] == "final"]
    assert first["text"] == second["text"] == SAID
    later = len(spoken(engine, "command")) / 16_000 + 2.5
    assert second["start_s"] == pytest.approx(first["start_s"] + later, abs=0.05)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"type": "start"}, "sample_rate"),
        ({"type": "start", "sample_rate": 11}, "sample_rate"),
        ({"type": "start", "sample_rate": 16_000, "keywords": "lamp"}, "keywords"),
        ({"type": "start", "sample_rate": 16_000, "keywords": ["<lamp>"]}, "keywords"),
        ({"type": "start", "sample_rate": 16_000, "prompt": "slot_filling"}, None),
        ({"type": "start", "sample_rate": 16_000, "prompt": "word " * 13_000}, None),
        ({"type": "start", "sample_rate": 16_000, "session": "a" * 101}, "session"),
        ({"type": "commit"}, "type"),
        ({"type": "sing"}, "type"),
        ([], None),
        (b"\0\0", "type"),
        (b"\0" * (2 << 20), "type"),
        ("a" * (1 << 20), None),
    ],
    ids=lambda value: str(value)[:60],
)
def test_messages_that_make_no_sense_are_told_and_the_session_lives(
    served: Served, engine: Engine, message: Any, param: str | None
) -> None:
    with opened(served) as connection:
        connection.send(message if isinstance(message, bytes) else json.dumps(message))
        told = hear(connection)
        assert (told["type"], told["error"]["param"]) == ("error", param)
        tell(connection, "start", sample_rate=16_000)
        assert hear(connection)["type"] == "started"
        connection.send(b"\0")
        assert "16-bit" in hear(connection)["error"]["message"]
        tell(connection, "start", sample_rate=16_000)
        assert hear(connection)["type"] == "error"


@pytest.mark.parametrize(("confident", "told"), [(True, {}), (False, {"confident": False})])
def test_a_final_that_the_model_doubts_says_so(confident: bool, told: dict[str, bool]) -> None:
    final = Final(0.0, 1.0, "turn on the lamp", (1,), Timings({}, 0.0, 0.0, 0.0, 0, 1), confident=confident)
    message = event_json(final)
    assert message is not None and {key: message[key] for key in message if key == "confident"} == told


def test_what_lags_or_fails_is_told() -> None:
    assert event_json(Lagging(2.0, 1.25)) == {"type": "lagging", "heard_s": 2.0, "every_s": 1.25}
    failed = event_json(SegmentFailed(2.0, RunError("the graph computed no numbers")))
    assert failed and (failed["type"], failed["start_s"]) == ("failed", 2.0)
    assert failed["error"]["message"] == "the graph computed no numbers"
    secret = event_json(SegmentFailed(2.0, ValueError("what somebody whispered")))
    assert "whispered" not in json.dumps(secret)


def test_who_may_connect(engine: Engine) -> None:
    options = ServerOptions(port=0, key="s3cret", max_sessions=1)
    with serving(engine, options) as running:
        key = "openai-insecure-api-key.s3cret"
        for refused, given in ((401, {}), (403, {"origin": "https://evil.example", "subprotocols": [PROTOCOL, key]})):
            for path in ("/live", "/live/view"):
                with pytest.raises(InvalidStatus) as refusal:
                    opened(running, path, **given)
                assert refusal.value.response.status_code == refused
        with opened(running, subprotocols=[PROTOCOL, key], origin=running.url) as connection:
            assert connection.subprotocol == PROTOCOL
            with pytest.raises(InvalidStatus) as refusal:
                opened(running, subprotocols=[PROTOCOL, key])
            assert refusal.value.response.status_code == 429
        until_holds(lambda: n_sessions(running) == 0)


def test_a_client_that_goes_away_leaves_nothing(served: Served, engine: Engine) -> None:
    with started(served) as connection:
        say(connection, spoken(engine, "weather", pause_s=0.0))
        until(connection, "speech")
    until_holds(lambda: n_sessions(served) == 0 and not served.service.scheduler.waiting())


def test_viewers_see_the_newest_session_or_the_one_they_name(served: Served, engine: Engine) -> None:
    with opened(served, "/live/view") as newest, opened(served, "/live/view?session=desk") as named:
        with started(served, session="desk") as desk, started(served, session="hall") as hall, started(served):
            say(desk, spoken(engine, "command", pause_s=0.0))
            say(hall, spoken(engine, "weather", pause_s=0.0))
            for connection in (desk, hall):
                tell(connection, "stop")
                until(connection, "ended")
            with opened(served, "/live/view?session=desk"):
                pass
        assert finals(until(named, "ended")) == [SAID]
        seen = until(newest, "ended")
        assert finals(seen) == ["what is the weather in dublin tonight"]
        assert [event["session"] for event in seen if event["type"] == "started"] == ["desk", "hall"]


def test_a_viewer_who_comes_late_is_told_the_newest(served: Served, engine: Engine) -> None:
    with started(served, session="desk") as desk:
        say(desk, spoken(engine, "command"))
        until(desk, "final")
        with opened(served, "/live/view?session=desk") as late, opened(served, "/live/view?session=none") as none:
            assert hear(late)["text"] == SAID
            with pytest.raises(TimeoutError):
                none.recv(0.1)


def test_a_viewer_that_does_not_read_is_dropped_and_the_session_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def padded(event: LiveSessionEvent) -> dict[str, Any] | None:
        told = event_json(event)
        return told and {**told, "padding": "a" * (16 << 20)}

    monkeypatch.setattr(live, "event_json", padded)
    with serving(engine, ServerOptions(port=0, send_seconds=2.0)) as running:
        viewer = opened(running, "/live/view", max_queue=1, max_size=None)
        with started(running, session="desk") as desk:
            until_holds(lambda: n_sessions(running) == 2)
            say(desk, spoken(engine, "reminder", pause_s=0.0))
            tell(desk, "commit")
            until(desk, "committed")
            until_holds(lambda: n_sessions(running) == 1)
            say(desk, spoken(engine, "command", pause_s=0.0))
            tell(desk, "stop")
            assert finals(until(desk, "ended")) == [SAID]
        viewer.socket.close()


def test_a_server_that_stops_sends_the_last_words_first(engine: Engine) -> None:
    with (
        serving(engine) as running,
        started(running, session="desk") as connection,
        opened(running, "/live/view") as viewer,
    ):
        hear(viewer)
        say(connection, spoken(engine, "command", pause_s=0.0))
        events = until(connection, "speech")
        running.server.should_exit = True
        events += until(connection, "ended")
        assert code(connection) == 1012
        assert finals(events) == finals(until(viewer, "ended")) == [SAID]
        assert code(viewer) == 1012
