"""Server options: what `auricle serve` is told -> checked values. Imports nothing heavy."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ...models.errors import InputError
from ..system.machine import require_lanes

MAX_SESSIONS, MAX_UPLOAD_MB = 1000, 10_000.0


@dataclass(frozen=True)
class ServerOptions:
    """Who may ask, and how much at once. Raises InputError for values that make no sense, or that are not safe."""

    host: str = "127.0.0.1"
    port: int = 8642  # 0: any that is free
    key: str | None = None  # what clients must show; None: any or none will do
    no_key: bool = False  # said aloud: without a key on an address that others can reach
    tls_cert: Path | None = None
    tls_key: Path | None = None
    max_sessions: int = 64  # requests and connections that are worked on at once
    lanes: int | None = None  # turns on the engine at a time; None: Engine.usual_lanes
    admission: bool = True  # refuse a live stream for which the machine has no time
    max_upload: float = 25.0  # MB, of one file
    max_seconds: float = 4 * 3600.0  # of sound in one file
    origins: tuple[str, ...] = ()  # pages of other addresses that may ask, as https://host:port
    header_seconds: float = 10.0  # for a request's headers to arrive
    body_seconds: float = 10.0  # for its body, and more the more of it has come
    send_seconds: float = 30.0  # for a client to take what it is sent

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise InputError(f"port {self.port} is none: give 1 to 65535, or 0 for any that is free")
        if not 1 <= self.max_sessions <= MAX_SESSIONS:
            raise InputError(f"max_sessions={self.max_sessions} is not possible: it must be 1 to {MAX_SESSIONS}")
        require_lanes(self.lanes)
        if not 0 < self.max_upload <= MAX_UPLOAD_MB:
            raise InputError(f"max_upload={self.max_upload:g} MB is not possible: up to {MAX_UPLOAD_MB:g} are")
        if not 0 < self.max_seconds < math.inf:
            raise InputError(f"max_seconds={self.max_seconds:g} is not possible: it must be more than 0")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InputError("TLS needs a certificate and its key: give --tls-cert and --tls-key")
        for origin in self.origins:
            _check_origin(origin)
        if self.key is not None:
            _check_key(self.key)
        elif not self.no_key and not self.loopback:
            raise InputError(
                f"others can reach {self.host}: give --key-file, so that they need a key, or say --no-key aloud"
            )

    @property
    def loopback(self) -> bool:
        """Whether only programs on this machine can reach the address."""
        return is_loopback(self.host)

    @property
    def max_upload_bytes(self) -> int:
        """In bytes."""
        return round(self.max_upload * 1024 * 1024)


def is_address(host: str) -> bool:
    """Whether a host is written as an IP address and not as a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach a host."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def read_key(file: Path) -> str:
    """The key in a file, without space around it. Raises InputError."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}): give a file with the key in it") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text at byte {error.start}: give a file with the key in it") from None


def _check_key(key: str) -> None:
    if not key or not all("!" <= character <= "~" and character != "," for character in key):
        raise InputError("the key is empty, or holds a space, a comma or what is not ASCII: make another")


def _check_origin(origin: str) -> None:
    try:
        parts = urlsplit(origin)
        whole = f"{parts.scheme}://{parts.netloc}" == origin and parts.port != 0
    except ValueError:
        whole = False
        parts = urlsplit("")
    if not whole or parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise InputError(f"origin {origin!r} is none: write it as the browser does, https://host or http://host:8080")
