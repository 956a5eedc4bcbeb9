"""Where the ranks of a run on several PCs find each other: what torch.distributed's store holds, told by the lines that they have anyway, so that no further
port is open. Every rank has one; what one of them puts in reaches all. No torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence


class Meeting:
    """tell: passes on what this rank puts in. Values that arrive before anybody asks are kept."""

    def __init__(self, tell: Callable[[str, str], None]):
        self._tell, self._known, self._changed = tell, dict[str, bytes](), threading.Condition()

    def put(self, key: str, value: bytes) -> None:
        self.heard(key, value.hex())
        self._tell(key, value.hex())

    def heard(self, key: str, value: str) -> None:
        """value: in hexadecimal digits, as it is in a line."""
        with self._changed:
            self._known[key] = bytes.fromhex(value)
            self._changed.notify_all()

    def get(self, key: str, seconds: float) -> bytes:
        self.wait([key], seconds)
        return self._known[key]

    def wait(self, keys: Sequence[str], seconds: float) -> None:
        """Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: all(key in self._known for key in keys), seconds):
                raise TimeoutError(f"{[key for key in keys if key not in self._known]} in {seconds} s")
