"""Children that stand in for the judges' process: `python -m tests.kit.bad_judges`, which hangs; others by name."""

from __future__ import annotations

import sys
import threading

from core.system.lines import ToParent


def hang() -> None:
    ToParent()
    threading.Event().wait(60)


def leave() -> None:
    sys.exit(3)


def answer_nothing() -> None:
    """Answer each request with null in place of scores."""
    parent, done = ToParent(), threading.Event()

    def hear(line: dict) -> None:
        if "request" in line:
            parent.send(request=line["request"], judge=line["first"], scores=None, why=None)

    parent.listen(hear, done.set)
    done.wait(60)


if __name__ == "__main__":
    hang()
