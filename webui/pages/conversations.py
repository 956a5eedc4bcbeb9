"""The saved conversations of the Chat page: saved while chatting, searched, renamed, downloaded, deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from gradio.components import Component

from core.chat.conversations import Branch, Conversation, Conversations
from core.errors import ChatError, GarageError
from webui.kit import format
from webui.kit.html import notice, tag
from webui.kit.live import AT_ONCE, CONTROL, LAST, outcome, shown
from webui.kit.wording import Wording
from webui.pages.chat_history import Message, answered, as_written, content_of, turns_of
from webui.server.set_file import TALKS, address
from webui.state.services import Services

MOST_LISTED = 50
BASE, TUNED, NOTICE, SENT = 3, 4, 7, 8  # places in ChatPage's view
# Which conversation is open is known to this browser alone: a reload shows it again.
OPENED = "(...given) => { given[given.length - 1] = loraGarageDuel.opened(); return given; }"
TAKEN = "(...given) => { given[given.length - 1] = loraGarageDuel.taken(); return given; }"
CHOSEN = "(...given) => { loraGarageDuel.choose(); return given; }"
OFFERED = "(now, offered) => loraGarageDuel.offered(now, offered)"
KEEPS = "(...given) => { loraGarageDuel.open(given[0]); return given; }"


class ConversationShelf:
    def __init__(self, services: Services, wording: Wording, targets: Callable[[], list[tuple[str, str]]]):
        """targets: what can answer now, as the chat's list of models has it."""
        self.services, self.w, self._targets = services, wording, targets

    @property
    def kept(self) -> Conversations:
        return Conversations(self.services.workspace)

    def build_branches(self) -> None:
        """Below the answers, where the last one was asked more than once."""
        with gr.Row(visible=False, elem_classes="lg-tight", elem_id="chat-branches") as self.branches:
            self.before = gr.Button(
                self.w.t("conversations_view.before"), size="sm", min_width=90, elem_id="chat-branch-before"
            )
            self.which = gr.HTML("", elem_id="chat-branch")
            self.after = gr.Button(
                self.w.t("conversations_view.after"), size="sm", min_width=90, elem_id="chat-branch-after"
            )

    def build(self) -> None:
        w = self.w
        self.opened = gr.Textbox("", visible="hidden")  # one that is not in the page tells nobody of its changes
        with gr.Accordion(w.t("conversations_view.title"), open=False, elem_id="chat-conversations"):
            self.words = gr.Textbox(max_lines=1, **w.named("conversations_view.search", "chat-conversations-search"))
            self.list = gr.Radio([], value=None, **w.named("conversations_view.list", "chat-conversations-list"))
            self.said = gr.HTML("", elem_id="chat-conversations-said")
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
        return [self.list, self.said, self.tools, self.name, self.really, self.branches, self.which]

    def wire(self, page: gr.Blocks, target: Component, view: list[Component], ends: dict[str, Any]) -> list[Any]:
        """view: the chat's; its own target.change begins a conversation where it is not the opened one's. ends: options
        of what ends an answer that is being written. Gives what opens another conversation, or another answer of it."""
        drawn, place = [self.opened, self.words], [self.opened, target, *view]
        restored = page.load(self.restore, [target, self.opened], place, js=OPENED, **AT_ONCE)
        for event in (restored, self.list.input(self.open, [self.list, target], place, **ends)):
            event.then(self.draw, drawn, self.listed, **LAST, **AT_ONCE)
        self.words.submit(self.draw, drawn, self.listed, **LAST, **AT_ONCE)
        self.opened.change(self.draw, drawn, self.listed, js=KEEPS, **AT_ONCE)
        for button, step in ((self.before, -1), (self.after, 1)):
            turn = lambda opened, target, step=step: self.turned(opened, target, step)  # noqa: E731
            button.click(turn, [self.opened, target], place, **ends).then(self.draw, drawn, self.listed, **AT_ONCE)
        renamed = self.rename.click(self.renamed, [self.opened, self.name], [self.notice], **CONTROL)
        renamed.then(self.draw, drawn, self.listed, **AT_ONCE)
        self.delete.click(lambda: gr.update(visible=True), None, [self.really], **AT_ONCE)
        self.really.click(self.deleted, [self.opened], [self.notice, self.opened], **CONTROL)
        return [self.list.input, self.before.click, self.after.click]

    # ---- kept while it is held --------------------------------------------------------------------------------------
    def keeping(self, views: Iterator[list[Any]], opened: Any, target: Any, label: str, before: Any,
        is_another: bool) -> Iterator[list[Any]]:  # fmt: skip
        """The views of an answer, each with the id of its conversation: on the disk with its question before the first
        word, whole at the end.
        before: the base's history without the question. opened: of another model, or none, begins a conversation."""
        kept: Conversation | None = None
        last: list[Any] = []
        failed: ChatError | None = None
        try:
            for view in views:
                if isinstance(view[BASE], list) and len(view[BASE]) > len(before or []):
                    if not last:
                        kept, failed = self._begun(opened, target, label, _branch(view[BASE], view[TUNED]), is_another)
                    last = view
                yield [*view, kept.id if kept else gr.skip()]
        finally:  # also where the page was closed, or another event took the answer's place
            if kept:
                failed = self._saved(kept.with_branch(_branch(last[BASE], last[TUNED])))
        if failed:
            untouched = [gr.skip()] * len(last)
            yield [*untouched[:NOTICE], shown(notice(self.w.render(failed.message))), *untouched[NOTICE:]]

    def _saved(self, conversation: Conversation) -> ChatError | None:
        """Why it could not be; the answer goes on. What was renamed meanwhile keeps its name, what was deleted is not
        there again."""
        try:
            name = self.kept.get(conversation.id).name
        except ChatError:
            return None
        try:
            self.kept.save(conversation.model_copy(update={"name": name}))
        except ChatError as error:
            return error
        return None

    def _begun(
        self, opened: Any, target: Any, label: str, branch: Branch, is_another: bool
    ) -> tuple[Conversation | None, ChatError | None]:
        try:
            found = self.kept.get(opened)
        except ChatError:
            found = None
        try:
            if found is None or found.target != target:
                return self.kept.begin(str(target), label, branch), None
            return self.kept.save(found.with_branch(branch, is_another)), None
        except ChatError as error:
            return None, error

    def put(self, opened: Any, base: Any, tuned: Any) -> None:
        """Inputs: opened, both histories, which a correction has changed. One that is not kept stays so."""
        try:
            found = self.kept.get(opened)
        except ChatError:
            return
        self.kept.save(found.with_branch(_branch(base, tuned)))

    # ---- found again ------------------------------------------------------------------------------------------------
    def draw(self, opened: Any, words: Any) -> list[Any]:
        """Inputs: opened, words. Outputs: listed."""
        w, found = self.w, self.kept.find(words if isinstance(words, str) else "")
        one = next((one for one in found if one.id == opened), None)
        choices = [(self._line(each), each.id) for each in found[:MOST_LISTED]]
        count = (
            w.t("conversations_view.count", shown=len(choices), count=len(found))
            if found
            else w.t("conversations_view.none")
        )
        links = [("export_all", "")] if found else []
        links = [("export_one", one.id), *links] if one else links
        said = [tag("a", w.t(f"conversations_view.{name}"), href=address(id, w.language, TALKS), download=True,
            id=f"chat-{name}") for name, id in links]  # fmt: skip
        spaced = [part for link in said for part in (" · ", link)]
        many = len(one.branches) if one else 1
        which = (
            tag("p", w.t("conversations_view.which", number=one.at + 1, count=many), class_="lg-quiet") if one else ""
        )
        return [
            gr.update(choices=choices, value=one.id if one else None, visible=bool(choices)),
            tag("p", count, *spaced),
            gr.update(visible=one is not None),
            one.name if one else "",
            gr.update(visible=False),
            gr.update(visible=many > 1),
            which,
        ]

    def _line(self, one: Conversation) -> str:
        return f"{one.name} · {one.label} · {format.moment(one.changed)}"

    def restore(self, target: Any, opened: Any) -> list[Any]:
        """Inputs: target, opened (by this browser). Outputs: opened, target, the view."""
        return self.open(opened, target) if opened else ["", *[gr.skip()] * 12]

    def open(self, id: Any, target: Any) -> list[Any]:
        """Inputs: a conversation, target. Outputs: opened, target, the view. Where what answered is gone, it says
        so."""
        try:
            return self._shown(self.kept.get(id), target)
        except GarageError as error:
            return ["", gr.skip(), *self._view([], [], shown(notice(self.w.render(error.message), "warn")))]

    def turned(self, opened: Any, target: Any, step: int) -> list[Any]:
        """Inputs: opened, target. Outputs: opened, target, the view, of another branch."""
        try:
            found = self.kept.get(opened)
            at = (found.at + step) % len(found.branches)
            return self._shown(self.kept.save(found.model_copy(update={"at": at})), target)
        except GarageError as error:
            return ["", gr.skip(), *self._view([], [], shown(notice(self.w.render(error.message), "warn")))]

    def _shown(self, found: Conversation, target: Any) -> list[Any]:
        said: Any = shown("")
        if not (is_there := found.target in (known for _, known in self._targets())):
            said = shown(notice(self.w.t("conversations_view.gone", label=found.label), "warn"))
        # With its list: the page's own was drawn before the run had ended.
        chosen = (
            gr.update(choices=self._targets(), value=found.target) if is_there and found.target != target else gr.skip()
        )
        return [found.id, chosen, *self._histories(found, said)]

    def of_target(self, target: Any, opened: Any) -> list[Any] | None:
        """The opened conversation and the view of it; None where it is another model's."""
        try:
            found = self.kept.get(opened)
        except ChatError:
            return None
        return [found.id, *self._histories(found, shown(""))] if found.target == target else None

    def _histories(self, found: Conversation, said: Any) -> list[Any]:
        return self._view(self._messages(found.branch.base), self._messages(found.branch.tuned), said)

    def _messages(self, turns: tuple[dict[str, Any], ...]) -> list[Message]:
        told: list[Message] = []
        for turn in turns:
            if turn["role"] == "assistant":
                told = answered(told, as_written(turn), self.w.t("chat_page.thought"), self.w.t("chat_page.tool_call"))
            else:
                told.append({"role": turn["role"], "content": turn["content"]})
        return told

    def _view(self, base: list[Message], tuned: list[Message], said: Any) -> list[Any]:
        """As ChatPage's."""
        talked = bool(base or tuned)
        both = gr.skip() if not talked else gr.update(visible=bool(tuned))
        send, stop = gr.update(visible=True), gr.update(visible=False)  # an answer that was being written has ended
        return [
            gr.update(visible=not talked),
            gr.update(visible=talked),
            both,
            base,
            tuned,
            "",
            "",
            said,
            gr.skip(),
            send,
            stop,
        ]

    # ---- named, deleted ---------------------------------------------------------------------------------------------
    def renamed(self, opened: Any, name: Any) -> Any:
        """Inputs: opened, name. Outputs: notice."""
        return outcome(self.w, lambda: self.kept.rename(opened, name if isinstance(name, str) else ""))

    def deleted(self, opened: Any) -> list[Any]:
        """Inputs: opened. Outputs: notice, opened: what is shown stays on the screen until something else is."""
        said = outcome(self.w, lambda: self.kept.delete(opened), self.w.t("conversations_view.deleted"))
        return [said, ""]


def _branch(base: list[Message] | None, tuned: list[Message] | None) -> Branch:
    return Branch(base=_turns(base), tuned=_turns(tuned))


def _turns(history: list[Message] | None) -> tuple[dict[str, Any], ...]:
    """With the last question, whether or not anything was answered yet."""
    turns = turns_of(history)
    asked = [content_of(message) for message in history or [] if message.get("role") == "user"]
    if asked and (
        not turns or turns[-1]["role"] == "assistant" and len(asked) > sum(turn["role"] == "user" for turn in turns)
    ):
        turns.append({"role": "user", "content": asked[-1]})
    return tuple({name: text.encode("utf-8", "replace").decode() for name, text in turn.items()} for turn in turns)
