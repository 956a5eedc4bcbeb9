"""The key-value store by which the ranks of a run on several PCs find each other (torch.distributed's Store), sent over
their existing lines, so that no further port is open. Every rank has one; what one sets reaches all. No torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence


class Meeting:
    """tell: sends what this rank sets. Values that arrive before they are needed are kept."""

    def __init__(self, tell: Callable[[str, str], None]):
        self._tell, self._known, self._changed = tell, dict[str, bytes](), threading.Condition()

    def put(self, key: str, value: bytes) -> None:
        self.heard(key, value.hex())
        self._tell(key, value.hex())

    def heard(self, key: str, value: str) -> None:
        """value: hexadecimal digits, as in a line."""
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
