"""openai (npm) and @openai/agents-realtime, as they are, in Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from auricle.runtime.engine import Engine
from auricle.runtime.server.options import ServerOptions
from served import Served, serving
from server.realtime_client import TRANSCRIPTION, kinds

from .environments import answered

pytestmark = pytest.mark.clients
COMMAND, WEATHER = "turn on the kitchen dishwasher", "what is the weather in dublin tonight"
ANSWERS = ["turning on the kitchen dishwasher", "checking the weather in dublin tonight"]


def test_rest(served: Served, clip: Path) -> None:
    told = answered("node", "openai_rest.mjs", f"{served.url}/v1", clip)
    assert (told["model"], told["retrieved"]) == ("auricle-demo", "model")
    assert told["json"]["text"] == COMMAND and told["json"]["usage"]["total_tokens"] > 0
    assert told["text"].strip() == COMMAND
    assert told["srt"] == f"1\n00:00:00,000 --> 00:00:01,891\n{COMMAND}\n"
    assert told["vtt"].startswith("WEBVTT\n") and COMMAND in told["vtt"]
    verbose = told["verbose"]
    assert (verbose["text"], verbose["language"], verbose["duration"]) == (COMMAND, "english", 1.891)
    [segment] = verbose["segments"]
    assert (segment["start"], segment["end"], segment["text"]) == (0, 1.891, COMMAND)
    *deltas, done = told["stream"]
    assert done["type"] == "transcript.text.done" and deltas
    assert "".join(event["delta"] for event in deltas) == done["text"] == COMMAND
    assert told["translation"] == "unsupported_value"  # the demo has no task that translates


def test_chat(served: Served, clip: Path) -> None:
    told = answered("node", "openai_rest.mjs", f"{served.url}/v1", clip)
    [choice] = told["chat"]["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (COMMAND, "stop")
    *chunks, last = told["chunks"]
    content = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    assert "".join(content) == COMMAND and chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert last["choices"] == [] and last["usage"] == told["chat"]["usage"]


def test_every_refusal_is_the_right_exception(engine: Engine, served: Served, clip: Path) -> None:
    with ExitStack() as stack:
        options: dict[str, ServerOptions] = {
            "key": ServerOptions(port=0, key="s3cret"),
            "small": ServerOptions(port=0, max_upload=0.01),
            "busy": ServerOptions(port=0, max_sessions=1),
            "stopping": ServerOptions(port=0),
        }
        running = {name: stack.enter_context(serving(engine, each)) for name, each in options.items()}
        stack.enter_context(running["busy"].service.session("other"))
        running["stopping"].service.stopping.set()
        running["any"] = served
        page = {"defaultHeaders": {"Origin": "https://evil.example"}}
        cases: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
            "diarized": ("any", {}, {"response_format": "diarized_json"}),
            "not audio": ("any", {}, {"text": "hello"}),
            "key": ("key", {"apiKey": "wrong"}, {}),
            "page": ("any", page, {}),
            "model": ("any", {}, {"model": "nobody"}),
            "large": ("small", {}, {}),
            "busy": ("busy", {}, {}),
            "stopping": ("stopping", {}, {}),
        }
        asked = {name: (f"{running[where].url}/v1", *more) for name, (where, *more) in cases.items()}
        told = answered("node", "openai_errors.mjs", clip, json.dumps(asked))
    assert all(error["request"] for error in told.values())
    fields = ("class", "status", "code", "param", "type")
    assert {name: tuple(error.get(field) for field in fields) for name, error in told.items()} == {
        "diarized": ("BadRequestError", 400, "unsupported_value", "response_format", "invalid_request_error"),
        "not audio": ("BadRequestError", 400, "invalid_value", "file", "invalid_request_error"),
        "key": ("AuthenticationError", 401, "invalid_api_key", None, "invalid_request_error"),
        "page": ("PermissionDeniedError", 403, "origin_not_allowed", None, "invalid_request_error"),
        "model": ("NotFoundError", 404, "model_not_found", "model", "invalid_request_error"),
        "large": ("APIError", 413, None, "file", "invalid_request_error"),
        "busy": ("RateLimitError", 429, "rate_limit_exceeded", None, "invalid_request_error"),
        "stopping": ("InternalServerError", 503, None, None, "server_error"),
    }


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_realtime_over_tls(engine: Engine, two_sentences: Path, tmp_path: Path) -> None:
    """This client knows wss alone."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with serving(engine, ServerOptions(port=0, tls_cert=certificate, tls_key=key)) as running:
        base = f"{running.url}/v1"
        trusted = {"NODE_EXTRA_CA_CERTS": str(certificate)}
        events: list[dict[str, Any]] = answered("node", "openai_realtime.mjs", base, two_sentences, "2", **trusted)
    completed = [event for event in events if event["type"] == f"{TRANSCRIPTION}.completed"]
    assert [event["transcript"] for event in completed] == [COMMAND, WEATHER]
    for event in completed:
        told = [each for each in events if each.get("item_id") == event["item_id"]]
        assert "".join(each.get("delta", "") for each in told) == event["transcript"]
    assert kinds(events)[:2] == ["session.created", "session.updated"]


def test_agents_remember_what_was_said_and_answered(served: Served, sentences: list[Path]) -> None:
    url = f"ws://127.0.0.1:{served.port}/v1/realtime?model=auricle-demo"
    told = answered("node", "agents_realtime.mjs", url, "audiocaption", *sentences)
    assert not told["errors"]
    assert [text for role, _, text in told["history"] if role == "user"] == [COMMAND, WEATHER, "audiocaption"]
    answers = [(status, text) for role, status, text in told["history"] if role == "assistant"]
    assert answers[:2] == [("completed", text) for text in ANSWERS] and len(answers) == 3
