"""Feedback on an answer in Chat: its corrected text, or the better of two, saved as a row of a dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from core.chat import corrections
from core.chat.evaluation import sets
from core.data.validation_split import FEW_PAIRS, SMALLEST_SPLIT
from core.errors import ChatError, GarageError
from core.files import JsonObject
from webui.form.handle import FieldValues, Filled, FormHandle
from webui.kit import format
from webui.kit.html import Html, notice, success, tag
from webui.kit.live import AT_ONCE, CONTROL, CORRECTS, QUIET, SHOW_FURTHER, Update, Updates, shown
from webui.kit.panel import Panel
from webui.pages.chat_choices import is_there
from webui.pages.chat_history import MAX_SYSTEM, Message, last_answer, with_answer, without_last
from webui.pages.evaluation.test_sets import every_set, set_name

MAX_ANSWER = 40_000  # characters
# The updates of `closed`, for `outputs`.
CLOSES = (
    "() => [{__type__: 'update', visible: false}, undefined, undefined, {__type__: 'update', visible: false}, "
    "undefined, {__type__: 'update', value: '', visible: false}, {__type__: 'update', visible: false}]"
)


class CorrectionsPanel(Panel):
    """Feedback on an answer in Chat: a person corrects it, or picks the better of two, which becomes a row of a
    dataset. In its methods: base, tuned: both histories. target: id of the model that answers. system: the system
    prompt."""

    def build_button(self) -> None:
        self.open = gr.Button(self.w.t("corrections_view.open"), min_width=100, elem_id="chat-correct")
        self.bad = gr.Button(self.w.t("corrections_view.bad"), min_width=100, elem_id="chat-bad")

    def build(self) -> None:
        """Build the field for a corrected answer, the choice of the better of two, and the button that trains."""
        w = self.w
        self.earlier = gr.State(None)  # question, answer, and number of attempts
        with gr.Column(visible=False, elem_id="chat-correction") as self.panel:
            text = w.named("corrections_view.text", "chat-correction-text")
            self.text = gr.Textbox(lines=4, max_lines=16, max_length=MAX_ANSWER, **text)
            with gr.Row(elem_classes="lg-tight"):
                self.save = gr.Button(w.t("corrections_view.save"), variant="primary", elem_id="chat-correction-save")
                self.close = gr.Button(w.t("corrections_view.close"), elem_id="chat-correction-close")
        with gr.Column(visible=False, elem_id="chat-better") as self.choice:
            self.before = gr.HTML("", elem_id="chat-better-before")
            with gr.Row(elem_classes="lg-tight"):
                self.now_better = gr.Button(w.t("corrections_view.now_better"), elem_id="chat-better-now")
                self.before_better = gr.Button(w.t("corrections_view.before_better"), elem_id="chat-better-earlier")
        self.notice = gr.HTML("", visible=False, elem_id="chat-correction-notice")
        self.train = gr.Button(self.w.t("corrections_view.train"), visible=False, size="sm", elem_id="chat-train-these")

    @property
    def outputs(self) -> list[Component]:
        return [self.panel, self.text, self.earlier, self.choice, self.before, self.notice, self.train]

    def wire(
        self,
        keep: Callable[[Dependency], None],
        base: Component,
        tuned: Component,
        target: Component,
        system: Component,
    ) -> list[object]:
        """Connect the buttons. keep: saves the conversation after an event that changed it. Returns these events, so
        that opening another conversation can cancel them."""
        self.base, self.tuned, talked = base, tuned, [base, tuned, target, system]
        opened = self.open.click(self.opened, [base, tuned], self.outputs, **AT_ONCE)
        opened.then(None, js="() => loraGarageShow('#chat-correction', true)", **QUIET)
        self.close.click(self.closed, None, self.outputs, **AT_ONCE)
        kept = self.bad.click(self.kept_as_test, talked, [self.notice], **CORRECTS)
        kept.then(None, js="() => loraGarageShow('#chat-correction-notice', true)", **QUIET)
        outputs = [*self.outputs, base, tuned]
        saves = [self.save.click(self.saved, [self.text, *talked], outputs, **CORRECTS)]
        for button, is_now in ((self.now_better, True), (self.before_better, False)):
            prefer = lambda earlier, *rest, is_now=is_now: self.preferred(is_now, earlier, *rest)  # noqa: E731
            saves.append(button.click(prefer, [self.earlier, *talked], outputs, **CORRECTS))
        for event in saves:
            keep(event)
        return saves

    # ---- drawing ---------------------------------------------------------------------------------------------------
    def closed(self, message: Html | str = "", may_train: bool = False) -> Updates:
        """Return the updates that close the correction and the choice, and show message. may_train: also the button
        that trains. The earlier attempt stays known: the next one uses the next seed."""
        hidden, train = gr.update(visible=False), gr.update(visible=may_train)
        return {self.panel: hidden, self.choice: hidden, self.notice: shown(message), self.train: train}

    def opened(self, base: list[Message] | None, tuned: list[Message] | None) -> Updates:
        """Open the correction: put the last answer of the tuned model, else of the base, into the text field; a notice
        without one."""
        _, answer = last_answer(tuned or base)
        if not answer:
            return self.closed(notice(self.w.t("corrections.nothing"), "warn"))
        return {**self.closed(), self.panel: gr.update(visible=True), self.text: answer}

    def begin_again(self, earlier: Any, history: list[Message] | None) -> JsonObject:
        """Return the question and answer that are about to be repeated and the number of this try ("question",
        "answer", "tries"), which counts on from `earlier` if that was of the same question. earlier: what this returned
        the last time, or None."""
        turns, answer = last_answer(history)
        question = turns[-1]["content"] if turns else ""
        same = isinstance(earlier, dict) and earlier.get("question") == question
        return {"question": question, "answer": answer, "tries": earlier["tries"] + 1 if same else 1}

    def offered(self, earlier: JsonObject, history: list[Message] | None) -> Updates:
        """Return the updates that let a person choose between the earlier and the new answer to a question (the last in
        history). A notice if both are equal; nothing is offered if either is empty."""
        w, answer = self.w, last_answer(history)[1]
        if not answer or not earlier["answer"]:
            return self.closed()
        if answer == earlier["answer"]:
            return {**self.closed(notice(w.t("corrections_view.same_again"), "plain")), self.earlier: earlier}
        before = tag(
            "div", tag("div", tag("h2", w.t("corrections_view.before")), tag("p", earlier["answer"])), class_="lg-duel"
        )
        return {**self.closed(), self.earlier: earlier, self.choice: gr.update(visible=True), self.before: before}

    # ---- saving ----------------------------------------------------------------------------------------------------
    def saved(
        self, text: object, base: list[Message] | None, tuned: list[Message] | None, target: str, system: object
    ) -> Updates:
        """Keep the corrected text as better than the last answer; the conversation continues from it."""
        better = text if isinstance(text, str) else ""
        return self._keep(better, last_answer(tuned or base)[1], base, tuned, target, system)

    def kept_as_test(
        self, base: list[Message] | None, tuned: list[Message] | None, target: object, system: object
    ) -> Update:
        """Keep the last question, with its answer, as a test of the answering model's base, and return the notice, of
        success or the error."""
        try:
            turns, answer = self._talked(base, tuned, target, system)
            made = sets.add_failure(self.services.workspace, self._base(str(target)), turns, answer)
        except GarageError as error:
            return shown(notice(self.w.render(error.message)))
        return shown(success(self.w.t("corrections_view.test", name=set_name(made, self.w))))

    def preferred(
        self,
        is_now: bool,
        earlier: object,
        base: list[Message] | None,
        tuned: list[Message] | None,
        target: str,
        system: object,
    ) -> Updates:
        """Keep the preferred of the two answers as better than the other, and put it into the conversation. is_now: the
        newer one is preferred. earlier: state of `begin_again`."""
        now, before = last_answer(tuned or base)[1], earlier.get("answer", "") if isinstance(earlier, dict) else ""
        better, worse = (now, before) if is_now else (before, now)
        return self._keep(better, worse, base, tuned, target, system)

    def _keep(
        self,
        better: str,
        worse: str,
        base: list[Message] | None,
        tuned: list[Message] | None,
        target: str,
        system: object,
    ) -> Updates:
        """Add a row with the better and the worse answer to the model's dataset of corrections, and make the better one
        the expected answer of tests with the same turns.

        Returns the updates that show for what the rows of a run are enough, offer to train with them, and put the
        better answer into the history; only the error if it fails.
        """
        w, history = self.w, tuned or base
        try:
            turns, _ = self._talked(base, tuned, target, system)
            rows = [corrections.row(turns, better[:MAX_ANSWER], worse)]
            info, _ = corrections.keep(
                self.services.workspace, self.services.datasets, target, self._name(target), rows
            )
            self._expect(target, turns, better)
        except GarageError as error:
            return {self.notice: shown(notice(w.render(error.message)))}
        before, question = without_last(history)
        now = with_answer(
            [*before, {"role": "user", "content": question}],
            better.strip(),
            w.t("chat_page.thought"),
            w.t("chat_page.tool_call"),
        )
        count, of_run = info.good_rows or 0, target.startswith("run:")
        sentences = [
            w.t("corrections_view.kept", name=info.name, rows=count),
            *([self._enough(count)] if of_run else []),
        ]
        closed = self.closed(notice(w.text(*sentences), "ok"), may_train=of_run)
        return {**closed, self.tuned if tuned else self.base: now}

    def _talked(
        self, base: list[Message] | None, tuned: list[Message] | None, target: object, system: object
    ) -> tuple[list[dict[str, str]], str]:
        """Return the turns up to the last question, with the system prompt, and the tuned model's answer, else the
        base's. Raises ChatError without an answer, or if the model is gone."""
        turns, answer = last_answer(tuned or base)
        if not answer:
            raise ChatError("corrections.nothing")
        if not is_there(self.services, self.w, target):
            raise ChatError("chat_page.gone")
        prompt = system.strip()[:MAX_SYSTEM] if isinstance(system, str) else ""
        return [*([{"role": "system", "content": prompt}] if prompt else []), *turns], answer

    def _expect(self, target: str, turns: list[dict[str, str]], better: str) -> None:
        """Make the better answer the expected one of tests that were kept with the same turns."""
        base = self._base(target)
        tests = (prompt for one in every_set(self.services.workspace) if one.base == base for prompt in one.prompts)
        if any([dict(turn) for turn in prompt.turns] == turns for prompt in tests):
            sets.add_failure(self.services.workspace, base, turns, expected=better)

    def _base(self, target: str) -> str:
        """Return the id of an answering model's base. Raises GarageError if it is gone."""
        if target.startswith("run:"):
            return self.services.runs.get(target.removeprefix("run:")).recipe().model.id
        return target.removeprefix("base:")

    def _enough(self, rows: int) -> str:
        """Return a sentence about what this number of corrections is enough for."""
        if rows >= FEW_PAIRS:
            return self.w.t("corrections_view.enough_pairs")
        if rows >= SMALLEST_SPLIT:
            return self.w.t("corrections_view.enough_rows", pairs=FEW_PAIRS)
        return self.w.t("corrections_view.few", rows=SMALLEST_SPLIT, pairs=FEW_PAIRS)

    # ---- training -------------------------------------------------------------------------------------------------
    def wire_train(
        self, form: FormHandle, target: Component, data: Component, choices: Callable[[], object], tabs: gr.Tabs
    ) -> None:
        """Connect the button that opens Train to continue the answering run with its corrections. data: the list of
        datasets there. choices: returns its current entries."""

        def fill(values: FieldValues) -> Filled:
            """Fill in a run that continues with the corrections, and open the Train page; without corrections show why
            not."""
            try:
                model = values[target] if isinstance(values[target], str) else ""
                info = corrections.find_dataset(self.services.datasets, model)
                run = self.services.runs.get(model.removeprefix("run:"))
                if info is None:
                    raise ChatError("corrections.no_votes")
                filling, updates = form.filling(corrections.recipe_for(run, info), run.name, parent=run.id)
            except GarageError as error:
                return None, {self.notice: shown(notice(self.w.render(error.message)))}
            return filling, {tabs: gr.update(selected="train"), **updates, data: gr.update(choices=choices())}

        filled = form.fill_on(self.train.click, fill, {target}, {self.notice, tabs, data}, **CONTROL)
        filled.then(None, None, None, js=SHOW_FURTHER, **QUIET)

    def _name(self, target: str) -> str:
        """Return the name of the dataset of corrections. Raises RunError for a run that is gone."""
        if target.startswith("run:"):
            return self.w.t("corrections_view.set_name", name=self.services.runs.get(target.removeprefix("run:")).name)
        kind, _, name = target.partition(":")
        return self.w.t("corrections_view.set_name", name=format.model_name(name) if kind == "base" else name)
