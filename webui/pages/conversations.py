"""The saved conversations of the Chat page: saved while chatting, searched, renamed, downloaded, deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from core.chat.conversations import Branch, Conversation, Conversations
from core.errors import ChatError, GarageError
from core.files import JsonObject
from webui.kit import format
from webui.kit.html import notice, tag
from webui.kit.live import AT_ONCE, CONTROL, LAST, Options, Update, Updates, outcome, shown
from webui.kit.wording import Wording
from webui.pages.chat_history import Message, as_written, content_of, turns_of, with_answer
from webui.server.set_file import TALKS, address
from webui.state.services import Services

MAX_LISTED = 50
# The open conversation is stored only in this browser: a reload shows it again.
OPENED = "(...given) => { given[given.length - 1] = loraGarageDuel.opened(); return given; }"
TAKEN = "(...given) => { given[given.length - 1] = loraGarageDuel.taken(); return given; }"
CHOSEN = "(...given) => { loraGarageDuel.choose(); return given; }"
OFFERED = "(now, offered) => loraGarageDuel.offered(now, offered)"
KEEPS = "(...given) => { loraGarageDuel.open(given[0]); return given; }"


class ConversationShelf:
    """The saved conversations below Chat's settings: listed, searched, opened, saved, renamed and deleted. In its
    methods: opened: a conversation's id. target: id of the model chosen in Chat. base, tuned: both histories."""

    def __init__(
        self,
        services: Services,
        wording: Wording,
        targets: Callable[[], list[tuple[str, str]]],
        view: Callable[..., Updates],
    ):
        """Create the shelf. targets: returns the models that can answer now, as in the chat's list. view: returns
        ChatPage's updates for both histories and a notice in words."""
        self.services, self.w, self._targets, self._view = services, wording, targets, view

    @property
    def store(self) -> Conversations:
        return Conversations(self.services.workspace)

    def build(self) -> None:
        """Build the fold: search, the list of conversations, and the tools of the open one."""
        w = self.w
        self.opened = gr.Textbox(
            "", visible="hidden"
        )  # visible="hidden": a component with visible=False sends no change events
        with gr.Accordion(w.t("conversations_view.title"), open=False, elem_id="chat-conversations"):
            self.words = gr.Textbox(max_lines=1, **w.named("conversations_view.search", "chat-conversations-search"))
            self.list = gr.Radio([], value=None, **w.named("conversations_view.list", "chat-conversations-list"))
            self.text = gr.HTML("", elem_id="chat-conversations-message")
            with gr.Column(visible=False) as self.tools:
                self.name = gr.Textbox(max_lines=1, **w.named("conversations_view.name", "chat-conversation-name"))
                with gr.Row(elem_classes="lg-tight"):
                    self.rename = gr.Button(w.t("conversations_view.rename"), elem_id="chat-conversation-rename")
                    self.delete = gr.Button(w.t("conversations_view.delete"), elem_id="chat-conversation-delete")
                    self.really = gr.Button(w.t("conversations_view.really"), variant="stop", visible=False,
                        elem_id="chat-conversation-really")  # fmt: skip
            self.notice = gr.HTML("", visible=False, elem_id="chat-conversations-notice")

    @property
    def listed(self) -> list[Component]:
        """The components that `draw` updates."""
        return [self.list, self.text, self.tools, self.name, self.really]

    def wire(
        self,
        page: gr.Blocks,
        target: Component,
        base: Component,
        tuned: Component,
        notice_html: Component,
        view: list[Component],
        ends: Options,
    ) -> tuple[Dependency, list[object]]:
        """Connect the list, its search and tools. Returns the event that opens, with the page, the conversation of
        before, and the events that open another one.

        view: the components of the chat that show a conversation. ends: options of events that end a running answer.
        The chat itself begins a new conversation when another model is selected.
        """
        self._target, self._base, self._tuned, self._notice = target, base, tuned, notice_html
        drawn, place = [self.opened, self.words], [self.opened, target, *view]
        restored = page.load(self.restore, [target, self.opened], place, js=OPENED, **AT_ONCE)
        for event in (restored, self.list.input(self.open, [self.list, target], place, **ends)):
            event.then(self.draw, drawn, self.listed, **LAST, **AT_ONCE)
        self.words.submit(self.draw, drawn, self.listed, **LAST, **AT_ONCE)
        self.opened.change(self.draw, drawn, self.listed, js=KEEPS, **AT_ONCE)
        renamed = self.rename.click(self.renamed, [self.opened, self.name], [self.notice], **CONTROL)
        renamed.then(self.draw, drawn, self.listed, **AT_ONCE)
        self.delete.click(lambda: gr.update(visible=True), None, [self.really], **AT_ONCE)
        self.really.click(self.deleted, [self.opened], [self.notice, self.opened], **CONTROL)
        return restored, [self.list.input]

    # ---- saving while chatting -------------------------------------------------------------------------------------
    def keeping(
        self,
        views: Iterator[dict[Component, Any]],
        opened: object,
        target: object,
        label: str,
        before: list[Message] | None,
    ) -> Iterator[Updates]:
        """Yield the views of an answer, each with the id of its conversation, which is saved with the question before
        the first word, and again at the end; then a notice if that failed.

        opened: the open conversation; a new one begins if it belongs to another model (target, whose name is label) or
        is None. before: the base's history without the question.
        """
        saved: Conversation | None = None
        last: dict[Component, Any] = {}
        failed: ChatError | None = None
        try:
            for view in views:
                if len(view.get(self._base, [])) > len(before or []):
                    if not last:
                        branch = _branch(view[self._base], view[self._tuned])
                        saved, failed = self._begun(opened, target, label, branch)
                    last = view
                yield {**view, self.opened: saved.id} if saved else {**view}
        finally:  # also if the page was closed or the event was cancelled
            if saved:
                failed = self._saved(saved.with_branch(_branch(last[self._base], last[self._tuned])))
        if failed:
            yield {self._notice: shown(notice(self.w.render(failed.message)))}

    def _saved(self, conversation: Conversation) -> ChatError | None:
        """Save a conversation under the name that it now has; return the error if that fails, else None. One that was
        deleted meanwhile stays so."""
        try:
            name = self.store.get(conversation.id).name
        except ChatError:
            return None
        try:
            self.store.save(conversation.model_copy(update={"name": name}))
        except ChatError as error:
            return error
        return None

    def _begun(
        self, opened: object, target: object, label: str, branch: Branch
    ) -> tuple[Conversation | None, ChatError | None]:
        """Save the branch in the opened conversation, or in a new one if there is none or it is of another model;
        return it, or (None, the error)."""
        try:
            conversation = self.store.get(opened)
        except ChatError:
            conversation = None
        try:
            if conversation is None or conversation.target != target:
                return self.store.begin(str(target), label, branch), None
            return self.store.save(conversation.with_branch(branch)), None
        except ChatError as error:
            return None, error

    def save_histories(self, opened: object, base: list[Message] | None, tuned: list[Message] | None) -> None:
        """Save both histories, which a correction has changed, in the open conversation. Inputs: opened, both
        histories. Does nothing for an unsaved conversation. Raises ChatError if the disk refuses."""
        try:
            conversation = self.store.get(opened)
        except ChatError:
            return
        self.store.save(conversation.with_branch(_branch(base, tuned)))

    # ---- the list --------------------------------------------------------------------------------------------------
    def draw(self, opened: object, words: object) -> Updates:
        """Return the updates that show the conversations with these words, up to MAX_LISTED, links to download them,
        and the open one's name."""
        w, matches = self.w, self.store.find(words if isinstance(words, str) else "")
        one = next((one for one in matches if one.id == opened), None)
        choices = [
            (f"{each.name} · {each.label} · {format.moment(self.w, each.changed)}", each.id)
            for each in matches[:MAX_LISTED]
        ]
        count = (
            w.t("conversations_view.count", shown=len(choices), count=len(matches))
            if matches
            else w.t("conversations_view.none")
        )
        links = [("export_all", "")] if matches else []
        links = [("export_one", one.id), *links] if one else links
        anchors = [tag("a", w.t(f"conversations_view.{name}"), href=address(id, w.language, TALKS), download=True,
            id=f"chat-{name}") for name, id in links]  # fmt: skip
        spaced = [part for link in anchors for part in (" · ", link)]
        return {
            self.list: gr.update(choices=choices, value=one.id if one else None, visible=bool(choices)),
            self.text: tag("p", count, *spaced),
            self.tools: gr.update(visible=one is not None),
            self.name: one.name if one else "",
            self.really: gr.update(visible=False),
        }

    def restore(self, target: object, opened: object) -> Updates:
        """Return the updates that show the conversation that this browser had open; {} without one."""
        return self.open(opened, target) if opened else {}

    def open(self, id: object, target: object) -> Updates:
        """Return the updates that show a conversation and select its model; a notice if one of them is gone."""
        try:
            return self._shown(self.store.get(id), target)
        except GarageError as error:
            return {self.opened: "", **self._view([], [], self.w.render(error.message))}

    def _shown(self, conversation: Conversation, target: object) -> Updates:
        """Return the updates that show a conversation; its model is selected if it still exists."""
        is_there = conversation.target in (id for _, id in self._targets())
        sentence = "" if is_there else self.w.t("conversations_view.gone", label=conversation.label)
        updates = self._histories(conversation, sentence)
        if is_there and conversation.target != target:
            # With its choices, as those of the page may be older than the end of the run.
            updates[self._target] = gr.update(choices=self._targets(), value=conversation.target)
        return updates

    def of_target(self, target: object, opened: object) -> Updates:
        """Return the updates that show the opened conversation; {} if it belongs to another model than target, or no
        longer exists."""
        try:
            conversation = self.store.get(opened)
        except ChatError:
            return {}
        return self._histories(conversation) if conversation.target == target else {}

    def _histories(self, conversation: Conversation, sentence: str = "") -> Updates:
        """Return the updates that show a conversation, with a sentence as notice."""
        branch = conversation.branch
        view = self._view(self._messages(branch.base), self._messages(branch.tuned), sentence)
        return {self.opened: conversation.id, **view}

    def _messages(self, turns: tuple[JsonObject, ...]) -> list[Message]:
        """Return stored turns as the chat shows them, thinking and tool calls folded."""
        messages: list[Message] = []
        for turn in turns:
            if turn["role"] == "assistant":
                messages = with_answer(
                    messages, as_written(turn), self.w.t("chat_page.thought"), self.w.t("chat_page.tool_call")
                )
            else:
                messages.append({"role": turn["role"], "content": turn["content"]})
        return messages

    # ---- rename, delete ---------------------------------------------------------------------------------------------
    def renamed(self, opened: object, name: object) -> Update:
        """Rename the open conversation, and return the update of the notice: the error, or hidden if it was renamed."""
        return outcome(self.w, lambda: self.store.rename(opened, name if isinstance(name, str) else ""))

    def deleted(self, opened: object) -> Updates:
        """Delete the open conversation and return the notice, with none open; its text stays visible until another is
        opened."""
        message = outcome(self.w, lambda: self.store.delete(opened), self.w.t("conversations_view.deleted"))
        return {self.notice: message, self.opened: ""}


def _branch(base: list[Message] | None, tuned: list[Message] | None) -> Branch:
    """Return both histories as a branch."""
    return Branch(base=_turns(base), tuned=_turns(tuned))


def _turns(history: list[Message] | None) -> tuple[JsonObject, ...]:
    """Return a history's turns including the last question, even if it has no answer yet, with half characters
    replaced."""
    turns = turns_of(history)
    questions = [content_of(message) for message in history or [] if message.get("role") == "user"]
    if questions and (
        not turns or turns[-1]["role"] == "assistant" and len(questions) > sum(turn["role"] == "user" for turn in turns)
    ):
        turns.append({"role": "user", "content": questions[-1]})
    return tuple({name: text.encode("utf-8", "replace").decode() for name, text in turn.items()} for turn in turns)
