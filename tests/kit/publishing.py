"""The hub of the tests, with uploads: owner of a token, new repository, large files, commit. It answers as the real one
does to huggingface_hub 2.4 without Xet (HF_HUB_DISABLE_XET). What was uploaded stays in `stored` by its sha256, even if
the commit fails."""

from __future__ import annotations

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from tests.kit.hub import CHUNK, WEIGHTS, FakeHub, Handler, commit_of

LARGE = (*WEIGHTS, ".gguf")


class TakingHub(FakeHub):
    def __init__(self) -> None:
        super().__init__({})
        self.stored: dict[str, bytes] = {}
        self.role = "write"
        self.failing: dict[str, int] = {}  # by step: whoami, create, preupload, batch, put, verify, commit
        self.cut_put_after: int | None = None  # the line breaks after so many bytes of a large file, `cuts_left` times
        self.cuts_left = 0
        # a step that gets no answer until `release`; of "put", the file's first CHUNK is read
        self.stalls: str | None = None
        self.between: Any = None  # called before a commit is judged: somebody else's work
        self.commits: list[str] = []  # what each is called

    def handler(self) -> type[BaseHTTPRequestHandler]:
        return TakingHandler

    def put_repo(self, name: str, files: dict[str, bytes], private: bool) -> None:
        self.repos[name] = files
        self.rows.append({"id": name, "private": private})

    def steps(self) -> list[str]:
        """Return the steps of an upload that were requested, in order."""
        words = {
            "create": "/api/repos/create",
            "batch": "/objects/batch",
            "put": "PUT ",
            "commit": "/commit/",
            "whoami": "whoami",
        }
        return [step for asked in self.requests for step, mark in words.items() if mark in asked]


class TakingHandler(Handler):
    fake: TakingHub

    def do_GET(self) -> None:
        if urlsplit(self.path).path != "/api/whoami-v2":
            return super().do_GET()
        if not self._begin("whoami"):
            return None
        return self._json({"name": "anna", "auth": {"accessToken": {"role": self.fake.role}}})

    def _begin(self, step: str) -> bool:
        """Record the request; False where it was refused or got no answer, as the test has set."""
        hub = self.fake
        hub.requests.append(f"{self.command} {unquote(urlsplit(self.path).path)}")
        hub.tokens.append(self.headers.get("Authorization"))
        status = hub.failing.get(step) or (401 if hub.bad_tokens else None)
        if status:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(status, b'{"error": "a text of the server"}', hub.headers)
        elif hub.stalls == step != "put":
            self._stall()
            return False
        return not status

    def _stall(self) -> None:
        self.fake.release.wait(60)
        self.close_connection = True

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        parts = path.split("/")
        steps = {
            "repos": "create",
            "validate-yaml": "validate",
            "models": parts[4] if len(parts) > 4 else "",
            "verify": "verify",
        }
        step = steps[parts[1]] if parts[0] in ("api", "lfs") else "batch"
        if not self._begin(step):
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        getattr(self, f"_{step}")(
            body,
            "/".join(parts[2:4])
            if step in ("preupload", "commit")
            else path.removesuffix(".git/info/lfs/objects/batch"),
        )

    def _create(self, body: bytes, _: str) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        self.fake.put_repo(name, {}, asked["visibility"] == "private")
        self._json({"url": f"{self.fake.url}/{name}"})

    def _validate(self, body: bytes, _: str) -> None:
        header = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
        assert header["license"] and header["base_model"]
        self._json({"errors": [], "warnings": []})

    def _preupload(self, body: bytes, repo: str) -> None:
        there = self.fake.repos[repo]
        files = []
        for file in json.loads(body)["files"]:
            is_large, name = file["path"].endswith(LARGE), file["path"]
            said = {"path": name, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}
            files.append(said | ({"oid": _oid(there[name], is_large)} if name in there else {}))
        self._json({"files": files})

    def _batch(self, body: bytes, repo: str) -> None:
        url, objects = self.fake.url, []
        for each in json.loads(body)["objects"]:
            actions = {"upload": {"href": f"{url}/lfs/put/{each['oid']}"}, "verify": {"href": f"{url}/lfs/verify"}}
            objects.append(each | ({} if each["oid"] in self.fake.stored else {"actions": actions}))
        self._json({"objects": objects, "transfer": "basic"})

    def do_PUT(self) -> None:
        if not self._begin("put"):
            return
        hub, length, content = self.fake, int(self.headers["Content-Length"]), b""
        while len(content) < length:
            if not (piece := self.rfile.read(min(CHUNK, length - len(content)))):
                return  # whoever sent it is gone
            content += piece
            if hub.stalls == "put":
                return self._stall()
            if hub.cut_put_after is not None and hub.cuts_left and len(content) >= hub.cut_put_after:
                hub.cuts_left -= 1
                self.close_connection = True
                return
        oid = self.path.rsplit("/", 1)[-1]
        assert hashlib.sha256(content).hexdigest() == oid
        hub.stored[oid] = content
        self._answer(200)

    def _verify(self, body: bytes, _: str) -> None:
        self._answer(200 if json.loads(body)["oid"] in self.fake.stored else 404)

    def _commit(self, body: bytes, repo: str) -> None:
        hub, lines = self.fake, [json.loads(line) for line in body.splitlines()]
        if hub.between:
            hub.between()
        files, head = dict(hub.repos[repo]), lines[0]["value"]
        if head.get("parentCommit") not in (None, commit_of(files)):
            return self._answer(412, b'{"error": "A commit has happened since"}')
        for line in lines[1:]:
            value = line["value"]
            match line["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = hub.stored[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        hub.repos[repo] = files
        hub.commits.append(head["summary"])
        commit = commit_of(files)
        return self._json({"commitUrl": f"{hub.url}/{repo}/commit/{commit}", "commitOid": commit})


def _oid(content: bytes, is_large: bool) -> str:
    """Return a file's id on the hub: its sha256 if it is large, else git's."""
    return (
        hashlib.sha256(content).hexdigest()
        if is_large
        else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    )
