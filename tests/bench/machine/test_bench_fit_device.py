"""`auricle-bench fit --device`: a forecast by public figures, marked as one, by the rule that it states."""

from __future__ import annotations

import argparse

import pytest

pytest.importorskip("onnx", reason="the bench is not installed")
from auricle.bench import flops, options
from auricle.bench.families import salmonn
from auricle.bench.machine import limits
from auricle.bench.machine.devices import DEVICES, INT8_PER_FP32
from auricle.bench.options import parser
from auricle.bench.result import Record
from auricle.bench.speed import fit
from auricle.bench.speed.forecast import SHARES
from auricle.models.errors import InputError
from auricle.models.families.salmonn import SALMONN_7B


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "measure", None)


def asked(*arguments: str) -> argparse.Namespace:
    return parser().parse_args(["fit", "--model", "salmonn-7b", *arguments])


def forecast(*arguments: str) -> Record:
    return fit.run(asked(*arguments))


def value(record: Record, group: str, name: str) -> float:
    found = record.find(group, name)
    assert found is not None
    return found.value


def test_the_help_knows_every_device() -> None:
    assert tuple(DEVICES) == options.DEVICES


@pytest.mark.parametrize("name", DEVICES)
def test_every_figure_has_a_source_and_they_are_shown(name: str) -> None:
    device = DEVICES[name]
    text = "\n".join(device.sources)
    for figure in (device.read_gb_s, device.datasheet_gb_s, device.hpl_gflops):
        assert figure is None or f"{figure:g}" in text
    assert "taken" in text and "dot" in text
    assert all("https://" in source or "never measured" in source for source in device.sources)
    assert device.read_gb_s < (device.datasheet_gb_s or 100), "no program reads faster than the memory"
    table = fit.lines(forecast("--device", name))
    assert table[0] == f"FORECAST, nothing was run on it: {device.title}"
    assert set(device.sources) <= set(table)
    assert not [line for line in table if line.startswith("this machine")]


def test_times_follow_the_stated_rule() -> None:
    device = DEVICES["rpi5"]
    record = forecast("--device", "rpi5")
    speed = value(record, "q4_k_m int8", "speed")
    token = flops.decode(SALMONN_7B.llm, "q4_k_m", 8 + 88 + 21 + 10)
    assert speed == pytest.approx(SHARES["decode"] * device.read_gb_s * 1e9 / token.bytes, rel=1e-3)
    works = salmonn.works(SALMONN_7B, "int8", 30.0)
    at_least = works["whisper"].flop / (SHARES["whisper"] * INT8_PER_FP32 * 2 * device.hpl_gflops * 1e9)
    assert value(record, "q4_k_m int8", "ttft") > at_least
    without = forecast("--device", "rpi4")
    assert value(without, "q4_k_m int8", "ttft") > value(record, "q4_k_m int8", "ttft") * 35.2 / 11.9 * 2


def test_what_fits_is_what_the_system_leaves() -> None:
    record = forecast("--device", "jetson-orin-nano")
    fits = {group for group in record.groups if (found := record.find(group, "fits")) and found.value}
    assert "q4_k_m int8" not in fits and "q3_k_m int8" in fits, "6.2 GB of what is left of 8, 5.4 GiB"
    more = forecast("--device", "jetson-orin-nano", "--memory", "16GB")
    assert value(more, "q4_k_m int8", "fits") and more.settings["memory"] == "16 GB"


def test_memory_or_a_device() -> None:
    with pytest.raises(InputError, match="--memory SIZE"):
        forecast()
    with pytest.raises(InputError, match="of all its cores"):
        forecast("--device", "rpi5", "--threads", "2")
    with pytest.raises(SystemExit):
        asked("--device", "abacus")
