"""Connection: an address -> Ray, connected to the cluster that is there, or to one of this machine's own."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import warnings
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, redirect_stdout
from tempfile import TemporaryDirectory
from typing import Any

from ...models.errors import InputError, RunError, missing_package

LOCAL = "local"
CLIENT = "ray://"
"""Before HOST:PORT of a head's client server, for who is outside of the cluster."""
PATIENCE_S = 10.0
TEMPORARY = "/tmp" if os.path.isdir("/tmp") else None  # a socket's path is 107 characters at most
NOWHERE = "http://127.0.0.1:9"
SILENCED = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": NOWHERE,  # or a head that was told to send no statistics reports that it was
    "RAY_DEDUP_LOGS": "0",
}
"""What keeps Ray to itself."""
ALONE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux too: 127.0.0.1 is not made an outward address
    "http_proxy": NOWHERE,  # a head asks which cloud it is in, statistics or not
    "https_proxy": NOWHERE,
    "no_proxy": "127.0.0.1,localhost,::1",
}
"""What keeps all of it on this machine."""


@contextmanager
def connected(address: str, cpus: float) -> Generator[Any]:
    """Ray's module while it is connected. Raises InputError, RunError.

    address: LOCAL, with so many cores and nothing that listens beyond loopback; HOST:PORT of a head node, from a
    machine of the cluster; ray://HOST:PORT of its client server, from anywhere. Until it ends, what is printed on
    sys.stdout leads nowhere.
    """
    os.environ.update(SILENCED)
    if address == LOCAL:
        os.environ.update(ALONE)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # or one is written into the home directory
    else:
        _require_listener(address)
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise missing_package(error, "cluster") from None
    module: Any = ray
    client = address.startswith(CLIENT)
    with ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        stack.enter_context(redirect_stdout(nowhere))  # it prints what it logs
        where: dict[str, Any] = {"address": address}
        if address == LOCAL:
            logs = TemporaryDirectory(prefix="auricle-ray-", dir=TEMPORARY, ignore_cleanup_errors=True)
            where = {"num_cpus": cpus, "_node_ip_address": "127.0.0.1", "include_dashboard": False}
            where["_temp_dir"] = stack.enter_context(logs)
        if client:  # its threads say what is said below, at length
            stack.enter_context(warnings.catch_warnings(action="ignore"))
            stack.callback(setattr, threading, "excepthook", threading.excepthook)
            threading.excepthook = lambda _: None
        try:
            module.init(**where, log_to_driver=False, logging_level=logging.CRITICAL)
        except (OSError, RuntimeError, ValueError, module.exceptions.RayError) as error:
            raise RunError(
                f"Ray cannot be used at {address} ({_line(error)}): `ray status` says how it is; "
                "Python and Ray must be of one version everywhere"
            ) from None
        try:
            yield module
        except (ConnectionError, ValueError) as error:
            if not client or not _is_lost(error):
                raise
            raise RunError(
                f"Ray's client has lost {address} ({_line(error)}); what was written is whole: see `ray status` there, "
                "then the same command goes on"
            ) from None
        finally:
            module.shutdown()


def _require_listener(address: str) -> None:
    """Ray itself tries for minutes, and may end the process."""
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    if not host or "://" in host or not port.isdecimal():
        raise InputError(
            f"{address!r} is no address of a cluster: give local, HOST:PORT of its head, or {CLIENT}HOST:PORT"
        )
    try:
        socket.create_connection((host, int(port)), PATIENCE_S).close()
    except (OSError, OverflowError) as error:
        raise RunError(
            f"no cluster answers at {address} ({_line(error)}): start it, or give its head's address"
        ) from None


def _is_lost(error: Exception) -> bool:
    """Whether Ray's client raised it because its cluster has gone, and not somebody who reads no more, or a fault."""
    if isinstance(error, ConnectionError):
        return not isinstance(error, BrokenPipeError)
    return "owner is unknown" in str(error)


def _line(error: Exception) -> str:
    """Its first line; of what a server raised, behind its traceback, the last."""
    text = getattr(error, "strerror", None) or str(error).strip()
    lines = [line.strip().rstrip(".") for line in text.splitlines()]
    return lines[-1 if "Traceback" in text else 0] if lines else type(error).__name__
