"""The judges of a run, in a child process with a deadline: a judge that hangs or fails must not hang the training. No
torch."""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from core.errors import RunError
from core.files import JsonObject
from core.judges.weighted import WeightedJudge
from core.messages import Message, msg
from core.system.lines import Child
from core.system.processes import kill_tree

MODULE = "core.runs.judging_worker"
ANSWERS, PAIRS = "answers.jsonl", "pairs.jsonl"  # in the folder of a run: drawn answers, and the best with the worst
DEADLINE_S = 60.0  # of one judge for all answers of a step; the slowest pattern takes 0.5 s an answer
MAX_FAILURES = 3  # steps in a row without a result of a judge, after which the run ends
LOOK_S = 0.2


@dataclass(frozen=True)
class Judged:
    """scores (judges, answers): 0 to 1, None where a judge cannot judge. problems: the first reason of each judge that
    could not judge some answer, by its name."""

    scores: list[list[float | None]]
    problems: dict[str, Message] = field(default_factory=dict)

    def rewards(self, judges: Sequence[WeightedJudge]) -> list[float]:
        """Return the weighted sum of each answer's known scores; NaN where no judge could judge it."""
        weights = [judge.weight for judge in judges]
        rewards = list[float]()
        for scores in zip(*self.scores, strict=True):
            known = [weight * score for weight, score in zip(weights, scores, strict=True) if score is not None]
            rewards.append(sum(known) if known else math.nan)
        return rewards


def shares_of_groups(rewards: Sequence[float], copies: int, largest: float) -> dict[str, float]:
    """Return the shares of groups, the answers to one question, whose rewards are all equal (frac_reward_zero_std), all
    at most 0 (frac_all_wrong), or all the largest (frac_all_right).

    rewards: groups of `copies` are neighbours. NaN is left out; a group of NaN alone counts as equal and as wrong.
    """
    groups = [rewards[i : i + copies] for i in range(0, len(rewards), copies)]
    known = [[reward for reward in group if not math.isnan(reward)] for group in groups]
    counts = {
        "frac_reward_zero_std": sum(len(set(group)) < 2 for group in known),
        "frac_all_wrong": sum(max(group, default=0.0) <= 0 for group in known),
        "frac_all_right": sum(min(group, default=0.0) >= largest - 1e-9 for group in known),
    }
    return {name: count / len(groups) for name, count in counts.items()}


class Judging:
    """Has answers judged by a child process, started when first needed, and again after it had to be killed; it ends
    with this process. Raises RunError once a judge gave no result in MAX_FAILURES steps in a row."""

    def __init__(self, judges: Sequence[WeightedJudge], module: str = MODULE, deadline_s: float = DEADLINE_S):
        self.judges, self._module, self._deadline_s = judges, module, deadline_s
        self._child: Child | None = None
        self._lines: queue.SimpleQueue[JsonObject | None] = queue.SimpleQueue()
        self._failures, self._request = [0] * len(judges), 0

    def judge(self, pairs: Sequence[tuple[str, str]], check: Callable[[], None] = lambda: None) -> Judged:
        """Return each judge's scores of the answers, None where it has none, with the problems by judge. pairs:
        (expected, answer). check is called while waiting and may raise. A judge that hangs or crashes is skipped."""
        judged, number = Judged([]), 0
        while number < len(self.judges):
            self._ask(pairs, number)
            while number < len(self.judges) and (line := self._answer(number, check)):
                why, scores = line.get("why"), line.get("scores")
                if not isinstance(scores, list) or len(scores) != len(pairs):
                    scores = [None] * len(pairs)
                judged.scores.append(scores)
                if None in scores:
                    judged.problems[self.judges[number].name] = Message(**why) if why else msg("rewards.judge_none")
                self._failures[number] = 0
                number += 1
            if number < len(self.judges):
                judged.scores.append([None] * len(pairs))
                judged.problems[self.judges[number].name] = self._fail(number)
                number += 1
        return judged

    def _ask(self, pairs: Sequence[tuple[str, str]], first: int) -> None:
        """Send the pairs to the child for the judges from number `first` on, starting it if it does not run."""
        if self._child is None:
            lines: queue.SimpleQueue[JsonObject | None] = queue.SimpleQueue()
            self._child, self._lines = Child(self._module), lines
            self._child.listen(lines.put, lambda code: lines.put(None))
            self._child.send(judges=[each.judge.model_dump(mode="json") for each in self.judges])
        self._request += 1
        self._child.send(request=self._request, pairs=[list(pair) for pair in pairs], first=first)

    def _answer(self, number: int, check: Callable[[], None]) -> JsonObject | None:
        """Return the child's line about a judge; None if it ended or took longer than the deadline."""
        end = time.monotonic() + self._deadline_s
        while time.monotonic() < end:
            check()
            try:
                line = self._lines.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            if line is None:
                return None
            if line.get("request") == self._request and line.get("judge") == number:
                return line
        return None

    def _fail(self, number: int) -> Message:
        """Kill the child and return why a judge has no result; after MAX_FAILURES in a row raise RunError."""
        ended = self._child is None or self._child.process.poll() is not None
        self.close()
        self._failures[number] += 1
        name, seconds, times = self.judges[number].name, self._deadline_s, self._failures[number]
        if times >= MAX_FAILURES:
            key = "rewards.judge_gave_up" if ended else "rewards.judge_hung"
            raise RunError(key, judge=name, seconds=seconds, times=times)
        return msg("rewards.judge_ended") if ended else msg("rewards.judge_slow", seconds=seconds)

    def close(self) -> None:
        """Kill the child, if there is one; the next judging starts another."""
        if self._child:
            kill_tree(self._child.process.pid)
            self._child.end(5.0)
            self._child = None
