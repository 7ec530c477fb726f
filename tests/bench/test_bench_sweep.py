"""The sweep over the LoRA's scale: what is asked, what a bundle without an adapter is told, what is recorded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("jiwer", reason="the bench is not installed")
from auricle.bench.__main__ import main as auricle_bench
from auricle.bench.quality import lora_sweep
from auricle.bench.quality.lora_sweep import SweepOptions
from auricle.bench.result import read_record, to_line
from auricle.models.bundle import shipped_bundle
from auricle.models.errors import InputError
from auricle.runtime.engine import Engine, load

CLIP = shipped_bundle() / "clips" / "command.wav"


@pytest.fixture(scope="module")
def engine(salm_bundle: Path) -> Iterator[Engine]:
    with load(salm_bundle) as opened:
        yield opened


@pytest.fixture
def table(tmp_path: Path) -> Path:
    shutil.copy(CLIP, tmp_path)
    path = tmp_path / "set.tsv"
    path.write_text("command.wav\tturn on the light\ncommand.wav\ta question\tWho speaks?\n", encoding="utf-8")
    return path


def test_a_sweep_asks_at_every_scale_and_leaves_the_model_as_it_was(engine: Engine, table: Path) -> None:
    told: list[tuple[str, int, int]] = []
    options = SweepOptions((0.0, 2.0), data=table)
    record = lora_sweep.measure(engine, options, lambda *what: told.append(what))
    assert record.groups == ("scale 0", "scale 2") and record.settings["clips"] == "1"  # the question has no WER
    assert told == [("scale 0", 1, 2), ("scale 2", 2, 2)]
    assert engine.llm.lora_scale == 2.0 == engine.spec.lora.scale
    said = [engine.ask(CLIP, "asr").segments[0].token_ids]
    engine.llm.set_lora_scale(0.0)
    said.insert(0, engine.ask(CLIP, "asr").segments[0].token_ids)
    engine.llm.set_lora_scale(2.0)
    assert said[0] != said[1]
    for group, ids in zip(record.groups, said, strict=True):
        tokens, wer, low = (record.find(group, name) for name in ("tokens", "wer", "wer_low"))
        assert tokens and wer and low and tokens.value == len(ids) and wer.value == low.value


def test_a_stored_sweep_shows_the_same_table(engine: Engine, table: Path, tmp_path: Path) -> None:
    record = lora_sweep.measure(engine, SweepOptions(data=table))
    assert [group.removeprefix("scale ") for group in record.groups] == ["0", "0.5", "1", "1.5", "2", "2.5"]
    (tmp_path / "run.txt").write_text(to_line(record), encoding="utf-8")
    shown = lora_sweep.lines(read_record(tmp_path / "run.txt"))
    assert shown == lora_sweep.lines(record)
    assert next(line for line in shown if line.endswith("as trained")).startswith("2 ")


def test_a_bundle_without_an_adapter_is_told_how_to_get_one(
    merged_demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert auricle_bench(["lora-sweep", str(merged_demo), "--scales", "1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("auricle-bench: ") and "--lora both" in said and said.count("\n") == 1


def test_scales_are_numbers() -> None:
    assert lora_sweep.parse_scales("0, 1,4.5,1") == (0.0, 1.0, 4.5)
    with pytest.raises(InputError, match="'0;1' are no numbers"):
        lora_sweep.parse_scales("0;1")
    with pytest.raises(InputError, match="--scales is empty"):
        SweepOptions(lora_sweep.parse_scales(""))
    with pytest.raises(InputError, match="at least 1"):
        SweepOptions(clips=0)


def test_a_table_without_speech_is_refused(engine: Engine, table: Path) -> None:
    table.write_text("command.wav\ta question\tWho speaks?\n", encoding="utf-8")
    with pytest.raises(InputError, match="asks for no transcription"):
        lora_sweep.measure(engine, SweepOptions((1.0,), data=table))
