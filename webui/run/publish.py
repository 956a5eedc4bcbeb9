"""Publishes a finished export on the hub: repository, form, visibility. Its files are listed before any is sent. For
the opened run.

Placed below the other places to use a run (`way_out`). The server packs the files anew: only the choices come from the
browser, and after a change of choices the files are listed again first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gradio as gr
from gradio.events import Dependency

from core.errors import ExportError
from core.export.records import ExportResult, ExportStatus
from webui.kit import format
from webui.kit.html import Html, bar, join, muted, notice, tag
from webui.kit.live import AT_ONCE, CONTROL, QUIET, LivePart, Poller, Update, Updates, ViewContext, outcome, shown
from webui.kit.wording import Wording
from webui.run.exported import export_name
from webui.state.services import Services

FORGET = (
    "() => [{__type__: 'update', value: '', visible: false}, {__type__: 'update', visible: false}, {__type__: "
    "'update', value: '', visible: false}]"
)
MAX_SHOWN = 200  # files
Finished = Callable[[ViewContext], Sequence[ExportResult]]


class PublishPanel:
    """Publishes an export of the opened run on the hub. finished: returns the run's finished exports for a ViewContext,
    newest first."""

    def __init__(self, services: Services, wording: Wording, finished: Finished):
        self.services, self.w, self._finished = services, wording, finished

    # ---- widgets --------------------------------------------------------------------------------------------------
    def build(self) -> None:
        """Build the fields (export, repository, visibility, sample answers), the list of files, the buttons and the
        progress."""
        w = self.w
        with gr.Column(visible=False, elem_id="publish") as self.place:
            gr.HTML(muted(w.t("publish_panel.first_make")))
            self.which = gr.Radio([], **w.named("publish_panel.which", "publish-which"))
            self.repo = gr.Textbox(
                max_lines=1, max_length=200, placeholder="anna/pirate", **w.named("publish_panel.repo", "publish-repo")
            )
            visibilities = [(w.t(f"publish_panel.{who}"), who) for who in ("private", "public")]
            self.who = gr.Radio(visibilities, value="private", **w.named("publish_panel.who", "publish-who"))
            self.film = gr.Checkbox(value=False, **w.named("publish_panel.film", "publish-film"))
            with gr.Row(elem_classes="lg-tight"):
                self.look = gr.Button(w.t("publish_panel.look"), elem_id="publish-look")
            self.listed = gr.JSON(None, visible=False)  # the choices that the files were listed for
            self.files = gr.HTML("", visible=False, elem_id="publish-files")
            with gr.Row(elem_classes="lg-tight"):
                self.send = gr.Button(
                    w.t("publish_panel.send"), variant="primary", visible=False, elem_id="publish-send"
                )
                self.cancel = gr.Button(w.t("publish_panel.cancel"), visible=False, elem_id="publish-cancel")
            self.notice = gr.HTML("", visible=False, elem_id="publish-notice")
            self.status = gr.HTML("", visible=False, elem_id="publish-status")

    # ---- what follows the clock -----------------------------------------------------------------------------------
    def parts(self) -> list[LivePart]:
        """Return the parts that update with the clock: the exports to choose from, the upload's progress, and
        Cancel."""
        return [
            LivePart(self.which, self._which),
            LivePart(
                self.status,
                lambda context: shown(join(self._status_card(*attempt) for attempt in self._attempts(context))),
            ),
            LivePart(
                self.cancel,
                lambda context: gr.update(visible=any(status.active for _, status in self._attempts(context))),
            ),
        ]

    def _which(self, context: ViewContext) -> Update:
        """Return the update of the choices: the finished exports that passed their check; hidden without any."""
        choices = [
            (f"{self._export_name(each)} · {format.bytes_used(self.w, each.bytes)}", each.name)
            for each in self._finished(context)
            if each.check.passed
        ]
        return gr.update(choices=choices, visible=bool(choices))

    def _attempts(self, context: ViewContext) -> list[tuple[ExportResult, ExportStatus]]:
        """Return (export, its upload's state) of the finished exports that were uploaded or are being."""
        attempts = ((each, self.services.publishing.status(each.name)) for each in self._finished(context))
        return [(each, status) for each, status in attempts if status]

    def _status_card(self, result: ExportResult, status: ExportStatus) -> Html:
        """Return an upload's progress as a bar with its phase, or how it ended as a notice."""
        w, name = self.w, self._export_name(result)
        if not status.active:
            tone = {"done": "ok", "cancelled": "plain"}.get(status.state, "bad")
            return notice(w.t("publish_panel.ended", form=name, message=w.render(status.message)), tone)
        percent = None if status.fraction is None else round(100 * status.fraction)
        phase = w.render(status.stage_text)
        numbers = tag("span", "" if percent is None else f"{percent} %", class_="lg-numbers")
        return tag(
            "div",
            tag("p", tag("strong", name, ": ", phase), numbers, class_="lg-phase"),
            bar(phase, percent),
            class_="lg-run",
        )

    def _export_name(self, result: ExportResult) -> str:
        return export_name(result, self.w)

    # ---- wires ----------------------------------------------------------------------------------------------------
    def wire(self, poller: Poller, opened: gr.Textbox, picked: Dependency) -> None:
        """Connect the fields and buttons; a changed field, another run or export clears the list of files. picked: the
        event that opens a run."""
        inputs = [opened, self.which, self.repo, self.film]
        shows = [self.files, self.send, self.notice]
        self.look.click(self.list, [*inputs, self.who], [*shows, self.listed], **AT_ONCE)
        for event in (self.which.input, self.repo.change, self.who.input, self.film.input):
            # a text box's `input` fires only at key presses
            event(
                None, None, shows, js=FORGET, **QUIET
            )  # in the browser, so that it cannot arrive after the answer to a look
        for event in (opened.change, picked.then):
            event(
                lambda: {**self.hide_list(), self.which: gr.update(value=None)}, None, [*shows, self.which], **AT_ONCE
            )
        poller.after(self.send.click(self.begin, [self.listed, *inputs, self.who], [*shows, self.listed], **CONTROL))
        poller.after(self.cancel.click(self.stop, [opened], [self.notice], **CONTROL))

    def hide_list(self) -> Updates:
        """Return the updates that hide the list of files, the button that sends them, and the notice."""
        return {self.files: shown(""), self.send: gr.update(visible=False), self.notice: shown("")}

    def list(self, opened: str | None, which: object, repo: object, film: object, who: object) -> Updates:
        """List what would be sent, or say why nothing can be; no request is sent. opened: the run. which: the export's
        name. film: with sample answers. who: "public", else private."""
        w, listing = self.w, ""

        def list_pieces() -> None:
            """Pack the export, and set `listing` to its files, size and notes."""
            nonlocal listing
            parcel = self.services.publishing.pack(self._chosen(opened, which), self._stripped_repo(repo), film is True)
            rows = [
                tag("li", tag("code", piece.name), " ", format.bytes_used(w, piece.size))
                for piece in parcel.pieces[:MAX_SHOWN]
            ]
            more = len(parcel.pieces) - len(rows)
            key = "publish.leaves_public" if who == "public" else "publish.leaves_private"
            head = w.t(key, files=len(parcel.pieces), size=format.bytes_used(w, parcel.size), repo=parcel.repo)
            rest = [muted(w.t("publish_panel.more", more=more))] if more > 0 else []
            listing = join(
                [
                    tag("p", tag("strong", head)),
                    tag("ul", *rows),
                    *rest,
                    *(muted(w.render(note)) for note in parcel.notes),
                ]
            )

        refusal = outcome(w, list_pieces)
        return {
            self.files: shown(listing),
            self.send: gr.update(visible=bool(listing)),
            self.notice: refusal,
            self.listed: [opened, which, repo, film, who],
        }

    def begin(
        self, listed: object, opened: str | None, which: object, repo: object, film: object, who: object
    ) -> Updates:
        """Start the upload of an export, and return the updates that show the notice and hide the list of files; if a
        choice has changed since the files were listed, only list them again.

        listed: the other five arguments as they were when the files were listed. opened: the run's id. which: the
        export's name. repo: the repository on the hub. film: True to add sample answers. who: "public", else the
        repository is private.
        """
        if listed != [opened, which, repo, film, who]:
            return self.list(opened, which, repo, film, who)
        begun = outcome(
            self.w,
            lambda: self.services.publishing.start(
                self._chosen(opened, which), self._stripped_repo(repo), private=who != "public", with_film=film is True
            ),
        )
        return {**self.hide_list(), self.notice: begun, self.listed: None}

    def stop(self, opened: str | None) -> Update:
        """Cancel the uploads of all the run's exports, and return the notice."""

        def cancel_all_exports() -> None:
            """Cancel the upload of each finished export of the opened run."""
            for result in self.services.exports.list(opened or ""):
                self.services.publishing.cancel(result.name)

        return outcome(self.w, cancel_all_exports)

    def _chosen(self, opened: str | None, which: object) -> ExportResult:
        """Return the chosen export. Raises ExportError if it is no finished export of the opened run."""
        export = next((each for each in self.services.exports.list(opened or "") if each.name == which), None)
        if export is None:
            raise ExportError("publish.none_chosen")
        return export

    def _stripped_repo(self, repo: object) -> str:
        return repo.strip() if isinstance(repo, str) else ""
