"""`auricle-bench batch`: recordings by segments, so many together, each round beside one at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from auricle.bench.__main__ import main
from auricle.bench.result import read_record
from auricle.models.bundle import shipped_bundle

CLIPS = shipped_bundle() / "clips"
HEARD = [word for name in ("command", "weather", "shopping") for word in ("--recording", str(CLIPS / f"{name}.wav"))]


def test_every_size_says_as_much_and_what_it_took(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["batch", *HEARD, "--batch", "3", "--lanes", "1,2", "--rounds", "2"]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "run.txt").write_text(printed)
    record = read_record(tmp_path / "run.txt")
    assert record.groups == ("one at a time", "2 lanes", "3 together") and record.settings["segments"] == "3"
    for group in record.groups:
        wall, gain, changed = (record.find(group, name) for name in ("wall", "gain", "changed"))
        assert wall and len(wall.samples) == 2 and all(sample > 0 for sample in wall.samples)
        assert gain and len(gain.samples) == 2 and changed and changed.value == 0
        stages = [record.find(group, name) for name in ("encoders", "prefill", "decode")]
        if group == "2 lanes":  # whose stages overlap
            continue
        assert sum(each.samples[0] for each in stages if each) == pytest.approx(wall.samples[0], rel=0.2)
    alone = record.find("one at a time", "gain")
    assert alone and alone.samples == (1.0, 1.0)
    shown = printed.splitlines()
    assert shown[0].startswith("batch: auricle-demo, int8/q8_0, 3 segments") and shown[5].startswith("3 together")


def test_random_weights_answer_as_long_as_they_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asked = ["batch", *HEARD, "--batch", "2", "--rounds", "1", "--new-tokens", "4"]
    assert main(asked) == 0
    (tmp_path / "run.txt").write_text(capsys.readouterr().out)
    assert read_record(tmp_path / "run.txt").settings["new tokens"] == "4"


def test_what_cannot_be_measured_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", *HEARD[:2]]) == 2
    assert main(["batch", *HEARD, "--batch", "2,33"]) == 2
    refused = capsys.readouterr()
    assert refused.out == "" and refused.err.count("\n") == 2 and "longer recordings" in refused.err
