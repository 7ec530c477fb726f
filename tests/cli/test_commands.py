"""The command line: what argparse finds -> each command's own options; help, version, and what is refused."""

from __future__ import annotations

import ast
from dataclasses import FrozenInstanceError
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from auricle.runtime.__main__ import main
from auricle.runtime.cli import commands
from auricle.runtime.cli.ask import AskCommand
from auricle.runtime.cli.assist import AssistCommand
from auricle.runtime.cli.caption import CaptionCommand
from auricle.runtime.cli.chat import ChatCommand
from auricle.runtime.cli.listen import ListenCommand
from auricle.runtime.cli.options import ClipOptions, DecodingOptions, ModelOptions
from auricle.runtime.cli.session import SourceOptions
from auricle.runtime.cli.verify import VerifyCommand
from auricle.runtime.engine import EngineOptions
from auricle.runtime.llm.sampling import Generation
from auricle.runtime.llm.session import LlmOptions
from auricle.runtime.system.ort import OrtOptions


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
    words = "--bundle b --provider cpu --threads 3 --n-gpu-layers 5 --kv-type q8_0 --lora-scale 1.5 --mix --text-only"
    words += " --max-new-tokens 7 --beams 1 --temperature 0.5 --top-p 0.8 --seed 4 --repetition-penalty 1.1"
    words += " --stop . --stop ! --max-seconds 2 --json --timings ?"
    command = told(monkeypatch, "ask", *words.split())
    llm = LlmOptions(n_threads=3, n_gpu_layers=5, lora_scale=1.5, kv_type="q8_0")
    model = ModelOptions(Path("b"), EngineOptions(OrtOptions(provider="cpu", threads=3), llm))
    decoding = DecodingOptions(7, 1, 0.5, 0.8, 4, 1.1, (".", "!"), 2.0)
    assert command == AskCommand((), "?", ClipOptions(model, decoding, None, True), True, True, True)
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
    words += " --context short --settle 4 --threshold 0.4 --max-segment-s 9 --out a.srt --json --threads 2"
    command = told(monkeypatch, "listen", *words.split())
    assert command.source == SourceOptions("-", None, "fast", 8000, 2, "f32le")
    live = command.live
    assert (live.prompt, live.also, live.hop_ms, live.agreement, live.context) == ("x", ("y",), 100.0, 3, "short")
    assert (live.settle_s, live.gate.threshold, live.gate.max_segment_s, live.vad) == (4.0, 0.4, 9.0, True)
    assert (command.out, command.as_json, command.model.engine.ort.threads) == (Path("a.srt"), True, 2)
    words = "talk.wav --task x --system be-brief --no-barge-in --no-memory --n-ctx 600 --min-silence-ms 300 --json"
    command = told(monkeypatch, "assist", *words.split())
    assert command.source == SourceOptions("talk.wav") and command.as_json
    assistant = command.assistant
    assert (assistant.prompt, assistant.system) == ("x", "be-brief")
    assert not assistant.barge_in and not assistant.remember
    assert (assistant.gate.min_silence_ms, command.model.engine.llm.n_ctx) == (300.0, 600)
