"""The queue on the Train page: the reason why it waits, with buttons, and its runs, to be moved or removed."""

from __future__ import annotations

import time
from collections.abc import Callable

import gradio as gr

from core.errors import GarageError, RunError
from core.queue.queue import Game, Hold, time_of_day
from core.runs.folder import RunFolder
from core.runs.states import may_resume
from webui.kit.format import at_time
from webui.kit.html import Html, join, muted, notice, success, tag
from webui.kit.live import AT_ONCE, CONTROL, EACH, LivePart, Poller, Update, Updates, ViewContext, outcome, shown
from webui.kit.panel import Panel
from webui.kit.wording import Wording
from webui.run import card
from webui.state.snapshot import RunRow, Snapshot

# The browser replaces the first value of a button's request by the run that is selected when the button is pressed. If
# the selected run has begun meanwhile, its id is sent once, so that the server reports that instead of acting on the
# only run left.
REMEMBER = "run => { document.querySelector('#queue-list').dataset.chosen = run ?? ''; }"
FORGET = "() => { delete document.querySelector('#queue-list')?.dataset.chosen; }"
CHOSEN = """(_, ...rest) => {
  const list = document.querySelector('#queue-list'), filled = list.querySelector('input:checked')?.value;
  const run = filled ?? list.dataset.chosen ?? '';
  if (!filled) delete list.dataset.chosen;
  return [run, ...rest];
}"""


class QueuePanel(Panel):
    """The queue on the Train page: a card with the reason why it waits, and the list of its runs."""

    def build_reasons(self) -> None:
        """Build the card above the run; shown only while the queue waits."""
        w = self.w
        with gr.Column(elem_classes="lg-card", visible=False, elem_id="queue-says-card") as self.reasons_card:
            self.reasons = gr.HTML("", elem_id="queue-says")
            with gr.Row(elem_classes="lg-tight"):
                self.resume = gr.Button(
                    w.t("train_page.resume"), variant="primary", visible=False, elem_id="queue-resume"
                )
                self.go_on = gr.Button(
                    w.t("queue_panel.go_on"), variant="primary", visible=False, elem_id="queue-go-on"
                )
                self.anyway = gr.Button(w.t("queue_panel.anyway"), visible=False, elem_id="queue-anyway")
                self.stay = gr.Button(w.t("queue_panel.stay"), visible=False, elem_id="queue-stay")
            self.reasons_notice = gr.HTML("", visible=False, elem_id="queue-says-notice")

    def build_list(self) -> None:
        """Build the list above the form; shown only while runs wait."""
        w = self.w
        with gr.Column(elem_classes="lg-card", visible=False, elem_id="queue") as self.card:
            self.next = gr.HTML("", elem_id="queue-next")
            # Filled in by the browser (CHOSEN). Not the list itself: gradio would refuse a run that has begun since.
            self.chosen = gr.Textbox(visible=False)
            self.list = gr.Radio(
                [], interactive=True, elem_classes="lg-run-list", **w.named("queue_panel.list", "queue-list")
            )
            with gr.Row(elem_classes="lg-tight"):
                self.up = gr.Button(w.t("queue_panel.up"), size="sm", elem_id="queue-up")
                self.down = gr.Button(w.t("queue_panel.down"), size="sm", elem_id="queue-down")
                self.out = gr.Button(w.t("queue_panel.out"), size="sm", elem_id="queue-out")
            with gr.Row(elem_classes="lg-tight", elem_id="queue-time-row"):
                label = w.t("queue_panel.start_at")
                self.time = gr.Textbox(
                    label=label, placeholder="23:00", max_lines=1, max_length=8, min_width=140, elem_id="queue-time"
                )
                self.set = gr.Button(w.t("queue_panel.set"), size="sm", elem_id="queue-set")
                self.hold = gr.Button(w.t("queue_panel.hold"), size="sm", elem_id="queue-hold")
            self.notice = gr.HTML("", visible=False, elem_id="queue-notice")

    # ---- what follows the clock -----------------------------------------------------------------------------------
    def parts(self) -> list[LivePart]:
        """Return the parts that update with the clock: the reasons with their buttons, and the list of runs."""

        def visibility_if(show: Callable[[Snapshot], object]) -> Callable[[ViewContext], Update]:
            """Return a function for a live part that shows the component while `show` of the newest snapshot is true,
            and hides it otherwise."""
            return lambda context: gr.update(visible=bool(show(context.snapshot)))

        return [
            LivePart(self.reasons_card, visibility_if(lambda snapshot: queue_notices(snapshot, self.w))),
            LivePart(self.reasons, lambda context: gr.update(value=queue_notices(context.snapshot, self.w))),
            LivePart(self.resume, visibility_if(awaited)),
            LivePart(self.go_on, self._go_on),
            LivePart(self.anyway, visibility_if(lambda m: m.queue.order.game and not m.queue.order.game.run)),
            LivePart(self.stay, visibility_if(lambda m: m.queue.order.game and m.queue.order.game.run)),
            LivePart(self.card, visibility_if(lambda m: m.queue.waiting)),
            LivePart(self.next, self._next),
            LivePart(self.list, lambda context: gr.update(choices=choices(context.snapshot, self.w))),
            LivePart(self.hold, visibility_if(lambda m: not m.queue.order.hold)),
        ]

    def _next(self, context: ViewContext) -> Update:
        """Return the list's title and the run that begins next."""
        title = tag("h2", self.w.t("queue_panel.title"))
        return gr.update(value=join([title, next_in_queue(context.snapshot, self.w)]))

    def _go_on(self, context: ViewContext) -> Update:
        """Return the update of the button that ends the queue's hold, shown while something waits behind one; beside
        Resume its label is to go on without the paused run."""
        queue, is_beside = context.snapshot.queue, awaited(context.snapshot) is not None
        label = self.w.t("queue_panel.without" if is_beside else "queue_panel.go_on")
        is_visible = bool(queue.order.hold and context.snapshot.has_waiting)
        return gr.update(value=label, visible=is_visible, variant="secondary" if is_beside else "primary")

    # ---- wires ----------------------------------------------------------------------------------------------------
    def wire(self, poller: Poller) -> None:
        """Connect the buttons: resume, go on, start in spite of a game, stay paused, hold, move, remove, set a time."""
        for button, act in (
            (self.resume, self.resume_awaited),
            (self.go_on, lambda: self.services.queue.put(hold=None)),
            (self.anyway, self.services.supervisor.continue_anyway),
            (self.stay, self.services.supervisor.stay_paused),
            (self.hold, lambda: self.services.queue.put(hold=Hold(why="person", since=time.time()))),
        ):
            notice = self.notice if button is self.hold else self.reasons_notice
            poller.after(button.click(lambda act=act: outcome(self.w, act), None, [notice], **CONTROL))
        self.list.input(None, [self.list], None, js=REMEMBER, **AT_ONCE)
        for button, way in ((self.up, -1), (self.down, 1)):
            poller.after(button.click(self.move(way), [self.chosen], [self.notice], js=CHOSEN, **EACH, **CONTROL))
        removed = self.out.click(self.remove_from_queue, [self.chosen], [self.list, self.notice], js=CHOSEN, **CONTROL)
        poller.after(removed.then(None, None, None, js=FORGET, **AT_ONCE))
        poller.after(
            self.set.click(self.set_time, [self.chosen, self.time], [self.time, self.notice], js=CHOSEN, **CONTROL)
        )

    def move(self, way: int) -> Callable[[object], Update]:
        """Return the handler that moves the chosen run up (way -1) or down (1)."""
        return lambda chosen: outcome(
            self.w, lambda: self.services.queue.move(self._run(chosen).id, way, self._waiting())
        )

    def resume_awaited(self) -> None:
        """Resume the run that the queue waits for. Raises RunError if there is none."""
        if (row := awaited(self.services.snapshots.now(fresh=True))) is None:
            raise RunError("train_page.nothing_to_resume")
        self.services.supervisor.resume(self.services.runs.get(row.id))

    def remove_from_queue(self, chosen: object) -> Updates:
        """Stop the chosen run, which removes it from the queue, and return the notice; nothing is chosen any more. An
        error is shown."""
        try:
            run = self._run(chosen)
            self.services.supervisor.stop(run)
        except GarageError as error:
            return {self.notice: shown(notice(self.w.render(error.message)))}
        message = success(self.w.t("queue_panel.taken_out", name=run.name))
        return {self.list: gr.update(value=None), self.notice: shown(message)}

    def set_time(self, chosen: object, typed: object) -> Updates:
        """Set when the chosen run may start, from a typed "23:00" ("" for no time), and empty the field."""
        try:
            run = self._run(chosen)
            not_before = time_of_day(typed if isinstance(typed, str) else None, time.time())
            self.services.queue.set_time(run.id, not_before, self._waiting())
        except GarageError as error:
            return {self.notice: shown(notice(self.w.render(error.message)))}
        return {self.time: "", self.notice: shown("")}

    def _waiting(self) -> list[str]:
        """Return the ids of the waiting runs, longest waiting first."""
        return [run.id for run in self.services.runs.waiting()]

    def _run(self, chosen: object) -> RunFolder:
        """Return the chosen run, or the only one that waits. Raises RunError if it does not wait."""
        waiting = [row.id for row, _ in self.services.snapshots.now(fresh=True).queue.waiting]
        if not chosen and len(waiting) == 1:
            chosen = waiting[0]
        if not isinstance(chosen, str) or not chosen:
            raise RunError("queue_panel.choose_first")
        run = self.services.runs.get(chosen)
        if run.id not in waiting:
            raise RunError("queue.not_in_queue", run=run.name)
        return run


def awaited(snapshot: Snapshot) -> RunRow | None:
    """Return the paused run that holds the queue back; None if there is none."""
    hold = snapshot.queue.order.hold
    run_id = hold.run if hold and hold.why == "paused" and snapshot.has_waiting else None
    return next((row for row in snapshot.rows if row.id == run_id and may_resume(row.status.state)), None)


# ---- words ---------------------------------------------------------------------------------------
def choices(snapshot: Snapshot, w: Wording) -> list[tuple[str, str]]:
    """Return (text, id) for each waiting run, its text in two lines: place and name; model, start time and progress."""
    entries = []
    for place, (row, entry) in enumerate(snapshot.queue.waiting, 1):
        facts = [card.model_line(row, w)]
        if entry.not_before and entry.not_before > time.time():
            facts.append(w.t("queue_panel.not_before", time=at_time(w, entry.not_before)))
        if row.status.attempt > 1:
            facts.append(w.t("queue_panel.goes_on", step=row.status.step))
        entries.append((f"{place} · {row.name}\n{' · '.join(facts)}", row.id))
    return entries


def queue_notices(snapshot: Snapshot, w: Wording) -> Html:
    """Return the notices above the queue: on rows that are being made, game mode, and a hold.

    Rows that a model of this PC makes from a document are named while they wait for their turn in the queue or have it.
    Game mode and a hold (a paused run, a restart, a person) are warnings, a hold only if a run waits. "" if nothing of
    this applies, also while runs wait for a time or for the run before them.
    """
    queue, order, making = snapshot.queue, snapshot.queue.order, snapshot.making
    lines = []
    rows = Html("")
    if making:
        key = "queue_panel.making_waits" if making.stage == "waiting" else "queue_panel.making"
        rows = tag("p", w.t(key, title=making.title, done=making.done, total=making.total), class_="lg-notice lg-plain")
    if order.game:
        lines.append(f"{w.render(order.game.why)} {_game_goes_on(order.game, snapshot, w)}")
    if order.hold and snapshot.has_waiting:
        name = queue.name_of(snapshot.rows, order.hold.run)
        lines.append(w.t(f"queue_panel.held_{order.hold.why}", name=name, count=len(queue.waiting)))
    # No alert role: it is redrawn whenever a number in it changes.
    return join([rows, *(tag("p", text, class_="lg-notice lg-warn") for text in lines)])


def _game_goes_on(game: Game, snapshot: Snapshot, w: Wording) -> str:
    """Return a sentence on how the queue goes on after a game: by itself at a time, or when a person resumes it."""
    if game.run:
        name = snapshot.queue.name_of(snapshot.rows, game.run)
        key, values = ("game_paused_until", {"time": at_time(w, game.until)}) if game.until else ("game_paused", {})
        return w.t(f"queue_panel.{key}", name=name, **values)
    return (
        w.t("queue_panel.game_waits_until", time=at_time(w, game.until))
        if game.until
        else w.t("queue_panel.game_waits")
    )


def next_in_queue(snapshot: Snapshot, w: Wording) -> Html:
    """Return which waiting run begins next, and when or after what; "" if no run waits, or if game mode or a hold keeps
    the queue waiting, which `queue_notices` shows."""
    queue = snapshot.queue
    if not queue.waiting or queue.order.hold or queue.order.game:
        return Html("")
    now = time.time()
    row, entry = min(queue.waiting, key=lambda each: max(each[1].not_before or 0, now))
    timed = entry.not_before is not None and entry.not_before > now
    values = {
        "name": row.name,
        "time": at_time(w, entry.not_before),
        "busy": snapshot.busy.name if snapshot.busy else "",
    }
    making = snapshot.making
    key = ("next_timed" if timed else "next") if snapshot.busy else ("alone_timed" if timed else "alone")
    if making and not timed and (making.stage != "waiting" or making.since < row.status.since):
        key, values["busy"] = "next_making", making.title
    return muted(w.t(f"queue_panel.{key}", **values))
