"""The names and addresses the page answers at: loopback only, or what --host opens to the network."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from dataclasses import dataclass

import psutil

from webui.server.guard import LOOPBACK

ANY = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Reach:
    """host: what is listened on. names: what may stand in a Host header, IPv6 in brackets. here: for the browser on
    this PC.
    elsewhere: for other devices, the likeliest first; empty too where this PC has no network now, but may get one."""

    host: str
    names: tuple[str, ...]
    here: str
    elsewhere: tuple[str, ...]
    is_this_pc_only: bool

    @classmethod
    def of(cls, host: str) -> Reach:
        """Raises OSError for a host that is neither a name nor an address."""
        host = host.strip().removeprefix("[").removesuffix("]")
        addresses = (
            {str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
            if host
            else {"0.0.0.0"}
        )
        if all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses):
            return cls(
                host,
                tuple(dict.fromkeys((*LOOPBACK, _bracketed(host).lower()))),
                _bracketed(host),
                (),
                is_this_pc_only=True,
            )
        mine = _own_addresses() if host in ANY or not host else [host]
        names = [*LOOPBACK, *map(_bracketed, mine), *_own_names(), _bracketed(host)]
        here = "[::1]" if host == "::" else "127.0.0.1" if host in ANY else _bracketed(host)
        # asyncio listens on one family where the address names one: at "::" nothing of IPv4 is answered either.
        asked = [address for address in mine if host not in ANY or (":" in address) == (":" in host)]
        once = tuple(dict.fromkeys(name.lower() for name in names))
        return cls(host, once, here, tuple(map(_bracketed, asked)), is_this_pc_only=False)

    @property
    def bound(self) -> str:
        """As gradio wants it: it makes an address of its own out of it."""
        return _bracketed(self.host)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _own_addresses() -> list[str]:
    """Of this PC's network cards, the one that leads outside first. Link-local ones need a zone that no browser
    takes."""
    found = [
        address.address
        for card in psutil.net_if_addrs().values()
        for address in card
        if address.family in (socket.AF_INET, socket.AF_INET6) and _can_be_asked(address.address)
    ]
    first = _way_out()
    return sorted(dict.fromkeys(found), key=lambda address: (address != first, ":" in address))


def _can_be_asked(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a zone
        return False
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified)


def _way_out() -> str:
    """The address of the card that a packet to another network would leave by; connecting UDP sends none."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # a block that is kept for documentation
        return probe.getsockname()[0]
    return ""


def _own_names() -> list[str]:
    name = socket.gethostname()
    bare = name.partition(".")[0]
    return [name, bare, f"{bare}.local"] if bare else []
