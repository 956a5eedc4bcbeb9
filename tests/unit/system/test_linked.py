"""Lines between two PCs: only for who knows the secret, unaltered or not at all, and a silent end is noticed. On this
PC's own address."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import queue
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from core.system import linked
from core.system.linked import Entrance, Gathering, Link, LinkError, key_of, new_secret, parse, reach
from core.system.processes import worker_environment
from tests.kit.ports import free_port
from tests.kit.waits import wait_until

SECRET = "abcd-efgh-2345-6789"


@pytest.fixture
def entrance() -> Iterator[Entrance]:
    refused: list[str] = []
    made = Entrance(("127.0.0.1", 0), SECRET, refused.append)
    made.refusals = refused  # type: ignore[attr-defined]
    yield made
    made.close()


def pair(entrance: Entrance, silent_s: float = linked.SILENT_S) -> tuple[Link, Link]:
    other = reach(entrance.address, SECRET.upper().replace("-", " "), 5.0, silent_s=silent_s)
    return entrance.arrived.get(timeout=10), other


def heard(link: Link) -> queue.SimpleQueue[Any]:
    said: queue.SimpleQueue[Any] = queue.SimpleQueue()
    link.listen(said.put, said.put)
    return said


def test_who_knows_the_secret_is_let_in_however_it_was_typed_and_both_hear_each_line(entrance: Entrance) -> None:
    main, other = pair(entrance)
    at_main, at_other = heard(main), heard(other)
    large = {"rows": ["ö" * 1000] * 500}
    other.say(hello=1)
    main.say(**large)
    main.say(then="last")
    assert (at_main.get(timeout=10), at_other.get(timeout=10), at_other.get(timeout=10)) == (
        {"hello": 1},
        large,
        {"then": "last"},
    )
    main.end(over=True)
    assert at_other.get(timeout=10) == {"over": True} and at_other.get(timeout=10) == "closed"


def test_another_secret_is_turned_away_at_both_ends_and_the_next_may_come(entrance: Entrance) -> None:
    with pytest.raises(LinkError, match="does not accept the secret"):
        reach(entrance.address, "a" * 16, 5.0)
    assert wait_until(lambda: entrance.refusals) == ["127.0.0.1"]  # type: ignore[attr-defined]
    pair(entrance)


class Unhurried:
    """A listening socket whose accept returns, or raises, only once somebody waits for the thread that is in it."""

    def __init__(self, server: socket.socket, awaited: threading.Event):
        self.server, self.awaited = server, awaited

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            return self.server.accept()
        finally:
            self.awaited.wait(10)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.server, name)


def test_nobody_waits_at_a_door_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who still waits at the door of before would meet who comes to the next, whose listener may have the same number,
    and turn them
    away. No second decides: the thread leaves accept when close waits for it, which it does without end here."""
    make, join, awaited, before = (
        socket.create_server,
        threading.Thread.join,
        threading.Event(),
        set(threading.enumerate()),
    )
    monkeypatch.setattr(socket, "create_server", lambda *rest, **options: Unhurried(make(*rest, **options), awaited))

    def waited_for(thread: threading.Thread, timeout: float | None = None) -> None:
        awaited.set()
        join(thread, 10)

    monkeypatch.setattr(threading.Thread, "join", waited_for)
    Entrance(("127.0.0.1", 0), SECRET).close()
    left = [thread for thread in set(threading.enumerate()) - before if thread.name == "entrance"]
    awaited.set()
    assert left == []


class FullOnce:
    """A listening socket whose first accept finds that this process may open no more files."""

    def __init__(self, server: socket.socket):
        self.server, self.is_full = server, True

    def accept(self) -> tuple[socket.socket, Any]:
        if self.is_full:
            self.is_full = False
            raise OSError(errno.EMFILE, "Too many open files")
        return self.server.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.server, name)


def test_who_comes_while_too_many_files_are_open_is_let_in_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    make = socket.create_server
    monkeypatch.setattr(socket, "create_server", lambda *rest, **options: FullOnce(make(*rest, **options)))
    monkeypatch.setattr(linked, "BEAT_S", 0.05)
    made = Entrance(("127.0.0.1", 0), SECRET)
    pair(made)
    made.close()


def test_neither_the_secret_nor_its_key_is_on_the_wire_and_no_greeting_is_good_twice(entrance: Entrance) -> None:
    """Whoever listens in sees numbers and proofs; saying the same again meets another number."""
    wire, first = [], socket.create_server(("127.0.0.1", 0))

    def pass_on() -> None:
        there, _ = first.accept()
        here = socket.create_connection(entrance.address)
        for source, target in ((here, there), (there, here), (here, there)):
            wire.append(source.recv(4096))
            target.sendall(wire[-1])

    threading.Thread(target=pass_on, daemon=True).start()
    reach(first.getsockname(), SECRET, 5.0)
    seen = b"".join(wire)
    assert b"proof" in seen and all(
        word not in seen for word in (SECRET.encode(), b"ABCDEFGH", key_of(SECRET).hex().encode())
    )
    with socket.create_connection(entrance.address) as again:
        again.recv(4096)
        again.sendall(wire[1])
        assert json.loads(again.recv(4096)) == {"refused": True}
    assert key_of(SECRET) == hashlib.sha256(b"ABCDEFGH23456789").digest()


def test_a_main_pc_that_does_not_know_the_secret_is_not_believed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def pretend() -> None:
            there, _ = server.accept()
            there.sendall(json.dumps({"garage": 1, "number": "0" * 32}).encode() + b"\n")
            told = json.loads(there.recv(4096))
            there.sendall(json.dumps({"proof": told["proof"]}).encode() + b"\n")  # its own, said back

        threading.Thread(target=pretend, daemon=True).start()
        with pytest.raises(LinkError, match="does not accept the secret"):
            reach(server.getsockname(), SECRET, 5.0)


@pytest.mark.parametrize("how", ["changed", "repeated", "none of ours"])
def test_a_line_that_is_not_the_one_that_was_sent_ends_the_link(how: str, entrance: Entrance) -> None:
    main, other = pair(entrance)
    at_main = heard(main)
    other.say(loss=1)
    assert at_main.get(timeout=10) == {"loss": 1}
    said = json.dumps({"loss": 2}).encode()
    proof = linked._mac(other._key, "join", 0 if how == "repeated" else 1, said).encode()
    forged = {
        "changed": proof + b" " + said.replace(b"2", b"3"),
        "repeated": proof + b" " + said,
        "none of ours": b"GET / HTTP/1.1",
    }
    other._connection.sendall(forged[how] + b"\n")
    assert at_main.get(timeout=10) == "damaged" and at_main.empty()


def test_an_end_that_falls_silent_is_lost_and_one_that_only_waits_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linked, "BEAT_S", 0.1)
    made = Entrance(("127.0.0.1", 0), SECRET, silent_s=2.0)
    main, other = pair(made, 2.0)
    made.close()
    at_main, at_other = heard(main), heard(other)
    assert wait_until(lambda: other._sent > 20), "beats, for longer than it may be silent"
    assert at_main.empty() and at_other.empty()
    other._closed.set()  # no beat any more, the connection stays: as with a cable that is cut
    assert at_main.get(timeout=10) == "silent" and at_other.get(timeout=10) == "closed"


def test_noise_and_a_port_scan_do_no_harm(entrance: Entrance) -> None:
    for noise in (b"", b"\x16\x03\x01" * 2000, b"[1]\n", b'{"number": 1}\n', b"null\n"):
        with socket.create_connection(entrance.address) as connection, contextlib.suppress(OSError):
            # it may have hung up already
            connection.sendall(noise)
            connection.shutdown(socket.SHUT_WR)
    assert wait_until(lambda: len(entrance.refusals) >= 4)  # type: ignore[attr-defined]
    pair(entrance)


def test_every_way_not_to_get_there_is_a_sentence(entrance: Entrance) -> None:
    for text in ("", "host", "host:", ":5", "host:0", "host:70000", "host:x", "0.0.0.0:5", "::1:5"):
        with pytest.raises(LinkError, match="no address of the main PC"):
            parse(text)
    assert parse("[::1]:29400") == ("::1", 29400) and parse("pc.local:1") == ("pc.local", 1)
    assert linked.written(("::1", 29400)) == "[::1]:29400"
    with pytest.raises(LinkError, match="at least 16"):
        key_of("too-short")
    with pytest.raises(LinkError, match=f"Port {entrance.address[1]} .* in use"):
        Entrance(entrance.address, SECRET)
    with pytest.raises(LinkError, match="no address of this PC"):
        Entrance(("192.0.2.1", 0), SECRET)
    asked: list[int] = []
    with pytest.raises(LinkError, match="cannot be reached"):
        reach(("127.0.0.1", free_port()), SECRET, 0.2, lambda: asked.append(1))
    assert asked, "it is tried again meanwhile"
    with pytest.raises(LinkError, match=r"No PC named nowhere\.invalid"):
        reach(("nowhere.invalid", 1), SECRET, 0.0)
    assert len({new_secret() for _ in range(50)}) == 50 and len(key_of(new_secret())) == 32


def test_the_worker_takes_what_it_is_started_with_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Gathering(machines=2, main="10.0.0.1:29400", secret=SECRET)
    for name, value in given.environment.items():
        monkeypatch.setenv(name, value)
    assert worker_environment().keys() & given.environment.keys() == set()  # what is started before it is taken
    assert Gathering.taken() == given and Gathering.taken() is None
