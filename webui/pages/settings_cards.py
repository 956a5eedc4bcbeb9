"""The cards of the Settings page with their own widgets: automation, the hub token, training after the app ends, memory
measurements."""

from __future__ import annotations

import gradio as gr

from core.errors import GarageError, ModelError
from core.queue import game_mode
from core.queue.turns import cards_of
from core.system import awake
from core.workspace import preferences
from core.workspace.preferences import Automation, parse_hours, parse_programs
from webui.kit.html import Html, join, muted, notice, success, tag
from webui.kit.live import AT_ONCE, CONTROL, LivePart, Updates, shown
from webui.kit.panel import Panel
from webui.kit.visitor import is_local

MAX_GIB = 100.0


class AutomationCard(Panel):
    """The card on the Settings page for keeping the PC awake, and for game mode, which pauses training at times, for
    programs, or while others use the GPU."""

    def build(self) -> None:
        """Build the card: keeping awake, and game mode."""
        w, now = self.w, preferences.read(self.services.workspace).automation
        with gr.Column(elem_classes="lg-card", elem_id="automation"):
            gr.HTML(tag("h2", w.t("automation_card.title")))
            self.awake = gr.Checkbox(now.keep_awake, **w.named("automation_card.awake", "auto-awake"))
            if why_not := awake.can_hold():
                self.awake.info = f"{self.awake.info} {w.render(why_not)}"
            gr.HTML(join([tag("h3", w.t("automation_card.game")), muted(w.t("automation_card.game_info"))]))
            hours = w.named("automation_card.hours", "auto-hours")
            programs = w.named("automation_card.programs", "auto-programs")
            self.hours = gr.Textbox(_joined(now.hours), placeholder="18:00-23:00", max_lines=1, max_length=200, **hours)
            self.programs = gr.Textbox(
                _joined(now.programs), placeholder="eldenring.exe", max_lines=1, max_length=2000, **programs
            )
            self.card = gr.Checkbox(now.watch_card, **w.named("automation_card.card", "auto-card"))
            self.doubt = gr.HTML(self._doubt(), elem_id="auto-doubt")
            gib = w.named("automation_card.gib", "auto-gib")
            self.gib = gr.Number(now.min_gib, minimum=0.1, maximum=MAX_GIB, step=0.1, **gib)
            self.save = gr.Button(w.t("automation_card.save"), elem_id="auto-save")
            self.notice = gr.HTML("", visible=False, elem_id="auto-notice")

    def _doubt(self) -> Html:
        """Return why the GPU cannot be watched on this PC; "" if it can, as far as is known while nothing trains."""
        card = cards_of(self.services.monitor.newest(), None)[0]
        unknown = game_mode.demand_of_card(card, game_mode.our_processes(), False, None, 1.0)[1]
        if (
            unknown is None
            and card is not None
            and card.holders
            and all(holder.used_bytes is None for holder in card.holders)
        ):
            return notice(self.w.t("automation_card.whole_card"), "plain")
        return notice(self.w.render(unknown), "plain")

    @property
    def _fields(self) -> list[object]:
        return [self.awake, self.hours, self.programs, self.card, self.gib]

    def wire(self, tab: gr.Tab) -> None:
        """Let opening the tab fetch what was stored meanwhile, and the button store the fields."""
        self.sent = gr.State(self._stored())  # the values that the fields were last sent
        tab.select(self.fresh, [self.sent], [self.sent, *self._fields, self.doubt], **AT_ONCE)
        self.save.click(self.keep, self._fields, [self.hours, self.programs, self.notice], **CONTROL)

    def _stored(self) -> list[object]:
        """Return the stored automation as the fields' values."""
        now = preferences.read(self.services.workspace).automation
        programs, hours = _joined(now.programs), _joined(now.hours)
        return [now.keep_awake, hours, programs, now.watch_card, now.min_gib]

    def fresh(self, sent: list[object]) -> Updates:
        """Return the stored values, and the fields unless they were last sent these, so that text a person is typing is
        not overwritten."""
        stored = self._stored()
        fields = {} if stored == sent else dict(zip(self._fields, stored, strict=True))
        return {self.sent: stored, **fields, self.doubt: self._doubt()}

    def keep(self, awake: object, hours: object, programs: object, card: object, gib: object) -> Updates:
        """Store the automation, and show hours and programs as they were parsed; show the error, and store nothing, if
        one cannot be. gib: limited to 0.1 to MAX_GIB, 1 for no number."""
        try:
            automation = Automation(
                keep_awake=awake is True,
                hours=parse_hours(hours if isinstance(hours, str) else ""),
                programs=parse_programs(programs if isinstance(programs, str) else ""),
                watch_card=card is True,
                min_gib=min(MAX_GIB, max(0.1, float(gib))) if isinstance(gib, int | float) else 1.0,
            )
            preferences.choose(self.services.workspace, automation=automation.model_dump())
        except GarageError as error:
            return {self.notice: shown(notice(self.w.render(error.message)))}
        return {
            self.hours: _joined(automation.hours),
            self.programs: _joined(automation.programs),
            self.notice: shown(success(self.w.t("automation_card.saved"))),
        }


def _joined(values: tuple[object, ...]) -> str:
    return ", ".join(str(value) for value in values)


class HubTokenCard(Panel):
    """The card on the Settings page for the hub's access token: its source, and a field to give another one for the
    life of this app."""

    def build(self) -> None:
        """Build the card: where the token comes from, the field for another, and its buttons."""
        w = self.w
        with gr.Column(elem_classes="lg-card"):
            gr.HTML(tag("h2", w.t("hub_token_card.title")))
            self.source = gr.HTML(self._source(), elem_id="hub-token-source")
            self.token = gr.Textbox(
                type="password", max_lines=1, max_length=512, **w.named("hub_token_card.token", "hub-token")
            )
            with gr.Row(elem_classes="lg-tight"):
                self.give = gr.Button(w.t("hub_token_card.give"), size="sm", elem_id="hub-token-give")
                self.forget = gr.Button(
                    w.t("hub_token_card.forget"), size="sm", visible=self._is_given(), elem_id="hub-token-forget"
                )
            self.notice = gr.HTML("", visible=False, elem_id="hub-token-notice")

    def parts(self) -> list[LivePart]:
        return [
            LivePart(self.source, lambda context: gr.update(value=self._source())),
            LivePart(self.forget, lambda context: gr.update(visible=self._is_given())),
        ]

    def wire(self) -> None:
        outputs = [self.token, self.source, self.forget, self.notice]
        gr.on([self.give.click, self.token.submit], self.take, [self.token], outputs, **AT_ONCE)
        self.forget.click(self.drop, None, outputs, **AT_ONCE)

    def take(self, token: object, request: gr.Request) -> Updates:
        """Take a token for this app's life, from a browser on this PC only, and show where it is from, or the error."""
        try:
            if not is_local(request):
                raise ModelError("hub_token_card.elsewhere")  # over the network it would be sent unencrypted
            self.services.hub_token.give(token)
        except GarageError as error:
            return self._shown(notice(self.w.render(error.message)))
        return self._shown(success(self.w.t("hub_token_card.given")))

    def drop(self, request: gr.Request) -> Updates:
        """Forget the given token, for a browser on this PC only, and return the card."""
        if not is_local(request):
            return self._shown(notice(self.w.t("hub_token_card.elsewhere")))
        self.services.hub_token.forget()
        return self._shown(success(self.w.t("hub_token_card.forgotten")))

    def _shown(self, message: Html) -> Updates:
        """Return the updates of the card, with the field emptied."""
        forget = gr.update(visible=self._is_given())
        return {self.token: "", self.source: self._source(), self.forget: forget, self.notice: shown(message)}

    def _is_given(self) -> bool:
        """Return whether the token was given on this page, not found elsewhere."""
        return self.services.hub_token.source() == "given"

    def _source(self) -> Html:
        """Return a sentence about where the hub's access token comes from, or that there is none."""
        return muted(self.w.t(f"hub_token_card.from_{self.services.hub_token.source() or 'nowhere'}"))
