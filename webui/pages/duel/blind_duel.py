"""The blind A/B test: two models answer the same questions, unlabelled, and the result reveals which model wrote
which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import gradio as gr
from gradio.components import Component

from core.chat import corrections
from core.chat.comparison import Contestant, PromptComparison, Score, Verdict, same_beginning
from core.chat.contest import answer_missing
from core.chat.prompts import Prompt, neutral, own_prompts, prompts_of
from core.errors import ChatError, GarageError
from core.judges.judge import is_right
from core.judges.specs import ExactJudge
from webui.kit.html import Html, join, muted, notice, success, tag
from webui.kit.live import AT_ONCE, CONTROL, QUIET, LivePart, Update, Updates, shown
from webui.kit.wording import Wording
from webui.pages.duel.contenders import Contender, two_of
from webui.run import better
from webui.state.services import Services
from webui.state.snapshot import RunRow

COUNTS = (5, 10, 20, 50)
ANSWER_TOKENS, MAX_TOKENS = 128, 1024  # a person reads two answers per question
MAX_VOTER, MAX_OWN = 64, 40_000  # characters
BUTTONS = ("left", "right", "equal", "both_bad")
# A voter is a browser: the same after a reload, another one on another PC.
VOTER = "(...given) => { given[given.length - 1] = loraGarageDuel.voter(); return given; }"


class BlindDuel:
    """The blind A/B test below the chat: two models answer the same questions, a person votes on each unlabelled pair,
    and the result then names them. A comparison: the questions, both models, their answers and the votes, on disk."""

    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording
        self.two = Contender(services, wording, "first"), Contender(services, wording, "second")

    def build(self, rows: tuple[RunRow, ...] = ()) -> None:
        """Build the card: number of questions, contestants, own questions, the pair of answers with its buttons, and
        the result."""
        w = self.w
        self.opened = gr.Textbox(visible="hidden")  # the comparison's id
        self.at = gr.Number(precision=0, visible=False)  # index of the prompt on the screen, sent with the verdict
        self.voter = gr.Textbox(visible=False)
        with gr.Column(elem_classes="lg-card", elem_id="duel"):
            gr.HTML(join([tag("h2", w.t("blind_duel.title")), muted(w.t("blind_duel.about"))]), elem_id="duel-about")
            with gr.Row(elem_id="duel-begin-row"):
                self.count = gr.Dropdown([(str(count), count) for count in COUNTS], value=10, min_width=140, scale=0,
                    **w.named("blind_duel.count", "duel-count"))  # fmt: skip
                self.begin = gr.Button(w.t("blind_duel.begin"), elem_id="duel-begin", scale=0, min_width=160)
                self.halt = gr.Button(w.t("chat_page.stop"), variant="stop", visible=False, elem_id="duel-halt",
                    scale=0, min_width=120)  # fmt: skip
            with gr.Accordion(w.t("contenders.title"), open=False, elem_id="duel-contenders"):
                with gr.Row():
                    for each in self.two:
                        each.build(rows)
                own = w.named("contenders.own", "duel-own")
                self.own = gr.Textbox(lines=3, max_lines=12, max_length=MAX_OWN, **own)
                length = w.named("contenders.length", "duel-length")
                self.length = gr.Number(ANSWER_TOKENS, minimum=1, maximum=MAX_TOKENS, precision=0, **length)
            self.status = gr.HTML("", elem_id="duel-message")
            with gr.Column(visible=False, elem_id="duel-stage") as self.stage:
                self.question = gr.HTML("", elem_id="duel-question")
                self.answers = gr.HTML("", elem_id="duel-answers")
                with gr.Row(elem_id="duel-buttons", elem_classes="lg-tight"):
                    self.buttons = [
                        gr.Button(
                            w.t(f"blind_duel.{verdict}"), elem_id=f"duel-{verdict.replace('_', '-')}", min_width=110
                        )
                        for verdict in BUTTONS
                    ]
            self.result = gr.HTML("", visible=False, elem_id="duel-result")
            self.pairs = gr.Button(w.t("blind_duel.pairs"), visible=False, elem_id="duel-pairs")
            self.kept = gr.HTML("", visible=False, elem_id="duel-kept")

    def parts(self) -> list[LivePart]:
        return [each.part() for each in self.two]

    def wire(self, target: Component, checkpoint: Component, stop: Callable[[], None]) -> None:
        """Connect the buttons and fields. stop: ends the running answer or load; finished answers stay."""
        view = [self.opened, self.at, self.begin, self.halt, self.status, self.stage, self.question, self.answers]
        view += [self.result, self.pairs, self.kept]
        once = QUIET | {"trigger_mode": "once"}
        for each in self.two:
            each.wire()
        fields = [*self.two[0].fields, *self.two[1].fields]
        inputs = [target, checkpoint, self.count, self.own, self.length, *fields, self.voter]
        self.begin.click(self.start, inputs, view, js=VOTER, concurrency_limit=2, concurrency_id="duel", **once)
        self.halt.click(stop, None, None, **AT_ONCE)
        for verdict, button in zip(BUTTONS, self.buttons, strict=True):
            vote = lambda opened, at, voter, verdict=verdict: self.vote(opened, at, verdict, voter)  # noqa: E731
            button.click(vote, [self.opened, self.at, self.voter], view, js=VOTER, queue=False, **once)

        self.pairs.click(self.keep_pairs, [self.opened], [self.kept], **CONTROL)

    # ---- handlers -------------------------------------------------------------------------------------------------
    def start(
        self,
        target: object,
        checkpoint: object,
        count: object,
        own: object,
        length: object,
        *rest: object,
    ) -> Iterator[Updates]:
        """Answer all questions, then show the first pair, or the error; showing pairs earlier would reveal the models
        by their speed.

        Inputs: target, checkpoint, count, own questions, longest answer, the fields of both, voter.
        """
        fields, voter = rest[:-1], rest[-1]
        w, services = self.w, self.services
        try:
            half = len(fields) // 2
            two = two_of(services, w, (target, checkpoint), fields[:half], fields[half:])
            comparison = self._comparison(
                two, (count, length), own_prompts(own) if isinstance(own, str) else [], _voter(voter)
            )
            if comparison.missing():
                self.services.snapshots.refuse_while_in_use()
            for done, total in answer_missing(services.chat, services.workspace, comparison):
                status = w.t("blind_duel.answering", done=done, wanted=total)
                yield self._view(comparison.id, None, notice(status, "plain"), writing=True)
        except GarageError as error:
            yield self._view(None, None, notice(w.render(error.message)))
            return
        yield self._next(comparison, _voter(voter))

    def vote(self, opened: object, at: object, verdict: Verdict, voter: object) -> Updates:
        """Store a verdict on prompt number `at`, if it is the one due for this voter, and show the next, the result, or
        an error. opened: the comparison's id."""
        try:
            comparison = PromptComparison.open(self.services.workspace, str(opened))
            if comparison.missing():
                raise ChatError("compare.stopped")
            if verdict in BUTTONS and isinstance(at, int) and at == comparison.next_for(_voter(voter)):
                comparison.vote(at, verdict, _voter(voter))
            return self._next(comparison, _voter(voter))
        except GarageError as error:
            return self._view(None, None, notice(self.w.render(error.message)))

    def keep_pairs(self, opened: object) -> Update:
        """Add the answers that most voters preferred, as pairs of a better and a worse one, to the dataset of
        corrections, and return the notice, of success or the error.

        A tie, "both bad", or an empty answer as the better one gives no pair; pairs that the dataset has are not
        repeated. The dataset is that of the model to train with the votes (`corrections.learner`), a run or a base, and
        is created if it is missing. opened: the comparison's id.
        """
        w, services = self.w, self.services
        try:
            comparison = PromptComparison.open(services.workspace, str(opened))
            name = w.t("corrections_view.set_name", name=corrections.learner(comparison).label)
            answered, rows = corrections.answered_by(comparison), corrections.rows_from_votes(comparison)
            info, added = corrections.keep(services.workspace, services.datasets, answered, name, rows)
        except GarageError as error:
            return shown(notice(w.render(error.message), "warn"))
        return shown(success(w.t("blind_duel.pairs_kept", added=added, name=info.name, rows=info.good_rows or 0)))

    def _comparison(
        self, two: tuple[Contestant, Contestant], numbers: tuple[object, object], prompts: list[Prompt], voter: str
    ) -> PromptComparison:
        """Return the newest comparison of the same contestants, questions and answer length that this voter has not
        finished, or a new one.

        numbers: count of questions, tokens of an answer. prompts: the own questions, [] for those of `_prompts`. Raises
        GarageError, also for numbers out of their limits.
        """
        services, (count, length) = self.services, numbers
        if count not in COUNTS:
            raise ChatError("wizard.bad_number", field="count", found=str(count)[:40], low=COUNTS[0], high=COUNTS[-1])
        length = ANSWER_TOKENS if length is None else length
        if isinstance(length, bool) or not isinstance(length, int) or not 1 <= length <= MAX_TOKENS:
            raise ChatError("wizard.bad_number", field="max_new_tokens", found=str(length)[:40], low=1, high=MAX_TOKENS)
        prompts = prompts or self._prompts(two, count)
        for comparison in PromptComparison.all_of(services.workspace):
            contestants = comparison.lineup.contestants
            same = (
                len(contestants) == 2
                and all(map(Contestant.is_same, contestants, two))
                and comparison.lineup.max_new_tokens == length
                and list(comparison.lineup.prompts) == prompts
            )
            if same and (comparison.missing() or comparison.next_for(voter) is not None):
                return comparison
        return PromptComparison.create(services.workspace, prompts, two, length)

    def _prompts(self, two: tuple[Contestant, Contestant], count: int) -> list[Prompt]:
        """Return questions of the data of the second contestant, else of the first; neutral ones if neither is a
        run."""
        run = next((one.run for one in reversed(two) if one.run), None)
        return (
            prompts_of(self.services.runs.get(run), self.services.datasets, count)
            if run
            else neutral(self.w.language)[:count]
        )

    # ---- drawing --------------------------------------------------------------------------------------------------
    def _next(self, comparison: PromptComparison, voter: str) -> Updates:
        """Return the updates that show the voter's next question, or the result."""
        w, at = self.w, comparison.next_for(voter)
        if at is None:
            return self._view(comparison.id, None, Html(""), result=self._result(comparison, voter))
        prompts, answers = comparison.lineup.prompts, comparison.answers()
        texts = [answers[at, contestant].text for contestant in comparison.sides(at, voter)]
        names = (w.t("blind_duel.a"), w.t("blind_duel.b"))
        status = muted(w.t("blind_duel.which", number=at + 1, count=len(prompts)))
        question = tag("p", prompts[at].question, class_="lg-duel-question")
        return self._view(comparison.id, at, status, question=question, answers=_beside(zip(names, texts, strict=True)))

    def _result(self, comparison: PromptComparison, voter: str) -> Html:
        """Return the counts of votes with their meaning, the answers as expected, and all questions."""
        w, score = self.w, comparison.score()
        names = {
            place: one.label for place, one in zip(("first", "second"), comparison.lineup.contestants, strict=True)
        }
        counts = w.t(
            "blind_duel.counts",
            **names,
            wins=score.wins[1],
            losses=score.wins[0],
            equal=score.equal,
            bad=score.both_bad,
        )
        expected, skipped = _expected(comparison), comparison.left_out()
        lines = [
            *(
                w.t("blind_duel.left_out", count=len(skipped), reason=w.render(reason))
                for reason in list(skipped.values())[:1]
            ),
            counts,
            *self._meaning(score, **names),
            *([w.t("blind_duel.expected", **names, **expected)] if expected["count"] else []),
        ]
        if score.decided:
            lines.append(w.t("blind_duel.left_share", left=score.left_wins, decided=score.decided))
        votes = better.votes_for(names["second"], score, w)
        text = (tag("p", line) for line in lines)
        card = tag("div", tag("h3", w.t("blind_duel.over")), *votes, *text, class_="lg-better")
        return join([card, self._rows(comparison, voter)])

    def _meaning(self, score: Score, first: str, second: str) -> Iterator[str]:
        """Yield whether the votes are clear, or how many are missing; nothing without an interval."""
        if score.interval is None:
            return
        if score.is_clear:
            yield self.w.t("blind_duel.clear", better=second if score.wins[1] > score.wins[0] else first)
        else:
            yield (
                self.w.t("blind_duel.unclear")
                if score.missing is None
                else self.w.t("blind_duel.missing", count=score.missing)
            )

    def _rows(self, comparison: PromptComparison, voter: str) -> Html:
        """Return a fold with each question that both models answered, the answers side by side (their common beginning
        quiet), and this voter's verdict, "–" without one."""
        w, answers = self.w, comparison.answers()
        names = [one.label for one in comparison.lineup.contestants]
        votes = {vote.prompt: vote for vote in comparison.votes() if vote.voter == voter}
        sections = []
        for number, prompt in enumerate(comparison.lineup.prompts):
            if (number, 0) not in answers or (number, 1) not in answers:
                continue  # skipped
            texts = [answers[number, place].text for place in range(len(names))]
            alike_until = same_beginning(texts)
            parts = [
                (name, join([tag("span", text[:alike_until], class_="lg-quiet"), text[alike_until:]]))
                for name, text in zip(names, texts, strict=True)
            ]
            vote = votes.get(number)
            won = None if vote is None else {"left": names[vote.left], "right": names[vote.right]}.get(vote.verdict)
            verdict = won or (w.t(f"blind_duel.{vote.verdict}") if vote else "–")
            sections += [
                tag("p", prompt.question, class_="lg-duel-question"),
                _beside(parts),
                muted(w.t("blind_duel.verdict", verdict=verdict)),
            ]
        return tag("details", tag("summary", w.t("blind_duel.all")), *sections, class_="lg-fold")

    def _view(
        self,
        opened: str | None,
        at: int | None,
        status: Html,
        writing: bool = False,
        question: str = "",
        answers: str = "",
        result: str = "",
    ) -> Updates:
        """Return the updates of everything but the fields. at: index of the prompt that is shown; None hides the
        question."""
        return {
            self.opened: opened,
            self.at: at,
            self.begin: gr.update(visible=not writing),
            self.halt: gr.update(visible=writing),
            self.status: status,
            self.stage: gr.update(visible=at is not None),
            self.question: question,
            self.answers: answers,
            self.result: shown(result),
            self.pairs: gr.update(visible=bool(result)),
            self.kept: shown(""),
        }


def _beside(parts: Iterable[tuple[str, str]]) -> Html:
    """Return (name, text) pairs as columns side by side."""
    sections = (tag("div", tag("h3", name), tag("p", text if text.strip() else "…")) for name, text in parts)
    return tag("div", *sections, class_="lg-duel")


def _voter(value: object) -> str:
    """Return a browser's name of its voter; "" for no text."""
    return value[:MAX_VOTER] if isinstance(value, str) else ""


def _expected(comparison: PromptComparison) -> dict[str, int]:
    """Return the values of the sentence on known answers: first_hits, second_hits (prompts that each contestant
    answered exactly) and count (prompts with a known answer that both answered)."""
    answers = comparison.answers()
    prompts = enumerate(comparison.lineup.prompts)
    expected = {
        number: prompt.expected
        for number, prompt in prompts
        if prompt.expected and {(number, 0), (number, 1)} <= answers.keys()
    }
    hits = [
        sum(is_right(ExactJudge(), text, answers[number, place].text) for number, text in expected.items())
        for place in (0, 1)
    ]
    return {"first_hits": hits[0], "second_hits": hits[1], "count": len(expected)}
