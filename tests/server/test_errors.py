"""What OpenAI's own client is told when something is wrong, and what the command says before it serves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
from auricle.models.errors import AudioError, BundleError, InputError, RunError
from auricle.runtime.engine import Engine
from auricle.runtime.scheduler import Cancelled
from auricle.runtime.server.errors import api_error
from auricle.runtime.server.options import ServerOptions, read_key
from served import Served, serving


def refused(client: openai.OpenAI, file: Any, **given: Any) -> openai.APIStatusError:
    create: Any = client.audio.transcriptions.create
    with pytest.raises(openai.APIStatusError) as caught:
        create(**{"file": file, "model": "whisper-1", **given})
    return caught.value


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        ({"response_format": "diarized_json"}, "unsupported_value", "response_format"),
        ({"response_format": "docx"}, "unsupported_value", "response_format"),
        ({"response_format": "srt", "stream": True}, "unsupported_value", "stream"),
        (
            {"response_format": "verbose_json", "timestamp_granularities": ["word"]},
            "unsupported_value",
            "timestamp_granularities",
        ),
        ({"timestamp_granularities": ["segment"]}, "invalid_value", "timestamp_granularities"),
        ({"language": "fr"}, "unsupported_value", "language"),
        ({"temperature": -0.1}, "invalid_value", "temperature"),
        ({"temperature": 1e9}, "invalid_value", "temperature"),
        ({"temperature": math.nan}, "invalid_value", "temperature"),
        ({"include": ["logprobs"]}, "unsupported_value", "include"),
        ({"chunking_strategy": "never"}, "invalid_value", "chunking_strategy"),
        ({"known_speaker_names": ["Ann"]}, "unsupported_value", "known_speaker_names"),
        ({"extra_body": {"keywords": [f"word{n}" for n in range(51)]}}, "invalid_value", "keywords"),
        ({"extra_body": {"keywords": ["a]b"]}}, "invalid_value", "keywords"),
        ({"extra_body": {"stream": "perhaps"}}, "invalid_value", "stream"),
    ],
)
def test_values_that_cannot_be_followed(
    client: openai.OpenAI, clip: Path, given: dict[str, Any], code: str, param: str
) -> None:
    error = refused(client, clip, **given)
    assert isinstance(error, openai.BadRequestError)
    assert (error.code, error.param, error.type) == (code, param, "invalid_request_error")


def test_what_is_no_sound(client: openai.OpenAI, tmp_path: Path) -> None:
    for content in (b"", b"not a sound at all", b"RIFF\xff\xff\xff\xffWAVEfmt "):
        error = refused(client, ("a.wav", content))
        assert (error.status_code, error.code, error.param) == (400, "invalid_value", "file")
        assert str(tmp_path) not in error.message and "auricle-serve" not in error.message


def test_a_playlist_reads_no_file_of_this_machine(client: openai.OpenAI, served: Served, clip: Path) -> None:
    other = Path(served.service.uploads) / "other.wav"  # beside the upload, where FFmpeg would look
    other.write_bytes(clip.read_bytes())
    try:
        assert refused(client, ("list.wav", b"ffconcat version 1.0\nfile other.wav\n")).status_code == 400
    finally:
        other.unlink()


def test_fields_that_are_missing(served: Served, clip: Path) -> None:
    address = f"{served.url}/v1/audio/transcriptions"
    with clip.open("rb") as file:
        no_model = httpx.post(address, files={"file": file})
    no_file = httpx.post(address, files={"other": b"x"}, data={"model": "whisper-1"})
    no_form = httpx.post(address, content=b"--", headers={"content-type": "multipart/form-data"})
    assert no_model.json()["error"] | {"message": ""} == {
        "message": "",
        "type": "invalid_request_error",
        "param": "model",
        "code": "missing_required_parameter",
    }
    assert no_file.json()["error"]["param"] == "file"
    assert no_form.status_code == 400


def test_unknown_models_and_paths(client: openai.OpenAI, served: Served, clip: Path) -> None:
    error = refused(client, clip, model="llama-9")
    assert isinstance(error, openai.NotFoundError) and error.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("some/model")
    lost = httpx.get(f"{served.url}/v1/nothing")
    assert (lost.status_code, lost.json()["error"]["type"]) == (404, "invalid_request_error")
    assert httpx.get(f"{served.url}/v1/audio/transcriptions").status_code == 405


def test_keys(engine: Engine, clip: Path) -> None:
    with serving(engine, ServerOptions(port=0, key="s3cret")) as running:
        for key, right in (("s3cret", True), ("s3cre", False), ("", False), ("s3crét", False)):
            headers = {b"authorization": f"Bearer {key}".strip().encode()}
            status = httpx.get(f"{running.url}/v1/models", headers=headers).status_code
            assert status == (200 if right else 401), key
        assert httpx.get(f"{running.url}/v1/models").json()["error"]["code"] == "invalid_api_key"
        assert httpx.get(f"{running.url}/metrics").status_code == 401
        assert httpx.get(f"{running.url}/health").status_code == 200
        wrong = openai.OpenAI(base_url=f"{running.url}/v1", api_key="wrong", max_retries=0)
        assert isinstance(refused(wrong, clip), openai.AuthenticationError)


def test_pages_of_others_are_told_so(served: Served, clip: Path) -> None:
    page = {"Origin": "https://evil.example"}
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, default_headers=page)
    error = refused(client, clip)
    assert isinstance(error, openai.PermissionDeniedError)
    assert (error.status_code, error.code, error.type) == (403, "origin_not_allowed", "invalid_request_error")


def test_too_much_at_once(engine: Engine, clip: Path) -> None:
    options = ServerOptions(port=0, max_upload=0.06, max_seconds=1.5, max_sessions=1)
    with serving(engine, options) as running:
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
        larger = refused(client, engine.bundle.path("clips/weather.wav"))
        assert (larger.status_code, larger.code, larger.param) == (413, None, "file")
        longer = refused(client, clip)
        assert isinstance(longer, openai.BadRequestError) and "1.5 s" in longer.message
        with running.service.session("other"):
            busy = refused(client, clip)
        assert isinstance(busy, openai.RateLimitError) and busy.code == "rate_limit_exceeded"
        assert busy.response.headers["retry-after"] == "1"


def test_a_server_that_stops_takes_no_new_work(engine: Engine, clip: Path) -> None:
    with serving(engine) as running:
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
        running.service.stopping.set()
        error = refused(client, clip)
        assert isinstance(error, openai.InternalServerError) and error.status_code == 503
        assert int(error.response.headers["retry-after"]) > 0
        assert httpx.get(f"{running.url}/health").status_code == 503


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (AudioError("a"), 400, "invalid_value"),
        (InputError("a"), 400, "invalid_value"),
        (BundleError("a"), 500, None),
        (RunError("a"), 500, None),
        (Cancelled("a"), 503, None),
    ],
)
def test_errors_of_ours_have_a_status(error: Exception, status: int, code: str | None) -> None:
    told = api_error(error)
    assert (told.status, told.code, str(told)) == (status, code, "a")


def test_an_error_of_nobody_says_nothing_about_itself() -> None:
    told = api_error(ValueError("what somebody whispered"))
    assert told.status == 500 and "whispered" not in str(told)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"host": "0.0.0.0"}, "--key-file"),
        ({"host": "::"}, "--key-file"),
        ({"port": 65_536}, "port"),
        ({"max_sessions": 0}, "max_sessions"),
        ({"max_upload": math.nan}, "max_upload"),
        ({"max_seconds": math.inf}, "max_seconds"),
        ({"tls_cert": Path("a")}, "--tls-key"),
        ({"origins": ("example.org",)}, "origin"),
        ({"origins": ("https://example.org/page",)}, "origin"),
        ({"key": ""}, "key"),
        ({"key": "two words"}, "key"),
    ],
)
def test_options_that_make_no_sense(wrong: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        ServerOptions(**wrong)


def test_other_addresses_with_a_key_or_said_aloud(tmp_path: Path) -> None:
    assert not ServerOptions(host="0.0.0.0", key="s3cret").loopback
    assert not ServerOptions(host="0.0.0.0", no_key=True).loopback
    assert ServerOptions(host="::1").loopback
    (tmp_path / "key").write_text(" s3cret\n")
    assert read_key(tmp_path / "key") == "s3cret"
    with pytest.raises(InputError, match="cannot be read"):
        read_key(tmp_path / "none")
