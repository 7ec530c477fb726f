"""A bundle with an aligner: what every way to a transcript makes of one that is not supported."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
from auricle.models.bundle import shipped_bundle
from auricle.models.errors import InputError
from auricle.runtime.__main__ import main
from auricle.runtime.assistant import Assistant
from auricle.runtime.assistant_options import AssistantOptions
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.engine import Engine, load
from auricle.runtime.events import Answered, Final
from auricle.runtime.live.captions import LiveOptions, captions
from auricle.runtime.llm.sampling import Generation
from auricle.runtime.sources.playback import FilePlayback
from live_client import hear, opened, say, started, tell, until
from served import serving

SAID = "turn on the kitchen dishwasher"
SCHEMA = {"type": "object", "properties": {"room": {"enum": ["kitchen", "cellar"]}}, "required": ["room"]}
Judge = Callable[[float], None]


@pytest.fixture(scope="module")
def engine(bundle: Path) -> Iterator[Engine]:
    with load(bundle) as opened:
        yield opened


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    """Every text has this support from here on: an aligner of random weights knows nothing."""

    def judge(support: float) -> None:
        monkeypatch.setattr("auricle.runtime.aligner.aligner.support_of", lambda _: support)

    return judge


def test_ask_tells_it_and_withholds(bundle: Path, judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["ask", str(bundle / "clips" / "command.wav"), "asr", "--bundle", str(bundle)]
    judge(0.2)
    assert main([*asked, "--json"]) == 0
    (segment,) = json.loads(capsys.readouterr().out)["segments"]
    assert (segment["text"], segment["support"], segment["finish_reason"]) == (SAID, 0.2, "eos")
    assert main([*asked, "--json", "--min-support", "0.5"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["text"] == "" and answer["segments"][0]["text"] == SAID
    assert answer["segments"][0]["finish_reason"] == "unsupported"
    assert main([*asked, "--min-support", "0.5"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "" and "support 0.20: withheld" in shown.err
    judge(0.5)
    assert main([*asked, "--min-support", "0.5"]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{SAID}\n" and "withheld" not in shown.err


def test_files_of_captions_leave_it_out(bundle: Path, judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    clip = str(bundle / "clips" / "command.wav")
    judge(0.2)
    shown: dict[str, str] = {}
    for format in ("txt", "srt", "vtt", "jsonl"):
        asked = ["caption", clip, "--format", format, "--bundle", str(bundle), "--min-support", "0.5"]
        assert main(asked) == 0
        said = capsys.readouterr()
        shown[format] = said.out
        assert "support 0.20: withheld" in said.err
    assert (shown["txt"], shown["srt"], shown["vtt"].strip()) == ("", "", "WEBVTT")
    row = json.loads(shown["jsonl"])
    assert (row["text"], row["support"], row["finish_reason"]) == (SAID, 0.2, "unsupported")
    assert main(["caption", clip, "--format", "jsonl", "--bundle", str(bundle)]) == 0
    assert json.loads(capsys.readouterr().out)["support"] == 0.2


def test_live_finals_have_it_where_it_is_asked_for(engine: Engine, judge: Judge) -> None:
    clip = read_audio(engine.bundle.path("clips/command.wav"))

    def final(options: LiveOptions) -> Final:
        events = captions(FilePlayback(clip, "fast"), engine, options)
        return next(event for event in events if isinstance(event, Final))

    judge(0.2)
    told = final(LiveOptions(generation=Generation(min_support=0)))
    assert (told.text, told.support, told.finish_reason) == (SAID, 0.2, "eos")
    assert final(LiveOptions(generation=Generation(min_support=0.5))).finish_reason == "unsupported"
    assert final(LiveOptions()).support is None, "nobody asked for it, and it costs more than the words' times"


def test_listen_writes_nothing_of_it(
    bundle: Path, judge: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge(0.2)
    clip = str(bundle / "clips" / "command.wav")
    asked = ["listen", clip, "--pace", "fast", "--bundle", str(bundle), "--min-support", "0.5"]
    assert main([*asked, "--out", str(tmp_path / "said.srt")]) == 0
    shown = capsys.readouterr()
    assert SAID not in shown.out and "support 0.20: withheld" in shown.err
    assert (tmp_path / "said.srt").read_text(encoding="utf-8") == ""


@pytest.mark.parametrize(("task", "told"), [("asr", 0.2), ("audiocaption", None)])
def test_listen_tells_it_in_json(
    task: str, told: float | None, bundle: Path, judge: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    judge(0.2)
    clip = str(bundle / "clips" / "command.wav")
    assert main(["listen", clip, "--task", task, "--pace", "fast", "--json", "--bundle", str(bundle)]) == 0
    events = map(json.loads, capsys.readouterr().out.splitlines())
    (final,) = [event for event in events if event["event"] == "Final"]
    assert (final["support"], final["finish_reason"]) == (told, "eos")


def test_a_client_of_live_asks_for_it(bundle: Path, judge: Judge) -> None:
    judge(0.2)

    def heard(**fields: Any) -> dict[str, Any]:
        with started(running, **fields) as connection:
            say(connection, read_audio(bundle / "clips" / "command.wav"))
            tell(connection, "stop")
            return next(event for event in until(connection, "ended") if event["type"] == "final")

    with load(bundle) as engine, serving(engine) as running:
        assert "support" not in heard()
        assert heard(min_support=0) | {"support": 0.2, "finish_reason": "eos"} == heard(min_support=0)
        assert heard(min_support=0.5)["finish_reason"] == "unsupported"
        for fields, said in (
            ({"min_support": 2}, "0 to 1"),
            ({"min_support": 0.5, "prompt": "audiocaption"}, "ask asr"),
        ):
            with opened(running) as connection:
                tell(connection, "start", sample_rate=16_000, **fields)
                assert said in hear(connection)["error"]["message"]


def test_an_assistant_does_nothing_with_it(engine: Engine, judge: Judge, tmp_path: Path) -> None:
    clip = read_audio(engine.bundle.path("clips/command.wav"))
    spoken = tmp_path / "spoken"

    def answer(min_support: float | None = None) -> Answered:
        options = AssistantOptions("asr", speak=f"tee -a {spoken}", min_support=min_support)
        events = Assistant(engine, options).run(FilePlayback(clip, "fast"))
        return next(event for event in events if isinstance(event, Answered))

    judge(0.2)
    doubted = answer()
    assert (doubted.text, doubted.support, doubted.confident) == (SAID, 0.2, False) and not spoken.exists()
    assert answer(0.1).confident
    judge(0.9)
    assert answer().confident and not answer(0.95).confident
    options = AssistantOptions("asr", json_schema=SCHEMA, min_avg_logprob=-100)
    (untold,) = [e for e in Assistant(engine, options).run(FilePlayback(clip, "fast")) if isinstance(e, Answered)]
    assert untold.support is None and untold.confident


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["asr", "--min-support", "1.5"], "between 0 and 1"),
        (["audiocaption", "--min-support", "0.5"], "ask asr"),
        (["asr", "--min-support", "0.5", "--bundle", str(shipped_bundle())], "--aligner"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    arguments: list[str], sentence: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", str(bundle / "clips" / "command.wav"), "--bundle", str(bundle), *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_live_and_assist_refuse_it_too(engine: Engine) -> None:
    clip = read_audio(engine.bundle.path("clips/command.wav"))
    with pytest.raises(InputError, match="between 0 and 1"):
        AssistantOptions(min_support=-0.1)
    with pytest.raises(InputError, match="in words"):
        next(Assistant(engine, AssistantOptions("asr", json_schema=SCHEMA, min_support=0.5)).run(FilePlayback(clip)))
    with pytest.raises(InputError, match="in words"):
        captions(FilePlayback(clip), engine, LiveOptions("audiocaption", generation=Generation(min_support=0.5)))
