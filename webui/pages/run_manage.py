"""Managing the run that the Runs page has open: its name, tags and note, archiving it, deleting its
checkpoints or all of it.

A person confirms a deletion first, with the space it frees and what depends on it.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from core.errors import GarageError
from core.runs.folder import RunFolder
from core.runs.kept import freeing, label
from webui.kit import format
from webui.kit.html import notice, success
from webui.kit.live import AT_ONCE, CONTROL, LivePart, Poller, Update, Updates, ViewContext, shown
from webui.kit.wording import Wording
from webui.state.services import Services
from webui.state.snapshot import RunView


class ManageRun:
    """The fields and buttons that manage the run which the Runs page has open: its name, tags and note, archiving it,
    and deleting its checkpoints or all of it, after a question."""

    def __init__(self, services: Services, wording: Wording, opened: gr.Textbox):
        self.services, self.w, self.opened = services, wording, opened

    def build(self) -> None:
        """Build the fields (name, tags, note), the buttons, and the question before deleting."""
        w = self.w
        self.new_name = gr.Textbox(label=w.t("runs_page.new_name"), max_lines=1, max_length=60, elem_id="rename-name")
        self.tags = gr.Textbox(max_lines=1, max_length=240, **w.named("run_manage.tags", "run-tags"))
        self.note = gr.Textbox(max_lines=4, max_length=label.LONGEST_NOTE, **w.named("run_manage.note", "run-note"))
        with gr.Row(elem_classes="lg-tight"):
            self.save = gr.Button(w.t("run_manage.save"), elem_id="rename")
            self.archive = gr.Button(w.t("run_manage.archive"), elem_id="archive")
            self.free = gr.Button(w.t("run_manage.free"), visible=False, elem_id="free")
            self.delete = gr.Button(w.t("runs_page.delete"), elem_id="delete")
        with gr.Column(visible=False, elem_id="delete-sure") as self.sure:
            self.sure_text = gr.HTML("")
            with gr.Row(elem_classes="lg-tight"):
                self.really = gr.Button(w.t("runs_page.delete_really"), variant="stop", elem_id="delete-really")
                self.free_really = gr.Button(w.t("run_manage.free_really"), variant="stop", elem_id="free-really")
                self.keep = gr.Button(w.t("runs_page.delete_keep"), elem_id="delete-keep")
        self.notice = gr.HTML("", visible=False, elem_id="manage-notice")

    # ---- what follows the clock -----------------------------------------------------------------------------------
    def parts(self) -> list[LivePart]:
        return [
            LivePart(self.free, lambda context: gr.update(visible=bool((row := context.row) and row.spare_bytes))),
            LivePart(self.archive, self._archive_button),
        ]

    def _archive_button(self, context: ViewContext) -> Update:
        """Return the update of the button's label: "archive", or for an archived run "bring back"."""
        row = context.row
        return gr.update(
            value=self.w.t("run_manage.bring_back" if row and row.label.archived else "run_manage.archive")
        )

    # ---- wires ----------------------------------------------------------------------------------------------------
    def wire(self, poller: Poller, chart: gr.HTML, runs: gr.HTML, talk_to: gr.Textbox) -> None:
        """Connect the buttons. chart, runs, talk_to: updated when the run is deleted."""
        poller.after(
            self.save.click(self.describe, [self.opened, self.new_name, self.tags, self.note], [self.notice], **CONTROL)
        )
        poller.after(self.archive.click(self.toggle_archive, [self.opened], [self.notice], **CONTROL))
        outputs = [self.sure, self.sure_text, self.really, self.free_really]
        self.delete.click(self.ask_delete, [self.opened], outputs, **AT_ONCE)
        self.free.click(self.ask_free, [self.opened], outputs, **AT_ONCE)
        self.keep.click(lambda: gr.update(visible=False), None, [self.sure], **AT_ONCE)
        poller.after(self.free_really.click(self.drop, [self.opened], [self.sure, self.notice], **CONTROL))
        remove = lambda run_id: self.remove(run_id, chart, runs, talk_to)  # noqa: E731
        gone = [self.opened, chart, runs, self.sure, self.notice, talk_to]
        poller.after(self.really.click(remove, [self.opened], gone, **CONTROL))

    @property
    def opening(self) -> list[object]:
        """The components that opening a run changes here."""
        return [self.new_name, self.tags, self.note, self.sure, self.notice]

    def opened_values(self, view: RunView | None) -> Updates:
        """Return the updates of opening a run: its label, and the question and the notice hidden."""
        shown_label = view.row.label if view else label.Label()
        return {
            self.new_name: view.row.name if view else "",
            self.tags: ", ".join(shown_label.tags),
            self.note: shown_label.note,
            self.sure: gr.update(visible=False),
            self.notice: shown(""),
        }

    def describe(self, run_id: str | None, *fields: object) -> Update:
        """Save the run's name, tags and note, and return the notice, of success or the error."""
        name, tags, note = (each if isinstance(each, str) else "" for each in fields)
        runs = self.services.runs
        try:
            run = runs.get(run_id or "")
            runs.rename(run, name)
            label.annotate(run, tags, note)
        except GarageError as error:
            return shown(notice(self.w.render(error.message)))
        return shown(success(self.w.t("run_manage.saved")))

    def toggle_archive(self, run_id: str | None) -> Update:
        """Archive the run, or restore it to the list, and return the notice, of success or the error."""
        try:
            run = self.services.runs.get(run_id or "")
            archived = not label.Label.from_run(run).archived
            label.archive(run, archived)
        except GarageError as error:
            return shown(notice(self.w.render(error.message)))
        return shown(success(self.w.t("run_manage.archived" if archived else "run_manage.is_back")))

    def ask_delete(self, run_id: str | None) -> Updates:
        """Ask before deleting a run, with what that deletes; nothing for a run that is gone."""
        view = self.services.snapshots.view(run_id)
        return self._confirmation(" ".join(self._lost(view)), self.really) if view else {}

    def ask_free(self, run_id: str | None) -> Updates:
        """Ask before deleting a run's checkpoints alone; nothing for a run that is gone."""
        view = self.services.snapshots.view(run_id)
        if view is None:
            return {}
        question = self.w.t("run_manage.free_sure", size=format.bytes_used(self.w, view.row.spare_bytes))
        return self._confirmation(question, self.free_really)

    def _confirmation(self, question: str, button: gr.Button) -> Updates:
        """Return the updates that show a question with this button alone."""
        shows = {one: gr.update(visible=one is button) for one in (self.really, self.free_really)}
        return {self.sure: gr.update(visible=True), self.sure_text: notice(question, "warn"), **shows}

    def _lost(self, view: RunView) -> list[str]:
        """Return the sentences that the question before a deletion consists of: first what deleting the run deletes.

        Then, each only where it applies: the runs that continue it, that its exports stay, and that Chat has it loaded.
        Raises GarageError if the run is gone.
        """
        w, services, row = self.w, self.services, view.row
        sentences = [w.t("runs_page.delete_sure", name=row.name, size=format.bytes_used(w, row.bytes_used))]
        run = services.runs.get(row.id)
        if children := freeing.continued_by(services.runs, run):
            sentences.append(w.t("run_manage.continued_by", runs=w.t("shelf_view.comma").join(children)))
        if exports := services.exports.list(row.id):
            size = format.bytes_used(w, sum(done.bytes for done in exports))
            sentences.append(w.t("run_manage.exports_stay", count=len(exports), size=size))
        if self._is_in_chat(run.path):
            sentences.append(w.t("run_manage.in_chat"))
        return sentences

    def _is_in_chat(self, folder: Path) -> bool:
        """Return whether the adapter that Chat has loaded is in this folder."""
        target = self.services.chat.state().target
        return target is not None and target.adapter is not None and target.adapter.is_relative_to(folder)

    def _out_of_chat(self, folder: Path) -> None:
        """Unload the chat's model if it is from this folder."""
        if self._is_in_chat(folder):
            self.services.chat.unload()

    def drop(self, run_id: str | None) -> Updates:
        """Delete the run's checkpoints, unloading them from Chat first; close the question, and show the freed bytes or
        the error."""
        try:
            run: RunFolder = self.services.runs.get(run_id or "")
            size = format.bytes_used(self.w, freeing.spare_bytes(run))
            self._out_of_chat(run.path / "checkpoints")
            freeing.drop_checkpoints(run)
            message = success(self.w.t("run_manage.freed", size=size))
        except GarageError as error:
            message = notice(self.w.render(error.message))
        return {self.sure: gr.update(visible=False), self.notice: shown(message)}

    def remove(self, run_id: str | None, chart: gr.HTML, runs: gr.HTML, talk_to: gr.Textbox) -> Updates:
        """Delete the run, after unloading it from Chat, and close the question; talk_to gets its id, so that Chat
        chooses another model. An error is shown."""
        hidden: Updates = {self.sure: gr.update(visible=False)}
        try:
            run = self.services.runs.get(run_id or "")
            self._out_of_chat(run.path)
            self.services.runs.delete(run)
        except GarageError as error:
            return {**hidden, self.notice: shown(notice(self.w.render(error.message)))}
        emptied = dict.fromkeys((chart, runs), gr.update(value=None))
        return {**hidden, **emptied, self.opened: None, self.notice: shown(""), talk_to: f"run:{run_id}"}
