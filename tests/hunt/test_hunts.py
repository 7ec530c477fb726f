"""Hunts, a minute of each: thousands of spoiled inputs end as a result or one sentence. `make hunt` runs many more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import hunting
import pytest
from auricle.models.errors import InputError
from hunting import Case, Outcome, hunt

CASES = {"audio": 2000, "manifests": 100, "schemas": 200, "grammars": 200, "streams": 400, "microphones": 100}


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.usefixtures("golden_bundle")
def test_nothing_is_found(kind: str) -> None:
    tally = hunt(kind, CASES[kind])
    print(tally.line())
    assert not tally.findings
    assert tally.outcomes["result"] and (tally.outcomes["refused"] or kind == "microphones")


@pytest.mark.parametrize("number", range(4))
def test_streams_through_the_command(golden_bundle: Path, number: int) -> None:
    streams: Any = hunting.kind_of("streams")
    case = streams.make_case(21, number)
    rate, channels, sample_format = streams.reading(case.content[0])
    words = ["listen", "-", "--pace", "fast", "--json", "--bundle", str(golden_bundle)]
    words += ["--rate", str(rate), "--channels", str(channels), "--sample-format", sample_format]
    run = subprocess.run(
        [sys.executable, "-m", "auricle", *words], input=case.content[1:], capture_output=True, timeout=120
    )
    said = run.stderr.decode()
    assert "Traceback" not in said and run.returncode in (0, 2), said
    last = json.loads(run.stdout.splitlines()[-1])
    assert last["event"] == "SessionEnded"
    if run.returncode == 0:
        heard = round((last["captured_s"] - last["dropped_s"]) * 16_000)
        assert case.check(heard) is None
    else:
        assert said.count("\n") == 1


class Badly:
    """Cases that end as they must not."""

    @staticmethod
    def make_case(seed: int, number: int) -> Case:
        return Case(f"case {number}", b"content", ".bin", lambda found: None if found else "nothing is heard")

    @staticmethod
    def run_case(case: Case, folder: Path) -> Any:
        number = int(case.title.split()[1])
        if number == 1:
            os.abort()
        if number == 2:
            while True:
                pass
        if number == 3:
            return bytes(8 << 30)
        if number == 4:
            raise InputError("A sentence that ends as none of them does.")
        if number == 5:
            raise InputError("a sentence that says what is wrong")
        return 1 / (7 - number) > 0.5


def test_what_a_hunt_must_find(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "badly_cases", Badly)  # pyright: ignore
    monkeypatch.setattr(hunting, "LIMIT_S", 1.0)
    monkeypatch.setattr(hunting, "KEPT", tmp_path)
    monkeypatch.setattr(hunting, "command", lambda *words: [sys.executable, "-c", INSIDE.format(__file__, *words)])
    said: list[str] = []
    tally = hunt("badly", 8, seed=3, show=said.append)
    assert not any("Traceback" in line for line in said[:1])
    found = {outcome.number: outcome.status for outcome in tally.findings}
    assert found == {0: "wrong", 1: "crash", 2: "hang", 3: "memory", 4: "sentence", 7: "traceback"}
    assert tally.outcomes["result"] == tally.outcomes["refused"] == 1
    assert (tmp_path / "badly-3-1.bin").read_bytes() == b"content"
    assert "crash: case 1" in (tmp_path / "badly-3-1.bin.txt").read_text()


INSIDE = """
import sys; sys.path.insert(0, {0!r}.rpartition("/")[0])
import hunting, test_hunts
sys.modules["badly_cases"] = test_hunts.Badly
hunting.LIMIT_S = 1.0
hunting.inside("badly", {2}, {3}, {4})
"""


def test_a_finding_is_repeated_by_its_command() -> None:
    words = hunting.command("audio", 5, 17, 1)
    assert words[-7:] == [str(Path(hunting.__file__)), "audio", "--seed", "5", "--first", "17", "--cases", "1"][-7:]
    assert isinstance(hunting.kind_of("audio").make_case(5, 17), Case)
    assert Outcome(17, "", "hang", "", 0.0).is_finding and not Outcome(17, "", "refused", "", 0.0).is_finding
