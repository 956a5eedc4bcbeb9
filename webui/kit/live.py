"""Parts of a page that update with the clock, each sent only when it has changed."""

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
from webui.kit.html import notice
from webui.kit.wording import Wording
from webui.state.services import Services
from webui.state.snapshot import RunRow, Snapshot

TICK_S = 1.0
# Options of an event: what it changes is all there is to see. Gradio would else tell each of its parts, and all that
# they hold, that it is on its way, again at every event of the page: a page at rest took a third more of this PC for
# it.
QUIET: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": [], "api_visibility": "private"}
AT_ONCE = {**QUIET, "queue": False}  # and it waits behind nothing
# Of buttons that change something for everybody: one after the other. None is given a State, which gradio reads only
# when its turn has come.
CONTROL = {**QUIET, "concurrency_limit": 1, "concurrency_id": "control"}
# Stop and Pause: they write a word, and wait behind nothing that deletes gigabytes.
ENDS = {**CONTROL, "concurrency_id": "ends"}
# A row of a conversation: it waits behind nothing after which another may be open.
CORRECTS = {**CONTROL, "concurrency_id": "corrections"}
# Of those that read or write a whole set, which may take a minute: no run is stopped behind one.
SET_WORK = {**CONTROL, "concurrency_id": "sets"}
# By itself gradio forgets an event whose predecessor is still at work, which is right for a button that is pressed
# twice.
EACH = {"trigger_mode": "multiple"}  # acts that say what they mean, files: every one is done
LAST = {"trigger_mode": "always_last"}  # choices and what is drawn from them: the newest is done afterwards
# After a press that opens something elsewhere (assets/focus.js): its top is shown, and has the focus.
SHOW_CHAT, SHOW_FORM, SHOW_FURTHER = (
    f"() => loraGarageShow('#{part}')" for part in ("tab-chat", "form-column", "further")
)
Update = str | dict[str, Any]
# A class of a Dropdown whose choices follow the clock: what has gone from them reaches the handler, which can say so
# (webui/server/gradio).
FOLLOWS = "lg-follows"


@dataclass(frozen=True)
class ViewContext:
    """What a part is drawn from: the moment, the run that this page has opened in its Runs tab, and whether its visitor
    plans the next run while another one trains."""

    snapshot: Snapshot
    opened: str | None
    planning: bool = False

    @property
    def row(self) -> RunRow | None:
        """Of the run that is opened; None where none is, or it has gone."""
        return next((row for row in self.snapshot.rows if row.id == self.opened), None)


@dataclass(frozen=True)
class LivePart:
    """show(look) gives a gr.update (or an HTML string) for component; equal updates are not sent again."""

    component: Component
    show: Callable[[ViewContext], Update]


class Poller:
    """All live parts of one page behind one handler, so that a page costs one small request a second."""

    def __init__(self, services: Services, parts: Sequence[LivePart], opened: Component, planning: gr.State):
        self._services, self._parts, self._opened, self._planning = services, parts, opened, planning
        self._seen = gr.State([])

    @property
    def inputs(self) -> list[Component]:
        return [self._seen, self._opened, self._planning]

    @property
    def outputs(self) -> list[Component]:
        return [self._seen, *(part.component for part in self._parts)]

    def beat(self, seen: list[str] | None, opened: str | None, planning: bool = False) -> list[Any]:
        """Inputs: what this page was last sent, the run it has opened, whether it plans. Outputs: the first, and every
        live part."""
        self._services.standby.note_page()
        return self._beat(seen, ViewContext(self._services.snapshots.now(), opened, bool(planning)))

    def now(self, seen: list[str] | None, opened: str | None, planning: bool = False) -> list[Any]:
        """As beat, but never from the shared half second: a button was pressed."""
        self._services.standby.note_page(touched=True)
        return self._beat(seen, ViewContext(self._services.snapshots.now(fresh=True), opened, bool(planning)))

    def _beat(self, seen: list[str] | None, look: ViewContext) -> list[Any]:
        updates = [part.show(look) for part in self._parts]
        marks = [mark(update) for update in updates]
        if marks == seen:
            return [gr.skip() for _ in range(len(updates) + 1)]
        old = seen if seen and len(seen) == len(marks) else [""] * len(marks)
        changed = [gr.skip() if was == mark else update for was, mark, update in zip(old, marks, updates, strict=True)]
        return [marks, *changed]

    def wire(self, page: gr.Blocks, timer: gr.Timer) -> Dependency:
        """Gives the first beat."""
        # A reload begins with an empty page, whatever this session was sent before.
        first = page.load(
            lambda opened, planning: self.now([], opened, planning),
            [self._opened, self._planning],
            self.outputs,
            **AT_ONCE,
        )
        timer.tick(self.beat, self.inputs, self.outputs, **AT_ONCE)
        return first

    def after(self, event: Any) -> Any:
        """Show at once what an event changed."""
        return event.then(self.now, self.inputs, self.outputs, **AT_ONCE)


def mark(update: Any) -> str:
    return hashlib.blake2b(json.dumps(update, default=str, sort_keys=True).encode(), digest_size=8).hexdigest()


def outcome(w: Wording, act: Callable[[], object], done: str = "", tone: str = "bad") -> Update:
    """Of a button whose notice says done, or in that tone why it could not be."""
    try:
        act()
    except GarageError as error:
        return shown(notice(w.render(error.message), tone))
    return shown(notice(done, "ok"))


def shown(value: str) -> Update:
    """An HTML component takes no room while it has nothing to say."""
    return gr.update(value=value, visible=bool(value))
