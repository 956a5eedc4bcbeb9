"""A server with OpenAI's chat completions whose answers a test decides."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ChatServer:
    """Answers each request by reply(body): a text is the model's answer, bytes the whole body, a number the HTTP
    status; None: no answer until close."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.reply: Callable[[dict[str, Any]], str | bytes | int | None] = lambda body: '{"verdict": "A"}'
        self.over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append({"path": self.path, **body})
                outer.keys.append(self.headers["Authorization"])
                told = outer.reply(body)
                if told is None:
                    outer.over.wait(20)
                    return
                status, content = (told, b'{"error": {"message": "no key like sk-planted-4711"}}') if isinstance(told,
                    int) else (200, told)  # fmt: skip
                if isinstance(content, str):
                    content = json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """End the server, and the answers that never come."""
        self.over.set()
        self.http.shutdown()
        self.http.server_close()
