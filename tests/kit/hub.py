"""A hub of one thread family on 127.0.0.1, as far as downloading models needs one: listing, files, ranges, refusals.

    with FakeHub({"owner/model": tiny_model()}) as hub:
        fetch("owner/model", None, report, check, endpoint=hub.url, cache_dir=tmp_path)

Data sets are repositories named datasets/owner/name (tests/kit/hub_sets.py makes them), whose files are also listed as
a tree.

Knobs are plain attributes, set before or between requests; `requests` lists what was asked, in order.
"""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

CHUNK = 16 * 1024
WEIGHTS = (".safetensors", ".parquet", ".jsonl")  # what is large: kept by sha256, and what the knobs of flowing mean


NO_TENSORS = b"\x02" + bytes(7) + b"{}"  # the beginning of a safetensors file


def tiny_model(weights: bytes | None = None, shards: int = 0) -> dict[str, bytes]:
    """Files of a small, complete repository; shards > 0 splits the weights, with an index."""
    weights = NO_TENSORS + bytes(range(256)) * 1024 if weights is None else weights  # 256 KiB
    files = {
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b"{}",
        "README.md": b"# A model",
    }
    if shards:
        names = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
        size = -(-len(weights) // shards)
        files |= {name: weights[i * size : (i + 1) * size] for i, name in enumerate(names)}
        weight_map = {f"layer.{i}": name for i, name in enumerate(names)}
        files["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    else:
        files["model.safetensors"] = weights
    return files


def commit_of(files: dict[str, bytes]) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


def lfs_of(name: str, content: bytes, key: str) -> dict:
    """Return the lfs entry of a listing, empty for a small file. key: the field with its sha256."""
    sha256 = hashlib.sha256(content).hexdigest()
    return {"lfs": {"size": len(content), key: sha256, "pointerSize": 134}} if name.endswith(WEIGHTS) else {}


class FakeHub:
    def __init__(self, repos: dict[str, dict[str, bytes]]):
        self.repos = repos
        self.requests: list[str] = []  # "GET /path", with " bytes=..." where a range was asked
        self.tokens: list[str | None] = []  # the Authorization header of each request
        self.bytes_sent = 0  # of bodies
        self.gated = False  # the listing is public, files are refused: as on the real hub
        self.bad_tokens = False  # any token at all is refused
        self.status: int | None = None  # every request gets this
        self.file_status: int | None = None  # every file gets this
        self.headers: dict[str, str] = {}  # sent with status and file_status
        self.body: bytes | None = None  # every request gets this with status 200
        self.stall_after: int | None = None  # a weight file stops flowing after so many bytes, until `release`
        self.drop_after: int | None = None  # a weight file's connection is cut after so many bytes
        self.drops_left = 0  # how often
        self.ignores_ranges = False
        self.cdn: str | None = None  # weight files are redirected to this address
        self.corrupt = False  # weight bytes are not those of the stated sha256
        self.rows: list[
            dict
        ] = []  # what a search may find, as the hub's own rows; those of data sets are named datasets/owner/name
        self.stalls_listings = False  # as silent, of listings
        self.silent = False  # a search gets no answer until `release`
        self.instead: bytes | None = None  # what is sent of weights, whatever the listing says
        self.xet: dict[str, str] = {}  # hashes of files, by name, under which the store at xet_at has them
        self.xet_at = ""
        self.stalled = threading.Event()
        self.release = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (self.handler(),), {"fake": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        return Handler

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def file_requests(self, ending: str = "") -> list[str]:
        """Return the GET requests for content of files whose name ends so; HEAD requests are left out."""
        asked = [each for each in self.requests if each.startswith("GET ") and "/resolve/" in each]
        return [each for each in asked if each.split()[1].endswith(ending)]

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # a head and its small body are two packets, and the second waited 40 ms for the first's receipt
    disable_nagle_algorithm = True
    fake: FakeHub

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.fake, unquote(urlsplit(self.path).path)
        asked = self.headers.get("Range")
        hub.requests.append(f"{self.command} {path}" + (f" {asked}" if asked else ""))
        hub.tokens.append(self.headers.get("Authorization"))
        if hub.body is not None:
            return self._answer(200, hub.body)
        if hub.status:
            return self._answer(hub.status, headers=hub.headers)
        if hub.bad_tokens and self.headers.get("Authorization"):
            return self._refuse(401, None, "Invalid credentials in Authorization header")
        parts = path.strip("/").split("/")
        if parts in (["api", "models"], ["api", "datasets"]):
            return self._search(parse_qs(urlsplit(self.path).query), parts[1])
        if "xet-read-token" in parts:
            told = {"X-Xet-Cas-Url": hub.xet_at, "X-Xet-Access-Token": "read", "X-Xet-Token-Expiration": "9999999999"}
            return self._answer(200, headers=told)
        if parts[:2] == ["api", "models"]:
            return self._listing("/".join(parts[2:4]), "/".join(parts[5:]) or "main")
        if parts[:2] == ["api", "datasets"] and parts[4:5] == ["tree"]:
            return self._tree("/".join(parts[1:4]), "/".join(parts[6:]), "recursive=true" in self.path.lower())
        if parts[:2] == ["api", "datasets"]:
            return self._listing("/".join(parts[1:4]), "/".join(parts[5:]) or "main")
        if parts[0] == "datasets":
            return self._file("/".join(parts[:3]), parts[4], "/".join(parts[5:]))
        if len(parts) < 5:  # the hub's own library asks for more than files
            return self._refuse(404, None, "Not Found")
        return self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def _search(self, asked: dict[str, list[str]], what: str) -> None:
        """Answer as the hub does: the rows whose name has every word, the most downloaded first."""
        hub = self.fake
        if hub.silent:
            hub.release.wait(60)
        words = asked["search"][0].lower().split()
        prefix = "datasets/" if what == "datasets" else ""
        mine = [
            row | {"id": row["id"].removeprefix("datasets/")}
            for row in hub.rows
            if row["id"].startswith("datasets/") == bool(prefix)
        ]
        rows = [row for row in mine if all(word in row["id"].lower() for word in words)]
        rows.sort(key=lambda row: -row.get("downloads", 0))
        self._answer(200, json.dumps(rows[: int(asked["limit"][0])]).encode(), {"Content-Type": "application/json"})

    def _listing(self, repo: str, revision: str) -> None:
        if self.fake.stalls_listings:
            self.fake.release.wait(60)
        files = self.fake.repos.get(repo)
        if files is None:
            return self._refuse(401, "RepoNotFound", "Repository not found")  # 401, as the hub does without a token
        commit = commit_of(files)
        if revision not in ("main", commit):
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        siblings = [
            {
                "rfilename": name,
                "size": len(content),
                "blobId": hashlib.sha1(content).hexdigest(),
                **lfs_of(name, content, "sha256"),
            }
            for name, content in files.items()
        ]
        told = next((row for row in self.fake.rows if row["id"] == repo), {})
        body = told | {"id": repo.removeprefix("datasets/"), "sha": commit, "siblings": siblings}
        self._answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _tree(self, repo: str, folder: str, is_recursive: bool) -> None:
        """Answer as the hub does: the files and folders below a folder, in one page."""
        found: dict[str, dict] = {}
        for name, content in self.fake.repos.get(repo, {}).items():
            inner = name.removeprefix(f"{folder}/" if folder else "")
            if folder and inner == name:
                continue
            above = [
                name[: -len(inner)] + "/".join(inner.split("/")[:depth]) for depth in range(1, inner.count("/") + 1)
            ]
            for path in above if is_recursive else above[:1]:
                found[path] = {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
            if is_recursive or not above:
                oid = hashlib.sha1(content).hexdigest()
                found[name] = {
                    "type": "file",
                    "path": name,
                    "oid": oid,
                    "size": len(content),
                    **lfs_of(name, content, "oid"),
                }
        self._answer(200, json.dumps(list(found.values())).encode(), {"Content-Type": "application/json"})

    def _file(self, repo: str, revision: str, name: str) -> None:
        hub, files = self.fake, self.fake.repos.get(repo, {})
        if hub.file_status:
            return self._answer(hub.file_status, headers=hub.headers)
        if hub.gated:
            status = 403 if self.headers.get("Authorization") else 401
            return self._refuse(status, "GatedRepo", f"Access to model {repo} is restricted")
        if repo not in self.fake.repos:
            return self._refuse(401, "RepoNotFound", "Repository not found")
        if name not in files:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        content, is_weight = files[name], name.endswith(WEIGHTS)
        if is_weight and hub.cdn:
            return self._answer(302, headers={"Location": hub.cdn + self.path})
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit_of(files)}
        if name in hub.xet:
            headers |= {
                "X-Xet-Hash": hub.xet[name],
                "X-Xet-Refresh-Route": f"{hub.url}/api/models/{repo}/xet-read-token/main",
            }
        if is_weight and hub.instead is not None:
            content = hub.instead
        if is_weight and hub.corrupt:
            content = bytes(len(content))
        status, start = 200, 0
        if (asked := self.headers.get("Range")) and not hub.ignores_ranges:
            first, last = asked.removeprefix("bytes=").split("-")
            start = int(first)
            if start >= len(content):
                return self._answer(416, headers={"Content-Range": f"bytes */{len(content)}"})
            status, whole = 206, len(content)
            content = content[: int(last) + 1] if last else content
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{whole}"
        self._send_head(status, len(content) - start, headers)
        if self.command == "GET":
            self._send_body(content[start:], is_weight)

    def _send_body(self, content: bytes, is_weight: bool) -> None:
        hub = self.fake
        for offset in range(0, len(content), CHUNK):
            if is_weight and hub.drops_left and hub.drop_after is not None and offset >= hub.drop_after:
                hub.drops_left -= 1
                self.close_connection = True
                return
            if is_weight and hub.stall_after is not None and offset >= hub.stall_after:
                hub.stalled.set()
                hub.release.wait(60)
            try:
                hub.bytes_sent += self.wfile.write(content[offset : offset + CHUNK])
            except OSError:  # the client hung up
                self.close_connection = True
                return

    def _refuse(self, status: int, code: str | None, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._answer(status, json.dumps({"error": message}).encode(), headers)

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self._send_head(status, len(body), headers or {})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
