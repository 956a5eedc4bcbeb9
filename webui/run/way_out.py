"""The export of a run: where it will be used and the form this needs, with its contents, size and cost before it is
made. For the run opened in Runs.

Another place to use it: a line in FORMS, its sentences `where_` and `after_` in way_out.yaml, its commands in
`exported`.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

import gradio as gr
import psutil
from gradio.events import Dependency

from core import files
from core.errors import ExportError, GarageError
from core.export import estimate, lmstudio
from core.export.llamacpp import tools
from core.export.llamacpp.export_support import export_support
from core.export.ollama.adding import AddStatus
from core.export.records import KINDS, MAX_STRENGTH, QUANTS, ExportRequest, ExportResult, ExportStatus
from core.messages import Message, msg
from core.models.shapes.shape import ModelShape
from core.runs.states import BUSY
from core.system import file_window
from webui.kit import format
from webui.kit.html import Html, facts, join, muted, notice, success, tag
from webui.kit.live import AT_ONCE, CONTROL, LAST, QUIET, LivePart, Poller, Update, Updates, ViewContext, outcome, shown
from webui.kit.visitor import is_local
from webui.kit.wording import Wording
from webui.run import exported
from webui.run.exported import form_of
from webui.run.publish import PublishPanel
from webui.state.services import Services
from webui.state.snapshot import RunRow, Snapshot

# Scroll to the export of the Runs page; the tab may be drawn a moment later, the card grows with what is chosen.
SEE_WAY_OUT = """() => {
  const see = (times) => {
    const place = document.querySelector("#way-out");
    if (!place?.offsetParent) return times && requestAnimationFrame(() => see(times - 1));
    const keep = new ResizeObserver(() => place.scrollIntoView({ block: "start" }));
    // at once, and as charts above it are drawn
    keep.observe(document.body);
    const leave = () => keep.disconnect();  // from then on it is the person who scrolls
    ["wheel", "touchmove", "keydown", "pointerdown"].forEach((act) => 
      addEventListener(act, leave, { once: true, passive: true }));
  };
  see(600);
}"""
GGUF = tuple(form_of("gguf", quant) for quant in QUANTS)
# The forms that each place reads, the recommended one first: kind, or kind:quant.
FORMS: dict[str, tuple[str, ...]] = {
    "ollama": GGUF,
    "lmstudio": GGUF,
    "programs": GGUF,
    "garage": ("adapter",),
    "python": ("merged", "adapter"),
    "hub": ("adapter", "merged", *GGUF),
}
RunExports = tuple[Sequence[ExportResult], Sequence[tuple[ExportRequest, ExportStatus]]]


class WayOut:
    """The card that exports the opened run: destination, form, progress, results and publishing."""

    def __init__(self, services: Services, wording: Wording, opened: gr.Textbox):
        self.services, self.w, self.opened = services, wording, opened
        self.hub = PublishPanel(services, wording, lambda context: self._exports(context)[0])
        self._looked: tuple[Snapshot, str, RunExports] | None = None

    # ---- widgets --------------------------------------------------------------------------------------------------
    def build(self) -> None:
        """Build the card: where the export will be used, its contents and form, strength, buttons, progress, publishing
        and results."""
        w = self.w
        with gr.Column(elem_classes="lg-card", visible=False, elem_id="way-out") as self.place:
            gr.HTML(tag("h2", w.t("way_out.title")))
            self.lacking = gr.HTML(muted(w.t("way_out.no_adapter")), visible=False, elem_id="export-lacking")
            with gr.Column(visible=False) as self.asking:
                places = [(w.t(f"way_out.where_{place}"), place) for place in FORMS]
                self.where = gr.Radio(places, value=None, **w.named("way_out.where", "export-where"))
                self.about = gr.HTML("", visible=False, elem_id="export-about")
                with gr.Accordion(
                    w.t("way_out.forms"), open=False, visible=False, elem_id="export-forms-fold"
                ) as self.fold:
                    self.form = gr.Radio([], **w.named("way_out.form", "export-form"))
                with gr.Accordion(
                    w.t("way_out.strength_fold"), open=False, visible=False, elem_id="export-strength-fold"
                ) as self.strength_fold:
                    named = w.named("way_out.strength", "export-strength")
                    self.strength = gr.Number(1, minimum=0.1, maximum=MAX_STRENGTH, step=0.1, **named)
                with gr.Row(elem_classes="lg-tight"):
                    self.start = gr.Button(
                        w.t("way_out.start"), variant="primary", visible=False, elem_id="export-start"
                    )
                    self.cancel = gr.Button(w.t("way_out.cancel"), visible=False, elem_id="export-cancel")
            self.notice = gr.HTML("", visible=False, elem_id="export-notice")
            self.progress = gr.HTML("", visible=False, elem_id="export-progress")
            self.hub.build()
            self.ollama_message = gr.HTML("", visible=False, elem_id="export-given")
            self.results = gr.HTML(
                "", visible=False, elem_id="export-status", js_on_load=exported.PRESS, apply_default_css=False
            )
            self.pressed = gr.Textbox(visible=False)  # filled in by the browser

    # ---- what follows the clock -----------------------------------------------------------------------------------
    def parts(self) -> list[LivePart]:
        """Return the parts that update with the clock: the card, its buttons, progress, Ollama's message, results and
        publishing."""
        return [
            LivePart(self.place, lambda context: gr.update(visible=context.row is not None)),
            LivePart(self.asking, lambda context: gr.update(visible=self._has_adapter(context))),
            LivePart(self.lacking, lambda context: gr.update(visible=not self._has_adapter(context))),
            LivePart(self.start, self._start_button),
            LivePart(self.cancel, lambda context: gr.update(visible=self._at_work(context))),
            LivePart(
                self.ollama_message, lambda context: shown(exported.ollama_notice(self._ollama_status(context), self.w))
            ),
            LivePart(self.progress, self._progress),
            LivePart(self.results, self._results_update),
            *self.hub.parts(),
        ]

    def _has_adapter(self, context: ViewContext) -> bool:
        return bool((row := context.row) and row.status.has_adapter)

    def _start_button(self, context: ViewContext) -> Update:
        """Return the update of Start: enabled if the run has an adapter and is over."""
        row = context.row
        return gr.update(interactive=bool(row and row.status.has_adapter and row.status.state not in BUSY))

    def _exports(self, context: ViewContext) -> RunExports:
        """Return (finished exports, requests with their attempts) of the opened run, read once for all parts of one
        update."""
        row = context.row
        if row is None:
            return (), ()
        cached = self._looked
        if cached is None or cached[0] is not context.snapshot or cached[1] != row.id:
            self._looked = cached = context.snapshot, row.id, self.services.snapshots.exports(row.id)
        return cached[2]

    def _ollama_status(self, context: ViewContext) -> AddStatus | None:
        return self.services.ollama.status(context.opened) if context.opened else None

    def _at_work(self, context: ViewContext) -> bool:
        """True while the run is being exported or added to Ollama."""
        ollama = self._ollama_status(context)
        return bool(ollama and ollama.active) or any(status.active for _, status in self._exports(context)[1])

    def _progress(self, context: ViewContext) -> Update:
        """Return the update that shows the attempts to export the run, those at work with the time left; empty without
        any."""
        row, attempts = context.row, self._exports(context)[1]
        if row is None or not attempts:
            return shown("")
        before = self.services.exports.list() if any(status.active for _, status in attempts) else ()
        cards = []
        for request, status in attempts:
            similar = self._similar(before, request.kind, request.quant, row.model) if status.active else None
            left = estimate.seconds_left(status, similar[0].phases if similar else (), similar[1] if similar else 1.0)
            cards.append(exported.attempt(exported.export_name(request, self.w), status, left, self.w))
        return shown(join(cards))

    def _similar(
        self, done: Sequence[ExportResult], kind: str, quant: str | None, base: str
    ) -> tuple[ExportResult, float] | None:
        """Return the newest finished export of the same kind and the same base, else of about the same size, and this
        one's expected time as a multiple of its time; None without one, or if the base is not on this PC."""
        shape = self.services.models.local_shape(base)
        return estimate.similar_export(done, kind, quant, base, shape.params) if shape else None

    def _results_update(self, context: ViewContext) -> Update:
        """Return the update that lists the finished exports, each with the programs that can open it."""
        exports = self.services.exports
        finished = self._exports(context)[0]
        finders = {"ollama": self.services.ollama.find, "lmstudio": lmstudio.models_folder}
        programs = {name for name, find in finders.items() if finished and find() is not None}
        return shown(join(exported.result(each, exports.folder(each), programs, self.w) for each in finished))

    # ---- wires ----------------------------------------------------------------------------------------------------
    def wire(self, poller: Poller, picked: Dependency) -> None:
        """Connect the fields, buttons and results. picked: the event that opens a run; it also fires if the same run is
        picked again, unlike the change of `opened`."""
        outputs = [self.about, self.form, self.fold, self.start, self.strength_fold]
        inputs = [self.opened, self.where]
        chosen = self.where.input(self.choose, inputs, outputs, **LAST, **AT_ONCE)
        chosen.then(None, None, None, js=SEE_WAY_OUT, **QUIET)  # the card grows at the foot of the page
        for event in (self.opened.change, picked.then):
            event(self.choose, inputs, outputs, **LAST, **AT_ONCE)
        self.where.input(
            lambda where: gr.update(visible=where == "hub"), [self.where], [self.hub.place], **LAST, **AT_ONCE
        )
        self.hub.wire(poller, self.opened, picked)
        self.form.input(self.describe, [self.opened, self.where, self.form], [self.about], **LAST, **AT_ONCE)
        poller.after(
            self.start.click(self.begin, [self.opened, self.where, self.form, self.strength], [self.notice], **CONTROL)
        )
        poller.after(self.cancel.click(self.cancel_all, [self.opened], [self.notice], **CONTROL))
        poller.after(self.results.select(self.act, [self.pressed], [self.notice], js=exported.PRESSED, **CONTROL))

    def forms(self, where: object) -> tuple[str, ...]:
        """Return the forms of an export for a destination (a key of FORMS), the recommended one first; () for any
        other."""
        return FORMS.get(where, ()) if isinstance(where, str) else ()

    def choose(self, opened: str | None, where: object) -> Updates:
        """Return the updates that show the forms of an export for a destination, with their sizes; all hidden without a
        destination or run."""
        forms = self.forms(where)
        row = self._opened_row(opened)
        if not forms or row is None:
            hidden = dict.fromkeys((self.fold, self.start, self.strength_fold), gr.update(visible=False))
            return {self.about: shown(""), self.form: gr.update(choices=[], value=None), **hidden}
        shape, done = self.services.models.local_shape(row.model), self.services.exports.list()
        sizes = [(self._form_line(form, self._estimate(row, form, shape, done)), form) for form in forms]
        return {
            self.about: self.describe(opened, where, forms[0]),
            self.form: gr.update(choices=sizes, value=forms[0]),
            self.fold: gr.update(visible=len(forms) > 1),
            self.start: gr.update(visible=self._refusal(shape, forms[0]) is None),
            self.strength_fold: gr.update(visible=True),
        }

    def _opened_row(self, opened: str | None) -> RunRow | None:
        """Return the row of this run, if it still exists."""
        return next((row for row in self.services.snapshots.now().rows if row.id == opened), None)

    def _form_line(self, form: str, expected: estimate.ExportEstimate | None) -> str:
        """Return a form of export in words, with its expected size if known."""
        name = self.w.t(f"way_out.form_{form.replace(':', '_')}")
        return (
            self.w.t("way_out.form_sized", form=name, size=format.bytes_used(self.w, expected.size))
            if expected
            else name
        )

    def describe(self, opened: str | None, where: Any, form: Any) -> Update:
        """Describe a form of export for a destination: its contents, needs, costs, and the steps afterwards; hidden if
        the destination cannot use it, a warning if the base cannot become it."""
        w, row = self.w, self._opened_row(opened)
        if row is None or form not in self.forms(where):
            return shown("")
        shape = self.services.models.local_shape(row.model)
        if refusal := self._refusal(shape, form):
            return shown(notice(w.render(refusal), "warn"))
        expected = self._estimate(row, form, shape, self.services.exports.list())
        pairs = [(w.t("way_out.makes"), w.t(f"way_out.makes_{form.partition(':')[0]}", form=exported.name_of(form, w)))]
        if expected:
            pairs += [
                (w.t("way_out.size"), w.t("way_out.about", value=format.bytes_used(w, expected.size))),
                *self._needs(expected),
            ]
        pairs += [(w.t("way_out.costs"), w.t(f"way_out.costs_{form.replace(':', '_')}"))]
        pairs += [(w.t("way_out.afterwards"), w.t(f"way_out.after_{where}"))]
        return shown(join([facts(pairs), *self._before(expected, form, where)]))

    def _refusal(self, shape: ModelShape | None, form: str) -> Message | None:
        """Return why a base cannot become a GGUF file (tools or family), or None if it can or form is another."""
        if shape is None or not form.startswith("gguf"):
            return None
        try:
            if reason := tools.why_unavailable(self.services.workspace):
                return msg("gguf.needs_tools", reason=reason)
        except GarageError as error:  # settings.yaml cannot be read
            return error.message
        return export_support({"model_type": shape.model_type}).why

    def _needs(self, expected: estimate.ExportEstimate) -> list[tuple[str, str]]:
        """Return (label, text) of the disk and memory that an export needs beside what is free, and the time it
        takes."""
        w = self.w
        free = self._free()
        parts = [w.t("way_out.disk", need=format.bytes_used(w, expected.disk), free=format.bytes_used(w, free[0]))]
        if expected.memory:
            parts.append(
                w.t("way_out.memory", need=format.gib(w, expected.memory / 2**30), free=format.gib(w, free[1] / 2**30))
            )
        takes = format.about(w, expected.seconds)
        takes = w.t("way_out.as_before", time=takes) if takes else w.t("way_out.not_measured")
        return [(w.t("way_out.needs"), w.t("way_out.joined", parts=parts)), (w.t("way_out.takes"), takes)]

    def _free(self) -> tuple[int, int]:
        """Return the free bytes of disk and memory."""
        return shutil.disk_usage(self.services.workspace.root).free, psutil.virtual_memory().available

    def _before(self, expected: estimate.ExportEstimate | None, form: str, where: str) -> list[Html]:
        """Return warnings about too little disk or memory, then notes: on tools to download for GGUF, on LM Studio's
        folder of models or that LM Studio is missing, and that Ollama is missing."""
        notices: list[Html] = []
        disk, memory = self._free()
        if expected and expected.disk > disk:
            notices.append(notice(self.w.t("way_out.little_disk"), "warn"))
        if expected and expected.memory > memory:
            notices.append(notice(self.w.t("way_out.little_memory"), "warn"))
        if form.startswith("gguf") and (fetched := self._tools()):
            notices.append(muted(self.w.render(fetched)))
        if where == "lmstudio":
            models_folder = lmstudio.models_folder()
            notices.append(
                muted(
                    self.w.t(
                        "way_out.lmstudio_found" if models_folder else "way_out.lmstudio_none", folder=models_folder
                    )
                )
            )
        if where == "ollama" and self.services.ollama.find() is None:
            notices.append(muted(self.w.t("way_out.ollama_none")))
        return notices

    def _tools(self) -> Message | None:
        """Return a message about the tools that a GGUF export downloads, or why that is unknown; None if there is
        nothing to download."""
        try:
            return tools.offer(self.services.workspace)
        except GarageError as error:  # settings.yaml is broken
            return error.message

    def _estimate(
        self, row: RunRow, form: str, shape: ModelShape | None, done: Sequence[ExportResult]
    ) -> estimate.ExportEstimate | None:
        """Return the expected size, needs and time of an export; None if the adapter is not on this PC, or for a
        model, which needs it, the base's shape."""
        kind, _, quant = form.partition(":")
        try:
            size = files.bytes_in(self.services.runs.get(row.id).adapter)
        except (GarageError, OSError):  # deleted on another page
            return None
        if kind == "adapter":
            return estimate.for_adapter(size, done)
        return estimate.for_model(KINDS[kind], quant or None, row.model, shape, done) if shape else None

    # ---- buttons --------------------------------------------------------------------------------------------------
    def begin(self, opened: str | None, where: object, form: object, strength: object) -> Update:
        """Start an export, and return the notice, empty if it started; refused while a run is at work. The chat's model
        is unloaded first, which its page shows."""
        services = self.services
        if form not in self.forms(where):
            return shown(notice(self.w.t("way_out.first_where"), "warn"))
        kind, _, quant = form.partition(":")
        try:
            if not isinstance(strength, int | float):
                raise ExportError("export.strength", found="-", most=MAX_STRENGTH)
            run = services.runs.get(opened or "")
            busy = services.snapshots.now(fresh=True).busy
            if busy is not None:
                return shown(notice(self.w.t("way_out.busy", name=busy.name), "warn"))
            if services.chat.state().phase != "empty":
                services.chat.unload(msg("chat.unloaded"))
            services.exports.start(run, kind, quant=quant or None, strength=float(strength))
        except GarageError as error:
            return shown(notice(self.w.render(error.message)))
        return shown("")

    def cancel_all(self, opened: str | None) -> Update:
        """Cancel the run's exports, and whatever export is being added to Ollama; return the update of the notice,
        hidden unless that fails."""

        def cancel_active() -> None:
            """Cancel the adding of an export to Ollama, and those exports of the run that are at work."""
            if opened and self.services.ollama.status(opened):
                self.services.ollama.cancel()
            for request, status in self.services.snapshots.exports(opened or "")[1]:
                if status.active:
                    self.services.exports.cancel(request.name)

        return outcome(self.w, cancel_active)

    def act(self, pressed: object, request: gr.Request) -> Update:
        """Carry out a button of a finished export (delete, open, ollama, lmstudio), and return the notice: of success,
        of the error, or empty. pressed: the button and the export's name."""
        act, _, name = pressed.partition(" ") if isinstance(pressed, str) else ("", "", "")
        exports = self.services.exports
        result = next((each for each in exports.list() if each.name == name), None)
        if result is None:
            return shown("")
        try:
            if act == "delete":
                exports.delete(result)
                return shown(success(self.w.t("way_out.deleted", size=format.bytes_used(self.w, result.bytes))))
            if act == "open":
                return self._show(result, request)
            if act == "ollama":
                self.services.ollama.start(result, exports.folder(result), self._model_type(result.base))
            if act == "lmstudio":
                file = exports.folder(result) / result.gguf
                placed = lmstudio.place(file, result.run_name, lmstudio.require_folder())
                return shown(success(self.w.t("gguf.in_lmstudio", file=placed)))
        except GarageError as error:
            return shown(notice(self.w.render(error.message)))
        return shown("")

    def _model_type(self, base: str) -> str:
        """Return the model type of a base; "" if it is no longer on this PC."""
        try:
            return self.services.models.shape(base).model_type
        except GarageError:
            return ""

    def _show(self, result: ExportResult, request: gr.Request) -> Update:
        """Open the export's folder on this PC, or show its path."""
        folder = self.services.exports.folder(result)
        try:
            if is_local(request) and file_window.show(folder):
                return shown("")
        except OSError:
            pass  # the file manager does not start: the notice shows the path
        return shown(notice(self.w.t("way_out.cannot_open", folder=folder), "warn"))
