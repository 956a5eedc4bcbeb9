"""Runs: all of them in a table, newest first; one opened with its curves, settings, events and actions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import get_args

import gradio as gr

from core.errors import GarageError
from core.files import JsonObject
from core.runs.cards import picture, results
from core.runs.folder import RunFolder
from core.runs.states import may_resume
from core.workspace import foreign_recipes, written_recipes
from core.workspace.names import slug
from webui.form import further
from webui.kit.html import Html, notice, placeholder, tag
from webui.kit.live import AT_ONCE, CONTROL, LAST, QUIET, SHOW_CHAT, LivePart, Update, Updates, ViewContext, shown
from webui.kit.tab import TabPoller
from webui.kit.wording import Wording
from webui.pages.conversations import CHOSEN
from webui.pages.page_around import PageAround
from webui.pages.run_manage import ManageRun
from webui.run import card
from webui.run.chart import live_chart
from webui.run.compare import PICKED, runs_table
from webui.run.evaluated import evaluation_view
from webui.run.film import film_strip
from webui.run.findings import RunFinding
from webui.run.judged import judged_view
from webui.run.way_out import WayOut
from webui.state.services import Services
from webui.state.snapshot import RunView

# The browser makes the file itself, so that no address serves a run.
SAVE = """(file) => {
  if (!file) return;
  const save = (blob) => {
    const link = Object.assign(document.createElement("a"), { download: file.name });
    link.href = URL.createObjectURL(blob);
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  if (!file.name.endsWith(".png")) return save(new Blob([file.text], { type: "application/yaml" }));
  const image = new Image(), canvas = document.createElement("canvas");
  image.onload = () => {
    [canvas.width, canvas.height] = [2 * image.width, 2 * image.height];
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob(save);
  };
  image.src = "data:image/svg+xml," + encodeURIComponent(file.text);
}"""


def draw(around: PageAround, tab: gr.Tab) -> None:
    """Build the page into its tab and connect it."""
    page = RunsPage(around.services, around.w, around.opened)
    page.build()
    poller = TabPoller(around.poller, page.parts())
    page.wire(poller, around.tabs, around.talk_to)
    for button, anew in ((page.further, False), (page.duplicate, True)):
        around.wizard.further.wire_button(around.wizard, button, around.opened, around.tabs, page.run_notice, anew=anew)
    page.finding.wire(around.wizard, around.opened, around.tabs, page.run_notice)
    poller.wire_tab(around.page, tab)


FileOf = Callable[[RunFolder, Wording], JsonObject]


class RunsPage:
    """The Runs page: a table of all runs, and beside it the opened one with its curves, settings, timeline, actions and
    export."""

    def __init__(self, services: Services, wording: Wording, opened: gr.Textbox):
        """Create the page's parts. opened: the id of the run that this page has open, sent with every press, so that a
        delayed press acts on the run on the screen."""
        self.services, self.w, self.opened = services, wording, opened
        self.finding = RunFinding(services, wording, "details", self._view)
        self.way_out = WayOut(services, wording, opened)
        self.manage = ManageRun(services, wording, opened)

    # ---- widgets --------------------------------------------------------------------------------------------------
    def build(self) -> None:
        """Build the page: the table of runs (or a hint that there are none yet), and beside it the opened run with its
        export; that side is hidden without an opened run."""
        w, rows = self.w, self.services.snapshots.now().rows
        with gr.Row(equal_height=False, elem_id="runs-columns"):
            with gr.Column(scale=5, min_width=320, elem_classes="lg-card", elem_id="runs-all"):
                gr.HTML(tag("h2", w.t("runs_page.title")))
                nothing = placeholder(w.t("runs_page.none_text"), w.t("runs_page.none_title"))
                self.none = gr.HTML(nothing, visible=not rows, elem_id="runs-empty")
                with gr.Column(visible=bool(rows)) as self.some:
                    self.list = runs_table(self.services, w)
            with gr.Column(scale=7, min_width=320, visible=False, elem_id="runs-side") as self.side:
                self._build_details()
                self.way_out.build()

    def _build_details(self) -> None:
        """Build the opened run: card, buttons, curves, sample answers, evaluation, settings, timeline and
        management."""
        w = self.w
        with gr.Column(elem_classes="lg-card"):
            gr.HTML(tag("h2", w.t("runs_page.details")))
            self.finding.build()  # first, because problems matter most
            self.card = gr.HTML("", visible=False, elem_id="details-card")
            with gr.Column(visible=False, elem_id="details") as self.details:
                self.run_notice = gr.HTML("", visible=False, elem_id="details-notice")
                with gr.Row(elem_classes="lg-tight"):
                    self.resume = gr.Button(
                        w.t("train_page.resume"), variant="primary", visible=False, elem_id="details-resume"
                    )
                    self.open_chat = gr.Button(w.t("runs_page.open_chat"), variant="primary", elem_id="details-chat")
                    self.duplicate = gr.Button(w.t("run_manage.duplicate"), elem_id="details-duplicate")
                    self.further = gr.Button(w.t("further_card.further"), visible=False, elem_id="details-further")
                self.chart = live_chart(self.services, w, None, "details-chart")
                self.judged = judged_view(self.services, w, None, "details-judged")
                self.film = film_strip(self.services, w, None, "details-film")
                self.evaluation = evaluation_view(self.services, w, None, "details-evaluation")
                with gr.Accordion(w.t("train_page.run_settings"), open=False, elem_id="details-settings-fold"):
                    self.settings = gr.HTML("", elem_id="details-settings")
                    with gr.Row(elem_classes="lg-tight"):
                        self.save_card = gr.Button(w.t("recipe_card.save"), size="sm", elem_id="details-card-save")
                        self.save_picture = gr.Button(
                            w.t("recipe_card.picture"), size="sm", elem_id="details-card-picture"
                        )
                        self.save_as = {
                            tool: gr.Button(
                                w.t("foreign_recipe.save_as", title=foreign_recipes.table()[tool]["title"]),
                                size="sm",
                                elem_id=f"details-card-{tool}",
                            )
                            for tool in get_args(written_recipes.Tool)
                        }
                    self.card_file = gr.JSON(None, visible=False)
                with gr.Accordion(w.t("train_page.story"), open=False):
                    self.story = gr.HTML("", elem_id="details-story")
                with gr.Accordion(w.t("run_manage.title"), open=False, elem_id="manage-fold"):
                    self.manage.build()

    # ---- what follows the clock -----------------------------------------------------------------------------------
    def parts(self) -> list[LivePart]:
        """Return the parts that update with the clock."""
        return [
            LivePart(self.none, lambda context: gr.update(visible=not context.snapshot.rows)),
            LivePart(self.some, lambda context: gr.update(visible=bool(context.snapshot.rows))),
            LivePart(self.side, lambda context: gr.update(visible=context.row is not None)),
            LivePart(self.details, lambda context: gr.update(visible=context.row is not None)),
            LivePart(self.card, lambda context: self._about(context, card.card)),
            *self.finding.parts(),
            *(
                LivePart(one, lambda context: gr.update(value=context.opened if context.row else None))
                for one in (self.judged, self.film, self.evaluation)
            ),
            LivePart(self.settings, lambda context: self._about(context, card.settings)),
            LivePart(self.story, lambda context: self._about(context, card.story)),
            LivePart(
                self.resume,
                lambda context: gr.update(visible=bool((row := context.row) and may_resume(row.status.state))),
            ),
            LivePart(self.open_chat, lambda context: gr.update(visible=bool((row := context.row) and row.can_chat))),
            LivePart(
                self.further,
                lambda context: gr.update(visible=context.snapshot.busy is None and further.may_continue(context.row)),
            ),
            *self.manage.parts(),
            *self.way_out.parts(),
        ]

    def _about(self, context: ViewContext, show: Callable[[RunView, Wording], Html]) -> Update:
        """Return the update of what `show` draws of the opened run; hidden without one."""
        view = self._view(context)
        return shown(show(view, self.w) if view else "")

    def _view(self, context: ViewContext) -> RunView | None:
        """Return the contents of the opened run; None if there is no such run."""
        return self.services.snapshots.view(context.opened) if context.row else None

    # ---- wires ----------------------------------------------------------------------------------------------------
    def wire(self, poller: TabPoller, tabs: gr.Tabs, talk_to: gr.Textbox) -> None:
        """Connect the table, the opened run's buttons, its files and management."""
        # LAST: a person may choose a run before the automatic choice of the newest has arrived.
        picked = self.list.select(
            self.pick, [self.list, self.opened], [self.list, *self.opening], js=PICKED, **LAST, **AT_ONCE
        )
        poller.after(picked)
        # After a press elsewhere that shows a run here.
        outputs = [self.list, *self.opening]
        poller.after(self.opened.change(self.follow, [self.opened, self.list], outputs, **LAST, **AT_ONCE))
        talk = partial(to_chat, self.services, tabs, talk_to)
        talked = self.open_chat.click(talk, [self.opened], [tabs, talk_to], js=CHOSEN, **AT_ONCE)
        talked.then(None, js=SHOW_CHAT)
        go_on = partial(resumed, self.services, self.w, self.run_notice, tabs)
        poller.after(self.resume.click(go_on, [self.opened], [self.run_notice, tabs], **CONTROL))
        files: dict[gr.Button, FileOf] = {self.save_card: recipe_file, self.save_picture: picture_of}
        files |= {button: partial(recipe_for, tool) for tool, button in self.save_as.items()}
        for button, made in files.items():
            file = partial(file_of, self.services, self.w, made, self.card_file, self.run_notice)
            saved = button.click(file, [self.opened], [self.card_file, self.run_notice], **AT_ONCE)
            saved.then(None, [self.card_file], None, js=SAVE, **QUIET)
        self.manage.wire(poller, self.chart, self.list, talk_to)
        self.way_out.wire(poller, picked)

    @property
    def opening(self) -> list[object]:
        """The components that opening a run changes."""
        return [self.opened, self.chart, *self.manage.opening, self.way_out.notice, self.run_notice]

    def pick(self, run_id: object, opened: str | None) -> Updates:
        """Open the chosen run; if none is chosen (""), that which is opened, else the newest that is not archived."""
        rows = self.services.snapshots.now().rows
        if not run_id and rows:
            run_id = (
                opened
                if any(row.id == opened for row in rows)
                else next((row for row in rows if not row.label.archived), rows[0]).id
            )
        updates = self.open(run_id)
        return {self.list: gr.update(value=updates[self.opened]), **updates}

    def open(self, run_id: object) -> Updates:
        """Return the updates that open a run and empty the notices; a run that does not exist closes the one that was
        open."""
        view = self.services.snapshots.view(run_id if isinstance(run_id, str) else None)
        id = view.row.id if view else None
        updates = {self.opened: id, self.chart: gr.update(value=id), **self.manage.opened_values(view)}
        return {**updates, self.way_out.notice: shown(""), self.run_notice: shown("")}

    def follow(self, opened: str | None, listed: object) -> Updates:
        """Show a run that was opened from elsewhere; nothing if the table shows it already (listed)."""
        return {} if not opened or opened == listed else {self.list: gr.update(value=opened), **self.open(opened)}


def resumed(services: Services, w: Wording, message: gr.HTML, tabs: gr.Tabs, run_id: str | None) -> Updates:
    """Resume a run and open Train, which shows it at work or in the queue; message gets the error."""
    try:
        services.supervisor.resume(services.runs.get(run_id or ""))
    except GarageError as error:
        return {message: shown(notice(w.render(error.message)))}
    return {message: shown(""), tabs: gr.update(selected="train")}


def to_chat(services: Services, tabs: gr.Tabs, talk_to: gr.Textbox, run_id: str | None) -> Updates:
    """Open Chat with a run's model; nothing if it has none."""
    row = next((row for row in services.snapshots.now(fresh=True).rows if row.id == run_id), None)
    return {tabs: gr.update(selected="chat"), talk_to: f"run:{row.id}"} if row and row.can_chat else {}


def recipe_file(run: RunFolder, w: Wording) -> JsonObject:
    """Return a run's recipe as the {name, text} of a file that the browser saves."""
    return {"name": f"{slug(run.name)}.recipe.yaml", "text": results.shared_recipe(run).dump()}


def recipe_for(tool: written_recipes.Tool, run: RunFolder, w: Wording) -> JsonObject:
    """Return a run's recipe as another tool's, as {name, text}. Raises RecipeError."""
    written = written_recipes.write(results.shared_recipe(run), tool)
    return {"name": written.file, "text": written.text(w.render)}


def picture_of(run: RunFolder, w: Wording) -> JsonObject:
    """Return a run's picture as {name, text}, an SVG that the browser converts to PNG for messengers."""
    return {"name": f"{slug(run.name)}.png", "text": picture.of_run(run, w.render)}


def file_of(
    services: Services,
    w: Wording,
    made: FileOf,
    file: gr.JSON,
    message: gr.HTML,
    run_id: str | None,
) -> Updates:
    """Put what `made` returns of a run into file, which the browser saves, or the error into message."""
    try:
        return {file: made(services.runs.get(run_id or ""), w), message: shown("")}
    except GarageError as error:
        return {file: None, message: shown(notice(w.render(error.message)))}
