"""What the soaks share: a process -> its memory and threads, a state -> state.json."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any


def process_status(process: int) -> tuple[float, int]:
    """Resident MB and threads; nothing of one that has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0, 0
    values = {name: rest.split()[0] for name, _, rest in (line.partition(":") for line in lines) if rest.strip()}
    return int(values.get("VmRSS", "0")) / 1024, int(values.get("Threads", "0"))


def save(folder: Path, state: Any) -> None:
    """A dataclass, in one step, so that a kill leaves the old state or the new."""
    new = folder / "state.new"
    new.write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")
    new.replace(folder / "state.json")
