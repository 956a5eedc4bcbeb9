"""Downloads a run as one file for another PC: packed in the workspace (core/runs/away), sent, and deleted."""

from __future__ import annotations

import uuid
from pathlib import Path
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from core import files
from core.data.store import DatasetStore
from core.errors import GarageError
from core.messages import LANGUAGES
from core.runs.all import Runs
from core.runs.away import packed
from core.workspace.folder import Workspace
from core.workspace.names import slug
from webui.kit.wording import Wording

PATH = "/run.zip"  # the guard lets it through
ASIDE = ".packed"  # in the workspace, whose disk has room for runs
PATIENCE_S = 2.0


def address(id: str, language: str, with_data: bool) -> str:
    return f"{PATH}?id={quote(id, safe='')}&in={language}&data={int(with_data)}"


class RunFile:
    """ASGI middleware inside Guard and Door: answers PATH only."""

    def __init__(self, app: ASGIApp, store: DatasetStore, workspace: Workspace):
        self.app, self.store, self.workspace = app, store, workspace
        files.remove_tree(workspace.root / ASIDE)  # left by an app that was killed while sending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer PATH with the requested run as a .zip, which is deleted afterwards, or 404 with the reason; pass on
        all other requests."""
        if scope["type"] != "http" or scope["path"] != PATH:
            return await self.app(scope, receive, send)
        query = Request(scope).query_params
        language = query.get("in", "")
        aside = self.workspace.root / ASIDE / uuid.uuid4().hex
        try:
            try:
                file = await run_in_threadpool(self._packed, query.get("id", ""), query.get("data") == "1", aside)
            except GarageError as error:
                message = Wording(language if language in LANGUAGES else "en").render(error.message)
                return await PlainTextResponse(message, 404)(scope, receive, send)
            headers = {"cache-control": "no-store"}
            await FileResponse(file, media_type="application/zip", filename=file.name, headers=headers)(
                scope, receive, send
            )
        finally:
            await run_in_threadpool(files.remove_tree, aside, PATIENCE_S)

    def _packed(self, id: str, with_data: bool, aside: Path) -> Path:
        """Pack a run into a .zip file in aside and return it. Raises GarageError."""
        run = Runs(self.workspace).get(id)
        with files.writing(self.workspace.root):
            aside.mkdir(parents=True)
        file = aside / f"{slug(run.name, fallback='run')}.zip"
        packed.pack(self.workspace, self.store, run, file, with_data)
        return file
