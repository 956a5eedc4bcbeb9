"""Beside the chosen model: the size of its download, the free space, and the button that starts it."""

from __future__ import annotations

import shutil
from typing import Any

import gradio as gr

from core.errors import GarageError
from core.hub.cached import cache_folder
from core.hub.download import DISK_MARGIN
from core.models.library import ModelRef
from webui.kit import format
from webui.kit.html import Html, muted, notice
from webui.kit.live import Update, shown
from webui.kit.panel import Panel


class DownloadButton(Panel):
    def build(self) -> None:
        self.room = gr.HTML("", visible=False, elem_id="download-room")
        self.button = gr.Button(self.w.t("downloads_view.start"), size="sm", visible=False, elem_id="download-model")
        self.notice = gr.HTML("", visible=False, elem_id="download-notice")

    def draw(self, model_id: Any, size: int | None) -> dict[Any, Any]:
        """size: bytes of its weights, None where that is not known. For every look at the form: only there for a model
        of a hub that is not on this PC, nor on its way."""
        wanted = self._is_to_be_had(model_id)
        room = self._room(size) if wanted and size is not None else Html("")
        return {self.room: shown(room), self.button: gr.update(visible=wanted), self.notice: shown("")}

    def _is_to_be_had(self, model_id: Any) -> bool:
        if not isinstance(model_id, str):
            return False
        try:
            ref = ModelRef.parse(model_id.strip())
            if ref.kind != "hub" or self.services.models.local_folder(ref.id) is not None:
                return False
            row = self.services.downloads.row(ref.id)
        except GarageError:
            return False
        return row is None or row.state not in ("waiting", "running", "again")

    def _room(self, size: int) -> Html:
        """Said before it is begun; the transfer itself looks once more, with the files' own sizes."""
        folder = cache_folder(None)
        there = next((place for place in (folder, *folder.parents) if place.is_dir()), None)
        try:
            free = shutil.disk_usage(there or folder).free
        except OSError:
            return Html("")
        needed = size * DISK_MARGIN
        said = {
            "free": format.bytes_used(self.w, free),
            "needed": format.bytes_used(self.w, needed),
            "folder": str(folder),
        }
        return (
            notice(self.w.t("downloads_view.no_room", **said), "warn")
            if needed > free
            else muted(self.w.t("downloads_view.free", **said))
        )

    def begin(self, model_id: Any, revision: str | None) -> Update:
        """What is said beside the button."""
        try:
            self.services.downloads.start(model_id.strip() if isinstance(model_id, str) else "", revision)
        except GarageError as error:
            return shown(notice(self.w.render(error.message)))
        return shown(notice(self.w.t("downloads_view.started"), "ok"))
