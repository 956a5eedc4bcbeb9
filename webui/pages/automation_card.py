"""Settings: what the app does by itself (core/workspace/automation), saved by one button."""

from __future__ import annotations

from typing import Any

import gradio as gr

from core.errors import GarageError
from core.messages import Text
from core.queue import game_mode
from core.queue.turns import card_of
from core.system import sleep
from core.workspace import preferences
from core.workspace.automation import Automation, parse_hours, parse_programs
from webui.kit.html import Html, join, notice, tag
from webui.kit.live import shown
from webui.kit.wording import Wording
from webui.state.services import Services

CONTROL = {"show_progress": "hidden", "concurrency_limit": 1, "concurrency_id": "control", "api_visibility": "private"}
MOST_GIB = 100.0


class AutomationCard:
    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording

    def build(self) -> None:
        w, now = self.w, preferences.read(self.services.workspace).automation
        with gr.Column(elem_classes="lg-card", elem_id="automation"):
            gr.HTML(tag("h2", w.t("automation_card.title")))
            self.failure = gr.Checkbox(
                now.go_on_after_failure, label=w.t("automation_card.failure"), info=w.t("automation_card.failure_info"),
                elem_id="auto-failure",
            )  # fmt: skip
            self.sleep = gr.Checkbox(
                now.sleep_when_empty, label=w.t("automation_card.sleep"), info=self._sleep_info(), elem_id="auto-sleep"
            )
            gr.HTML(join([tag("h3", w.t("automation_card.game")), tag("p", w.t("automation_card.game_info"), class_="lg-quiet")]))
            self.hours = gr.Textbox(
                _joined(now.hours), label=w.t("automation_card.hours"), info=w.t("automation_card.hours_info"),
                placeholder="18:00-23:00", max_lines=1, max_length=200, elem_id="auto-hours",
            )  # fmt: skip
            self.programs = gr.Textbox(
                _joined(now.programs), label=w.t("automation_card.programs"), info=w.t("automation_card.programs_info"),
                placeholder="eldenring.exe", max_lines=1, max_length=2000, elem_id="auto-programs",
            )  # fmt: skip
            self.card = gr.Checkbox(
                now.watch_card, label=w.t("automation_card.card"), info=w.t("automation_card.card_info"), elem_id="auto-card"
            )
            self.doubt = gr.HTML(self._doubt(), elem_id="auto-doubt")
            self.gib = gr.Number(
                now.min_gib, label=w.t("automation_card.gib"), info=w.t("automation_card.gib_info"), minimum=0.1, maximum=MOST_GIB,
                step=0.1, elem_id="auto-gib",
            )  # fmt: skip
            self.save = gr.Button(w.t("automation_card.save"), elem_id="auto-save")
            self.notice = gr.HTML("", visible=False, elem_id="auto-notice")

    def _sleep_info(self) -> str:
        """Also why it cannot be, where it cannot."""
        found = sleep.command()
        return self.w.t("automation_card.sleep_info") + (f" {self.w.of(found)}" if isinstance(found, Text) else "")

    def _doubt(self) -> Html:
        """Why the card cannot be watched on this PC; "" where it can, as far as can be told while nothing trains."""
        card = card_of(self.services.monitor.newest(), None)
        unknown = game_mode.wish_of_card(card, game_mode.our_processes(), False, None, 1.0)[1]
        if unknown is None and card is not None and card.holders and all(holder.used_bytes is None for holder in card.holders):
            return notice(self.w.t("automation_card.whole_card"), "plain")
        return notice(self.w.of(unknown), "plain")

    @property
    def _fields(self) -> list[Any]:
        return [self.failure, self.sleep, self.hours, self.programs, self.card, self.gib]

    def wire(self, page: gr.Blocks, tab: gr.Tab) -> None:
        for arrived in (page.load, tab.select):
            arrived(self.fresh, None, [*self._fields, self.doubt], queue=False, show_progress="hidden", api_visibility="private")
        self.save.click(self.keep, self._fields, [self.hours, self.programs, self.notice], **CONTROL)

    def fresh(self) -> list[Any]:
        """Outputs: the fields as they are kept, doubt."""
        now = preferences.read(self.services.workspace).automation
        return [
            now.go_on_after_failure, now.sleep_when_empty, _joined(now.hours), _joined(now.programs), now.watch_card, now.min_gib,
            self._doubt(),
        ]  # fmt: skip

    def keep(self, failure: Any, sleeps: Any, hours: Any, programs: Any, card: Any, gib: Any) -> list[Any]:
        """Inputs: the fields. Outputs: hours and programs as they were understood, notice."""
        try:
            self.services.require_write()
            wanted = Automation(
                go_on_after_failure=failure is True,
                sleep_when_empty=sleeps is True,
                hours=parse_hours(hours if isinstance(hours, str) else ""),
                programs=parse_programs(programs if isinstance(programs, str) else ""),
                watch_card=card is True,
                min_gib=min(MOST_GIB, max(0.1, float(gib))) if isinstance(gib, int | float) else 1.0,
            )
            preferences.choose(self.services.workspace, automation=wanted.model_dump())
        except GarageError as error:
            return [gr.skip(), gr.skip(), shown(notice(self.w.of(error.text)))]
        return [_joined(wanted.hours), _joined(wanted.programs), shown(notice(self.w.t("automation_card.saved"), "ok"))]


def _joined(values: tuple[Any, ...]) -> str:
    return ", ".join(str(value) for value in values)
