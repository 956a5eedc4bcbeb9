"""A judge for a finished blind A/B test: a model named by the person, asked only after the request was shown; its
verdicts are kept apart from people's votes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import gradio as gr

from core.chat import judge as judges
from core.chat.comparison import PromptComparison
from core.chat.endpoint import Endpoint
from core.errors import ChatError, GarageError
from webui.kit.html import Html, join, muted, notice, tag
from webui.kit.live import AT_ONCE, QUIET, shown
from webui.kit.panel import Panel
from webui.kit.visitor import is_local

MAX_SHOWN = 8_000  # characters shown of a request
MAX_TYPED = 512


class JudgePanel(Panel):
    def build(self) -> None:
        """Build the fold with address, model, key, the buttons and the message."""
        w = self.w
        self.judge = gr.State(None)  # with its key, only in memory
        with gr.Accordion(w.t("judge_panel.title"), open=False, visible=False, elem_id="judge") as self.fold:
            gr.HTML(muted(w.t("judge_panel.about")))
            with gr.Row():
                self.url = gr.Textbox(max_lines=1, max_length=MAX_TYPED, **w.named("judge_panel.url", "judge-url"))
                self.model = gr.Textbox(
                    max_lines=1, max_length=MAX_TYPED, **w.named("judge_panel.model", "judge-model")
                )
                self.key = gr.Textbox(
                    type="password", max_lines=1, max_length=MAX_TYPED, **w.named("judge_panel.key", "judge-key")
                )
            with gr.Row(elem_classes="lg-tight"):
                self.show = gr.Button(w.t("judge_panel.show"), elem_id="judge-show")
                self.send = gr.Button(w.t("judge_panel.send"), variant="primary", visible=False, elem_id="judge-send")
                self.halt = gr.Button(w.t("chat_page.stop"), variant="stop", visible=False, elem_id="judge-halt")
            self.message = gr.HTML("", visible=False, elem_id="judge-said")

    def wire(self, opened: gr.Textbox) -> None:
        """Connect the buttons; another comparison clears the judge. opened: the id of the finished comparison."""
        view = [self.send, self.halt, self.message]
        # the requests of another comparison were not shown yet
        opened.change(lambda: [None, *self._view(Html(""))], None, [self.judge, *view], **AT_ONCE)
        # Never through the queue, which stores its inputs until the event has ended.
        self.show.click(
            self.shown_first, [self.url, self.model, self.key, opened], [self.judge, self.key, *view], **AT_ONCE
        )
        once = QUIET | {"trigger_mode": "once", "concurrency_limit": 4, "concurrency_id": "judge"}
        sent = self.send.click(self.ask, [self.judge, opened], view, **once)
        self.halt.click(self.halted, [self.judge, opened], view, cancels=[sent], **AT_ONCE)

    def shown_first(self, url: object, model: object, key: object, opened: object, request: gr.Request) -> list[object]:
        """Show the first request that a judge would receive, or the score if none is missing; for a browser on this PC
        only. Inputs: address, model, key, comparison. Outputs: judge (None after an error), key (emptied), send, halt,
        message."""
        w = self.w
        try:
            if not is_local(request):
                raise ChatError("judge_panel.elsewhere")
            judge = Endpoint.parse(*(str(each or "")[:MAX_TYPED] for each in (url, model, key)))
            comparison = self._comparison(opened)
            left = judges.missing(judge, comparison)
            if not left:
                return [judge, "", *self._view(self._score(judge, comparison))]
            body = judges.request_body(judge, comparison, *left[0])
            size = sum(
                len(json.dumps(judges.request_body(judge, comparison, *each), ensure_ascii=False)) for each in left
            )
        except GarageError as error:
            return [None, "", *self._view(notice(w.render(error.message)))]
        words = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in body["messages"])
        text = f"model: {body['model']}\n\n{words}"
        message = tag("p", w.t("judge_panel.leaves", count=len(left), characters=size, url=judge.url))
        return [judge, "", *self._view(join([message, tag("pre", text[:MAX_SHOWN], tabindex="0")]), may_send=True)]

    def ask(self, judge: object, opened: object) -> Iterator[list[object]]:
        """Request the missing verdicts. Inputs: judge, comparison. Outputs: send, halt, message, again as verdicts
        arrive."""
        w, why = self.w, Html("")
        try:
            if not isinstance(judge, Endpoint):
                raise ChatError("endpoint.no_model")
            comparison = self._comparison(opened)
            try:
                for done, total in judges.judge_missing(judge, comparison):
                    message = notice(w.t("judge_panel.asking", done=done, wanted=total, judge=judge.name), "plain")
                    yield self._view(message, asking=True)
            except ChatError as error:
                why = notice(w.render(error.message))
        except GarageError as error:
            yield self._view(notice(w.render(error.message)))
            return
        yield self._view(join([why, self._score(judge, comparison)]), may_send=bool(why))

    def halted(self, judge: object, opened: object) -> list[object]:
        """Show the score after a stop. Inputs: judge, comparison. Outputs: send, halt, message. Verdicts received so
        far stay."""
        try:
            message = self._score(judge, self._comparison(opened)) if isinstance(judge, Endpoint) else Html("")
        except GarageError as error:
            message = notice(self.w.render(error.message))
        return self._view(message, may_send=isinstance(judge, Endpoint))

    def _comparison(self, opened: object) -> PromptComparison:
        return PromptComparison.open(self.services.workspace, str(opened))

    def _score(self, judge: Endpoint, comparison: PromptComparison) -> Html:
        return tag("p", self.w.render(judges.result_message(judge, comparison)))

    def _view(self, message: Html, may_send: bool = False, asking: bool = False) -> list[object]:
        return [gr.update(visible=may_send), gr.update(visible=asking), shown(message)]
