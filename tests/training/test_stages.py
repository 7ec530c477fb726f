"""The harness of both demo trainings: stages in order, resumed where they were stopped, refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import pytest

torch = pytest.importorskip("torch")

from auricle.export.training.salm.train import main as train_salm
from auricle.export.training.salmonn.train import main as train_salmonn
from auricle.export.training.stages import Training, TrainingOptions, run_stages, stage_parser
from torch import nn


class Small(Training[TrainingOptions]):
    """One weight that is drawn to 1."""

    STAGES = ("fit", "write")
    MINUTES: ClassVar = {"fit": 0.002}
    TOKENIZER = "none"
    steps: ClassVar[list[int]] = []

    def __init__(self, options: TrainingOptions) -> None:
        super().__init__(options)
        self.layer = nn.Linear(1, 1)

    def _fit(self) -> None:
        trainer = self.trainer("fit", {"layer": self.layer}, rate=0.1)
        for step in trainer:
            self.steps.append(step)
            trainer.step((self.layer(torch.ones(1)) - 1).square().sum())

    def _write(self) -> None:
        self.restore("fit", {"layer": self.layer})
        self.options.out.write_text(f"{self.layer(torch.ones(1)).item():.3f}")


def options(tmp_path: Path, stage: str = "all", scale: float = 1.0) -> TrainingOptions:
    return TrainingOptions(tmp_path / "work", tmp_path / "out", clips=0, stage=stage, threads=1, scale=scale)


def test_stages_run_in_order_and_a_finished_one_is_not_run_again(tmp_path: Path) -> None:
    Small.steps.clear()
    assert run_stages(Small, options(tmp_path)) == 0
    assert Small.steps and (tmp_path / "out").exists()
    done = len(Small.steps)
    assert run_stages(Small, options(tmp_path, "fit")) == 0
    assert len(Small.steps) == done
    assert run_stages(Small, options(tmp_path, "fit", scale=2.0)) == 0
    assert Small.steps[done] == Small.steps[done - 1] + 1, "it should go on where it was stopped"


def test_a_stage_that_lacks_an_earlier_one_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_stages(Small, options(tmp_path, "write")) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'work' / 'fit.pt'} is missing: run --stage fit first\n"


def test_the_parser_gives_the_options(tmp_path: Path) -> None:
    parser = stage_parser("x", "about", Small, 7, "1 GB")
    given = parser.parse_args(["--work", str(tmp_path), "--out", "o", "--stage", "write", "--seed", "3"])
    assert TrainingOptions(**vars(given)) == TrainingOptions(tmp_path, Path("o"), 7, "write", 3)


@pytest.mark.parametrize("train", [train_salm, train_salmonn])
@pytest.mark.parametrize(("stage", "due"), [("llm", "tokenizer"), ("write", "(joint|whisper)")])
def test_both_trainings_say_which_stage_is_due(
    train: object, stage: str, due: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(train)
    assert train(["--work", str(tmp_path), "--out", str(tmp_path / "out"), "--stage", stage, "--scale", "0"]) == 2
    assert re.search(f"run --stage {due} first", capsys.readouterr().err)
