"""An object whose writing methods ask first: for an app that may only look, because another one has the workspace.

The refusal is in the object that writes, not in the buttons: whatever a page or a request calls, it is asked again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Gated:
    """As target, but each of `writes` calls gate first (which raises), and `idle` do nothing while gate raises."""

    def __init__(self, target: Any, gate: Callable[[], None], writes: tuple[str, ...], idle: tuple[str, ...] = ()):
        for name in (*writes, *idle):
            getattr(target, name)  # a method that was renamed must not stay open
        self._target, self._gate, self._writes, self._idle = target, gate, frozenset(writes), frozenset(idle)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name in self._writes:
            return self._asking(found)
        return self._if_allowed(found) if name in self._idle else found

    def _asking(self, method: Callable) -> Callable:
        def asked(*args: Any, **kwargs: Any) -> Any:
            self._gate()
            return method(*args, **kwargs)

        return asked

    def _if_allowed(self, method: Callable) -> Callable:
        from core.errors import GarageError

        def asked(*args: Any, **kwargs: Any) -> Any:
            try:
                self._gate()
            except GarageError:
                return None
            return method(*args, **kwargs)

        return asked
