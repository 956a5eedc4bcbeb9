"""Chat: the base model and the fine-tuned model side by side, answering the same message together."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from core.chat.answer import COLUMNS, STRENGTHS, Answer, Column, Done, Piece, Sampling
from core.chat.client import ChatTarget
from core.chat.questions import target_of
from core.errors import ChatError, GarageError
from webui.kit import format
from webui.kit.following import FollowingDropdown
from webui.kit.format import grouped
from webui.kit.html import Html, notice, success, tag
from webui.kit.live import AT_ONCE, QUIET, LivePart, Options, Updates, shown
from webui.kit.tab import TabPoller
from webui.kit.wording import Wording
from webui.pages import chat_ideas
from webui.pages.chat_choices import (
    LATEST,
    PRECISIONS,
    checkpoint_choices,
    first_choice,
    is_there,
    run_id_of,
    strength_of,
    target_choices,
)
from webui.pages.chat_history import MAX_SYSTEM, Message, turns_of, with_answer, without_last
from webui.pages.chat_serving import ServingPanel
from webui.pages.chat_status import loading, status_line
from webui.pages.conversations import CHOSEN, OFFERED, OPENED, TAKEN, ConversationShelf
from webui.pages.corrections import CLOSES, CorrectionsPanel
from webui.pages.duel.blind_duel import BlindDuel
from webui.pages.page_around import PageAround
from webui.run.second_adapter import SecondAdapter
from webui.state.services import Services

LOAD_POLL_S = 0.1
LOAD_TIMEOUT_S = 3600.0  # a large model may have to be downloaded first
MAX_SHOWN = 40_000  # characters of one answer, twice what 4,096 tokens are; a browser stands still over half a million
SEED = 7  # its index among target and sampling
# The message, emptied if it is still the sent text.
LEAVES = "(sent, now) => sent && now === sent ? '' : undefined"
# The next question may be sent while the base still writes: its answer is stopped, and the question is sent once it has
# ended.
SENDS = """() => {
  const [send, stop, box] = 
    ["#chat-send", "#chat-stop", "#chat-message textarea"].map((at) => document.querySelector(at));
  window.loraGarageSends = Boolean(box?.value.trim() && send?.checkVisibility() && stop?.checkVisibility());
  if (window.loraGarageSends) stop.click();
}"""
SENDS_NOW = """() => {
  const sends = window.loraGarageSends;
  window.loraGarageSends = false;
  if (sends) document.querySelector("#chat-send").click();
}"""
# The button below one of two columns that are being written.
ENDS_ONE = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-end]");
  if (button) { button.disabled = true; server.end(button.dataset.end); }
});
"""
THINKING = {"trained": None, "on": True, "off": False}


def draw(around: PageAround, tab: gr.Tab) -> None:
    """Build the Chat page into its tab and connect it."""
    page, step = ChatPage(around.services, around.w), around.wizard.data_step
    page.build()
    page.wire(around.page, tab, around.talk_to)
    page.corrections.wire_train(around.wizard, page.target, step.data, step.choices, around.tabs)
    TabPoller(around.poller, page.parts()).wire_tab(around.page, tab)


class ChatPage:
    """The Chat page: the base model and the fine-tuned one side by side, which answer the same message. In its
    handlers: base, tuned: the histories of both columns. target: id of the model. opened: id of the open
    conversation."""

    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording
        self.duel = BlindDuel(services, wording)
        self.corrections = CorrectionsPanel(services, wording)
        self.second = SecondAdapter(services, wording)
        self.serving = ServingPanel(services, wording)
        self.shelf = ConversationShelf(services, wording, self._targets, self._settled)

    # ---- widgets --------------------------------------------------------------------------------------------------
    def build(self) -> None:
        """Build the page: the choice of model, settings and conversations, both columns, the message box with its
        buttons, corrections and the blind test."""
        w = self.w
        snapshot = self.services.snapshots.now()
        choices = target_choices(self.services, w, snapshot.rows)
        with gr.Column(elem_classes="lg-card", elem_id="chat-head"):
            with gr.Row(elem_id="chat-choose"):
                target = w.named("chat_page.target", "chat-target")
                first = first_choice(choices, snapshot.rows)
                self.target = FollowingDropdown(choices, value=first, scale=3, min_width=260, **target)
                checkpoints, is_run = checkpoint_choices(self.services, self.w, first), run_id_of(first) is not None
                checkpoint = w.named("chat_page.checkpoint", "chat-checkpoint") | {"scale": 2, "min_width": 200}
                self.checkpoint = FollowingDropdown(checkpoints, value=LATEST, visible=is_run, **checkpoint)
            self.offered = gr.Textbox("", visible="hidden")  # the model to select; the page decides whether to
            self.status = gr.HTML(status_line(snapshot.chat, self.w), elem_id="chat-status")
            with gr.Accordion(w.t("chat_page.settings"), open=False, elem_id="chat-settings"):
                self._build_load()
                self._build_settings(snapshot.chat.thinks is not None)
                self.second.build(snapshot.rows)
                self.serving.build()
            self.shelf.build()
        with gr.Column(elem_classes="lg-card", elem_id="chat-room"):
            self.empty = gr.HTML(
                chat_ideas.empty(self.services, first, w),
                elem_id="chat-empty",
                js_on_load=chat_ideas.ASK,
                apply_default_css=False,
            )
            as_text = {"allow_tags": False, "latex_delimiters": [], "sanitize_html": True}
            bot = as_text | {"height": 420, "buttons": ["copy"], "feedback_options": None, "min_width": 260}

            def end(column: object) -> None:
                """Stop the answer in this column."""
                if column in COLUMNS:
                    self.services.chat.stop(column)

            ends: Options = {"js_on_load": ENDS_ONE, "server_functions": [end], "apply_default_css": False}
            with gr.Row(visible=False, elem_id="chat-columns") as self.columns:
                with gr.Column(min_width=260, elem_classes="lg-tight"):
                    self.base = gr.Chatbot(label=w.t("chat_page.base"), elem_id="chat-base", **bot)
                    self.base_note = gr.HTML("", elem_id="chat-base-note", **ends)
                with gr.Column(min_width=260, elem_classes="lg-tight") as self.tuned_column:
                    self.tuned = gr.Chatbot(label=w.t("chat_page.tuned"), elem_id="chat-tuned", **bot)
                    self.tuned_note = gr.HTML("", elem_id="chat-tuned-note", **ends)
            self.notice = gr.HTML("", elem_id="chat-notice", visible=False)
            # the question that is being answered, to be removed from the message box
            self.sent = gr.Textbox("", visible="hidden")
            with gr.Column(elem_id="chat-ask", elem_classes="lg-tight"):
                self._build_message()
            self.corrections.build()
        self.duel.build(snapshot.rows)

    def _build_message(self) -> None:
        """Build the message box and the buttons below it."""
        w = self.w
        # One line, enlarged by the style sheet: with more, gradio sends only at Shift+Enter.
        lines = {"lines": 1, "max_lines": 8, "placeholder": w.t("chat_page.placeholder")}
        self.message = gr.Textbox(**w.named("chat_page.message", "chat-message"), **lines)
        with gr.Row(elem_classes="lg-tight", elem_id="chat-buttons"):
            self.send = gr.Button(w.t("chat_page.send"), variant="primary", elem_id="chat-send")
            self.stop = gr.Button(w.t("chat_page.stop"), variant="stop", visible=False, elem_id="chat-stop")
            self.undo = gr.Button(w.t("chat_page.undo"), elem_id="chat-undo")
            self.clear = gr.Button(w.t("chat_page.clear"), elem_id="chat-clear")
            # Last those that an answer being written hides, so that they leave no hole.
            self.again = gr.Button(w.t("chat_page.regenerate"), elem_id="chat-regenerate")
            self.corrections.build_button()

    def _build_load(self) -> None:
        """Build the choice of the base's precision, and the button that loads the model before the first question."""
        w = self.w
        precisions = [(w.t(f"chat_page.precision_{name}"), name) for name in PRECISIONS]
        with gr.Row(elem_id="chat-load-row"):
            precision = w.named("chat_page.precision", "chat-precision") | {"scale": 0, "min_width": 430}
            self.precision = gr.Radio(precisions, value="trained", **precision)
            self.load = gr.Button(w.t("chat_page.load"), elem_id="chat-load", scale=0, min_width=160)

    def _build_settings(self, thinks: bool) -> None:
        """Build the settings of both answers. thinks: true if thinking can be switched for the loaded model."""
        w = self.w
        system = w.named("chat_page.system", "chat-system")
        self.system = gr.Textbox(lines=2, max_lines=6, max_length=MAX_SYSTEM, **system)
        self.temperature = gr.Number(0, step=0.1, **w.named("chat_page.temperature", "chat-temperature"))
        self.top_p = gr.Number(0.9, step=0.05, **w.named("chat_page.top_p", "chat-top-p"))
        self.max_new_tokens = gr.Number(256, precision=0, **w.named("chat_page.max_new_tokens", "chat-max-new-tokens"))
        ways = [(w.t(f"chat_page.thinking_{name}"), name) for name in THINKING]
        self.thinking = gr.Radio(
            ways, value="trained", visible=thinks, **w.named("chat_page.thinking", "chat-thinking")
        )
        self.seed = gr.Number(42, precision=0, **w.named("chat_page.seed", "chat-seed"))
        low, high = (round(100 * limit) for limit in STRENGTHS)
        self.strength = gr.Slider(low, high, value=100, step=5, **w.named("chat_page.strength", "chat-strength"))

    # ---- what follows the clock -----------------------------------------------------------------------------------
    def parts(self) -> list[LivePart]:
        """Return the parts that update with the clock: status, thinking, second adapter, blind test, and the models to
        choose from."""
        return [
            LivePart(
                self.status,
                lambda context: gr.update(value=status_line(context.snapshot.chat, self.w, context.snapshot.in_use)),
            ),
            LivePart(self.thinking, lambda context: gr.update(visible=context.snapshot.chat.thinks is not None)),
            self.second.part(),
            *self.serving.parts(),
            *self.duel.parts(),
            LivePart(
                self.target,
                lambda context: gr.update(choices=target_choices(self.services, self.w, context.snapshot.rows)),
            ),
        ]

    # ---- wires ----------------------------------------------------------------------------------------------------
    def wire(self, page: gr.Blocks, tab: gr.Tab, talk_to: gr.Textbox) -> None:
        """Connect all events of the chat. tab: opening it may select a model. talk_to: the model that a press elsewhere
        on the page chose."""
        self.target.input(None, js=CHOSEN, **QUIET)
        self.target.change(self.suggest, [self.target], [self.empty], **QUIET)
        opened = self.shelf.opened
        target = [self.target, self.checkpoint, self.precision]
        sampling = [self.system, self.temperature, self.top_p, self.max_new_tokens, self.seed, self.thinking,
            self.strength, *self.second.chosen]  # fmt: skip
        room = [self.empty, self.columns, self.tuned_column, self.base, self.tuned, self.base_note, self.tuned_note]
        view = [*room, self.notice, self.sent, self.send, self.stop]
        self.sent.change(None, [self.sent, self.message], self.message, js=LEAVES, **QUIET)
        waits = {"show_progress_on": [self.base, self.tuned]}  # three dots until the first word
        # First, and in the browser: a correction that is open when another question is sent belongs to another answer.
        leaves = [self.send.click, self.message.submit, self.undo.click, self.clear.click, self.target.change]
        gr.on(leaves, None, None, self.corrections.outputs, js=CLOSES, **QUIET)

        def keep(event: Dependency) -> None:
            """Save the conversation once the event has succeeded."""
            event.success(self.shelf.save_histories, [opened, self.base, self.tuned], None, **AT_ONCE)

        corrects = self.corrections.wire(keep, self.base, self.tuned, self.target, self.system)
        talk = (
            QUIET
            | waits
            | {"trigger_mode": "once", "concurrency_limit": 4, "concurrency_id": "chat", "cancels": corrects}
        )
        inputs = [self.base, self.tuned, *target, *sampling]
        sent = gr.on(
            [self.send.click, self.message.submit],
            self.talk_on,
            [self.message, opened, *inputs],
            [*view, opened],
            **talk,
        )
        gr.on([self.send.click, self.message.submit], None, None, None, js=SENDS, **QUIET)
        earlier, outputs = self.corrections.earlier, [*view, opened, *self.corrections.outputs]
        again = self.again.click(self.talk_again, [earlier, opened, *inputs], outputs, **talk)
        for event in (sent, again):
            event.then(None, None, None, js=SENDS_NOW, **QUIET)
        ends = AT_ONCE | {"cancels": [sent, again, *corrects]}
        self.stop.click(self.halt, None, None, **AT_ONCE)
        self.undo.click(self.take_back, [self.base, self.tuned], [*view, self.message], **ends)
        self.clear.click(lambda: {**self.start_over(), opened: ""}, None, [*view, opened], **ends)
        kept = [*target, self.strength, *self.second.chosen]
        self.second.kept.click(self.keep_both, kept, [self.second.notice], **QUIET)
        self.load.click(self.load_now, target, [self.notice, self.status], **QUIET)
        self.target.change(self.choose, [self.target, opened], [self.checkpoint, opened, *view], js=OPENED, **ends)
        restored, opens = self.shelf.wire(page, self.target, self.base, self.tuned, self.notice, view, ends)
        self.talk_to = talk_to
        self._wire_arrival(restored, tab)
        gr.on(opens, None, None, self.corrections.outputs, js=CLOSES, **QUIET)
        self.duel.wire(self.target, self.checkpoint, self.halt)
        self.serving.wire(self.target)

    def _wire_arrival(self, restored: Dependency, tab: gr.Tab) -> None:
        """Let opening the tab offer a model, and talk_to choose one. restored: the event that has opened the
        conversation of before."""
        opened, offered = self.shelf.opened, [self.target, self.offered]
        for event in (restored.then, tab.select):
            arrived = event(self.arrive, [self.target, self.base, opened], offered, js=TAKEN, **AT_ONCE)
            arrived.then(None, offered, self.target, js=OFFERED, **QUIET)
        for event in (restored.then, self.talk_to.change):
            event(self.take, [self.talk_to, self.target], [self.talk_to, self.target], **AT_ONCE)

    def take(self, talk_to: object, target: object) -> Updates:
        """Choose the model that was pressed elsewhere on the page, or the starter model in place of a run that was
        deleted there; talk_to (its id) is emptied."""
        exists, is_selected = is_there(self.services, self.w, talk_to), talk_to == target
        if not talk_to or exists == is_selected:
            return {self.talk_to: ""}
        value = talk_to if exists else "base:starter"
        return {self.talk_to: "", self.target: gr.update(choices=self._targets(), value=value)}

    def talk_on(
        self, message: str, opened: object, base: list[Message], tuned: list[Message], *rest: object
    ) -> Iterator[Updates]:
        """Answer a message, and save the conversation while it grows. Inputs: as of talk, with the open conversation
        before both histories."""
        views = self.talk(message, base, tuned, *rest)
        yield from self.shelf.keeping(views, opened, rest[0], self._label(rest[0]), base)

    def _label(self, target: Any) -> str:
        """Return the model's name in the list; the start of target itself for one that is not in it."""
        return {id: name for name, id in self._targets()}.get(target, str(target)[:100])

    def _targets(self) -> list[tuple[str, str]]:
        """Return (label, id) of all models that can answer now."""
        return target_choices(self.services, self.w, self.services.snapshots.now().rows)

    def talk(self, message: str, base: list[Message], tuned: list[Message], *rest: object) -> Iterator[Updates]:
        """Load the model if needed, ask it, and yield views of the answer while it grows, or the error. Inputs:
        message, both histories, target (model, checkpoint, precision), sampling.

        Closing the page closes this generator, which stops the generation.
        """
        target, sampling = rest[:3], rest[3:]
        try:
            loaded, both = self.target_of(*target)
            settings, (strength, *second) = sampling_of(*sampling[1:-5]), sampling[-5:]
            if not isinstance(message, str) or not message.strip():
                raise ChatError("chat.no_question")
            loaded, strength = self.second.combine(
                loaded, strength_of(strength), second[0], strength_of(second[1]), *second[2:]
            )
            yield self._view(base, tuned, both, sentence=self.w.t("chat_page.loading"), sent="", writing=True)
            yield from self._load(loaded, base, tuned, both)
            question = {"role": "user", "content": message}
            base, tuned = [*(base or []), question], [*(tuned or []), question]
            system = sampling[0] if isinstance(sampling[0], str) else ""
            answer = self.services.chat.ask(
                turns_of(base, system), turns_of(tuned, system) if both else None, settings, strength
            )
        except GarageError as error:
            yield self._view(base, tuned, None, sentence=self.w.render(error.message), tone="bad")
            return
        yield from self._write(answer, base, tuned, both, message)

    def talk_again(
        self, earlier: object, opened: object, base: list[Message], tuned: list[Message], *rest: object
    ) -> Iterator[Updates]:
        """Ask the last question again with another seed, then let the person pick the better answer. Inputs: the
        earlier attempt, the conversation, both histories, target, sampling."""
        (before_base, question), (before_tuned, _) = without_last(base), without_last(tuned)
        attempt, seed = self.corrections.begin_again(earlier, tuned or base), rest[SEED]
        if isinstance(seed, int | float) and math.isfinite(seed):
            rest = (*rest[:SEED], (int(seed) + attempt["tries"]) % 2**32, *rest[SEED + 1 :])
        closed, view = self.corrections.closed(), dict[Component, Any]()
        views = self.talk(question, before_base, before_tuned, *rest)
        for view in self.shelf.keeping(views, opened, rest[0], self._label(rest[0]), before_base):
            view.pop(self.sent, None)  # the message box is not cleared: its text was not sent
            yield {**view, **closed}
        if self.base in view:
            yield {**view, **self.corrections.offered(attempt, view[self.tuned] or view[self.base])}

    def _load(self, target: ChatTarget, base: list[Message], tuned: list[Message], both: bool) -> Iterator[Updates]:
        """Yield views until target is loaded, none if it is already. both: there is a tuned column. Raises ChatError if
        it fails, or while a run trains."""
        chat = self.services.chat
        state = chat.state()
        if state.phase in ("ready", "answering") and state.target == target:
            return
        self.services.snapshots.refuse_while_in_use()
        chat.load(target)
        deadline, last = time.monotonic() + LOAD_TIMEOUT_S, ""
        while (state := chat.state()).phase == "loading" and state.target == target and time.monotonic() < deadline:
            sentence = loading(state, target.label, self.w)
            if sentence != last:
                last = sentence
                yield self._view(base, tuned, both, sentence=sentence, writing=True)
            time.sleep(LOAD_POLL_S)
        if state.target != target or state.phase not in ("ready", "answering"):
            if state.advice is not None and state.message is not None:
                raise ChatError("chat_page.failed", message=state.message, advice=state.advice)
            raise ChatError(state.message or state.why_unloaded or "chat.not_ready")

    def _write(
        self, answer: Answer, base: list[Message], tuned: list[Message], both: bool, sent: str
    ) -> Iterator[Updates]:
        """Yield a view whenever new text arrives, and at the end; an error becomes its sentence. both: there is a tuned
        column. sent: the text to remove from the message box."""
        texts = {"base": "", "tuned": ""}
        done: dict[str, Done] = {}
        sentence = ""
        histories = self._so_far(base, tuned, texts, both)
        yield self._view(*histories, both, sent=sent, writing=True, done=done)
        try:
            with answer:
                for gathered in answer.batches():
                    for item in gathered:
                        if isinstance(item, Piece):
                            texts[item.column] += item.text
                        elif isinstance(item, Done):
                            done[item.column] = item
                    histories = self._so_far(base, tuned, texts, both)
                    yield self._view(*histories, both, writing=True, done=done)
        except ChatError as error:
            sentence = self.w.render(error.message)
        histories = self._so_far(base, tuned, texts, both)
        yield self._view(*histories, both, sentence=sentence, tone="bad", done=done)

    def _so_far(
        self, base: list[Message], tuned: list[Message], texts: dict[str, str], both: bool
    ) -> tuple[list[Message], list[Message]]:
        """Return both histories with the texts so far: of one above MAX_SHOWN only its beginning and a note. The tuned
        one is [] unless both."""
        cut = self.w.t("chat_page.cut", most=grouped(self.w, MAX_SHOWN))
        shown_texts = {
            column: text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}\n\n{cut}" for column, text in texts.items()
        }
        return self._answered(base, shown_texts["base"]), self._answered(tuned, shown_texts["tuned"]) if both else []

    def _answered(self, history: list[Message] | None, answer: str) -> list[Message]:
        """Return the history with an answer, whose thoughts and tool calls are folded."""
        return with_answer(history, answer, self.w.t("chat_page.thought"), self.w.t("chat_page.tool_call"))

    def _view(
        self,
        base: list[Message] | None,
        tuned: list[Message] | None,
        both: bool | None,
        sentence: str = "",
        tone: str = "plain",
        writing: bool = False,
        sent: str | None = None,
        done: dict[str, Done] | None = None,
    ) -> Updates:
        """Return the updates that show a conversation, with a notice (sentence, tone). writing: an answer is being
        written, so that Stop is shown in place of Send, until the tuned one of two answers is complete.

        both: the tuned column is shown; None leaves the columns unchanged. sent: the text to remove from the message
        box; None leaves the box. done: ended answers by column; None leaves the notes below them.
        """
        talked = bool(base or tuned)
        view: Updates = {
            self.empty: gr.update(visible=not talked),
            self.columns: gr.update(visible=talked),
            self.notice: shown(notice(sentence, tone)),
            self.send: gr.update(visible=not writing or bool(both and done and "tuned" in done)),
            self.stop: gr.update(visible=writing),
        }
        if both is not None:
            view |= {self.tuned_column: gr.update(visible=both), self.base: base or [], self.tuned: tuned or []}
        if done is not None:
            for column, note in zip(COLUMNS, (self.base_note, self.tuned_note), strict=True):
                view[note] = self._note(done.get(column), column if writing and both else None)
        return view if sent is None else {**view, self.sent: sent}

    def _settled(self, base: list[Message], tuned: list[Message], sentence: str = "", tone: str = "warn") -> Updates:
        """Return the updates that show a conversation in which no answer is being written. sentence, tone: its
        notice."""
        return self._view(base, tuned, bool(tuned) or not base, sentence, tone, done={})

    def _note(self, done: Done | None, writing: Column | None) -> Html:
        """Return the note below a column: how its answer ended and its seconds (tokens and speed as its title), or the
        button that ends it. writing: the column, if it is one of two that are being written."""
        w = self.w
        if done is None:
            return tag("button", w.t("chat_page.stop_one"), type="button", data_end=writing) if writing else Html("")
        rate = done.tokens / done.seconds if done.seconds > 0 else "?"
        values = {"tokens": done.tokens, "seconds": done.seconds, "rate": rate}
        why = w.t(f"chat_page.why_{done.finish_reason}")
        every = w.t("chat_page.done", **values, why=why)
        return tag("p", w.t("chat_page.took", seconds=done.seconds, why=why), class_="lg-quiet", title=every)

    def halt(self) -> None:
        """Stop the answer, which keeps its text so far, or a load that is under way."""
        chat = self.services.chat
        chat.stop()
        if chat.state().phase == "loading":
            chat.unload()

    def take_back(self, base: list[Message], tuned: list[Message]) -> Updates:
        """Take back the last question with its answers, and put it in the message box again."""
        left_base, question = without_last(base)
        left_tuned, _ = without_last(tuned)
        return {**self._settled(left_base, left_tuned), **({self.message: question} if question else {})}

    def start_over(self) -> Updates:
        """Return the updates that show no conversation. A running answer ends, because its event is cancelled."""
        return self._settled([], [])

    def load_now(self, *target: object) -> Updates:
        """Start the load, which a run at work forbids, and return the notice and the status line, which shows its
        progress."""
        try:
            loaded, _ = self.target_of(*target)
            self.services.snapshots.refuse_while_in_use()
            self.services.chat.load(loaded)
        except GarageError as error:
            return {self.notice: shown(notice(self.w.render(error.message)))}
        return {self.notice: shown(""), self.status: status_line(self.services.chat.state(), self.w)}

    def arrive(self, target: object, base: list[Message] | None, opened: object) -> Updates:
        """Return the updates that offer a run for selection when the tab is opened, in a hidden field which the browser
        reads: the loaded run, or if nothing is loaded, one that ended since the page was made; "" for none.

        Nothing is offered where a run is selected, a conversation is shown, or the person has chosen, also since this
        request; a selected model that no longer exists is replaced while no conversation is open. base: the base
        column's history. opened: what this browser has opened, or "chosen".
        """
        rows = self.services.snapshots.now(fresh=True).rows  # a run may have been deleted a moment ago
        choices, state = target_choices(self.services, self.w, rows), self.services.chat.state()
        first = first_choice(choices, rows)
        offered = first if state.phase == "empty" else f"run:{state.target.run}" if state.target else ""
        ids = [value for _, value in choices]
        offered = offered if run_id_of(offered) and offered in ids else ""
        if not is_there(self.services, self.w, target) and not base and opened in (None, "", "chosen"):
            return {self.target: gr.update(choices=choices), self.offered: f"{offered or first}\n{target}"}
        if base or opened or run_id_of(target) or not offered:
            return {self.offered: ""}
        return {self.target: gr.update(choices=choices), self.offered: offered}

    def choose(self, target: object, opened: object) -> Updates:
        """Show a model's checkpoints, and the open conversation if it is this model's, else an empty one."""
        choices = checkpoint_choices(self.services, self.w, target)
        checkpoint = gr.update(choices=choices, value=LATEST, visible=run_id_of(target) is not None)
        talk = self.shelf.of_target(target, opened) or {self.shelf.opened: "", **self.start_over()}
        return {self.checkpoint: checkpoint, **talk}

    def suggest(self, target: object) -> Html:
        """Return the HTML of an empty conversation with a model: a text, and buttons with questions to begin with."""
        return chat_ideas.empty(self.services, target, self.w)

    # ---- ids from a browser, as objects of core -------------------------------------------------------------------
    def keep_both(self, *given: Any) -> Iterator[str]:
        """Make a run of both adapters; yield a notice that it is at work, then the result's or the error's. Inputs:
        target (model, checkpoint, precision), strength, the second adapter's."""
        yield notice(self.w.t("second_adapter.keeping"))
        try:
            loaded, _ = self.target_of(*given[:3])
            run, beside, *how = given[4:]
            yield success(self.second.keep(loaded, strength_of(given[3]), run, strength_of(beside), *how))
        except GarageError as error:
            yield notice(self.w.render(error.message))

    def target_of(self, target: Any, checkpoint: object, precision: object) -> tuple[ChatTarget, bool]:
        """Return the target to load, and whether it has a tuned column. Raises GarageError for an unknown id."""
        if not is_there(self.services, self.w, target):
            raise ChatError("chat_page.gone")
        if (run_id := run_id_of(target)) is None:
            model_id = target.removeprefix("base:")
            return ChatTarget(model_id, None, None, precision == "4", format.model_name(model_id)), False
        folder_name = None if checkpoint in (None, LATEST) else str(checkpoint)
        four_bit = None if precision not in ("16", "4") else precision == "4"
        return target_of(self.services.runs.get(run_id), folder_name, four_bit), True


def sampling_of(
    temperature: object, top_p: object, max_new_tokens: object, seed: object, thinking: object = "trained"
) -> Sampling:
    """Return the sampling settings of the form; a temperature above 0 means random sampling. Raises ChatError with the
    limits; an empty field means its default."""
    fields = {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens, "seed": seed}
    limits = {"temperature": (0, 2), "top_p": (0.01, 1), "max_new_tokens": (1, 4096), "seed": (0, 2**32 - 1)}
    values: Options = {}
    for name, value in ((name, value) for name, value in fields.items() if value is not None):
        low, high = limits[name]
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
            or not low <= value <= high
        ):
            raise ChatError("wizard.bad_number", field=name, found=str(value)[:40], low=low, high=high)
        values[name] = int(value) if name in ("max_new_tokens", "seed") else float(value)
    is_random = values.get("temperature", 0) > 0
    return Sampling(
        do_sample=is_random, enable_thinking=THINKING.get(thinking if isinstance(thinking, str) else ""), **values
    )
