"""Ports that are free and stay so until a test uses them."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, suppress
from random import SystemRandom

# Below those that a system gives by itself (Linux from 32,768, Windows and macOS from 49,152): neither another test's
# server at port 0 nor a connection to somewhere takes one between the question and its use, or in between two starts of
# an app.
FIRST, AFTER_LAST = 20_000, 32_000


def free_port(host: str = "127.0.0.1", in_a_row: int = 1) -> int:
    """Return the first of in_a_row free ports, at an address of this PC."""
    while True:
        first = SystemRandom().randrange(FIRST, AFTER_LAST)
        with ExitStack() as held, suppress(OSError):
            for port in range(first, first + in_a_row):
                probe = held.enter_context(socket.socket())
                if os.name != "nt":  # as a server binds: a connection that was closed just now is in nobody's way
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
            return first
