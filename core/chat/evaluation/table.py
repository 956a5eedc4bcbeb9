"""The table of an evaluation: the verdict on each kept answer, each contestant's share, and what follows in one
sentence. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from core.chat.comparison import Contestant
from core.chat.endpoint import Endpoint
from core.chat.evaluation import model_judge, votes
from core.chat.evaluation.evaluation import SetEvaluation
from core.chat.evaluation.learned_rows import LearnedRows
from core.chat.evaluation.sets import TestSet
from core.chat.prompts import Prompt
from core.errors import ChatError, GarageError, JudgeError
from core.files import JsonObject
from core.judges.judge import Outcome, Verdict, judge, voted
from core.judges.paired import Agreement, Rival, agreement, conclusion
from core.judges.propose import propose, schema_in
from core.judges.specs import (
    JUDGE_SPEC,
    KINDS,
    JsonJudge,
    JudgeSpec,
    LabelJudge,
    ModelJudge,
    NumberJudge,
    PersonJudge,
)
from core.judges.texts import comparable, without_thoughts
from core.messages import Message, as_typed, msg
from core.runs.all import Runs
from core.runs.cards import benchmarked
from core.values import wilson
from core.workspace.folder import Workspace

OPTIONS = {"regex": "pattern", "json": "json_schema", "model": "url"}  # of a kind: what its one text is
NEEDS_NOTHING = ("regex", "length", "person")  # kinds that need no expected answer
RULES = ("answers", "any_of", "all_of", "fields", "json_schema", "language")  # options of others that replace it


@dataclass(frozen=True)
class Share:
    """A contestant's result on the questions that count. low, high: the 95 % interval of the share that is right, by
    Wilson; seconds, tokens: of all its answers; cut: how many ended at the limit of tokens."""

    label: str
    right: int
    partly: int
    count: int
    seconds: float
    tokens: int
    cut: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the share that is right; (0, 1) without questions."""
        return wilson(self.right, self.count) if self.count else (0.0, 1.0)


class Table:
    """The verdicts on the answers of an evaluation.

    verdicts: by prompt and contestant; failures: why a judge could not judge one, which says nothing of the answer.
    votes: those of a person on the same answers.
    """

    def __init__(self, evaluation: SetEvaluation, spec: JudgeSpec):
        """Judge every kept answer by its question's own judge or spec, and read a person's votes on them from the
        workspace.

        An answer that cannot be judged, or on which its person or model has not decided yet, goes to `failures` with
        the reason. One without the expected answer that its judge needs is in neither.
        """
        self.evaluation, self.judge, self.answers = evaluation, spec, evaluation.answers()
        self.verdicts, self.failures = dict[tuple[int, int], Verdict](), dict[tuple[int, int], Message]()
        self.votes, opinions = dict[tuple[int, int], Outcome](), Opinions.read(evaluation.path.parents[2])
        for (number, place), answer in self.answers.items():
            prompt = evaluation.lineup.prompts[number]
            if vote := opinions.vote(prompt, answer.text):
                self.votes[number, place] = vote
            try:
                if verdict := verdict_on(prompt, self.judge_of(prompt), answer.text, opinions):
                    self.verdicts[number, place] = verdict
            except JudgeError as error:
                self.failures[number, place] = error.message

    def judge_of(self, prompt: Prompt) -> JudgeSpec:
        """Return the judge of a question: its own, or that of the table."""
        return prompt.judge or self.judge

    def agreements(self) -> dict[str, Agreement]:
        """Return for each kind of judge how far its verdicts agree with the person's votes on the same answers; {}
        without such votes. The kind "person", whose verdicts are the votes themselves, is left out."""
        both = dict[str, list[tuple[Outcome, Outcome]]]()
        for (number, place), vote in self.votes.items():
            kind, verdict = (
                self.judge_of(self.evaluation.lineup.prompts[number]).kind,
                self.verdicts.get((number, place)),
            )
            if kind != "person" and verdict is not None:
                both.setdefault(kind, []).append((verdict.outcome, vote))
        return {kind: agreement(pairs) for kind, pairs in both.items()}

    @property
    def contestants(self) -> tuple[Contestant, ...]:
        return self.evaluation.lineup.contestants

    @cached_property
    def counted(self) -> list[int]:
        """Return the numbers of the questions that count: not trained on, and judged for every contestant."""
        places = range(len(self.contestants))
        return [
            number
            for number, prompt in enumerate(self.evaluation.lineup.prompts)
            if prompt.source != "trained" and all((number, place) in self.verdicts for place in places)
        ]

    def scores(self, place: int) -> list[float]:
        """Return a contestant's score, 0 to 1, on each question that counts (`counted`: not trained on, and judged for
        every contestant), in their order. place: the contestant's number; [] if no question counts."""
        return [self.verdicts[number, place].score for number in self.counted]

    def share(self, place: int) -> Share:
        """Return a contestant's share: right and partly right answers among the counted questions, and seconds, tokens
        and cut answers of all."""
        outcomes = Counter(self.verdicts[number, place].outcome for number in self.counted)
        answers = [answer for (_, at), answer in self.answers.items() if at == place]
        return Share(
            self.contestants[place].label,
            outcomes["right"],
            outcomes["partly"],
            len(self.counted),
            round(sum(answer.seconds for answer in answers), 2),
            sum(answer.tokens for answer in answers),
            sum(answer.finish_reason == "length" for answer in answers),
        )

    @property
    def tuned(self) -> int | None:
        """The number of the fine-tuned contestant that is compared with the others: the first without a system prompt
        and examples, else the first fine-tuned one; None without any."""
        places = [place for place, one in enumerate(self.contestants) if one.column == "tuned"]
        plain = [
            place for place in places if not self.contestants[place].system and not self.contestants[place].examples
        ]
        return next(iter([*plain, *places]), None)

    def conclusion(self) -> Message | None:
        """Return one sentence that sums the table up: the fine-tuned model against the best without training, or how
        much is left to gain if nothing is trained yet. None without answers of the base model to questions that
        count."""
        rivals = dict[Rival, int]()
        for place, one in enumerate(self.contestants):
            if one.column == "base" and self.counted:
                rival = _RIVALS[bool(one.system), bool(one.examples)]
                best = max((rivals.get(rival, place), place), key=lambda other: sum(self.scores(other)))
                rivals[rival] = best
        if not rivals:
            return None
        if self.tuned is not None:
            return conclusion({rival: self.scores(place) for rival, place in rivals.items()}, self.scores(self.tuned))
        best_rival = max(rivals, key=lambda rival: sum(self.scores(rivals[rival])))
        share = self.share(rivals[best_rival])
        low, high = (round(100 * end) for end in share.interval)
        left = round(100 * (1 - share.right / share.count))
        key = "evaluation.little_left" if share.interval[1] > 0.95 and left <= 10 else "evaluation.left"
        values = {"right": share.right, "count": share.count, "low": low, "high": high, "left": left}
        return msg(key, rival=msg(f"judges.rival_{best_rival}"), **values)

    def notes(self) -> list[Message]:
        """Return notes that a reader of the table needs: how many questions do not count, and why; how far each judge
        agrees with the person's votes; prompts that were left out; answers cut at the limit of tokens; and benchmark
        results of the run.

        Of several reasons only the first is named.
        """
        prompts, notes = self.evaluation.lineup.prompts, list[Message]()
        if trained := sum(prompt.source == "trained" for prompt in prompts):
            notes.append(msg("evaluation.trained_on", count=trained))
        if unknown := sum(not prompt.expected and needs_expected(self.judge_of(prompt)) for prompt in prompts):
            notes.append(msg("evaluation.nothing_expected", count=unknown))
        if failed := {number for number, _ in self.failures}:
            notes.append(msg("evaluation.not_judged", count=len(failed), why=next(iter(self.failures.values()))))
        for kind, one in self.agreements().items():
            kappa = {} if one.kappa is None else {"kappa": one.kappa}
            key = "evaluation.agrees" if kappa else "evaluation.agrees_alike"
            notes.append(
                msg(key, judge=msg(f"judges.name_{kind}"), percent=round(100 * one.share), count=one.count, **kappa)
            )
        left_out = self.evaluation.left_out()
        if left_out:
            notes.append(msg("evaluation.left_out", count=len(left_out), why=next(iter(left_out.values()))))
        for place in range(len(self.contestants)):
            if cut := self.share(place).cut:
                limit = self.evaluation.lineup.max_new_tokens
                notes.append(msg("evaluation.cut", label=self.contestants[place].label, count=cut, tokens=limit))
        tuned = None if self.tuned is None else self.contestants[self.tuned]
        if tuned is not None and tuned.run and tuned.is_as_trained:
            with suppress(GarageError):
                run_folder = Runs(Workspace(self.evaluation.path.parents[2])).get(tuned.run)
                notes += [one.sentence for one in benchmarked.read(run_folder)]
        return notes

    def lost(self, earlier: Table) -> tuple[list[int], Message | None]:
        """Return the numbers of the questions that an earlier evaluation's fine-tuned model answered right and this
        one's does not, and None; or [] and why the two cannot be compared. Only questions that count in this table and
        that both have with the same expected answer and judge are compared. ([], None) without fine-tuned models."""
        place, earlier_place = self.tuned, earlier.tuned
        if place is None or earlier_place is None:
            return [], None
        if earlier.evaluation.settings != self.evaluation.settings:
            return [], msg("evaluation.other_settings", id=earlier.evaluation.id)
        before = {question_key(prompt): number for number, prompt in enumerate(earlier.evaluation.lineup.prompts)}
        lost = []
        for number in self.counted:
            at = before.get(question_key(self.evaluation.lineup.prompts[number]))
            was = None if at is None else earlier.verdicts.get((at, earlier_place))
            if was and was.outcome == "right" and self.verdicts[number, place].outcome != "right":
                lost.append(number)
        return lost, None


_RIVALS: dict[tuple[bool, bool], Rival] = {
    (False, False): "base",
    (True, False): "prompt",
    (False, True): "examples",
    (True, True): "prompt_examples",
}


@dataclass(frozen=True)
class Opinions:
    """The votes of a person and the verdicts of models on answers, in a workspace."""

    votes: votes.Votes
    models: model_judge.Verdicts

    @classmethod
    def read(cls, root: Path) -> Opinions:
        """Read all of a workspace. root: its folder."""
        return cls(votes.read(root), model_judge.read(root))

    def vote(self, prompt: Prompt, answer: str) -> Outcome | None:
        """Return the person's vote on an answer, or None."""
        return self.votes.get(votes.key_of(prompt.turns, answer))


def verdict_on(prompt: Prompt, spec: JudgeSpec, answer: str, opinions: Opinions) -> Verdict | None:
    """Return the verdict on an answer to a prompt, by the kind of the judge: a judge by a person gives the person's
    vote, one by a model the verdict that it has sent, any other decides now. None without the expected answer that the
    judge needs. Raises JudgeError, also before the person or the model has decided."""
    if not prompt.expected and needs_expected(spec):
        return None
    if isinstance(spec, PersonJudge) and (vote := opinions.vote(prompt, answer)):
        return voted(vote)
    if isinstance(spec, ModelJudge) and without_thoughts(answer):
        return model_judge.verdict_of(spec, prompt, answer, opinions.models)
    return judge(spec, prompt.expected or "", answer)


def question_key(prompt: Prompt) -> str:
    """Return a text that is equal for two test questions with the same turns, expected answer and judge."""
    return prompt.model_dump_json(include={"turns", "expected", "judge"})


def needs_expected(spec: JudgeSpec) -> bool:
    """Return whether a judge needs an expected answer."""
    return spec.kind not in NEEDS_NOTHING and not any(getattr(spec, rule, ()) for rule in RULES)


def judge_for(test_set: TestSet, learned: LearnedRows | None) -> JudgeSpec:
    """Return the judge of a test set: its own, if it has one; else one by the labels of the training answers, if all
    expected answers are among them; else one proposed from the expected answers.

    Without expected answers it is the first judge that a question has. A JSON schema that stands in all questions is
    added to a judge of JSON. Raises JudgeError if nothing fits.
    """
    if test_set.judge is not None:
        return test_set.judge
    expected = [prompt.expected for prompt in test_set.prompts if prompt.expected]
    if learned is not None and learned.pairs and expected:
        of_training = propose([answer for _, answer in learned.pairs])
        labels = {comparable(label) for label in of_training.labels} if isinstance(of_training, LabelJudge) else set()
        if labels and all(comparable(answer) in labels for answer in expected):
            return of_training
    own = next((prompt.judge for prompt in test_set.prompts if prompt.judge), None)
    if own is not None and not expected:
        return own
    schema = schema_in([prompt.turns for prompt in test_set.prompts])
    spec = JsonJudge() if schema and not expected else propose(expected)
    return spec.model_copy(update={"json_schema": schema}) if schema and isinstance(spec, JsonJudge) else spec


def judge_of_kind(
    kind: str, answers: Sequence[str], option: str = "", model: str = "", proposed: JudgeSpec | None = None
) -> JudgeSpec:
    """Return a judge of this kind, with option, and with the other options of `proposed` if that is of this kind.

    option: pattern, schema, tolerance ("5 %": relative), or server with `model`; it replaces proposed's even if "".
    answers: the labels of a judge by labels, unless proposed has some. Raises GarageError for an unknown kind or a bad
    option.
    """
    if kind not in KINDS:
        raise ChatError("evaluation.unknown_judge", found=kind[:60], kinds=", ".join(KINDS))
    options: JsonObject = proposed.model_dump() if proposed and proposed.kind == kind else {"kind": kind}
    try:
        if kind == "model":
            endpoint = Endpoint.parse(option, model)
            options |= {"url": endpoint.url, "model": endpoint.model}
        elif kind == "number":
            number, is_share, _ = option.replace(",", ".").partition("%")
            size = float(number.strip() or 0)
            options |= {"relative": size / 100, "tolerance": 0} if is_share else {"tolerance": size, "relative": 0}
        elif kind in OPTIONS:
            options[OPTIONS[kind]] = option.strip()
        elif kind == "label":
            options.setdefault("labels", sorted(set(answers)))
        spec = JUDGE_SPEC.validate_python(options)
    except ValueError:
        raise ChatError("evaluation.bad_option", found=option[:60]) from None
    if kind in ("regex", "json"):
        judge(spec, "", "{}")  # a broken pattern or schema raises
    return spec


def option_of(spec: JudgeSpec) -> str:
    """Return the option of a judge as `judge_of_kind` takes it: pattern, schema, URL or tolerance ("5 %"); "" for
    others."""
    if isinstance(spec, NumberJudge):
        if spec.relative:
            return f"{as_typed(100 * spec.relative)} %"
        return as_typed(spec.tolerance) if spec.tolerance else ""
    return getattr(spec, OPTIONS.get(spec.kind, ""), "")


def unsent(evaluation: SetEvaluation, spec: ModelJudge) -> model_judge.Missing:
    """Return the requests that a judging model has still to be sent for the answers of an evaluation; answers to
    questions that have another judge of their own are left out."""
    workspace, prompts = Workspace(evaluation.path.parents[2]), evaluation.lineup.prompts
    pairs = ((prompts[number], answer.text) for (number, _), answer in evaluation.answers().items())
    return model_judge.missing(workspace, spec, (pair for pair in pairs if pair[0].judge in (None, spec)))
