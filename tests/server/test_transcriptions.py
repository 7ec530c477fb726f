"""Transcriptions and models, asked by OpenAI's own client."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import openai
import pytest
from auricle.models.audio import SAMPLE_RATE
from auricle.models.bundle import shipped_bundle
from auricle.runtime.engine import Engine, load
from auricle.runtime.server.openai.deltas import Deltas
from auricle.runtime.server.options import ServerOptions
from hypothesis import given
from hypothesis import strategies as st
from served import Served, serving, write_wav

SAID = "turn on the kitchen dishwasher"


def transcribe(client: openai.OpenAI, file: Path, **given: Any) -> Any:
    create: Any = client.audio.transcriptions.create
    return create(**{"file": file, "model": "whisper-1", **given})


def translate(client: openai.OpenAI, file: Path, **given: Any) -> Any:
    create: Any = client.audio.translations.create  # pyright: ignore[reportDeprecated]
    return create(file=file, model="whisper-1", **given)


def test_models(client: openai.OpenAI) -> None:
    [model] = client.models.list().data
    assert model.id == "auricle-demo"
    assert model.created > 1_700_000_000
    assert client.models.retrieve("auricle-demo") == model


def test_five_formats(client: openai.OpenAI, clip: Path) -> None:
    plain = transcribe(client, clip)
    assert plain.text == SAID
    assert plain.usage.total_tokens == plain.usage.input_tokens + plain.usage.output_tokens > 0
    assert transcribe(client, clip, response_format="text").strip() == SAID
    subtitles = transcribe(client, clip, response_format="srt")
    assert subtitles == f"1\n00:00:00,000 --> 00:00:01,891\n{SAID}\n"
    web = transcribe(client, clip, response_format="vtt")
    assert web.startswith("WEBVTT\n") and SAID in web and "00:00:01.891" in web
    verbose = transcribe(client, clip, response_format="verbose_json", timestamp_granularities=["segment"])
    assert (verbose.text, verbose.language, verbose.duration) == (SAID, "english", 1.891)
    [segment] = verbose.segments
    assert (segment.start, segment.end, segment.text) == (0.0, 1.891, SAID)
    assert all(value is not None for value in segment.model_dump().values())


def test_a_clip_longer_than_the_window_says_what_the_engine_says(
    client: openai.OpenAI, engine: Engine, long_clip: Path
) -> None:
    answer = engine.ask(long_clip, "asr")
    assert len(answer.segments) > 1
    verbose = transcribe(client, long_clip, response_format="verbose_json")
    assert [segment.text for segment in verbose.segments] == [final.text for final in answer.segments]
    assert verbose.text == " ".join(final.text for final in answer.segments)


def test_deltas_grow_into_the_whole_text(client: openai.OpenAI, long_clip: Path) -> None:
    *deltas, done = transcribe(client, long_clip, model="gpt-4o-transcribe", stream=True)
    assert {event.type for event in deltas} == {"transcript.text.delta"} and len(deltas) > 5
    assert done.type == "transcript.text.done"
    assert "".join(event.delta for event in deltas) == done.text == transcribe(client, long_clip).text
    assert done.usage.type == "tokens"


def test_what_fails_half_way_is_told_behind_what_was_sent(engine: Engine, long_clip: Path) -> None:
    with serving(engine, ServerOptions(port=0, max_seconds=12)) as running:
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
        deltas: list[str] = []
        with pytest.raises(openai.APIError, match="12 s"):
            deltas.extend(event.delta for event in transcribe(client, long_clip, stream=True))
        assert deltas


@given(answers=st.lists(st.lists(st.sampled_from(["a", " b", " ", "c  d", "\n"]))))
def test_deltas_are_the_stripped_answers_joined(answers: list[list[str]]) -> None:
    deltas = Deltas()
    sent = ""
    for pieces in answers:
        sent += "".join(deltas.add(piece) for piece in pieces)
        deltas.end_segment()
    assert sent == " ".join(text for pieces in answers if (text := "".join(pieces).strip()))


def test_nothing_was_said(client: openai.OpenAI, tmp_path: Path) -> None:
    silence = write_wav(tmp_path / "silence.wav", np.zeros(SAMPLE_RATE))
    assert transcribe(client, silence).text == ""
    assert transcribe(client, silence, response_format="srt") == ""
    assert transcribe(client, silence, response_format="vtt").strip() == "WEBVTT"
    verbose = transcribe(client, silence, response_format="verbose_json")
    assert (verbose.text, verbose.segments, verbose.duration) == ("", [], 1.0)
    [done] = transcribe(client, silence, stream=True)
    assert done.text == ""


def test_what_clients_send_without_meaning_it(client: openai.OpenAI, clip: Path) -> None:
    """An empty language, as some do; names of hosted models; a file of no type; options that change nothing here."""
    assert transcribe(client, clip, language="", temperature=0, chunking_strategy="auto").text == SAID
    strategy = {"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 200}
    assert transcribe(client, clip, model="gpt-4o-mini-transcribe", chunking_strategy=strategy).text == SAID
    assert transcribe(client, clip, language="en-US", model="auricle-demo").text == SAID
    raw = ("upload", clip.read_bytes(), "application/octet-stream")
    assert client.audio.transcriptions.create(file=raw, model="gpt-transcribe").text == SAID


def test_a_file_that_comes_first_and_without_a_length(served: Served, clip: Path) -> None:
    """As OpenAI's client for Node sends it."""
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n',
        clip.read_bytes(),
        b'\r\n--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--b--\r\n',
    ]
    answer = httpx.post(
        f"{served.url}/v1/audio/transcriptions",
        content=iter(parts),
        headers={"content-type": "multipart/form-data; boundary=b"},
    )
    assert answer.json()["text"] == SAID


def test_keywords_reach_the_model_and_only_this_request(
    client: openai.OpenAI, engine: Engine, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boosted: list[tuple[str, ...]] = []
    usual = engine.llm.question

    def watched(ids: Sequence[int]) -> Any:
        boosted.append(engine.keywords)
        return usual(ids)

    monkeypatch.setattr(engine.llm, "question", watched)
    transcribe(client, clip, extra_body={"keywords": ["dishwasher", "radio"]})
    transcribe(client, clip, prompt="dishwasher, radio")
    assert transcribe(client, clip).text == SAID
    assert boosted == [("dishwasher", "radio"), ("dishwasher", "radio"), ()]


def test_a_prompt_that_is_no_list_is_named_as_ignored(client: openai.OpenAI, clip: Path) -> None:
    create = client.audio.transcriptions.with_raw_response.create
    told = create(file=clip, model="whisper-1", prompt="Yesterday we spoke about the weather in the north.")
    assert told.headers["auricle-ignored"] == "prompt"
    assert told.parse().text == SAID
    assert "auricle-ignored" not in create(file=clip, model="whisper-1", prompt="weather").headers


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The demo with a task that it does not have: what counts is which prompt is asked."""
    bundle = tmp_path_factory.mktemp("translator") / "demo"
    shutil.copytree(shipped_bundle(), bundle)
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    manifest["prompt"]["tasks"]["translation_x2en"] = manifest["prompt"]["tasks"]["asr"]
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with load(bundle) as engine, serving(engine) as running:
        yield running


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_translations_where_the_bundle_has_a_task(translator: Served, clip: Path) -> None:
    client = openai.OpenAI(base_url=f"{translator.url}/v1", api_key="none", max_retries=0)
    assert translate(client, clip).text == SAID
    verbose = translate(client, clip, response_format="verbose_json")
    assert (verbose.language, verbose.text) == ("english", SAID)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_translations_are_refused_elsewhere(client: openai.OpenAI, clip: Path) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        translate(client, clip)
    assert refused.value.code == "unsupported_value"


def test_segments_of_a_stream_for_who_asks(served: Served, long_clip: Path) -> None:
    """Their texts joined are the whole; other clients never see them."""
    form = {"model": "whisper-1", "stream": "true"}
    told: dict[str, list[dict[str, Any]]] = {}
    for query in ("", "?auricle=auricle.segments"):
        address = f"{served.url}/v1/audio/transcriptions{query}"
        answer = httpx.post(address, files={"file": long_clip.read_bytes()}, data=form, timeout=60)
        told[query] = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]
    plain, asked = told.values()
    segments = [event for event in asked if event["type"] == "auricle.segment"]
    assert len(segments) > 1 and [event for event in asked if event not in segments] == plain
    assert " ".join(segment["text"] for segment in segments) == plain[-1]["text"]
    assert all(before["end"] <= after["start"] for before, after in itertools.pairwise(segments))
