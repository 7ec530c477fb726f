"""Network guard: a connection or a look-up that leaves this machine -> refused, and a line in a file that tests read.

Python imports a module of this name at its start from PYTHONPATH: the programs that tests start are watched too. What
C libraries do by themselves is for `make hunt-network`.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from typing import Any

_LOOPBACK = ("127.", "::1", "localhost", "::ffff:127.")
_LISTENS = "0A"  # /proc/net/tcp: the state of a socket that waits for others


def _listening() -> set[int]:
    """Ports of this machine on which somebody waits already: no server that a test started."""
    ports = set[int]()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError), open(table, encoding="ascii") as file:
            rows = [line.split() for line in file][1:]
            ports |= {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _LISTENS}
    return ports


def allowed(event: str, arguments: tuple[Any, ...], foreign: set[int]) -> bool:
    """Whether an audit event may happen. foreign: ports of servers that no test started."""
    if event in ("socket.connect", "socket.sendto"):
        found, address = arguments
        if event == "socket.connect" and found.type == socket.SOCK_DGRAM:
            return True  # sends nothing: it asks which of this machine's addresses leads there
        if found.family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(address, tuple):
            return True
        return str(address[0]).startswith(_LOOPBACK) and address[1] not in foreign
    if event == "socket.getaddrinfo":
        host = arguments[0]
        text = host.decode() if isinstance(host, bytes) else str(host or "127.0.0.1")
        return text.startswith(_LOOPBACK) or text in ("0.0.0.0", "::") or text.replace(".", "").isdigit()
    return True


def watch(record: str) -> None:
    """From here on, in this process; there is no way back."""
    known = os.environ.get("AURICLE_TEST_PORTS")
    foreign = _listening() if known is None else {int(port) for port in known.split()}
    os.environ["AURICLE_TEST_PORTS"] = " ".join(map(str, foreign))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith("socket.") and not allowed(event, arguments, foreign):
            with open(record, "a", encoding="utf-8") as file:
                file.write(f"{event} {arguments[-1 if event != 'socket.getaddrinfo' else 0]!r} by {sys.argv[:1]}\n")
            raise OSError(f"tests use no network: {event}")

    sys.addaudithook(hook)


if "AURICLE_TEST_CONNECTS" in os.environ:
    watch(os.environ["AURICLE_TEST_CONNECTS"])
