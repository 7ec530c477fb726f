"""`auricle-bench device`: what a machine is told by, without torch, and two machines beside each other."""

from __future__ import annotations

import subprocess
import sys
import wave
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="the bench is not installed")
from auricle.bench import result
from auricle.bench.__main__ import main
from auricle.bench.live.idle import idle_cpu_s
from auricle.bench.machine import limits
from auricle.bench.options import parser
from auricle.bench.report.comparison import compare, lines
from auricle.bench.result import Machine, Measure, Record, read_record, to_line
from auricle.bench.speed import device
from auricle.models.errors import RunError
from auricle.runtime.engine import load
from bench_records import live, stages

BOARD = Machine("Raspberry Pi 5 Model B Rev 1.0", 4, 8.2, None, "Linux 6.12 aarch64, Python 3.11.2", {})


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    """Of the bundles that come along; what other processes would measure is invented."""
    asked: list[list[str]] = []

    def apart(command: Sequence[str], folder: Path) -> Record:
        asked.append(list(command))
        if command[0] == "live":
            source = Path(command[command.index("--source") + 1])
            with wave.open(str(source)) as file:
                assert 10 < file.getnframes() / file.getframerate() < 30
        return stages(seed=len(asked)) if command[0] == "stages" else live()

    monkeypatch.setattr(device, "measure_apart", apart)
    found = device.run(parser().parse_args(["device", "--silence=0.5", "--threads=1", "--n-ctx=300", "--kv-type=q8_0"]))
    for each in (parser().parse_args(command) for command in asked):
        assert (each.threads, each.n_ctx, each.kv_type, each.n_gpu_layers) == (1, 300, "q8_0", -1)
    assert [command[0] for command in asked] == ["stages", "live"] * 2
    return found


def test_a_machine_is_told_by_both_bundles(record: Record) -> None:
    assert [each.name for each in record.subjects] == ["auricle-demo", "auricle-demo-salm"]
    for bundle in ("auricle-demo", "auricle-demo-salm"):
        for group, name in (("hear", "wall"), ("update", "latency"), ("session", "memory"), ("idle", "cpu")):
            found = record.find(f"{bundle}: {group}", name)
            assert found is not None and found.value > 0
    assert all(measure.better != "neither" for measure in record.measures)
    read = record.find(limits.GROUP, "read")
    assert read and len(read.samples) == 10, "the machine's own limits, from both processes"
    table = device.lines(record)
    assert [line for line in table if line.startswith("processor time of silence") and line.count("s a minute") == 2]
    assert not [line for line in table if "NO INTEGER" in line]


def test_two_machines_stand_side_by_side(record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slower = [replace(m, samples=tuple(3 * s for s in m.samples)) for m in record.measures]
    other = replace(record, machine=BOARD, measures=tuple(slower))
    text = lines(compare(record, other))
    assert text[0].startswith("first:  ") and text[1].startswith("second: Raspberry Pi 5 Model B Rev 1.0, 4 cores, 8.2")
    assert not [line for line in text if "cores" in line and "before" in line]
    assert [line for line in text if line.startswith("auricle-demo: hear") and "3.000" in line]
    assert text[-1].startswith("the second: ")
    for name, each in (("mine", record), ("theirs", other)):
        (tmp_path / name).write_text("a table\n" + to_line(each) + "\n", encoding="utf-8")
    assert main(["compare", str(tmp_path / "mine"), str(tmp_path / "theirs")]) == 0, "no regression: another machine"
    assert "second" in capsys.readouterr().out


def test_what_waiting_costs() -> None:
    with load() as engine:
        assert 0 < idle_cpu_s(engine, 0.5) < 60


def test_a_process_of_its_own(tmp_path: Path) -> None:
    """One that cannot do its work says why by itself."""
    before, after = (tmp_path / name for name in ("before", "after"))
    for path in (before, after):
        path.write_text(to_line(stages()) + "\n", encoding="utf-8")
    with pytest.raises(RunError, match="live of nowhere ended with status 2"):
        device.measure_apart(["live", "nowhere", "--source", "nothing.wav"], tmp_path)


def test_nothing_of_it_needs_torch() -> None:
    blocked = "('torch', 'transformers', 'gguf', 'safetensors', 'auricle.export')"
    modules = ("speed.device", "speed.stages", "live.live", "report.compare")
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
    code += "\n".join(f"import auricle.bench.{module}" for module in modules)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


def test_a_board_says_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nCPU part\t: 0xd0b\n", encoding="utf-8")
    assert "Raspberry" not in result._cpu_name(tmp_path)
    (tmp_path / "device-tree").mkdir()
    (tmp_path / "device-tree" / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    assert result._cpu_name(tmp_path) == "Raspberry Pi 5 Model B Rev 1.0"


def test_a_slow_machine_is_not_measured_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    monkeypatch.setattr(limits, "_PATIENCE_S", 0.0)
    found = limits._rates(lambda: (lambda: ran.append(1), 1.0), 5, None)
    assert len(found) == 2 and len(ran) == 3


def test_a_record_survives_a_file(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(to_line(record) + "\n", encoding="utf-8")
    assert device.lines(read_record(path))[3:] == device.lines(record)[3:]
    assert isinstance(read_record(path).measures[0], Measure)
