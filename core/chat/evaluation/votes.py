"""A person's votes on answers, kept for the whole workspace: the same answer to the same question is never shown twice.

<workspace>/evaluation/votes.jsonl: a vote a line, {"turns": the conversation up to its question, "answer": text,
"outcome": "right", "partly" or "wrong"}; the newest on an answer counts. A crash leaves at most an unfinished line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from core import files
from core.files import JsonObject
from core.judges.judge import Outcome
from core.judges.texts import without_thoughts
from core.values import Frozen
from core.workspace.folder import Workspace

FILE = "evaluation/votes.jsonl"
Votes = Mapping[str, Outcome]  # by key_of


class PersonVote(Frozen):
    """A person's vote on an answer: a line of votes.jsonl."""

    turns: tuple[JsonObject, ...]
    answer: str
    outcome: Outcome


def vote(workspace: Workspace, turns: Sequence[JsonObject], answer: str, outcome: Outcome) -> None:
    """Keep a vote on an answer, its thoughts left out, to a conversation. Raises RunError if the disk refuses."""
    path = workspace.root / FILE
    with files.writing(workspace.root):
        path.parent.mkdir(parents=True, exist_ok=True)
        one = PersonVote(turns=tuple(turns), answer=without_thoughts(answer), outcome=outcome)
        files.append_line(path, one.model_dump())


def read(root: Path) -> Votes:
    """Return the newest vote on each answer in a workspace, by key_of. root: its folder. Damaged lines are skipped."""
    votes = dict[str, Outcome]()
    for record in files.read_lines(root / FILE, 0).records:
        with suppress(ValidationError):
            one = PersonVote.model_validate(record)
            votes[key_of(one.turns, one.answer)] = one.outcome
    return votes


def key_of(turns: Sequence[JsonObject], answer: str) -> str:
    """Return a key of an answer, without its thoughts, to a conversation."""
    return hashlib.sha256(json.dumps([list(turns), without_thoughts(answer)]).encode()).hexdigest()
