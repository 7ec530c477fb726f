"""What can go wrong, for every part of Auricle.

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


def missing_package(error: ModuleNotFoundError, extra: str) -> InputError:
    """What to say when a third-party package is not there; a missing module of our own is a bug and raised as it is."""
    name = (error.name or "").split(".")[0]
    if name == "auricle":
        raise error
    return InputError(f"{name} is not installed: pip install 'auricle[{extra}]'; `auricle doctor` says more")
