"""The names and addresses of the page: loopback only, or those that --host opens to the network."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
ANY = ("0.0.0.0", "::")


def host_of(header: str) -> str:
    """Return the name in a Host header without its port, in small letters; IPv6 in brackets."""
    return (header if header.endswith("]") else header.rpartition(":")[0] or header).lower()


def is_other_origin(origin: str | None, header: str) -> bool:
    """Return whether an Origin header names another site than the Host header; False without one."""
    return origin is not None and urlsplit(origin).netloc.lower() != header.lower()


@dataclass(frozen=True)
class Reach:
    """The addresses of the page.

    host: the address to listen on. names: allowed values of the Host header, IPv6 in brackets. local: the address for
    the browser on this PC. remote: addresses for other devices, the likeliest first; empty if this PC has no network at
    the moment.
    """

    host: str
    names: tuple[str, ...]
    local: str
    remote: tuple[str, ...]
    is_this_pc_only: bool

    @classmethod
    def from_host(cls, host: str) -> Reach:
        """Return the addresses of the page for --host: this PC only for a loopback host, else all of this PC's or the
        named one. Raises OSError for a host that is neither a name nor an address."""
        host = host.strip().removeprefix("[").removesuffix("]")
        addresses = (
            {str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
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
        own = _own_addresses() if host in ANY or not host else [host]
        names = [*LOOPBACK, *map(_bracketed, own), *_own_names(), _bracketed(host)]
        local = "[::1]" if host == "::" else "127.0.0.1" if host in ANY else _bracketed(host)
        # asyncio listens on one family if the address names one: "::" does not answer IPv4.
        reachable = [address for address in own if host not in ANY or (":" in address) == (":" in host)]
        once = tuple(dict.fromkeys(name.lower() for name in names))
        return cls(host, once, local, tuple(map(_bracketed, reachable)), is_this_pc_only=False)

    @property
    def bound(self) -> str:
        """The host as gradio needs it to build an address."""
        return _bracketed(self.host)


def _bracketed(host: str) -> str:
    """Return the host with an IPv6 address in brackets, as in an address of a page; any other host unchanged."""
    return f"[{host}]" if ":" in host else host


def _own_addresses() -> list[str]:
    """Return the addresses of this PC's network cards, the default one first, IPv6 last. Link-local ones are left out:
    they need a zone, which no browser accepts."""
    addresses = [
        address.address
        for card in psutil.net_if_addrs().values()
        for address in card
        if address.family in (socket.AF_INET, socket.AF_INET6) and _is_of_network(address.address)
    ]
    first = _default_address()
    return sorted(dict.fromkeys(addresses), key=lambda address: (address != first, ":" in address))


def _is_of_network(address: str) -> bool:
    """Return whether other PCs can reach the address: not loopback, link-local or unspecified."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a zone
        return False
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified)


def _default_address() -> str:
    """Return the address of the network card that a packet to another network would leave by (connecting UDP sends
    none); "" without a network."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # a block reserved for documentation
        return probe.getsockname()[0]
    return ""


def _own_names() -> list[str]:
    """Return this PC's host name, also without its domain and with .local; [] without one."""
    name = socket.gethostname()
    bare = name.partition(".")[0]
    return [name, bare, f"{bare}.local"] if bare else []
