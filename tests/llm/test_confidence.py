"""How sure the model was of an answer: the same by every way of decoding, and what an assistant makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from auricle.models.audio import Waveform
from auricle.models.errors import InputError
from auricle.runtime.__main__ import main
from auricle.runtime.assistant import Assistant
from auricle.runtime.assistant_options import AssistantOptions
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.engine import Engine, load
from auricle.runtime.events import Answered, Final
from auricle.runtime.live.captions import LiveOptions, captions
from auricle.runtime.llm.sampling import Generation, TokenScores, log_softmax
from auricle.runtime.output.remarks import remark
from auricle.runtime.sources.playback import FilePlayback

SCHEMA = {"type": "object", "properties": {"room": {"enum": ["kitchen", "cellar"]}}, "required": ["room"]}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with load() as opened:
        yield opened


@pytest.fixture(scope="module")
def command(engine: Engine) -> Waveform:
    """ "turn on the kitchen dishwasher"."""
    return read_audio(engine.bundle.path("clips/command.wav"))


def test_it_is_the_mean_of_the_tokens_log_probabilities_and_the_end_s() -> None:
    logits = np.array([[1.0, 2.0, -np.inf], [0.5, 0.5, 9.0]], np.float32)
    scores = TokenScores()
    assert scores.mean is None
    for row, token in zip(logits, (1, 0), strict=True):
        scores.add(row, token)
    assert scores.mean == pytest.approx(float(log_softmax(logits)[[0, 1], [1, 0]].mean()), abs=1e-6)


def test_it_is_the_same_alone_and_live_with_drafts(engine: Engine, command: Waveform) -> None:
    alone = engine.ask(command, "asr").segments[0]
    assert alone.avg_logprob is not None and -0.2 < alone.avg_logprob < 0
    for draft in (True, False):
        events = captions(FilePlayback(command, "fast"), engine, LiveOptions(vad=False, draft=draft))
        (live,) = [event for event in events if isinstance(event, Final)]
        assert live.text == alone.text and live.avg_logprob == pytest.approx(alone.avg_logprob, abs=0.02)


def test_it_falls_where_the_model_must_say_what_it_would_not(engine: Engine, command: Waveform) -> None:
    heard, forced = (
        engine.ask(command, "asr", Generation(20, gbnf=grammar)).segments[0].avg_logprob
        for grammar in (None, 'root ::= " open the garage door"')
    )
    assert heard is not None and forced is not None and forced < heard - 1
    assert engine.ask(command, "asr", Generation(20, beams=2)).segments[0].avg_logprob is None


def answers(engine: Engine, sound: Waveform, options: AssistantOptions, done: list[Any]) -> list[Answered]:
    events = Assistant(engine, options, done.append).run(FilePlayback(sound, "fast"))
    return [event for event in events if isinstance(event, Answered)]


def test_an_assistant_does_nothing_with_what_it_is_not_sure_of(engine: Engine, command: Waveform) -> None:
    done: list[Any] = []
    options = AssistantOptions("asr", json_schema=SCHEMA, min_avg_logprob=-20.0)
    (sure,) = answers(engine, command, options, done)
    assert sure.confident and done == [sure.intent] and sure.avg_logprob is not None
    options = AssistantOptions("asr", json_schema=SCHEMA, min_avg_logprob=sure.avg_logprob / 2)
    (unsure,) = answers(engine, command, options, done)
    assert not unsure.confident and unsure.intent == sure.intent and len(done) == 1
    for wrong in (0.5, float("-inf"), float("nan")):
        with pytest.raises(InputError, match="min_avg_logprob"):
            AssistantOptions(min_avg_logprob=wrong)


@pytest.fixture
def doubting(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Of a bundle that says that it understands nothing."""
    manifest = engine.bundle.manifest
    generation = replace(manifest.generation, min_avg_logprob=0.0)
    monkeypatch.setattr(engine, "bundle", replace(engine.bundle, manifest=replace(manifest, generation=generation)))
    return engine


@pytest.mark.parametrize(("said", "confident"), [(None, False), (-20.0, True)])
def test_a_bundle_says_what_an_assistant_is_too_unsure_of(
    doubting: Engine, command: Waveform, said: float | None, confident: bool
) -> None:
    (answered,) = answers(doubting, command, AssistantOptions("asr", min_avg_logprob=said), [])
    assert answered.confident == confident


def test_what_a_bundle_is_not_sure_of_is_given_and_marked(doubting: Engine, command: Waveform) -> None:
    live = captions(FilePlayback(command, "fast"), doubting, LiveOptions(vad=False))
    finals = [*doubting.ask(command, "asr").segments, *(event for event in live if isinstance(event, Final))]
    assert [final.confident for final in finals] == [False, False] and all(final.text for final in finals)
    assert all("not sure of this (-0" in remark(final) for final in finals)
    (beams,) = doubting.ask(command, "asr", Generation(20, beams=2)).segments
    assert beams.confident and not remark(beams)  # nobody knows


def test_the_commands_say_it(engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = engine.bundle.path("clips/command.wav")
    assert main(["ask", str(clip), "asr", "--json"]) == 0
    assert -0.2 < json.loads(capsys.readouterr().out)["segments"][0]["avg_logprob"] < 0
    assert main(["caption", str(clip), "--format", "jsonl", "--out", str(tmp_path)]) == 0
    assert -0.2 < json.loads((tmp_path / "command.jsonl").read_text(encoding="utf-8"))["avg_logprob"] < 0
    capsys.readouterr()
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA), encoding="utf-8")
    asked = ["assist", str(clip), "--task", "asr", "--json-schema", str(schema), "--min-logprob", "0"]
    assert main(asked) == 0
    said = capsys.readouterr()
    assert said.out == "" and "not sure (-" in said.err
