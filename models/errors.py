"""Errors: what can go wrong in any part, each with its exit status.

    AuricleError                exit status 1
      InputError, ValueError    exit status 2: what was given is wrong; the sentence says what would be right
        AudioError              the clip cannot be heard: not audio, empty, too short, silent
        BundleError             the bundle is not one, or not whole
        CheckpointError         a research checkpoint is not what its option expects
      RunError, RuntimeError    exit status 1: the input was right, this machine failed

Every message is one sentence that carries the offending value and the remedy.
"""

from __future__ import annotations


class AuricleError(Exception):
    """Anything Auricle says no to."""

    exit_status = 1

    def __str__(self) -> str:
        """On one line: what a sentence quotes of a file may hold what would move a terminal's cursor, or worse."""
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in super().__str__())


class InputError(AuricleError, ValueError):
    """What the user gave is wrong."""

    exit_status = 2


class AudioError(InputError):
    """A clip that cannot be heard."""


class BundleError(InputError):
    """A bundle that is not one, or not whole."""


class CheckpointError(InputError):
    """A research checkpoint that is not what its option expects."""


class RunError(AuricleError, RuntimeError):
    """The input was right and the machine failed."""


INSTALL_WHERE = "in Auricle's checkout, or with its wheel file's path for the dot"


def install_command(extras: str) -> str:
    """The command that installs Auricle with these extras, from where INSTALL_WHERE says: it is not on PyPI.

    torch comes with "export" alone; unpinned it brings gigabytes that nothing here uses.
    """
    pinned = "-c constraints.txt " if "export" in extras else ""
    return f"pip install {pinned}'.[{extras}]'"


def missing_package(error: ModuleNotFoundError, extra: str) -> InputError:
    """What to say when a third-party package is not there; a missing module of our own is a bug and raised as it is."""
    name = (error.name or "").split(".")[0]
    if name == "auricle":
        raise error
    return InputError(f"{name} is not installed: {install_command(extra)} {INSTALL_WHERE}; `auricle doctor` says more")
