"""The download beside the chosen model: its size, the free space, and the button that starts it."""

from __future__ import annotations

import shutil

import gradio as gr

from core.errors import GarageError
from core.hub.cached import cache_folder
from core.hub.download import DISK_MARGIN
from core.models.library import ModelRef
from webui.kit import format
from webui.kit.html import Html, muted, notice, success
from webui.kit.live import Update, shown
from webui.kit.panel import Panel


class DownloadButton(Panel):
    """The download beside the chosen model: the free space, the button that starts it, and a notice."""

    def build(self) -> None:
        self.room = gr.HTML("", visible=False, elem_id="download-room")
        self.button = gr.Button(self.w.t("downloads_view.start"), size="sm", visible=False, elem_id="download-model")
        self.notice = gr.HTML("", visible=False, elem_id="download-notice")

    def draw(self, model_id: object, size: int | None) -> dict[object, object]:
        """Return the updates of the download beside the chosen model: its button and the free space, and no notice any
        more.

        The button and the space are only shown for a hub model that is neither on this PC nor being downloaded, the
        space only if its size is known. size: bytes of its weights, None if unknown.
        """
        is_offered = self._can_download(model_id)
        room = self._disk_space(size) if is_offered and size is not None else Html("")
        return {self.room: shown(room), self.button: gr.update(visible=is_offered), self.notice: shown("")}

    def _can_download(self, model_id: object) -> bool:
        """Return whether the id is a hub's model that is neither here nor being downloaded."""
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

    def _disk_space(self, size: int) -> Html:
        """Return the free and the needed space, before the download; a warning if it is too little, "" if unknown. The
        download itself checks again with the sizes of its files."""
        free = free_space()
        if free is None:
            return Html("")
        needed = size * DISK_MARGIN
        values = {
            "free": format.bytes_used(self.w, free),
            "needed": format.bytes_used(self.w, needed),
            "folder": str(cache_folder(None)),
        }
        return (
            notice(self.w.t("downloads_view.no_room", **values), "warn")
            if needed > free
            else muted(self.w.t("downloads_view.free", **values))
        )

    def begin(self, model_id: object, revision: str | None) -> Update:
        """Start the download of a hub model, of its newest revision if that is None; return the notice beside the
        button."""
        try:
            self.services.downloads.start(model_id.strip() if isinstance(model_id, str) else "", revision)
        except GarageError as error:
            return shown(notice(self.w.render(error.message)))
        return shown(success(self.w.t("downloads_view.started")))


def free_space() -> int | None:
    """Return the free bytes where models are downloaded to; None if unknown."""
    folder = cache_folder(None)
    existing = next((place for place in (folder, *folder.parents) if place.is_dir()), None)
    try:
        return shutil.disk_usage(existing or folder).free
    except OSError:
        return None
