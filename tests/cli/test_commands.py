"""The command line: what argparse finds -> each command's own options; help, version, and what is refused."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tomllib
from dataclasses import FrozenInstanceError
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from auricle.models.bundle import shipped_bundle
from auricle.runtime.__main__ import main
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.audio.selection import Selection
from auricle.runtime.cli import commands
from auricle.runtime.cli.ask import AskCommand
from auricle.runtime.cli.caption import CaptionCommand
from auricle.runtime.cli.chat import ChatCommand
from auricle.runtime.cli.live.assist import AssistCommand
from auricle.runtime.cli.live.listen import ListenCommand
from auricle.runtime.cli.live.session import SourceOptions
from auricle.runtime.cli.options import ClipOptions, DecodingOptions, ModelOptions
from auricle.runtime.cli.verify import VerifyCommand
from auricle.runtime.engine import EngineOptions
from auricle.runtime.llm.options import LlmOptions
from auricle.runtime.llm.sampling import Generation
from auricle.runtime.system.ort import OrtOptions
from tracks import write_tracks


def told(monkeypatch: pytest.MonkeyPatch, name: str, *words: object) -> Any:
    """What a command line makes of a command."""
    given: list[Any] = []
    monkeypatch.setattr(commands, name, lambda command: given.append(command) or 0)
    assert main([name, *map(str, words)]) == 0
    return given[0]


def test_only_one_file_reads_what_argparse_found() -> None:
    allowed = {"__main__.py", "cli/parser.py", "cli/commands.py"}
    root = Path(str(resources.files("auricle.runtime")))
    for path in root.rglob("*.py"):
        names = {
            node.id for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Name)
        }
        assert "Namespace" not in names or str(path.relative_to(root)) in allowed, path


def test_without_options_everything_is_as_the_library_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, "ask", "a.wav", "b.wav", "asr") == AskCommand(("a.wav", "b.wav"), "asr")
    assert told(monkeypatch, "caption", "a.wav") == CaptionCommand((Path("a.wav"),))
    assert told(monkeypatch, "chat", "a.wav") == ChatCommand("a.wav")
    assert told(monkeypatch, "listen") == ListenCommand()
    assert told(monkeypatch, "assist") == AssistCommand()
    assert told(monkeypatch, "demo") == ModelOptions()
    assert told(monkeypatch, "verify") == VerifyCommand()


def test_every_option_of_a_question_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "--bundle b --provider cpu --threads 3 --n-gpu-layers 5 --kv-type q8_0 --repack --lora-scale 1.5"
    words += " --track 2 --mix --text-only"
    words += " --max-new-tokens 7 --beams 1 --temperature 0.5 --top-p 0.8 --seed 4 --repetition-penalty 1.1"
    words += " --stop . --stop ! --max-seconds 2 --json --timings ?"
    command = told(monkeypatch, "ask", *words.split())
    llm = LlmOptions(n_threads=3, n_gpu_layers=5, lora_scale=1.5, kv_type="q8_0", repack=True)
    model = ModelOptions(Path("b"), EngineOptions(OrtOptions(provider="cpu", threads=3), llm))
    decoding = DecodingOptions(7, 1, 0.5, 0.8, 4, 1.1, (".", "!"), 2.0)
    options = ClipOptions(model, decoding, None, Selection(2, None, True))
    assert command == AskCommand((), "?", options, text_only=True, as_json=True, timings=True)
    assert decoding.generation(Generation(9)) == Generation(
        7, temperature=0.5, top_p=0.8, seed=4, repetition_penalty=1.1, guard=True, stop=(".", "!"), max_seconds=2.0
    )
    with pytest.raises(FrozenInstanceError):
        command.question = "another"


def test_what_is_not_given_is_the_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    given = DecodingOptions().generation(Generation(9, beams=4))
    assert (given.max_new_tokens, given.beams, given.guard) == (9, 4, True)


def test_every_option_of_a_session_arrives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = "- --pace fast --rate 8000 --channels 2 --sample-format f32le --task x --also y --hop-ms 100 --agreement 3"
    words += (
        " --context short --settle 4 --threshold 0.4 --max-segment-s 9 --out a.srt --json --threads 2 --no-speculation"
    )
    command = told(monkeypatch, "listen", *words.split())
    assert command.source == SourceOptions("-", pace="fast", rate=8000, channels=2, sample_format="f32le")
    live = command.live
    assert (live.prompt, live.also, live.hop_ms, live.agreement, live.context) == ("x", ("y",), 100.0, 3, "short")
    assert (live.settle_s, live.gate.threshold, live.gate.max_segment_s, live.vad) == (4.0, 0.4, 9.0, True)
    assert not live.speculate
    assert (command.out, command.as_json, command.model.engine.ort.threads) == (Path("a.srt"), True, 2)
    words = "talk.wav --task x --system be-brief --no-barge-in --no-memory --n-ctx 600 --min-silence-ms 300 --json"
    words += " --no-speculation"
    command = told(monkeypatch, "assist", *words.split())
    assert command.source == SourceOptions("talk.wav") and command.as_json
    assistant = command.assistant
    assert (assistant.prompt, assistant.system) == ("x", "be-brief")
    assert not assistant.barge_in and not assistant.remember and not assistant.speculate
    assert (assistant.gate.min_silence_ms, command.model.engine.llm.n_ctx) == (300.0, 600)


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one sentence on standard error of a command whose input is wrong."""
    assert main([str(word) for word in words]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    return printed.err


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command prints that ends the program at once."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    setup = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert shown(capsys, "--version") == f"auricle {setup['project']['version']}\n"


def test_help_of_everything_and_of_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "help") == shown(capsys, "--help")
    assert shown(capsys, "help", "ask") == shown(capsys, "ask", "--help")
    assert "COMMAND" in shown(capsys, "help", "help")
    with pytest.raises(SystemExit) as ended:
        main(["help", "sing"])
    assert ended.value.code == 2 and "invalid choice: 'sing'" in capsys.readouterr().err


def test_python_m_auricle() -> None:
    run = subprocess.run([sys.executable, "-m", "auricle", "tasks"], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("asr ")


CLIP = shipped_bundle() / "clips" / "shopping.wav"
SPOKEN = "add ten potatoes to my shopping list"


def test_a_clip_alone_lacks_a_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    error = refusal(capsys, "ask", CLIP)
    assert f"a prompt is missing: write auricle ask {CLIP} asr, or auricle ask" in error
    assert "a prompt is missing" in refusal(capsys, "ask", "-")
    assert "there is no clip to ask 'missing.wav' about" in refusal(capsys, "ask", "missing.wav")


def test_a_file_does_not_take_a_tasks_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("asr", "slot_filling:room", "notes"):
        (tmp_path / name).write_text("not a clip")
    monkeypatch.chdir(tmp_path)
    assert main(["ask", str(CLIP), "asr"]) == 0
    assert capsys.readouterr().out == f"{SPOKEN}\n"
    assert main(["chat", str(CLIP), "asr"]) == 0
    assert capsys.readouterr().out == f"{SPOKEN}\n"
    assert "the last word, notes, is a file" in refusal(capsys, "ask", CLIP, "notes")
    assert "there is no clip to ask 'asr' about" in refusal(capsys, "ask", "asr")


def pipe(monkeypatch: pytest.MonkeyPatch, data: bytes, terminal: bool = False) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: terminal))


@pytest.mark.parametrize("words", [("-", "asr"), ("--timings", "-", "asr"), ("-", "--timings", "asr")])
def test_standard_input(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe(monkeypatch, CLIP.read_bytes())
    assert main(["ask", *words]) == 0
    assert capsys.readouterr().out == f"{SPOKEN}\n"


def test_standard_input_that_is_no_clip(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pipe(monkeypatch, CLIP.read_bytes()[:9000])
    assert "standard input is cut short" in refusal(capsys, "ask", "-", "asr")
    pipe(monkeypatch, b"")
    assert "standard input is empty" in refusal(capsys, "ask", "-", "asr")
    pipe(monkeypatch, b"", terminal=True)
    assert "which is a terminal: pipe one into it" in refusal(capsys, "ask", "-", "asr")
    monkeypatch.setattr(sys, "stdin", None)
    assert "which is closed" in refusal(capsys, "ask", "-", "asr")
    assert "write - once" in refusal(capsys, "ask", "-", "-", "asr")


def test_tracks_and_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoken = np.rint(read_audio(CLIP) * 32768).astype(np.int16)
    silence = np.zeros_like(spoken)
    path = write_tracks(tmp_path / "meeting.mkv", (silence,), (silence, spoken))
    there = "the right channel of track 2 has sound: --track 2 --channel 2"
    assert f"meeting.mkv is silent: {there}" in refusal(capsys, "ask", path, "asr", "--track", 1)
    pipe(monkeypatch, path.read_bytes())
    assert f"standard input is silent: {there}" in refusal(capsys, "ask", "-", "asr", "--track", 1)
    for command in (("ask", path, "asr"), ("caption", path)):
        words = [str(word) for word in (*command, "--track", 2, "--channel", 2)]
        assert main(words) == 0
        assert SPOKEN in capsys.readouterr().out
    assert "it has 2, give --track 1 to 2" in refusal(capsys, "ask", path, "asr", "--track", 3)
    assert "it has 2, give --channel 1 to 2" in refusal(capsys, "ask", path, "asr", "--track", 2, "--channel", 9)
    assert "track 0 does not exist" in refusal(capsys, "ask", path, "asr", "--track", 0)
    assert "give one of them" in refusal(capsys, "caption", path, "--channel", 1, "--mix")


@pytest.mark.parametrize("bundle", ["demo", "demo-salm"])
def test_the_demos_cannot_chat(bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = refusal(capsys, "ask", "--text-only", "What is a Q-Former?", "--bundle", bundle)
    assert "cannot chat, it only knows about sound: give --bundle with a model that can" in error
