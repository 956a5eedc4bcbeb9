"""Settings: a token of the Hugging Face hub for models that ask for one, kept in memory only."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import gradio as gr

from core.errors import GarageError, ModelError
from webui.kit.html import Html, notice, tag
from webui.kit.live import LivePart, shown
from webui.kit.wording import Wording
from webui.state.services import Services

# Never through the queue, which keeps what it was given until the event has ended.
QUIET = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}


class HubTokenCard:
    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording

    def build(self) -> None:
        w = self.w
        with gr.Column(elem_classes="lg-card"):
            gr.HTML(tag("h2", w.t("hub_token_card.title")))
            self.source = gr.HTML(self._source(), elem_id="hub-token-source")
            self.token = gr.Textbox(
                label=w.t("hub_token_card.token"), info=w.t("hub_token_card.info"), type="password", max_lines=1, max_length=512,
                elem_id="hub-token",
            )  # fmt: skip
            with gr.Row(elem_classes="lg-tight"):
                self.give = gr.Button(w.t("hub_token_card.give"), size="sm", elem_id="hub-token-give")
                self.forget = gr.Button(
                    w.t("hub_token_card.forget"), size="sm", visible=self._is_given(), elem_id="hub-token-forget"
                )
            self.notice = gr.HTML("", visible=False, elem_id="hub-token-notice")

    def parts(self) -> list[LivePart]:
        return [
            LivePart(self.source, lambda look: gr.update(value=self._source())),
            LivePart(self.forget, lambda look: gr.update(visible=self._is_given())),
        ]

    def wire(self) -> None:
        outputs = [self.token, self.source, self.forget, self.notice]
        gr.on([self.give.click, self.token.submit], self.take, [self.token], outputs, **QUIET)
        self.forget.click(self.drop, None, outputs, **QUIET)

    def take(self, token: Any, request: gr.Request) -> list[Any]:
        """Inputs: token. Outputs: token (emptied in any case), source, forget, notice."""
        try:
            if not _is_loopback(request):
                raise ModelError("hub_token_card.elsewhere")  # over the network it would travel as it is
            self.services.hub_token.give(token)
        except GarageError as error:
            return self._shown(notice(self.w.of(error.text)))
        return self._shown(notice(self.w.t("hub_token_card.given"), "ok"))

    def drop(self, request: gr.Request) -> list[Any]:
        """Outputs: token (emptied), source, forget, notice."""
        if not _is_loopback(request):
            return self._shown(notice(self.w.t("hub_token_card.elsewhere")))
        self.services.hub_token.forget()
        return self._shown(notice(self.w.t("hub_token_card.forgotten"), "ok"))

    def _shown(self, said: Html) -> list[Any]:
        return ["", self._source(), gr.update(visible=self._is_given()), shown(said)]

    def _is_given(self) -> bool:
        return self.services.hub_token.source() == "given"

    def _source(self) -> Html:
        return tag("p", self.w.t(f"hub_token_card.from_{self.services.hub_token.source() or 'nowhere'}"), class_="lg-quiet")


def _is_loopback(request: gr.Request) -> bool:
    try:
        return ip_address(request.client.host).is_loopback
    except (AttributeError, ValueError):
        return False
