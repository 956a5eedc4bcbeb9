"""The line above the conversation: the model that the app's only chat has loaded or is loading, or why it has none."""

from __future__ import annotations

from core.chat.client import ChatState
from core.messages import Message
from webui.kit import format
from webui.kit.html import Html, muted, notice
from webui.kit.wording import Wording

MADE_ROOM = ("chat.unloaded_for_run", "chat.unloaded_for_making")  # reasons that hold while the device is in use


def status_line(state: ChatState, w: Wording, in_use: Message | None = None) -> Html:
    """Return the state of the chat as one notice, whichever page loaded its model. in_use: what else uses the device,
    shown while nothing is loaded."""
    if state.phase == "empty":
        is_over = in_use is None and state.why_unloaded is not None and state.why_unloaded.key in MADE_ROOM
        why = "" if is_over else w.text(w.render(state.why_unloaded), w.render(in_use))
        return notice(why, "warn") if why else muted(w.t("chat_page.nothing_loaded"))
    label = state.target.label if state.target else ""
    if state.phase == "loading":
        text = w.text(loading(state, label, w), w.render(state.tight))
        return notice(text, "warn" if state.tight else "plain")
    if state.phase == "failed":
        return notice(w.text(w.render(state.message), w.render(state.advice)))
    ready = w.t("chat_page.ready", label=label, dtype=state.dtype or "?")
    more = (_in_turn(state, w), w.render(state.elsewhere), w.render(state.tight))
    return notice(w.text(ready, *more), "warn" if state.elsewhere or state.tight else "ok")


def loading(state: ChatState, label: str, w: Wording) -> str:
    """Return the phase of a load, with its numbers."""
    phase = w.t(f"stage.{state.stage}") if w.knows(f"stage.{state.stage}") else w.t("chat_page.loading")
    return w.t("chat_page.loading_label", label=label, phase=phase, numbers=format.progress(w, state.progress))


def _in_turn(state: ChatState, w: Wording) -> str:
    """Return why base and tuned model answer one after the other; "" if they answer together, as usual."""
    if state.adapter is None or state.mixed:
        return ""
    reason = w.t("chat_page.in_turn_dora" if state.adapter.get("use_dora") else "chat_page.in_turn_other")
    return w.t("chat_page.in_turn", reason=reason)
