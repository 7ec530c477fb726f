"""Connection: an address -> Ray, connected to the cluster that is there, or to one of this machine's own."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, redirect_stdout
from tempfile import TemporaryDirectory
from typing import Any

from ...models.errors import InputError, RunError, missing_package

LOCAL = "local"
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
    machine of the cluster. Until it ends, what is printed on sys.stdout leads nowhere.
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
    with ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        stack.enter_context(redirect_stdout(nowhere))  # it prints what it logs
        where: dict[str, Any] = {"address": address}
        if address == LOCAL:
            logs = TemporaryDirectory(prefix="auricle-ray-", dir=TEMPORARY, ignore_cleanup_errors=True)
            where = {"num_cpus": cpus, "_node_ip_address": "127.0.0.1", "include_dashboard": False}
            where["_temp_dir"] = stack.enter_context(logs)
        try:
            module.init(**where, log_to_driver=False, logging_level=logging.CRITICAL)
        except (OSError, RuntimeError, ValueError, module.exceptions.RayError) as error:
            raise RunError(
                f"Ray cannot be used at {address} ({_line(error)}): `ray status` says how it is; "
                "Python and Ray must be of one version everywhere"
            ) from None
        try:
            yield module
        finally:
            module.shutdown()


def _require_listener(address: str) -> None:
    """Ray itself tries for minutes, and may end the process."""
    host, _, port = address.rpartition(":")
    if "://" in address:  # Ray's client, which is not in Ray's core
        raise InputError(f"{address} leads into a cluster from outside: run this on one of its nodes, with HOST:PORT")
    if not host or not port.isdecimal():
        raise InputError(f"{address!r} is no address of a cluster: give local, or HOST:PORT of its head")
    try:
        socket.create_connection((host, int(port)), PATIENCE_S).close()
    except (OSError, OverflowError) as error:
        raise RunError(
            f"no cluster answers at {address} ({_line(error)}): start it, or give its head's address"
        ) from None


def _line(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
