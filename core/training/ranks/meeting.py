"""The store by which the processes of a run find each other, and the errors of one that failed. No torch at the top.

The ranks of one PC meet in a file of the run's folder, so no port is opened. Those of several PCs meet in a TCPStore at
--rdzv-endpoint, which the main PC's agent serves. On Windows it is made without libuv, which its builds of torch lack;
torch 2.13's own rendezvous would ask for it whatever USE_LIBUV says (pytorch issue 178600, pull request 196855).
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import RunError
from core.messages import Message, msg

if TYPE_CHECKING:
    from torch.distributed import Store

ENDED = "ended"  # in the store, on Windows: the agent ends the ranks
MEETING = "ranks.store"  # in the run's folder
AGENT = "LORA_GARAGE_AGENT"  # its process: on Windows a rank's parent is an environment's python.exe
HAS_LIBUV = os.name != "nt"
NOBODY = "192.0.2.1"  # RFC 5737: the way there is the default route
MEET_S = 3600  # for the other PCs to come
CONNECT_S = 60.0  # to the main PC's agent, which is there already


class RankError(RunError):
    """A rank failed, ended or no longer responds; rank 0 has everything that was learned."""


def is_rank() -> bool:
    """True in a process that our agent of torchrun started; another torchrun may have started the app."""
    return AGENT in os.environ


def connection_error(error: Exception) -> RunError:
    """Return error if it is a RunError, else a RunError with its first line and advice on the firewall."""
    reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
    return error if isinstance(error, RunError) else RunError("ranks.not_met", msg("ranks.firewall"), reason=reason)


def store(host: str, port: int, nodes: int, meeting: str, is_main: bool = False, patience_s: int = 60) -> Store:
    """Return the store by which the processes of a run find each other.

    For one PC (nodes 1) it is the file meeting, else a TCPStore at host and port that the main PC's agent (is_main)
    serves. patience_s: how long to wait for that server.
    """
    from torch.distributed import FileStore, TCPStore

    if nodes == 1:
        return FileStore(meeting)
    return TCPStore(
        host, port, is_master=is_main, timeout=timedelta(seconds=patience_s), wait_for_workers=False, multi_tenant=True,
        use_libuv=HAS_LIBUV,
    )  # fmt: skip


def store_of_run(meeting: Path | None) -> Store:
    """Return the store of the run that this process is a rank of. meeting: a file for the ranks of one PC. Raises
    OSError if the main PC does not answer."""
    host, port, nodes = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), int(os.environ["GROUP_WORLD_SIZE"])
    if nodes > 1:
        socket.create_connection((host, port), CONNECT_S).close()  # where it is gone TCPStore would try for minutes
    return store(host, port, nodes, str(meeting))


def report_failure(meeting: Path | None, why: Message) -> None:
    """Leave the reason why this rank ends in the store, if that can be reached."""
    with suppress(Exception):  # the main PC is gone, or torch cannot be imported
        store_of_run(meeting).set(f"failed {os.environ['RANK']}", why.model_dump_json())


def reported_failure(store: Store, ranks: int) -> RankError | None:
    """Return the error of the first of so many ranks, from 1 on, that has left a reason in the store; None if there is
    none or the store is gone."""
    with suppress(RuntimeError):  # the agent that serves the store is gone
        for rank in range(1, ranks):
            if store.check([f"failed {rank}"]):
                reason = Message.model_validate_json(store.get(f"failed {rank}"))
                return RankError("ranks.failed", msg("ranks.fewer"), rank=rank, ranks=ranks, reason=reason)
    return None


def ip_of(address: str) -> IPv4Address | IPv6Address:
    """Return an address without its interface (%eth0). Raises ValueError if it is no address."""
    return ip_address(address.partition("%")[0])  # without an interface: fe80::1%eth0


def own_address(host: str, port: int) -> str:
    """Return this PC's address on the way to host; if host is this PC by the name that others reach it by, its address
    in their network."""
    address = _address_towards(host, port)
    if ip_of(address).is_loopback and not _names_loopback(host):  # Debian lets a PC's own name stand for 127.0.1.1
        with suppress(OSError):  # no default route
            return _address_towards(NOBODY, port)
    return address


def _names_loopback(host: str) -> bool:
    """True for a loopback address and "localhost"; no name is looked up."""
    try:
        return ip_of(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"


def _address_towards(host: str, port: int) -> str:
    """Return the address of this PC in the network that leads to host."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as way:
        way.connect(address)  # sends nothing
        return str(way.getsockname()[0])
