"""The commands by name, each a function from parsed arguments to an exit status."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from .ask import ask
from .assist import assist
from .caption import caption
from .chat import chat
from .demo import demo
from .listen import listen
from .verify import tasks, verify

COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "ask": ask,
    "assist": assist,
    "caption": caption,
    "chat": chat,
    "demo": demo,
    "listen": listen,
    "tasks": tasks,
    "verify": verify,
}
