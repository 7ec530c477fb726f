"""Chat completions with sound, asked by OpenAI's own client, against what the engine says."""

from __future__ import annotations

import base64
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
from auricle.models.bundle import shipped_bundle
from auricle.runtime.chat import Chat
from auricle.runtime.engine import Engine, load
from auricle.runtime.events import Final, Piece
from auricle.runtime.llm.sampling import Generation
from served import Served, serving

DESCRIBE = "Please describe the audio."


def sound(path: Path) -> dict[str, Any]:
    return {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(path.read_bytes()).decode(), "format": "wav"},
    }


def no_sound(data: str) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def words(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def user(*parts: dict[str, Any] | str) -> dict[str, Any]:
    return {"role": "user", "content": [words(part) if isinstance(part, str) else part for part in parts]}


def ask(client: openai.OpenAI, *messages: dict[str, Any], **given: Any) -> Any:
    create: Any = client.chat.completions.create
    return create(**{"model": "auricle-demo", "messages": list(messages), **given})


def said(answer: Any) -> str:
    [choice] = answer.choices
    return choice.message.content


def refused(client: openai.OpenAI, *messages: dict[str, Any], **given: Any) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, *messages, **given)
    return caught.value


@pytest.fixture
def siren(engine: Engine) -> Path:
    return engine.bundle.path("clips/siren.wav")


def test_any_prompt_about_any_sound(client: openai.OpenAI, engine: Engine, siren: Path) -> None:
    answer = ask(client, user(sound(siren), DESCRIBE))
    expected = engine.ask(siren, DESCRIBE)
    assert said(answer) == expected.text
    assert answer.choices[0].finish_reason == "stop"
    [final] = expected.segments
    assert answer.usage.completion_tokens == len(final.token_ids)
    assert answer.usage.prompt_tokens_details.audio_tokens == final.timings.n_audio_tokens
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_tasks_by_name_and_none_at_all(client: openai.OpenAI, engine: Engine, clip: Path) -> None:
    assert said(ask(client, user(sound(clip), "asr"))) == engine.ask(clip, "asr").text
    assert said(ask(client, user(sound(clip)))) == engine.ask(clip, "speech_query").text


@pytest.mark.parametrize("with_usage", [True, False])
def test_chunks(client: openai.OpenAI, siren: Path, with_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if with_usage else {}
    chunks = list(ask(client, user(sound(siren), DESCRIBE), stream=True, **options))
    whole = ask(client, user(sound(siren), DESCRIBE))
    assert len({(chunk.id, chunk.created, chunk.object) for chunk in chunks}) == 1
    if with_usage:
        last = chunks.pop()
        assert (last.choices, last.usage) == ([], whole.usage)
        assert all(chunk.usage is None for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said(whole)
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert len(chunks) > 3


def test_a_sound_longer_than_the_window_is_answered_in_parts(
    client: openai.OpenAI, engine: Engine, long_clip: Path
) -> None:
    expected = engine.ask(long_clip, "asr").text
    assert said(ask(client, user(sound(long_clip), "asr"))) == expected and "\n" in expected
    chunks = ask(client, user(sound(long_clip), "asr"), stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected
    assert (
        refused(client, user(sound(long_clip), "asr"), user("And?"), {"role": "assistant", "content": "a"}).status_code
        == 400
    )
    longer = refused(client, {"role": "system", "content": "Be short."}, user(sound(long_clip), "asr"))
    assert longer.status_code == 400 and "longer" in longer.message


def test_several_turns_and_a_system_are_those_of_a_conversation(
    client: openai.OpenAI, engine: Engine, clip: Path
) -> None:
    system = "Be short."
    chat = Chat(engine, clip, system)
    generation = Generation(max_new_tokens=40)
    questions = ("asr", "Please describe the audio.", "Give me only three keywords of the text.")
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}]
    for number, question in enumerate(questions):
        final = [event for event in chat.ask(question, generation) if isinstance(event, Final)][-1]
        messages.append(user(question) if number else user(sound(clip), question))
        assert said(ask(client, *messages, max_completion_tokens=40)) == final.text
        messages.append({"role": "assistant", "content": final.text})


def test_stop_seed_temperature_and_limits(client: openai.OpenAI, engine: Engine, clip: Path) -> None:
    asked = user(sound(clip), "asr")
    cut = ask(client, asked, max_tokens=2)
    assert cut.choices[0].finish_reason == "length" and cut.usage.completion_tokens == 2
    assert said(ask(client, asked, max_completion_tokens=1_000_000)) == "turn on the kitchen dishwasher"
    stopped = ask(client, asked, stop=["kitchen"])
    assert (said(stopped), stopped.choices[0].finish_reason) == ("turn on the", "stop")
    drawn = Generation(temperature=1.5, top_p=1.0, seed=7, max_new_tokens=200)
    assert said(ask(client, asked, temperature=1.5, seed=7)) == engine.ask(clip, "asr", drawn).text
    ask(client, asked, seed=-3, temperature=0.5)


def test_json(client: openai.OpenAI, clip: Path) -> None:
    schema = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    answer = said(ask(client, user(sound(clip), "Is it on?"), response_format=form))
    assert set(json.loads(answer)) == {"on"}
    begun = said(ask(client, user(sound(clip), "As JSON."), response_format={"type": "json_object"}, max_tokens=5))
    assert begun.startswith("{")
    no_schema = {"type": "json_schema", "json_schema": {"name": "x"}}
    assert refused(client, user(sound(clip)), response_format=no_schema).code == "missing_required_parameter"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"temperature": -1}, "invalid_value"),
        ({"temperature": "hot"}, "invalid_value"),
        ({"top_p": 2}, "invalid_value"),
        ({"max_tokens": 0}, "invalid_value"),
        ({"max_tokens": 1 << 40}, "invalid_value"),
        ({"max_completion_tokens": True}, "invalid_value"),
        ({"stop": [""]}, "invalid_value"),
        ({"stop": ["a"] * 5}, "invalid_value"),
        ({"seed": 1 << 70}, "invalid_value"),
        ({"n": 2}, "unsupported_value"),
        ({"logprobs": True}, "unsupported_value"),
        ({"modalities": ["text", "audio"]}, "unsupported_value"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "unsupported_value"),
        ({"presence_penalty": 0.5}, "unsupported_value"),
        ({"response_format": {"type": "xml"}}, "invalid_value"),
        ({"messages": []}, "invalid_value"),
        ({"messages": [{"role": "tool", "content": "a", "tool_call_id": "b"}]}, "unsupported_value"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "invalid_value"),
        ({"messages": [user({"type": "image_url", "image_url": {"url": "a"}})]}, "unsupported_value"),
        ({"messages": [user(no_sound("?"))]}, "invalid_value"),
        (
            {"messages": [user(no_sound("AAAA"))]},
            "invalid_value",
        ),
        ({"messages": [user("Who are you?")]}, "unsupported_value"),
    ],
)
def test_requests_that_cannot_be_followed(client: openai.OpenAI, clip: Path, given: dict[str, Any], code: str) -> None:
    error = refused(client, **{"messages": [user(sound(clip), "asr")], **given})
    assert isinstance(error, openai.BadRequestError)
    assert error.code == code


def test_bodies_that_are_no_request(served: Served) -> None:
    address = f"{served.url}/v1/chat/completions"
    for body in (b"", b"[]", b"{", b'{"model": 3}', b'{"a":' * 5000, b'{"model": "gpt-x", "messages": "hello"}'):
        answer = httpx.post(address, content=body)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error"), body[:20]
    text = json.dumps({"model": "gpt-x", "temperature": math.nan, "messages": [user("a")]})
    assert httpx.post(address, content=text).status_code == 400


def test_half_a_character_is_no_text(served: Served, clip: Path) -> None:
    request = json.dumps({"model": "gpt-\ud800", "messages": [user(sound(clip), "asr")]})
    assert httpx.post(f"{served.url}/v1/chat/completions", content=request).status_code == 400


def test_two_sounds_where_the_bundle_hears_one(client: openai.OpenAI, clip: Path, siren: Path) -> None:
    error = refused(client, user(sound(clip), sound(siren), "Which is louder?"))
    assert error.status_code == 400 and "one sound" in error.message


@pytest.fixture(scope="module")
def salm() -> Iterator[tuple[Engine, openai.OpenAI]]:
    with load(shipped_bundle("demo-salm")) as engine, serving(engine) as running:
        yield engine, openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)


def test_several_sounds_where_the_bundle_names_them(
    salm: tuple[Engine, openai.OpenAI], clip: Path, siren: Path
) -> None:
    engine, client = salm
    tag = engine.prompt.audio_tag
    answer = ask(client, user("First", sound(clip), "then", sound(siren)), model="gpt-4o-audio-preview", max_tokens=20)
    expected = engine.ask([clip, siren], f"First {tag} then {tag}", Generation(max_new_tokens=20))
    assert said(answer) == expected.text


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, openai.OpenAI]]:
    """The demo, saying of itself that it can chat: what counts is that its language model is asked alone."""
    bundle = tmp_path_factory.mktemp("chatting") / "demo"
    shutil.copytree(shipped_bundle(), bundle)
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    manifest["llm"]["chats"] = True
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with load(bundle) as engine, serving(engine) as running:
        yield engine, openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)


def test_text_alone_where_the_bundle_can_chat(chatting: tuple[Engine, openai.OpenAI], clip: Path) -> None:
    engine, client = chatting
    generation = Generation(max_new_tokens=20)
    scale = engine.llm.lora_scale
    pieces = "".join(e.text for e in engine.stream_text("Who are you?", generation) if isinstance(e, Piece))
    assert said(ask(client, user("Who are you?"), max_tokens=20)) == pieces.strip()
    assert said(ask(client, user(sound(clip), "asr"))) == "turn on the kitchen dishwasher"  # at its own scale again
    assert engine.llm.lora_scale == scale
    assert (
        ask(client, user("a"), {"role": "assistant", "content": "b"}, user("c"), max_tokens=3).usage.prompt_tokens > 5
    )
