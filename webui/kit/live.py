"""Parts of a page that update with the clock; each is sent only when it has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from core.errors import GarageError
from core.files import JsonObject
from webui.kit.html import notice, success
from webui.kit.wording import Wording
from webui.state.services import Services
from webui.state.snapshot import RunRow, Snapshot

TICK_S = 1.0
Options = dict[str, Any]  # keyword arguments of gradio's events and components
# Options of an event without progress display. Gradio would else mark each output, and all that it contains, as pending
# at every event of the page: an idle page took a third more of the processor.
QUIET: Options = {"show_progress": "hidden", "show_progress_on": [], "api_visibility": "private"}
AT_ONCE = {**QUIET, "queue": False}  # outside of gradio's queue
# Buttons that change shared state run one after the other. None has a State as input, because gradio reads a State only
# when the event's turn has come.
CONTROL = {**QUIET, "concurrency_limit": 1, "concurrency_id": "control"}
# Stop and Pause only write a file, and do not wait for an event that deletes gigabytes.
ENDS = {**CONTROL, "concurrency_id": "ends"}
# Corrections do not wait for an event that may open another conversation.
CORRECTS = {**CONTROL, "concurrency_id": "corrections"}
# Events that read or write a whole dataset may take a minute: Stop does not wait for them.
SET_WORK = {**CONTROL, "concurrency_id": "sets"}
# By default gradio drops an event while the previous one is running, which is right for a button that is pressed
# twice.
EACH = {"trigger_mode": "multiple"}  # every event runs: files, buttons of rows
LAST = {"trigger_mode": "always_last"}  # the newest event runs afterwards: choices and what is drawn from them
# After a press that opens something elsewhere on the page: scroll to its top and focus it (assets/focus.js).
SHOW_CHAT, SHOW_FORM, SHOW_FURTHER = (
    f"() => loraGarageShow('#{part}')" for part in ("tab-chat", "form-column", "further")
)
Update = str | JsonObject  # an HTML string, or a gr.update
# What a handler of several outputs returns: values or updates by component; an output that is left out stays as it is.
Updates = dict[Component, object]


@dataclass(frozen=True)
class ViewContext:
    """The data that a part is drawn from.

    snapshot: the state of the workspace. opened: the run that this page has open on its Runs tab. planning: true if the
    visitor plans the next run while another one trains.
    """

    snapshot: Snapshot
    opened: str | None
    planning: bool = False

    @property
    def row(self) -> RunRow | None:
        """The row of the opened run; None if none is open or it is gone."""
        return next((row for row in self.snapshot.rows if row.id == self.opened), None)


@dataclass(frozen=True)
class LivePart:
    """A component and the function that draws it. show returns a gr.update (or an HTML string); equal updates are not
    sent again."""

    component: Component
    show: Callable[[ViewContext], Update]


class Poller:
    """All live parts of one page behind one handler, so that a page costs one small request a second."""

    def __init__(self, services: Services, parts: Sequence[LivePart], opened: Component, planning: gr.State):
        """opened: the hidden field with the id of the run that the page has open. planning: the state of
        ViewContext.planning."""
        self.services, self._parts, self.opened, self.planning = services, parts, opened, planning
        self._sent = gr.State([])

    @property
    def inputs(self) -> list[Component]:
        """The components that `beat` and `now` read: the marks that the page was sent, the opened run, and whether the
        next run is planned."""
        return [self._sent, self.opened, self.planning]

    @property
    def outputs(self) -> list[Component]:
        return [self._sent, *(part.component for part in self._parts)]

    def beat(self, sent: list[str] | None, opened: str | None, planning: bool = False) -> Updates:
        """Return the updates of those live parts that have changed, with the new marks. sent: the marks of the updates
        that this page was sent last. opened: id of the run that it has open."""
        return self._beat(sent, ViewContext(self.services.snapshots.now(), opened, bool(planning)))

    def now(self, sent: list[str] | None, opened: str | None, planning: bool = False) -> Updates:
        """Update at once after a button was pressed: as `beat`, but from a fresh snapshot."""
        return self._beat(sent, ViewContext(self.services.snapshots.now(fresh=True), opened, bool(planning)))

    def _beat(self, sent: list[str] | None, context: ViewContext) -> Updates:
        """Return the updates of parts whose mark is not that in `sent`, and the new marks; {} if none has changed. All
        parts are updated if `sent` has another number of marks."""
        updates = [part.show(context) for part in self._parts]
        marks = [mark(update) for update in updates]
        if marks == sent:
            return {}
        old = sent if sent and len(sent) == len(marks) else [""] * len(marks)
        each = zip(self._parts, old, marks, updates, strict=True)
        return {self._sent: marks, **{part.component: update for part, was, mark, update in each if was != mark}}

    def wire(self, page: gr.Blocks, timer: gr.Timer) -> Dependency:
        """Connect the timer and the loading of the page to updates; return the event of loading."""
        timer.tick(self.beat, self.inputs, self.outputs, **AT_ONCE)
        return self.wire_first(page)

    def wire_first(self, page: gr.Blocks) -> Dependency:
        # A reload begins with an empty page, so the marks of this session do not count.
        """Connect the loading of the page to a first update of all parts, and return that event."""
        return page.load(
            lambda opened, planning: self.now([], opened, planning),
            [self.opened, self.planning],
            self.outputs,
            **AT_ONCE,
        )

    def after(self, event: Dependency) -> Dependency:
        """Update the live parts as soon as an event has ended; return the event of that update."""
        return event.then(self.now, self.inputs, self.outputs, **AT_ONCE)


def mark(update: object) -> str:
    """Return a short hash of an update, by which two are compared."""
    return hashlib.blake2b(json.dumps(update, default=str, sort_keys=True).encode(), digest_size=8).hexdigest()


def outcome(w: Wording, act: Callable[[], object], done: str = "", tone: str = "bad") -> Update:
    """Run a button's action and return an update of its notice: with `done` (hidden if ""), or with the message of a
    GarageError in this tone."""
    try:
        act()
    except GarageError as error:
        return shown(notice(w.render(error.message), tone))
    return shown(success(done))


def shown(value: str) -> Update:
    """Return an update of an HTML component, which is hidden while its value is empty."""
    return gr.update(value=value, visible=bool(value))
