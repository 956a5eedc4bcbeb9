"""Models: those on this PC with their downloads, and a search for others in the catalogue and on the Hub.

The disk is read when the page is opened, and after something changed there: a download ended, a model was deleted or
added, a run began to use one.
"""

from __future__ import annotations

import gradio as gr
from huggingface_hub import constants

from core import files
from core.advice import shelf
from core.advice.wish import Wish
from core.errors import ModelError
from core.files import JsonObject
from core.hub.cached import REPO_ID, cache_folder
from core.hub.downloads import ENDED
from core.hub.hub_errors import host_of
from core.hub.search import LONGEST, FoundModel, search
from core.memory import budget as budgets
from core.models.on_disk import StoredModel, delete, on_disk
from core.runs import foreign
from core.workspace.folder import expand
from webui.form.form import Wizard
from webui.form.handle import FieldValues, Filled, Filling
from webui.kit import format
from webui.kit.drawn_part import drawn_part, fields_sent, select
from webui.kit.html import Html, join, muted, notice, success, tag
from webui.kit.icons import icon
from webui.kit.live import QUIET, SHOW_FORM
from webui.kit.visitor import IS_LOCAL
from webui.kit.wording import Wording
from webui.pages.page_around import PageAround
from webui.shelf import disk, downloads, hub_rows, rows
from webui.shelf.download_button import free_space
from webui.shelf.rows import Marks
from webui.shelf.shelf import languages
from webui.state.services import Services

MODEL = "(...values) => loraGarageForm.press(...values.map((value) => value === '' ? window.loraGarageModel : value))"
MAX_PATH = 1000  # characters
MAX_FOUND = 20  # earlier searches on the Hub whose results are kept


def draw(around: PageAround, tab: gr.Tab) -> None:
    """Build the Models page into its tab and connect it."""
    page = ModelsPage(around.services, around.w)
    w = around.w
    drawn_part(around.services, w, None, "models", page.drawn, page.press, muted(w.t("models_page.looking")))
    wire_train(around.wizard)


def wire_train(form: Wizard) -> None:
    """Build the hidden button that assets/rail.js presses for each button "Train" of a model, and connect it: the form
    gets that model, and Train is shown."""
    button, model = gr.Button("", visible="hidden", elem_id="models-train"), gr.Textbox("", visible=False)

    def fill(values: FieldValues) -> Filled:
        """Choose the model in the form."""
        return Filling({"model": values[model]} if isinstance(values[model], str) else {}), {}

    form.fill_on(button.click, fill, {model}, set(), js=MODEL, **QUIET).then(None, None, None, js=SHOW_FORM, **QUIET)


class ModelsPage:
    """The Models page, drawn by the server as HTML: models on this PC, folders, adapters from elsewhere, downloads, and
    a search of the catalogue and the Hub. press answers all buttons."""

    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording
        self._stored: tuple[object, list[StoredModel]] = None, []  # what the list depends on, and the list
        # by words, what the hub found for them; several visitors search at the same time
        self._results: dict[str, list[FoundModel]] = {}

    # ---- drawing ----------------------------------------------------------------------------------------------------
    def drawn(self, request: JsonObject) -> Html:
        """Return the whole page: models on this PC, folders, downloads, and the search, by the fields that the browser
        sent, any JSON."""
        w, stored, coming = self.w, self._on_disk(), self.services.downloads.rows()
        here = tag(
            "section",
            tag("h2", w.t("disk_view.title")),
            muted(disk.total(stored, format.bytes_used(w, free) if (free := free_space()) else "", w)),
            disk.rows(stored, w),
            self._folders(),
            self._foreign(),
            class_="ep-card", id="disk-list",
        )  # fmt: skip
        list_ = tag("section", tag("h2", w.t("downloads_view.title")), downloads.rows(tuple(coming), w),
            class_="ep-card", id="models-downloads") if coming else None  # fmt: skip
        return join([here, list_, self._finding(fields_sent(request))])

    def _on_disk(self) -> list[StoredModel]:
        """Return the models on this PC, from the disk only if something may have changed there."""
        services, space = self.services, self.services.workspace
        changes = (
            [(each.name, each.revision, each.state) for each in services.downloads.rows() if each.state in ENDED],
            list(services.deleted),
            [files.stamp(folder) for folder in (cache_folder(None), space.models, *space.library_folders)],
            [(row.id, row.name, row.status.state) for row in services.snapshots.now().rows],
        )
        if changes != self._stored[0]:
            self._stored = changes, on_disk(space, services.runs.uses())
        return self._stored[1]

    def _folders(self) -> Html:
        """Return the folders that were added, and the field that adds one."""
        w = self.w
        listed = []
        for folder in map(str, self.services.workspace.added_folders):
            label = w.t("models_page.remove", folder=folder)
            listed.append(tag("div", tag("span", folder), tag("button", icon("trash"), type="button", class_="ep-icon",
                data_act="remove_folder", data_kept=folder, aria_label=label, title=label),
                class_="ep-line"))  # fmt: skip
        label = w.t("models_page.folder_path")
        path = tag("input", type="text", name_="folder", id="models-folder", placeholder=label, aria_label=label)
        add = tag("button", w.t("models_page.add"), type="button", data_act="add_folder", class_="lg-small")
        summary = tag("summary", w.t("models_page.folder"))
        return tag("details", summary, *listed, tag("div", path, add, class_="lg-search"), class_="ep-how",
            id="models-folders")  # fmt: skip

    def _foreign(self) -> Html:
        """Return the fields for an adapter that was trained elsewhere, and the button that brings it in."""
        w = self.w
        fields = [
            tag("input", type="text", name_=name, id=f"models-{name}", placeholder=w.t(f"models_page.{name}"),
                aria_label=w.t(f"models_page.{name}"))
            for name in ("adapter", "base")
        ]  # fmt: skip
        add = tag("button", w.t("models_page.bring"), type="button", data_act="bring_in", class_="lg-small")
        summary = tag("summary", w.t("models_page.foreign"))
        return tag("details", summary, tag("div", fields[0], class_="lg-search"),
            tag("div", fields[1], add, class_="lg-search"), class_="ep-how", id="models-foreign")  # fmt: skip

    def _finding(self, fields: JsonObject) -> Html:
        """Return the search with its filters, the models of the catalogue, and those that the hub found."""
        w, text, ticked = self.w, _text(fields, "words"), fields.get("only", ["fits"])
        wish = Wish(
            fits="fits" in ticked if isinstance(ticked, list) else True,
            sell="sell" in ticked if isinstance(ticked, list) else False,
            language=_text(fields, "language") or None,
        )
        matches = shelf.find(text, budgets.of_machine(self.services.monitor.newest()), wish)
        marks = Marks(None, self.services.models.local_ids(), matches.budget, self._button)
        results = self._results.get(text)
        hub_results = (
            hub_rows.results(shelf.of_hub(results, matches.budget), text, marks, w) if results is not None else None
        )
        return tag(
            "section",
            tag("h2", w.t("shelf_view.words")),
            self._search(wish),
            tag("div", hub_results, id="models-found"),
            tag("div", rows.shelf(matches, wish, marks, w), id="models-shelf"),
            class_="ep-card", id="models-find",
        )  # fmt: skip

    def _search(self, wish: Wish) -> Html:
        """Return the field for words, the filters as in wish, and the button that asks the Hub."""
        w = self.w
        words = tag("input", type="search", name_="words", id="models-words", maxlength=LONGEST, autocomplete="off",
            placeholder=w.t("shelf_view.words_info"), aria_label=w.t("shelf_view.words"))  # fmt: skip
        ask = tag("button", w.t("models_page.ask", host=host_of(constants.ENDPOINT)), type="button", data_act="search",
            class_="ep-start", id="models-ask")  # fmt: skip
        boxes = [
            tag(
                "label",
                tag("input", type="checkbox", name_="only", value=value, checked=on),
                w.t(f"shelf_view.{key}"),
            )
            for value, key, on in (("fits", "fitting", wish.fits), ("sell", "may_sell", wish.sell))
        ]
        spoken = select("language", w.t("shelf_view.language"), languages(w), wish.language or "")
        return join([tag("div", words, ask, class_="lg-search"), tag("div", *boxes, spoken, class_="ep-who")])

    def _button(self, id: str, size: int | None) -> Html:
        """Return the button for a model: Train if it is on this PC, its state if it is being downloaded, else
        Download."""
        w, here = self.w, {each.id for each in self._stored[1] if each.is_complete}
        if id in here | {"starter"}:
            return disk.train(id, w)
        row = self.services.downloads.row(id)
        if row is not None and row.state not in ENDED:
            return tag("span", w.t(f"downloads_view.state_{row.state}"), class_="lg-badge lg-active")
        label = w.t("models_page.download")
        amount = f" {format.bytes_used(w, size)}" if size else ""
        return tag("button", icon("download"), label + amount, type="button", data_act="download", data_repo=id,
            aria_label=f"{label}: {id}", class_="lg-small")  # fmt: skip

    # ---- pressed ----------------------------------------------------------------------------------------------------
    def press(self, request: JsonObject) -> JsonObject:
        """Carry out a button (delete, download, search, add or remove a folder, bring in, or of a download), for any
        JSON from a browser; return {"notice": notice}, "" if there is none. Raises GarageError for what cannot be
        done."""
        act = _text(request, "act")
        if act == "delete":
            return {"notice": self._delete(_text(request, "kept"))}
        if act == "download":
            self.services.downloads.start(_text(request, "repo"))
        elif act == "search":
            words = _text(fields_sent(request), "words")
            results = search(words)
            kept = [each for each in self._results.items() if each[0] != words][-MAX_FOUND:]
            self._results = dict([*kept, (words, results)])
        elif act == "add_folder":
            return self._add_folder(request)
        elif act == "bring_in":
            return self._bring_in(request)
        elif act == "remove_folder":
            self.services.models.remove_folder(_text(request, "kept", MAX_PATH))
        elif act:
            downloads.act_on(self.services, request)
        return {"notice": ""}

    def _add_folder(self, request: JsonObject) -> JsonObject:
        """Add a folder to the library. Raises GarageError, also for a browser on another PC, which may not look into
        this one's folders."""
        if request.get(IS_LOCAL) is not True:
            raise ModelError("models_page.only_here")
        count = self.services.models.add_folder(_text(fields_sent(request), "folder", MAX_PATH))
        added = self.w.t("models_page.added_one" if count == 1 else "models_page.added", count=count)
        return {"notice": success(added), "empty": ["folder"]}

    def _bring_in(self, request: JsonObject) -> JsonObject:
        """Bring in an adapter that was trained elsewhere: a folder at once, one on the Hub as a download. Returns the
        notice for the page, and the names of the fields to empty.

        A folder whose adapter cannot be brought in gives a notice, with a button that downloads a missing base. Raises
        GarageError if the download cannot start, or for a folder if the browser is on another PC.
        """
        fields = fields_sent(request)
        source, base = _text(fields, "adapter", MAX_PATH), _text(fields, "base")
        if REPO_ID.fullmatch(source) and not expand(source).exists():
            self.services.downloads.start(source, adapter=base)
            return {"notice": "", "empty": ["adapter", "base"]}
        if request.get(IS_LOCAL) is not True:
            raise ModelError("models_page.only_here")
        try:
            run = foreign.from_folder(self.services.workspace, expand(source).absolute(), base)
        except ModelError as error:
            button = downloads.base_button(error.message, self.w)
            return {"notice": notice(join([tag("span", self.w.render(error.message) + " "), button]))}
        sentences = [self.w.t("models_page.brought_in", name=run.name), *map(self.w.render, foreign.notes_of(run))]
        return {"notice": success(" ".join(sentences)), "empty": ["adapter", "base"]}

    def _delete(self, id: str) -> Html:
        """Delete a model from this PC, and its finished download from the list; return the notice. Raises
        GarageError."""
        freed = delete(id, self.services.runs.uses())
        row = self.services.downloads.row(id)
        if row is not None and row.state == "done":
            self.services.downloads.cancel(id)  # else the list of downloads would still show it
        self.services.deleted.append(id)
        size = format.bytes_used(self.w, freed)
        return success(self.w.t("disk_view.deleted", model=id, size=size))


def _text(request: JsonObject, name: str, most: int = LONGEST) -> str:
    """Return the request's text of this name without blanks around it, at most `most` characters; "" for anything
    else."""
    value = request.get(name)
    return value.strip()[:most] if isinstance(value, str) else ""
