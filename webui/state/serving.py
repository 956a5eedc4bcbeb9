"""The server for other programs that Chat starts (core/chat/serving): off until it is started, on this PC only, with a
new key each time."""

from __future__ import annotations

import secrets
import threading
from contextlib import suppress
from dataclasses import dataclass

from core.chat.client import ChatClient
from core.chat.serving import PORT
from core.chat.serving.batcher import ServedModels
from core.chat.serving.server import ApiServer
from core.errors import ChatError
from core.runs.all import Runs
from core.system.reach import Reach

PORTS = (PORT, 0)  # else any free one


@dataclass(frozen=True)
class Served:
    """The data that a client of the server needs: its address, the key, and the names of models."""

    address: str
    key: str
    models: tuple[str, ...]


class Serving:
    """The server, which answers with the page's own chat worker."""

    def __init__(self, runs: Runs, chat: ChatClient):
        """Begin without a server."""
        self._runs, self._chat = runs, chat
        self._lock = threading.Lock()
        self._server: ApiServer | None = None
        self.served: Served | None = None

    def start(self, run: str) -> None:
        """Serve a run, by its id, in place of the one before. Raises GarageError for a run without an adapter, or if no
        port can be used."""
        models = ServedModels([self._runs.get(run)])
        with self._lock:
            self._stop()
            key = secrets.token_urlsafe(24)
            server = ApiServer(self._chat, models, Reach.from_host("127.0.0.1"), key)
            address = None
            for port in PORTS:
                with suppress(OSError):
                    address = server.listen(port)
                    break
            if address is None:
                server.stop()
                raise ChatError("serve.cannot_listen", port=PORTS[0], reason="-")
            threading.Thread(target=server.serve, name="api", daemon=True).start()
            self._server, self.served = server, Served(address, key, tuple(models.names()))

    def stop(self) -> None:
        """End the server, if there is one."""
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        """Stop the server if there is one, and forget its address and key; the caller holds the lock."""
        if self._server is not None:
            self._server.stop()
        self._server = self.served = None
