"""A comparison: fixed prompts, the contestants that answer them, and which answers people prefer in a blind test. No
torch.

<workspace>/comparisons/<id>/: comparison.json (prompts, contestants, length of an answer; written once), answers.jsonl
(a line an answer, as they come), votes.jsonl (a line a verdict; the newest of a voter on a prompt counts),
left_out.jsonl (prompts that a contestant has no room for, with the reason), judged.jsonl (as votes, of a judge that
somebody named: core/chat/judge). A crash leaves at most an unfinished last line, and what is missing is answered later
(core/chat/contest).
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
from typing import Literal

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
JUDGED = "judged.jsonl"
MOST_PROMPTS = 1000
Verdict = Literal["left", "right", "equal", "both_bad"]


Precision = Literal["trained", "16", "4"]  # of a base's weights, in bits


class Contestant(Frozen):
    """A run, as it ended or at a checkpoint, at a strength; or the base of it. other: in a run's place, base:<model> or
    adapter:<name>."""

    label: str
    run: str = ""
    other: str = ""
    column: Literal["base", "tuned"] = "tuned"
    checkpoint: str | None = None
    strength: float = Field(1.0, ge=STRENGTHS[0], le=STRENGTHS[1])
    precision: Precision = "trained"

    def is_same(self, other: Contestant) -> bool:
        """Whatever people call them."""
        return self.model_copy(update={"label": ""}) == other.model_copy(update={"label": ""})


class Answered(Frozen):
    prompt: int = Field(ge=0)
    contestant: int = Field(ge=0)
    text: str
    tokens: int
    seconds: float
    finish_reason: FinishReason


class Vote(Frozen):
    """left, right: contestants, as they stood."""

    prompt: int = Field(ge=0)
    left: int = Field(ge=0)
    right: int = Field(ge=0)
    verdict: Verdict
    voter: str = ""


class Lineup(Frozen):
    v: Literal[1] = 1
    created: float
    prompts: tuple[Prompt, ...] = Field(min_length=1, max_length=MOST_PROMPTS)
    contestants: tuple[Contestant, ...] = Field(min_length=1)
    max_new_tokens: int = Field(256, ge=1, le=4096)


@dataclass(frozen=True)
class Score:
    """Verdicts on two contestants. wins: of each; left_wins: of whichever stood on the left."""

    wins: tuple[int, int] = (0, 0)
    equal: int = 0
    both_bad: int = 0
    left_wins: int = 0

    @property
    def decided(self) -> int:
        return sum(self.wins)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the second one's share of what was decided, 95 % by Wilson (1927); None where nothing was."""
        return wilson(self.wins[1], self.decided) if self.decided else None

    @property
    def is_clear(self) -> bool:
        return self.interval is not None and not self.interval[0] <= 0.5 <= self.interval[1]

    @property
    def missing(self) -> int | None:
        """How many more decided votes would make it clear if their share stayed; None where it is even, or clear
        already."""
        if self.is_clear or not self.decided or self.wins[0] == self.wins[1]:
            return None
        share = max(self.wins) / self.decided
        return next((n - self.decided for n in range(self.decided + 1, 10_000) if wilson(share * n, n)[0] > 0.5), None)


class PromptComparison:
    def __init__(self, path: Path, lineup: Lineup):
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
    ) -> PromptComparison:
        """Raises ChatError where there is nothing to ask, too much, or one contestant twice."""
        if not prompts:
            raise ChatError("compare.no_prompts")
        if len(prompts) > MOST_PROMPTS:
            raise ChatError("compare.too_many", found=len(prompts), most=MOST_PROMPTS)
        if twice := [one.label for place, one in enumerate(contestants) if any(map(one.is_same, contestants[:place]))]:
            raise ChatError("compare.twice", label=twice[0])
        lineup = Lineup(
            created=round(time.time(), 3),
            prompts=tuple(prompts),
            contestants=tuple(contestants),
            max_new_tokens=max_new_tokens,
        )
        root = _root(workspace)
        root.mkdir(exist_ok=True)
        folder = root / f"{time.strftime('%Y-%m-%d_%H%M%S')}_{names.slug(contestants[-1].label)}_{names.short_id()}"
        folder.mkdir()
        files.replace_json(folder / FILE, lineup.model_dump(mode="json", exclude_none=True))
        return cls(folder, lineup)

    @classmethod
    def open(cls, workspace: Workspace, id: str) -> PromptComparison:
        """Raises ChatError for one that is not there or cannot be read."""
        folder = _root(workspace) / id
        lineup = files.read_model(Lineup, folder / FILE) if re.fullmatch(r"[\w-]{1,120}", id) else None
        if lineup is None:
            raise ChatError("compare.unknown", id=id[:100])
        return cls(folder, lineup)

    # ---- answers ----------------------------------------------------------------------------------------------------
    def answers(self) -> dict[tuple[int, int], Answered]:
        """By prompt and contestant."""
        found: dict[tuple[int, int], Answered] = {}
        for record in files.read_lines(self.path / ANSWERS, 0).records:
            with suppress(ValidationError):
                one = Answered.model_validate(record)
                if one.prompt < len(self.lineup.prompts) and one.contestant < len(self.lineup.contestants):
                    found[one.prompt, one.contestant] = one
        return found

    def add(self, answer: Answered) -> None:
        files.append_line(self.path / ANSWERS, answer.model_dump(mode="json"))

    def leave_out(self, prompt: int, reason: Message) -> None:
        files.append_line(self.path / LEFT_OUT, {"prompt": prompt, "reason": reason.model_dump()})

    def left_out(self) -> dict[int, Message]:
        """Prompts that nobody is asked, and why."""
        found: dict[int, Message] = {}
        for record in files.read_lines(self.path / LEFT_OUT, 0).records:
            with suppress(ValidationError, KeyError):
                found[record["prompt"]] = Message.model_validate(record["reason"])
        return found

    def missing(self) -> list[tuple[int, int]]:
        there, gone = self.answers(), self.left_out()
        return [
            (prompt, contestant)
            for contestant in range(len(self.lineup.contestants))
            for prompt in range(len(self.lineup.prompts))
            if (prompt, contestant) not in there and prompt not in gone
        ]

    # ---- votes on two of them ---------------------------------------------------------------------------------------
    def sides(self, prompt: int, voter: str, pair: tuple[int, int] = (0, 1)) -> tuple[int, int]:
        """Who stands on the left and on the right: by chance, and the same for this voter whenever the page is opened
        again."""
        return pair if random.Random(f"{self.id}/{self.lineup.created}/{prompt}/{voter}").random() < 0.5 else pair[::-1]

    def vote(
        self, prompt: int, verdict: Verdict, voter: str, pair: tuple[int, int] = (0, 1), file: str = VOTES
    ) -> None:
        """file: VOTES of people, JUDGED of a judge; so in all that follows."""
        left, right = self.sides(prompt, voter, pair)
        vote = Vote(prompt=prompt, left=left, right=right, verdict=verdict, voter=voter)
        files.append_line(self.path / file, vote.model_dump(mode="json") | {"time": round(time.time(), 3)})

    def votes(self, file: str = VOTES) -> list[Vote]:
        """The newest of each voter on each prompt and pair, in the order of the prompts."""
        found: dict[tuple[int, str, frozenset[int]], Vote] = {}
        for record in files.read_lines(self.path / file, 0).records:
            with suppress(ValidationError):
                vote = Vote.model_validate(record)
                if vote.prompt < len(self.lineup.prompts):
                    found[vote.prompt, vote.voter, frozenset((vote.left, vote.right))] = vote
        return sorted(found.values(), key=lambda vote: vote.prompt)

    def next_for(self, voter: str) -> int | None:
        """The first prompt that voter has not judged; None after the last."""
        judged = {vote.prompt for vote in self.votes() if vote.voter == voter} | self.left_out().keys()
        return next((prompt for prompt in range(len(self.lineup.prompts)) if prompt not in judged), None)

    def score(self, pair: tuple[int, int] = (0, 1), judge: str | None = None) -> Score:
        """Of people, or of one judge."""
        votes = self.votes() if judge is None else [vote for vote in self.votes(JUDGED) if vote.voter == judge]
        votes = [vote for vote in votes if {vote.left, vote.right} == set(pair)]
        winners = [
            vote.left if vote.verdict == "left" else vote.right for vote in votes if vote.verdict in ("left", "right")
        ]
        return Score(
            (winners.count(pair[0]), winners.count(pair[1])),
            equal=sum(vote.verdict == "equal" for vote in votes),
            both_bad=sum(vote.verdict == "both_bad" for vote in votes),
            left_wins=sum(vote.verdict == "left" for vote in votes),
        )


def all_of(workspace: Workspace) -> Iterator[PromptComparison]:
    """Newest first; a folder that holds none is passed over."""
    for folder in sorted(_root(workspace).glob("*"), reverse=True):
        with suppress(ChatError):
            yield PromptComparison.open(workspace, folder.name)


def votes_on_run(workspace: Workspace, run: str) -> Score | None:
    """What people chose between a run as it ended and its base, in the newest blind test of the two in which anything
    was decided; None where there is none."""
    for comparison in all_of(workspace):
        columns = [one.column if one.run == run and one.checkpoint is None and one.strength == 1 else "" for one in
                   comparison.lineup.contestants]  # fmt: skip
        if set(columns) >= {"base", "tuned"}:
            score = comparison.score((columns.index("base"), columns.index("tuned")))
            if score.decided:
                return score
    return None


def same_beginning(texts: Sequence[str]) -> int:
    """How many characters the texts have in common before they begin to differ."""
    return len(os.path.commonprefix(list(texts)))


def _root(workspace: Workspace) -> Path:
    return workspace.root / "comparisons"
