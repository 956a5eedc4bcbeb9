"""A comparison: fixed prompts, the contestants that answer them, and the answers that people prefer in a blind test. No
torch.

An evaluation (core/chat/evaluation) is one too, in another folder.

<workspace>/comparisons/<id>/: comparison.json (prompts, contestants, length of an answer; written once), answers.jsonl
(one answer a line, as they arrive), votes.jsonl (one verdict a line; a voter's newest on a prompt counts),
left_out.jsonl (prompts that do not fit a contestant, with the reason). A crash leaves at most an unfinished last
line; missing answers are generated later (core/chat/contest).
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError

from core import files
from core.chat.answer import STRENGTHS, FinishReason
from core.chat.prompts import Prompt
from core.errors import ChatError
from core.messages import Message
from core.values import Frozen, wilson
from core.workspace import names
from core.workspace.folder import Workspace

FILE, ANSWERS, VOTES, LEFT_OUT = "comparison.json", "answers.jsonl", "votes.jsonl", "left_out.jsonl"
MAX_PROMPTS = 1000
Verdict = Literal["left", "right", "equal", "both_bad"]


Precision = Literal["trained", "16", "4"]  # bits of a base's weights


class Contestant(Frozen):
    """A run, at its end or at a checkpoint, at a strength; or its base. other: instead of a run,
    base:<model>.

    system: a system prompt before the prompt's own. examples: how many of the prompt's examples precede its question.
    weights: a fingerprint of what answers; "" if it was not computed.
    """

    label: str
    run: str = ""
    other: str = ""
    column: Literal["base", "tuned"] = "tuned"
    checkpoint: str | None = None
    strength: float = Field(1.0, ge=STRENGTHS[0], le=STRENGTHS[1])
    precision: Precision = "trained"
    system: str = ""
    examples: int = Field(0, ge=0)
    weights: str = ""

    @property
    def is_as_trained(self) -> bool:
        """True without a checkpoint and with strength 1: a run's final adapter at full strength, or a base. A system
        prompt, examples and another precision make no difference to it."""
        return self.checkpoint is None and self.strength == 1

    def is_same(self, other: Contestant) -> bool:
        """Compare two contestants without their labels."""
        return self.model_copy(update={"label": ""}) == other.model_copy(update={"label": ""})


class ComparisonAnswer(Frozen):
    """A contestant's answer to a prompt: a line of answers.jsonl."""

    prompt: int = Field(ge=0)
    contestant: int = Field(ge=0)
    text: str
    tokens: int
    seconds: float
    finish_reason: FinishReason


class Vote(Frozen):
    """A verdict. left, right: the contestants as they were placed."""

    prompt: int = Field(ge=0)
    left: int = Field(ge=0)
    right: int = Field(ge=0)
    verdict: Verdict
    voter: str = ""


class Lineup(Frozen):
    """The prompts and contestants of a comparison: comparison.json. enable_thinking: None as trained; without
    effect on a template that has no such option. test_set: title and fingerprint of the one that an evaluation uses."""

    v: Literal[1] = 1
    created: float
    prompts: tuple[Prompt, ...] = Field(min_length=1, max_length=MAX_PROMPTS)
    contestants: tuple[Contestant, ...] = Field(min_length=1)
    max_new_tokens: int = Field(256, ge=1, le=4096)
    enable_thinking: bool | None = None
    test_set: tuple[str, str] | None = None


@dataclass(frozen=True)
class Score:
    """Verdicts on two contestants. wins: of each; left_wins: of the one on the left."""

    wins: tuple[int, int] = (0, 0)
    equal: int = 0
    both_bad: int = 0
    left_wins: int = 0

    @property
    def decided(self) -> int:
        """The number of verdicts that prefer one of the two."""
        return sum(self.wins)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the second contestant's share of the decided votes, by Wilson (1927); None without any."""
        return wilson(self.wins[1], self.decided) if self.decided else None

    @property
    def is_clear(self) -> bool:
        """True if the interval excludes one half."""
        return self.interval is not None and not self.interval[0] <= 0.5 <= self.interval[1]

    @property
    def missing(self) -> int | None:
        """The number of further decided votes that would make the result clear if the share stayed as it is. None
        without decided votes, for an even result, for one that is clear already, or if it would take 10,000 votes in
        all."""
        if self.is_clear or not self.decided or self.wins[0] == self.wins[1]:
            return None
        share = max(self.wins) / self.decided
        return next((n - self.decided for n in range(self.decided + 1, 10_000) if wilson(share * n, n)[0] > 0.5), None)


class PromptComparison:
    """A comparison on disk: prompts, the contestants (models with their settings) that answer them, the answers, and
    people's votes. Prompts and contestants are named by their numbers in the lineup, from 0. FOLDER: where the
    workspace has them."""

    FOLDER = "comparisons"

    def __init__(self, path: Path, lineup: Lineup):
        """Store the folder and its contents' lineup."""
        self.path, self.lineup = path, lineup

    @property
    def id(self) -> str:
        return self.path.name

    @classmethod
    def create(
        cls,
        workspace: Workspace,
        prompts: Sequence[Prompt],
        contestants: Sequence[Contestant],
        max_new_tokens: int = 256,
        test_set: tuple[str, str] | None = None,
        enable_thinking: bool | None = None,
    ) -> Self:
        """Create a comparison's folder and write its lineup. Raises ChatError without prompts, with more than
        MAX_PROMPTS, or with one contestant twice."""
        if not prompts:
            raise ChatError("compare.no_prompts")
        if len(prompts) > MAX_PROMPTS:
            raise ChatError("compare.too_many", found=len(prompts), most=MAX_PROMPTS)
        if repeated := [
            contestant.label
            for place, contestant in enumerate(contestants)
            if any(map(contestant.is_same, contestants[:place]))
        ]:
            raise ChatError("compare.twice", label=repeated[0])
        lineup = Lineup(
            created=round(time.time(), 3),
            prompts=tuple(prompts),
            contestants=tuple(contestants),
            max_new_tokens=max_new_tokens,
            test_set=test_set,
            enable_thinking=enable_thinking,
        )
        root = workspace.root / cls.FOLDER
        root.mkdir(parents=True, exist_ok=True)
        folder = root / f"{time.strftime('%Y-%m-%d_%H%M%S')}_{names.slug(contestants[-1].label)}_{names.short_id()}"
        folder.mkdir()
        files.replace_json(folder / FILE, lineup.model_dump(mode="json", exclude_none=True))
        return cls(folder, lineup)

    @classmethod
    def open(cls, workspace: Workspace, id: str) -> Self:
        """Open a comparison. Raises ChatError if it does not exist or cannot be read."""
        folder = workspace.root / cls.FOLDER / id
        lineup = files.read_model(Lineup, folder / FILE) if re.fullmatch(r"[\w-]{1,120}", id) else None
        if lineup is None:
            raise ChatError("compare.unknown", id=id[:100])
        return cls(folder, lineup)

    @classmethod
    def all_of(cls, workspace: Workspace) -> Iterator[Self]:
        """All comparisons of a workspace, newest first; unreadable folders are skipped."""
        for folder in sorted((workspace.root / cls.FOLDER).glob("*"), reverse=True):
            with suppress(ChatError):
                yield cls.open(workspace, folder.name)

    # ---- answers ----------------------------------------------------------------------------------------------------
    def answers(self) -> dict[tuple[int, int], ComparisonAnswer]:
        """Return the answers so far, by (prompt, contestant), the newest of each. Damaged lines of the file are
        skipped."""
        answers: dict[tuple[int, int], ComparisonAnswer] = {}
        for record in files.read_lines(self.path / ANSWERS, 0).records:
            with suppress(ValidationError):
                answer = ComparisonAnswer.model_validate(record)
                if answer.prompt < len(self.lineup.prompts) and answer.contestant < len(self.lineup.contestants):
                    answers[answer.prompt, answer.contestant] = answer
        return answers

    def add(self, answer: ComparisonAnswer) -> None:
        """Append an answer to the file."""
        files.append_line(self.path / ANSWERS, answer.model_dump(mode="json"))

    def leave_out(self, prompt: int, reason: Message) -> None:
        """Leave a prompt out for all contestants, and keep the reason."""
        files.append_line(self.path / LEFT_OUT, {"prompt": prompt, "reason": reason.model_dump()})

    def left_out(self) -> dict[int, Message]:
        """Return the prompts (by number) that are left out for all contestants, with the reason."""
        reasons: dict[int, Message] = {}
        for record in files.read_lines(self.path / LEFT_OUT, 0).records:
            with suppress(ValidationError, KeyError):
                reasons[record["prompt"]] = Message.model_validate(record["reason"])
        return reasons

    def missing(self) -> list[tuple[int, int]]:
        """Return (prompt, contestant) of the answers still to be generated, without left-out prompts, one contestant
        after the other."""
        answers, left_out = self.answers(), self.left_out()
        return [
            (prompt, contestant)
            for contestant in range(len(self.lineup.contestants))
            for prompt in range(len(self.lineup.prompts))
            if (prompt, contestant) not in answers and prompt not in left_out
        ]

    # ---- votes on a pair --------------------------------------------------------------------------------------------
    def sides(self, prompt: int, voter: str) -> tuple[int, int]:
        """The first two contestants, left and right: random, but the same for this voter each time."""
        return (0, 1) if random.Random(f"{self.id}/{self.lineup.created}/{prompt}/{voter}").random() < 0.5 else (1, 0)

    def vote(self, prompt: int, verdict: Verdict, voter: str) -> None:
        """Append a voter's verdict on the first two contestants, with the side that each stood on."""
        left, right = self.sides(prompt, voter)
        vote = Vote(prompt=prompt, left=left, right=right, verdict=verdict, voter=voter)
        files.append_line(self.path / VOTES, vote.model_dump(mode="json") | {"time": round(time.time(), 3)})

    def votes(self) -> list[Vote]:
        """Return the newest vote of each voter on each prompt and pair, in the order of the prompts; damaged lines are
        skipped."""
        newest: dict[tuple[int, str, frozenset[int]], Vote] = {}
        for record in files.read_lines(self.path / VOTES, 0).records:
            with suppress(ValidationError):
                vote = Vote.model_validate(record)
                if vote.prompt < len(self.lineup.prompts):
                    newest[vote.prompt, vote.voter, frozenset((vote.left, vote.right))] = vote
        return sorted(newest.values(), key=lambda vote: vote.prompt)

    def next_for(self, voter: str) -> int | None:
        """The first prompt that voter has not judged and that is not left out; None after the last."""
        judged = {vote.prompt for vote in self.votes() if vote.voter == voter} | self.left_out().keys()
        return next((prompt for prompt in range(len(self.lineup.prompts)) if prompt not in judged), None)

    def score(self, pair: tuple[int, int] = (0, 1)) -> Score:
        """Return the score of a pair by people's votes: of each voter's newest vote on each prompt the wins of either,
        equal and both bad ones, and wins of the left side."""
        votes = [vote for vote in self.votes() if {vote.left, vote.right} == set(pair)]
        winners = [
            vote.left if vote.verdict == "left" else vote.right for vote in votes if vote.verdict in ("left", "right")
        ]
        return Score(
            (winners.count(pair[0]), winners.count(pair[1])),
            equal=sum(vote.verdict == "equal" for vote in votes),
            both_bad=sum(vote.verdict == "both_bad" for vote in votes),
            left_wins=sum(vote.verdict == "left" for vote in votes),
        )


def vote_files(workspace: Workspace) -> list[Path]:
    """The files of all votes, for a stamp of what `votes_on_run` reads."""
    return sorted((workspace.root / PromptComparison.FOLDER).glob(f"*/{VOTES}"))


def votes_on_run(workspace: Workspace, run: str) -> Score | None:
    """Return people's score of a run against its base, both without a checkpoint and at full strength, from the newest
    comparison with both in which a vote prefers one; wins: of the base, then of the run. None without such a
    comparison."""
    for comparison in PromptComparison.all_of(workspace):
        columns = [one.column if one.run == run and one.is_as_trained else "" for one in comparison.lineup.contestants]
        if set(columns) >= {"base", "tuned"}:
            score = comparison.score((columns.index("base"), columns.index("tuned")))
            if score.decided:
                return score
    return None


def same_beginning(texts: Sequence[str]) -> int:
    """Number of characters at the beginning that all texts share."""
    return len(os.path.commonprefix(list(texts)))
