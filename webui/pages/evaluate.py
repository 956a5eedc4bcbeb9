"""Evaluate: choose model, questions, contestants and judge; the answer in one sentence, and every row behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import gradio as gr

from core import files
from core.chat.evaluation import sets, votes
from core.chat.evaluation.evaluation import SetEvaluation
from core.chat.evaluation.of_run import keep_judge
from core.chat.evaluation.table import Table, unsent
from core.chat.prompts import Prompt
from core.errors import ChatError, GarageError
from core.files import JsonObject
from core.judges.judge import Outcome
from core.judges.specs import ModelJudge
from core.workspace import names
from webui.kit.drawn_part import Options, drawn_part, fields_sent
from webui.kit.html import Html, join, muted, notice, success, tag
from webui.kit.visitor import IS_LOCAL
from webui.kit.wording import Wording
from webui.pages.evaluation.answers import answers, confusions
from webui.pages.evaluation.chooser import choice_of, details, fields_of, further_options
from webui.pages.evaluation.test_sets import MAX_TEXT, every_set, imported, set_name, test_sets
from webui.pages.page_around import PageAround
from webui.run.evaluated import at_work, result_of, summary
from webui.state.evaluating import BASE, Choice, Ground, newest_of
from webui.state.services import Services

PLACE = "place"  # in assets/drawn_part.js: what other pages lead to


def draw(around: PageAround, tab: gr.Tab) -> None:
    """Build the Evaluate page into its tab."""
    place = EvaluatePlace(around.services, around.w)
    drawn_part(around.services, around.w, PLACE, "evaluate", place.drawn, place.press)


class EvaluatePlace:
    """The Evaluate page, drawn by the server as HTML: the choice of model, questions, contestants and judge, the result
    with every row, and the test sets. press answers all buttons; the private methods are its acts."""

    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording

    # ---- drawing ----------------------------------------------------------------------------------------------------
    def drawn(self, request: JsonObject) -> Html:
        """Return the whole page for any JSON from a browser: what is evaluated, the newest result with its rows if all
        questions are answered, and the test sets."""
        services, w, fields = self.services, self.w, fields_sent(request)
        choice, models, questions = choice_of(services, fields, w)
        ground, table, lost, problem = None, None, None, ""
        try:
            ground = services.evaluating.basis(choice)
            table, lost = result_of(services.workspace, self._newest(choice, ground.test_set.title))
        except GarageError as error:
            problem = w.render(error.message)
        sections = [self._choosing(choice, models, questions, ground, table, problem)]
        if table is not None and not table.evaluation.missing():
            chosen = {name: _text(fields, name) for name in ("filter", "row", "more")}
            parts = [*summary(table, lost, w), *self._to_send(table), confusions(table, w)]
            sections.append(tag("section", *parts, class_="ep-card", id="ep-result"))
            sections.append(tag("section", *answers(table, chosen, w), class_="ep-card", id="ep-rows"))
        opened = tag("section", *test_sets(services, _text(fields, "set"), w), class_="ep-card", id="ep-sets")
        return join([*sections, opened])

    def _choosing(
        self,
        choice: Choice,
        models: Options,
        questions: Options,
        ground: Ground | None,
        table: Table | None,
        problem: str,
    ) -> Html:
        """Return the card of what is evaluated. problem: why there is nothing to evaluate, without a ground."""
        w = self.w
        how = notice(problem, "warn")
        if ground is not None:
            spec = None
            with suppress(GarageError):  # it lacks its option yet
                spec = table.judge if table and choice.judge in ("", table.judge.kind) else (
                    self.services.evaluating.judge(choice, ground)
                )  # fmt: skip
            is_first = table is None or bool(table.evaluation.missing())
            how = details(choice, ground, spec, further_options(self.services, choice.model, w), is_first, w)
        start, lines = self._press(choice, table.evaluation if table else None)
        return tag(
            "section",
            tag("h2", w.t("evaluate_page.title")),
            muted(w.t("evaluate_page.about")) if table is None else None,
            tag("div", fields_of(choice, models, questions, w), start, class_="ep-fields"),
            *lines,
            how,
            class_="ep-card",
            id="ep-choose",
        )

    def _press(self, choice: Choice, evaluation: SetEvaluation | None) -> tuple[Html, list[Html]]:
        """Return the Start or Stop button, and below the fields the progress, or why the last one ended without a
        result."""
        w, progress = self.w, self.services.evaluating.progress()
        mine = progress.choice is not None and progress.choice.has_same_model_and_questions(choice)
        if progress.at_work and mine:
            sentence, line, stop = at_work(progress, w)
            return stop, [sentence, line]
        missing = evaluation.missing() if evaluation else []
        lines = [muted(w.t("evaluation_view.missing", count=len(missing)))] if missing else []
        if mine and progress.error:
            lines.append(notice(w.render(progress.error), "warn"))
        label = w.t("evaluate_page.again" if evaluation and not missing else "evaluation_view.start")
        return tag("button", label, type="button", class_="ep-start", data_act="start", id="ep-start"), lines

    def _to_send(self, table: Table) -> Iterator[Html]:
        """Yield what a model as the judge has still to be sent, with the button that sends it."""
        if isinstance(table.judge, ModelJudge) and (count := len(unsent(table.evaluation, table.judge))):
            w = self.w
            yield muted(w.t("evaluate_page.to_send", count=count, url=table.judge.url))
            send = tag("button", w.t("evaluate_page.send"), type="button", class_="lg-small", data_act="send")
            yield tag("div", send)

    def _newest(self, choice: Choice, title: str) -> SetEvaluation | None:
        """Return the newest evaluation of a choice on questions with this title, None without one; for a run's own
        questions any that is on no test set, as the run may have had another name."""
        space, is_own = self.services.workspace, bool(choice.run_id and not choice.questions)
        titles = frozenset(one.title for one in every_set(space)) if is_own else frozenset([title])
        return newest_of(space, choice, titles, files.stamp(space.root / SetEvaluation.FOLDER), is_own)

    # ---- pressed ----------------------------------------------------------------------------------------------------
    def press(self, request: JsonObject) -> JsonObject:
        """Answer a button, for any JSON from a browser; an unknown act says nothing. Raises GarageError for what cannot
        be done."""
        acts = {
            "start": self._start,
            "send": self._send,
            "stop": self._stop,
            "judge": self._judge,
            "vote": self._vote,
            "bad": self._bad,
            "add": self._add,
            "import": self._import,
            "remove": self._remove,
            "delete": self._delete,
            "base": self._base,
        }
        act = acts.get(_text(request, "act"))
        return act(request) if act else {"notice": ""}

    def _start(self, request: JsonObject) -> JsonObject:
        """Start the evaluation that the fields describe, in the background, and show all its questions: the chosen
        filter and the opened row are cleared.

        Raises GarageError while a run trains, rows are written, or another evaluation is at work. A judge with a wrong
        option ends the evaluation later, with an error on the page.
        """
        choice, _, _ = choice_of(self.services, fields_sent(request), self.w)
        self.services.snapshots.refuse_while_in_use()
        self.services.evaluating.start(choice)
        return {"notice": "", "chosen": {"filter": "", "row": ""}}

    def _send(self, request: JsonObject) -> JsonObject:
        """Begin to send the answers to the model that judges, in the background. Raises ChatError from another device,
        which could reach what this PC alone can, and while another evaluation is at work."""
        if request.get(IS_LOCAL) is not True:
            raise ChatError("making_view.elsewhere")
        choice, _, _ = choice_of(self.services, fields_sent(request), self.w)
        evaluating = self.services.evaluating
        if newest := self._newest(choice, evaluating.basis(choice).test_set.title):  # it may have been deleted
            evaluating.start(choice, newest)
        return {"notice": ""}

    def _stop(self, request: JsonObject) -> JsonObject:
        """Stop the evaluation."""
        self.services.evaluating.stop()
        return {"notice": ""}

    def _judge(self, request: JsonObject) -> JsonObject:
        """Judge the answers that are there by the judge that is chosen now, and keep the result. Nothing happens while
        that judge lacks its pattern or server, or without an evaluation."""
        choice, _, _ = choice_of(self.services, fields_sent(request), self.w)
        if choice.judge in ("regex", "model") and not choice.option:
            return {"notice": ""}  # its field comes now
        evaluating = self.services.evaluating
        ground = evaluating.basis(choice)
        if evaluation := self._newest(choice, ground.test_set.title):
            keep_judge(self.services.workspace, evaluation, evaluating.judge(choice, ground))
            evaluating.keep_result(choice, evaluation)
        return {"notice": ""}

    def _answered(self, request: JsonObject) -> tuple[Table, int, int]:
        """Return the table on the screen with the numbers of question and contestant of a button. Raises ChatError if
        they are gone."""
        choice, _, _ = choice_of(self.services, fields_sent(request), self.w)
        title = self.services.evaluating.basis(choice).test_set.title
        table, _ = result_of(self.services.workspace, self._newest(choice, title))
        number, place = (int(text) if (text := _text(request, at)).isdecimal() else -1 for at in ("number", "place"))
        if table is None or (number, place) not in table.answers:
            raise ChatError("evaluate_page.gone")
        return table, number, place

    def _vote(self, request: JsonObject) -> JsonObject:
        """Keep a person's verdict on an answer: "right", or anything else for wrong."""
        table, number, place = self._answered(request)
        outcome: Outcome = "right" if request.get("verdict") == "right" else "wrong"
        turns = table.evaluation.lineup.prompts[number].turns
        votes.vote(self.services.workspace, turns, table.answers[number, place].text, outcome)
        return {"notice": ""}

    def _bad(self, request: JsonObject) -> JsonObject:
        """Keep a question whose answer is bad as a test of the answering model's base, with its judge; return a
        notice."""
        table, number, place = self._answered(request)
        prompt, one = table.evaluation.lineup.prompts[number], table.contestants[place]
        base = self.services.runs.get(one.run).recipe().model.id if one.run else one.other.removeprefix(BASE)
        own = prompt.judge or (table.judge if prompt.expected else None)
        text = table.answers[number, place].text
        made = sets.add_failure(
            self.services.workspace, base, prompt.turns, text, prompt.expected or "", own, prompt.tags
        )
        return self._notice("evaluate_page.kept", name=set_name(made, self.w))

    def _add(self, request: JsonObject) -> JsonObject:
        """Add a typed question with its expected answer to a set, which may be new, and open it. Raises ChatError
        without a question."""
        fields = fields_sent(request)
        title, question, expected = (
            _text(fields, name, MAX_TEXT).strip() for name in ("title", "question", "expected")
        )
        if not question:
            raise ChatError("evaluate_page.no_question")
        prompt = Prompt(turns=({"role": "user", "content": question},), source="own", expected=expected or None)
        made = sets.add(self.services.workspace, names.display_name(title), [prompt])
        return {"notice": "", "chosen": {"set": made.name}, "empty": ["question", "expected"]}

    def _import(self, request: JsonObject) -> JsonObject:
        """Keep a file as a test set, open it, and return the notice."""
        made = imported(self.services.workspace, request)
        return self._notice("evaluate_page.brought", name=set_name(made, self.w)) | {"chosen": {"set": made.name}}

    def _remove(self, request: JsonObject) -> JsonObject:
        """Take the question at `at` out of the named set; nothing for another text than a number."""
        at = _text(request, "at")
        sets.remove_questions(self.services.workspace, _text(request, "name"), {int(at)} if at.isdecimal() else ())
        return {"notice": ""}

    def _delete(self, request: JsonObject) -> JsonObject:
        """Delete the test set that the request names."""
        sets.remove(self.services.workspace, _text(request, "name"))
        return {"notice": ""}

    def _base(self, request: JsonObject) -> JsonObject:
        """Save in the named test set the base model whose finished runs are tested on its questions, and return the
        answer without a notice ({"notice": ""}).

        request: the set's name in "name", the model in its field "base", "" for none. Nothing changes for a model that
        is not among Models.choices (on this PC, or the starter). Raises ChatError if there is no such set or its file
        cannot be read.
        """
        test_set, base = (
            sets.open_set(self.services.workspace, _text(request, "name")),
            _text(fields_sent(request), "base", 200),
        )
        if base in ("", *self.services.models.choices()):
            sets.save(self.services.workspace, test_set.model_copy(update={"base": base}))
        return {"notice": ""}

    def _notice(self, key: str, **params: object) -> JsonObject:
        """Return the answer to a button that shows a notice of success."""
        return {"notice": success(self.w.t(key, **params))}


def _text(values: JsonObject, name: str, most: int = 80) -> str:
    """Return a browser's text, of at most `most` characters; "" for anything else."""
    value = values.get(name)
    return value[:most] if isinstance(value, str) else ""
