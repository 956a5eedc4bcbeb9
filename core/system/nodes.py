"""The PCs that train one run together, as torchrun's options name them (--nnodes).

The environment variables are our own: torchrun's (PET_NNODES) are set wherever another launcher started this process.
"""

from __future__ import annotations

import os

from core.errors import RecipeError
from core.values import Frozen

MAX_NODES = 8  # PCs
NAMES = {
    "count": "LORA_GARAGE_NNODES",
    "rank": "LORA_GARAGE_NODE_RANK",
    "endpoint": "LORA_GARAGE_RDZV_ENDPOINT",
}


def host_and_port(endpoint: str) -> tuple[str, str]:
    """Split HOST:PORT at its last colon into (host, port), both texts; an IPv6 address loses its brackets. Without a
    colon the host is "". Nothing is checked."""
    host, _, port = endpoint.rpartition(":")
    return host.strip("[]"), port


class Nodes(Frozen):
    """One of the PCs of a run.

    rank: its number; 0 is the main PC, whose run it is. endpoint: HOST:PORT at which the others reach the main PC.
    """

    count: int
    rank: int = 0
    endpoint: str

    @classmethod
    def from_options(cls, count: int | None, rank: int, endpoint: str | None) -> Nodes | None:
        """Parse the options of a command; None for a run of one PC. Raises RecipeError for half of the options, a wrong
        count, rank or address."""
        if count is None and endpoint is None and not rank:
            return None
        if count is None or endpoint is None:
            raise RecipeError("nodes.both")
        if not 2 <= count <= MAX_NODES or not 0 <= rank < count:
            raise RecipeError("nodes.bad_count", nodes=count, rank=rank, most=MAX_NODES)
        host, port = host_and_port(endpoint)
        if host in ("", "0.0.0.0", "::") or not port.isdecimal() or not 0 < int(port) < 65536:
            raise RecipeError("nodes.bad_address", found=endpoint[:100])
        return cls(count=count, rank=rank, endpoint=endpoint)

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a worker is started."""
        return {variable: str(getattr(self, name)) for name, variable in NAMES.items()}

    @classmethod
    def from_environment(cls) -> Nodes | None:
        """Read the variables of this process; None for a run of one PC."""
        values = {name: os.environ.get(variable) for name, variable in NAMES.items()}
        return None if None in values.values() else cls.model_validate(values)
