"""Discovery: the address that is listened on -> an mDNS service that Home Assistant finds, or none.

An address that leads nowhere from another machine is not told: a loopback's never, and in the place of "any address"
the one that this machine has towards its network.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
from dataclasses import dataclass
from typing import Any

from zeroconf import Error as ZeroconfError
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

LOG = logging.getLogger("auricle.server")
TYPE = "_wyoming._tcp.local."
ELSEWHERE = {socket.AF_INET: "224.0.0.251", socket.AF_INET6: "2001:db8::1"}
"""Addresses on no machine: the way to them is asked for, nothing is sent."""


@dataclass(frozen=True)
class Announcement:
    """A service that is told in the network."""

    zeroconf: Any  # typed in part
    info: AsyncServiceInfo

    async def withdraw(self) -> None:
        """It is told that the service has gone."""
        await (await self.zeroconf.async_unregister_service(self.info))
        await self.zeroconf.async_close()


async def announce(listener: socket.socket) -> Announcement | None:
    """None where nobody else can reach the address, or the network takes no announcements: then a person types it."""
    if (address := reachable_address(listener)) is None:
        return None
    port = listener.getsockname()[1]
    info = AsyncServiceInfo(
        TYPE, f"{instance_name(socket.gethostname(), port)}.{TYPE}", parsed_addresses=[address], port=port
    )
    zeroconf: Any = None
    try:
        zeroconf = AsyncZeroconf(interfaces=[address])
        await zeroconf.async_register_service(info)
    except (OSError, ZeroconfError) as error:
        LOG.warning("Home Assistant has to be told the address, for mDNS fails here: %s", type(error).__name__)
        if zeroconf is not None:
            await zeroconf.async_close()
        return None
    return Announcement(zeroconf, info)


def reachable_address(listener: socket.socket) -> str | None:
    """The address by which other machines find the socket."""
    address = ipaddress.ip_address(listener.getsockname()[0])
    if address.is_unspecified:
        try:
            with socket.socket(listener.family, socket.SOCK_DGRAM) as towards:
                towards.connect((ELSEWHERE[listener.family], 9))
                address = ipaddress.ip_address(towards.getsockname()[0])
        except OSError:
            return None
    useless = address.is_loopback or address.is_unspecified or address.is_link_local
    return None if useless else str(address)


def instance_name(host: str, port: int) -> str:
    """The same for the same machine and port: Home Assistant knows a service by it."""
    label = re.sub("[^a-z0-9-]", "-", host.lower().partition(".")[0])[:40]
    return f"auricle-{label}-{port}"
