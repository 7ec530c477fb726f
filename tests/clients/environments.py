"""Other people's clients in environments of their own, which scripts/clients.sh makes: a program there -> its JSON."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from network_guard import sitecustomize

PROGRAMS = Path(__file__).parent / "programs"
ENVIRONMENTS = Path(__file__).parents[2] / "build/clients"
SECONDS = 120


def answered(environment: str, program: str, *words: str | Path, **variables: str) -> Any:
    """What a program of PROGRAMS prints as its last line. Skips the test where the environment was not made."""
    folder = ENVIRONMENTS / environment
    if not (folder / "installed").exists():
        pytest.skip(f"{environment} is not installed: bash scripts/clients.sh {environment}")
    if program.endswith(".mjs"):
        shutil.copy(PROGRAMS / program, folder)  # Node looks for packages beside the program
        command = ["node", str(folder / program)]
    else:
        command = [str(folder / "venv/bin/python"), str(PROGRAMS / program)]
    guarded = {"PYTHONPATH": str(Path(sitecustomize.__file__).parent)}
    run = subprocess.run(
        [*command, *map(str, words)],
        cwd=folder,
        env={**os.environ, **guarded, **variables},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert run.returncode == 0, f"{program}: {run.stderr[-4000:] or run.stdout[-4000:]}"
    return json.loads(run.stdout.splitlines()[-1])
