"""Lines between processes of ours on two PCs, over TCP, for who knows the same secret. One JSON object a line, as
core.system.lines.

The secret never travels: each end sends a random number and answers the other's with an HMAC-SHA256 over both. From
then on each line carries its own HMAC over its number and sender, so one that is changed, repeated or missing ends the
connection. Nothing is encrypted. Either end says something each two seconds, so a cable that is cut is noticed without
the system's help, and no clock is compared.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import hmac
import json
import os
import queue
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

from core.errors import RunError
from core.system.processes import GATHERING
from core.values import Frozen

PROTOCOL = 1
BEAT_S = 2.0
SILENT_S = 30.0  # without a byte the other end is lost
END_S = 2.0  # for the other end to read the last line
GREETING_S, GREETING_BYTES, GREETINGS_AT_ONCE = 10.0, 1 << 10, 8
LONGEST_LINE, PIECE = 256 << 20, 64 << 10  # bytes
SHORTEST_SECRET = 16
Lost = Literal["closed", "silent", "damaged"]
Address = tuple[str, int]


class LinkError(RunError):
    """The other end cannot be reached, is none of ours, or does not know the secret."""


class Gathering(Frozen):
    """What the worker of a run on several PCs is started with, in its environment, which no list of processes shows:
    how many PCs, where they meet, and the secret."""

    machines: int
    main: str
    secret: str

    @property
    def environment(self) -> dict[str, str]:
        return {GATHERING: self.model_dump_json()}

    @classmethod
    def taken(cls) -> Gathering | None:
        """Once: no process that is started later has it."""
        said = os.environ.pop(GATHERING, None)
        return cls.model_validate_json(said) if said else None


def new_secret() -> str:
    """80 random bits, to be typed: nobody who heard a greeting finds it by trying."""
    letters = base64.b32encode(secrets.token_bytes(10)).decode()
    return "-".join(letters[start : start + 4] for start in range(0, 16, 4))


def key_of(secret: str) -> bytes:
    """However it was typed. Raises LinkError for one that could be guessed."""
    letters = re.sub(r"[\s-]", "", secret).upper()
    if len(letters) < SHORTEST_SECRET:
        raise LinkError("machines.short_secret", found=len(letters), least=SHORTEST_SECRET)
    return hashlib.sha256(letters.encode()).digest()


def parse(text: str) -> Address:
    """HOST:PORT, of IPv6 [HOST]:PORT. Raises LinkError."""
    host, colon, port = text.strip().rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if (
        not colon
        or bare in ("", "0.0.0.0", "::")
        or (":" in bare and not host.startswith("["))
        or not port.isdecimal()
        or not 0 < int(port) < 65536
    ):
        raise LinkError("machines.bad_address", found=text[:100])
    return bare, int(port)


def written(address: Address) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


class Link:
    """One end of a connection whose greeting is over. here, there: the two addresses. Use close."""

    def __init__(self, connection: socket.socket, key: bytes, sender: str, silent_s: float = SILENT_S):
        """sender: "main" or "join"."""
        self._connection, self._key, self.silent_s = connection, key, silent_s
        self._sender, self._other = sender, "join" if sender == "main" else "main"
        self.here, self.there = connection.getsockname()[0], connection.getpeername()[0]
        self._writing, self._closed, self._over = threading.Lock(), threading.Event(), threading.Event()
        self._sent = 0
        connection.settimeout(silent_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def say(self, **values: Any) -> None:
        """From any thread. An end that is gone takes nothing; `listen` tells of it."""
        line = json.dumps(values).encode("ascii")
        with self._writing, contextlib.suppress(OSError):
            whole = memoryview(_mac(self._key, self._sender, self._sent, line).encode() + b" " + line + b"\n")
            self._sent += 1
            for start in range(0, len(whole), PIECE):  # each with the whole patience: a slow line is none that is cut
                self._connection.sendall(whole[start : start + PIECE])

    def listen(self, hear: Callable[[Any], None], ended: Callable[[Lost], None]) -> None:
        """From a thread of its own: what each line says, then once that no more will come."""

        def read() -> None:
            why = self._read(hear)
            self._over.set()
            self.close()
            ended(why)

        threading.Thread(target=read, name="link", daemon=True).start()
        threading.Thread(target=self._beat, name="link-beat", daemon=True).start()

    def _read(self, hear: Callable[[Any], None]) -> Lost:
        received = 0
        try:
            with self._connection.makefile("rb", buffering=PIECE) as source:
                while line := source.readline(LONGEST_LINE):
                    proof, _, said = line.rstrip(b"\n").partition(b" ")
                    if not line.endswith(b"\n"):
                        return "damaged" if len(line) >= LONGEST_LINE else "closed"
                    if not hmac.compare_digest(proof, _mac(self._key, self._other, received, said).encode()):
                        return "damaged"
                    received += 1
                    if values := json.loads(said):
                        hear(values)
        except TimeoutError:
            return "closed" if self._closed.is_set() else "silent"
        except (OSError, ValueError):
            pass
        return "closed"

    def _beat(self) -> None:
        while not self._closed.wait(min(BEAT_S, self.silent_s / 4)):
            self.say()

    def end(self, wait_s: float = END_S, **last: Any) -> None:
        """Say a last line, which the other end has read once it closes."""
        self.say(**last)
        self._closed.set()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
        self._over.wait(wait_s)
        self.close()

    def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._connection.close()


def _mac(key: bytes, *parts: object) -> str:
    return hmac.new(
        key, b"\0".join(part if isinstance(part, bytes) else str(part).encode() for part in parts), "sha256"
    ).hexdigest()


# ---- who waits for others ------------------------------------------------------------------------
class Entrance:
    """Listens at an address of this PC. arrived: links of those who know the secret; refused is told of each who does
    not. Use close."""

    def __init__(
        self,
        address: Address,
        secret: str,
        refused: Callable[[str], None] = lambda there: None,
        silent_s: float = SILENT_S,
    ):
        """Raises LinkError where nobody can be waited for there."""
        self._key, self._refused, self._silent_s = key_of(secret), refused, silent_s
        self.arrived = queue.SimpleQueue[Link]()
        self._room, self._closed = threading.BoundedSemaphore(GREETINGS_AT_ONCE), False
        self._waiting = threading.Thread(target=self._wait, name="entrance", daemon=True)
        try:
            family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
            self._listener = socket.create_server(address, family=family, reuse_port=False)
        except OSError as error:
            taken = error.errno in (errno.EADDRINUSE, errno.EACCES) or getattr(error, "winerror", None) in (
                10048,
                10013,
            )
            key = "machines.port_taken" if taken else "machines.not_an_address_here"
            raise LinkError(key, address=written(address), port=address[1], host=address[0]) from error
        self.address: Address = self._listener.getsockname()[:2]
        self._waiting.start()

    def _wait(self) -> None:
        while not self._closed:
            try:
                connection, there = self._listener.accept()
            except OSError:  # it is closed; or too many files are open, say: whoever waits outside is let in afterwards
                time.sleep(0 if self._closed else BEAT_S)
                continue
            if not self._room.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._greet, args=(connection, there[0]), name="greeting", daemon=True).start()

    def _greet(self, connection: socket.socket, there: str) -> None:
        try:
            link = _greeted_as_main(connection, self._key, self._silent_s)
        except (OSError, ValueError, KeyError, TypeError):  # whoever it was, he does not speak as we do
            link = None
        finally:
            self._room.release()
        if link is None or self._closed:
            connection.close()
            self._refused(there)
        else:
            self.arrived.put(link)

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):  # wakes who accepts, on Linux
            self._listener.shutdown(socket.SHUT_RDWR)
            self._waiting.join(1.0)  # before another listener has its number, whose visitors it would turn away
        self._listener.close()


def _greeted_as_main(connection: socket.socket, secret: bytes, silent_s: float) -> Link | None:
    connection.settimeout(GREETING_S)
    own = secrets.token_hex(16)
    _tell(connection, garage=PROTOCOL, number=own)
    told = _told(connection)
    numbers = own, str(told["number"])[:64]
    if not hmac.compare_digest(str(told["proof"]).encode(), _mac(secret, "join", *numbers).encode()):
        _tell(connection, refused=True)
        return None
    _tell(connection, proof=_mac(secret, "main", *numbers))
    return Link(connection, bytes.fromhex(_mac(secret, "session", *numbers)), "main", silent_s)


# ---- who comes -----------------------------------------------------------------------------------
def reach(
    address: Address,
    secret: str,
    patience_s: float,
    waiting: Callable[[], None] = lambda: None,
    silent_s: float = SILENT_S,
) -> Link:
    """A link to who waits at address. waiting is called before each further try, for as long as patience_s. Raises
    LinkError."""
    key, end = key_of(secret), time.monotonic() + patience_s
    while True:
        try:
            connection = socket.create_connection(address, timeout=GREETING_S)
            break
        except socket.gaierror as error:
            raise LinkError("machines.no_such_host", host=address[0]) from error
        except OSError as error:
            if time.monotonic() > end:
                reason = error.strerror or str(error)
                raise LinkError(
                    "machines.not_reached", address=written(address), port=address[1], reason=reason
                ) from error
        waiting()
        time.sleep(min(1.0, patience_s / 10))
    try:
        return _greeted_as_other(connection, address, key, silent_s)
    except (OSError, ValueError, KeyError, TypeError) as error:
        connection.close()
        raise LinkError("machines.not_ours", address=written(address)) from error
    except LinkError:
        connection.close()
        raise


def _greeted_as_other(connection: socket.socket, address: Address, secret: bytes, silent_s: float) -> Link:
    connection.settimeout(GREETING_S)
    told = _told(connection)
    if told["garage"] != PROTOCOL:
        raise LinkError("machines.other_protocol", address=written(address))
    numbers = str(told["number"])[:64], secrets.token_hex(16)
    _tell(connection, number=numbers[1], proof=_mac(secret, "join", *numbers))
    answer = _told(connection)
    if not hmac.compare_digest(str(answer.get("proof")).encode(), _mac(secret, "main", *numbers).encode()):
        raise LinkError("machines.wrong_secret", address=written(address))
    return Link(connection, bytes.fromhex(_mac(secret, "session", *numbers)), "join", silent_s)


def _tell(connection: socket.socket, **values: Any) -> None:
    connection.sendall(json.dumps(values).encode("ascii") + b"\n")


def _told(connection: socket.socket) -> dict[str, Any]:
    """A line of the greeting, byte by byte: what comes after it belongs to the link. Raises ValueError, OSError."""
    line = bytearray()
    while not line.endswith(b"\n"):
        if len(line) > GREETING_BYTES or not (byte := connection.recv(1)):
            raise ValueError("no greeting")
        line += byte
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError("no greeting")
    return values
