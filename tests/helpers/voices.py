"""What tests of speaking share: a text-to-speech command that writes, and waiting for what it does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any


def say(spoken: Path, then: str = "") -> str:
    """A text-to-speech command for the shell that Speaker itself does not use."""
    return f"sh -c 'cat >> {spoken}; echo >> {spoken}; {then}'"


def wait_for(condition: Any) -> None:
    """Until it is true; 20 s at most."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
