"""The rows of a step of training by rewards: draws answers to its questions, has them judged and weighs them. Workers
only (torch).

Chance is a table seeded by the run's seed and the number of the step, so nothing is saved for it: a resumed run draws
the same answers. The cache of drawing is freed before the step's forward.
"""

from __future__ import annotations

import json
import math
import statistics
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from core.data.conversation import Turn
from core.data.labels import Encoded
from core.data.sets.pieces import lengths_of
from core.data.tokenizer import Tokenizer
from core.engine.decoding.sampler import DrawnAnswer, Sampler, chances
from core.engine.step import LongestBatch, Rows, Step
from core.engine.variants.policy import Policy, WeighedAnswer
from core.errors import RunError
from core.files import JsonObject, is_out_of_memory
from core.judges import weighted
from core.messages import Message, msg
from core.recipe import Recipe
from core.runs.judging import ANSWERS, PAIRS, Judged, Judging, shares_of_groups
from core.runs.reporter import Reporter
from core.training.rewards.questions import AskedRow, question_of
from core.training.rewards.reference import with_reference

FEWER_DRAWN = "fewer_drawn"  # in Retreat.reductions, once for each halving of the answers drawn together
TRIED = 32  # rows whose own answers are judged before the first step
FIRST_STEPS = 10  # after which a run whose groups never differ is reported
PASSING = 0.5  # mean reward of the rows' own answers, as a share of the largest, below which that is reported


@dataclass(frozen=True)
class Draw:
    """Answers to questions, each to `copies` of the same question in turn, with their rewards (NaN: not judged)."""

    questions: list[AskedRow]
    copies: int
    answers: list[DrawnAnswer]
    texts: list[str]
    judged: Judged
    rewards: list[float]

    @property
    def tokens(self) -> int:
        """The number of answer tokens."""
        return sum(len(answer.ids) for answer in self.answers)

    @property
    def surprise(self) -> float:
        """Mean negative log-probability of a drawn token, in nats: an estimate of the entropy."""
        return -sum(map(math.fsum, (answer.logps for answer in self.answers))) / max(1, self.tokens)

    def pairs(self, turns: Sequence[list[Turn]]) -> Iterator[JsonObject]:
        """Yield for each question whose answers got different rewards its turns with the best answer that ended and the
        worst. turns: the conversation of each question; [] if it is unknown."""
        for number, messages in enumerate(turns):
            places = range(number * self.copies, (number + 1) * self.copies)
            known = [place for place in places if not math.isnan(self.rewards[place])]
            ended = [place for place in known if self.answers[place].has_ended]
            if messages and ended:
                best, worst = max(ended, key=self.rewards.__getitem__), min(known, key=self.rewards.__getitem__)
                if self.rewards[best] > self.rewards[worst]:
                    yield {"messages": messages, "chosen": self.texts[best], "rejected": self.texts[worst]}

    def metrics(self, names: Sequence[str], largest: float) -> dict[str, float]:
        """Return the metrics of the draw by TRL's names where it has one: mean and deviation of the rewards, the mean
        score of each judge, mean length, the share of answers that were cut, and the entropy.

        Also the shares of groups (the answers to one question) whose rewards are all equal, all 0 or less, or all the
        largest. names: of the judges. largest: the most reward that an answer can get.
        """
        known = [reward for reward in self.rewards if not math.isnan(reward)]
        means = {
            f"rewards/{name}/mean": statistics.fmean(judged)
            for name, scores in zip(names, self.judged.scores, strict=True)
            if (judged := [score for score in scores if score is not None])
        }
        return {
            "reward": statistics.fmean(known) if known else 0.0,
            "reward_std": statistics.stdev(known) if len(known) > 1 else 0.0,
            **means,
            **shares_of_groups(self.rewards, self.copies, largest),
            "completions/mean_length": self.tokens / len(self.answers),
            "completions/clipped_ratio": sum(not answer.has_ended for answer in self.answers) / len(self.answers),
            "entropy": self.surprise,
        }


class Drawing:
    """Draws and weighs the answers of a run. report(what, step, message) logs a decision; save writes a checkpoint, so
    that a resumed run draws as many together."""

    def __init__(
        self,
        step: Step,
        recipe: Recipe,
        reporter: Reporter,
        report: Callable[[str, int, Message], None],
        save: Callable[[], None],
        *,
        tokenizer: Tokenizer,
        judging: Judging | None = None,
        turns_of: Callable[[int], list[Turn]] = lambda number: [],
    ):
        """Create the sampler and the judges of a run. judging: the process of judges; None: a new one. turns_of: the
        conversation before the answer of a training row, by its place, for the pairs that are kept."""
        assert recipe.rewards and isinstance(step.criterion, Policy)
        self.step, self.settings, self.policy = step, recipe.rewards, step.criterion
        self.judges = weighted.read(recipe.rewards.judges)
        self.tokenizer, self._reporter, self._report, self._save = tokenizer, reporter, report, save
        self._judging, self._turns_of = judging or Judging(self.judges), turns_of
        self._seed, self._planned = recipe.train.seed, recipe.train.per_device_train_batch_size
        model = step.tuned.get_base_model()
        self._sampler = Sampler(
            model, step.pad_token_id, tokenizer.stop_ids, recipe.rewards.max_completion_length,
            recipe.rewards.temperature,
        )  # fmt: skip
        self._last: Draw | None = None
        self._reported, self._undecided = set[str](), {"frac_all_wrong": 0, "frac_all_right": 0}

    @property
    def largest(self) -> float:
        """The largest reward that an answer can get."""
        return sum(judge.weight for judge in self.judges)

    @property
    def at_once(self) -> int:
        """The most answers drawn together: a micro-batch's, halved each time memory ran out."""
        planned = self._planned * self.settings.num_generations
        return max(1, planned >> self.step.retreat.reductions.count(FEWER_DRAWN))

    # ---- a step -----------------------------------------------------------------------------------------------------
    def micro_batches(self, number: int, planned: Sequence[Rows], places: Sequence[int] = ()) -> list[Rows]:
        """Draw and judge answers to the questions of step `number`, and return the micro-batches of weighed answers
        that it trains.

        The best and worst answers are appended to files of the run. planned: the step's rows of the data. places: of
        these rows among those of training; without them no pairs are kept.
        """
        self._reporter.set_stage("drawing")
        self.step.computing = ()
        self._last = None
        questions = [question_of(row, self.tokenizer) for rows in planned for row in rows]
        draw = self.draw(questions, self._seed * 1_000_003 + number, number)
        self._last = draw
        self._log_answers(number, draw)
        self._append(PAIRS, draw.pairs(list(map(self._turns_of, places))))
        weighed = self.policy.weighed(draw.answers, draw.rewards, draw.copies)
        if self.policy.beta:
            weighed = with_reference(weighed, self.step)
        self._reporter.set_stage("training")
        parts = self.step.retreat.planned_parts([len(row.input_ids) for row in weighed])
        return [[weighed[i] for i in part] for part in parts]

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the answers drawn for the newest step; those drawn in an evaluation do not count."""
        assert self._last
        return self.metrics_of(self._last)

    def metrics_of(self, draw: Draw) -> dict[str, float]:
        """Return the metrics of a draw: rewards, scores by judge, lengths and entropy of its answers, by TRL's
        names."""
        return draw.metrics([judge.name for judge in self.judges], self.largest)

    @staticmethod
    def rows_of(draw: Draw) -> list[Encoded]:
        """Return each answer of a draw as a row: its prompt, and the answer's tokens as those that are trained. All
        answers of the draw are included."""
        return [
            Encoded(answer.prompt + answer.ids, [False] * len(answer.prompt) + [True] * len(answer.ids))
            for answer in draw.answers
        ]

    @property
    def newest_surprise(self) -> float:
        """Return the mean negative log-probability, in nats, of the tokens drawn for the newest step: an estimate of
        the entropy. Answers of an evaluation do not count."""
        assert self._last
        return self._last.surprise

    @property
    def newest_tokens(self) -> int:
        """Return the number of answer tokens drawn for the newest step; answers of an evaluation do not count."""
        assert self._last
        return self._last.tokens

    def draw(self, questions: list[AskedRow], seed: int, number: int, copies: int = 0) -> Draw:
        """Draw `copies` answers (num_generations if 0) to each question, judge them and return both; a judge's problem
        is reported once for each reason. number: of the step, for the report."""
        copies = copies or self.settings.num_generations
        self.step.tuned.eval()
        answers = self._answers(questions, copies, seed, number)
        texts = [self.tokenizer.decode(answer.ids).strip() for answer in answers]
        pairs = [(questions[i // copies].expected, text) for i, text in enumerate(texts)]
        judged = self._judging.judge(pairs, self._reporter.check)
        for name, why in judged.problems.items():
            self.report_once(f"{name} {why.key}", number, msg("rewards.not_judged", judge=name, why=why))
        return Draw(questions, copies, answers, texts, judged, judged.rewards(self.judges))

    def _answers(self, questions: Sequence[AskedRow], copies: int, seed: int, number: int) -> list[DrawnAnswer]:
        """Return `copies` drawn answers to each question; each time memory runs out, draw fewer together, report that
        for step `number` and save a checkpoint."""
        table = chances(len(questions) * copies, self.settings.max_completion_length, seed)
        while True:
            try:
                return self._drawn_in_parts([question.prompt for question in questions], copies, table)
            except Exception as error:  # noqa: BLE001 - torch says "no memory" in several types; all others go on
                if self.at_once == 1 or not is_out_of_memory(error):
                    raise
                traceback.clear_frames(error.__traceback__)  # the traceback holds the tensors
            before = self.at_once
            self.step.discard_unfinished()
            self.step.retreat.reductions.append(FEWER_DRAWN)
            self._report("retreat", number, msg("rewards.fewer_drawn", before=before, now=self.at_once))
            self._save()

    def _drawn_in_parts(self, prompts: list[list[int]], copies: int, table: torch.Tensor) -> list[DrawnAnswer]:
        """Return answers drawn at most `at_once` together: those of whole questions, or a part of those of one. table:
        random numbers, a row for each answer."""
        answers, at_once = list[DrawnAnswer](), self.at_once
        for start in range(0, len(prompts), max(1, at_once // copies)):
            some = prompts[start : start + max(1, at_once // copies)]
            for first in range(0, copies, at_once):
                count = min(copies - first, at_once)
                row = start * copies + first
                rows = table[row : row + len(some) * count]
                answers += self._sampler.draw(some, count, rows, self._reporter.check)
        return answers

    # ---- what a person should know ----------------------------------------------------------------------------------
    def try_judges(self, rows: Rows) -> None:
        """Let the judges judge the dataset's own answers to the first TRIED rows before the first step, and report
        their mean reward as a percentage of the largest one.

        Raises RunError for a judge that can judge none of them. Warns if all judges look at the form alone and nothing
        holds the model near its start (beta 0).
        """
        questions = [question_of(rows[i], self.tokenizer) for i in range(min(TRIED, len(rows)))]
        judged = self._judging.judge([(each.expected, each.expected) for each in questions], self._reporter.check)
        for judge, scores in zip(self.judges, judged.scores, strict=True):
            if all(score is None for score in scores):
                raise RunError("rewards.judge_cannot", judge=judge.name, why=judged.problems[judge.name])
        rewards = [reward for reward in judged.rewards(self.judges) if not math.isnan(reward)]
        share = statistics.fmean(rewards) / self.largest
        key = "rewards.own_answers" if share >= PASSING else "rewards.own_answers_fail"
        self._report("rewards", 0, msg(key, rows=len(questions), percent=100 * share))
        if not self.policy.beta and weighted.usual_beta(self.judges):
            self._reporter.warn(msg("rewards.form_only"))

    def _log_answers(self, number: int, draw: Draw) -> None:
        """Append the answers with the highest and the lowest reward of a step, with their questions, to answers.jsonl;
        nothing if none was judged. A resumed run that computes the step again appends them again.

        Also report once a run in whose first FIRST_STEPS steps the answers to every question were all wrong, or all
        right, so that it learns nothing.
        """
        metrics = self.metrics()
        for name in self._undecided:
            self._undecided[name] += metrics[name] == 1.0
            if number == self._undecided[name] == FIRST_STEPS:
                self._report("rewards", number, msg(f"rewards.{name}", steps=number))
        known = [i for i, reward in enumerate(draw.rewards) if not math.isnan(reward)]
        if known:
            best, worst = (choose(known, key=lambda i: draw.rewards[i]) for choose in (max, min))
            line = {"step": number} | {
                name: {
                    "question": self.tokenizer.decode(draw.answers[i].prompt).strip(),
                    "answer": draw.texts[i],
                    "reward": draw.rewards[i],
                }
                for name, i in (("best", best), ("worst", worst))
            }
            self._append(ANSWERS, [line])

    def _append(self, name: str, lines: Iterable[JsonObject]) -> None:
        """Append lines to a file of the run; a full disk ends no training."""
        with suppress(OSError), open(self._reporter.run.path / name, "a", encoding="utf-8", errors="replace") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)

    def report_once(self, key: str, step: int, message: Message) -> None:
        """Report a message on the rewards, unless this process has reported one with the same key before."""
        if key not in self._reported:
            self._reported.add(key)
            self._report("rewards", step, message)

    # ---- memory -----------------------------------------------------------------------------------------------------
    def longest(self, rows: Rows, count: int) -> LongestBatch:
        """Return the largest micro-batch that a step can have, made of padding: each row has as many tokens as the
        longest whole row of the data and, after them, an answer of the largest length. Nothing is drawn. count: rows of
        a step."""
        length, answer = int(max(lengths_of(rows))), self.settings.max_completion_length
        row = WeighedAnswer([self.step.pad_token_id] * (length + answer), [False] * length + [True] * answer)
        parts = self.step.retreat.planned_parts([length + answer] * (count * self.settings.num_generations))
        size = len(parts[0])
        return LongestBatch((row,) * size, size * (length + answer), size * answer, several=len(parts) > 1)

    @torch.no_grad()
    def rehearse(self, rows: Rows) -> None:
        """Compute what drawing needs at most, a cache as long as it can get, for the memory probe."""
        length = int(max(lengths_of(rows))) + self.settings.max_completion_length - 1
        question = AskedRow([self.step.pad_token_id] * length, "")
        self.step.tuned.eval()
        copies = self.settings.num_generations
        prompts = [question.prompt] * max(1, self.at_once // copies)
        self._sampler.rehearse(prompts, min(copies, self.at_once))
