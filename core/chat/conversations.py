"""Saved conversations of the Chat page: one file each, <workspace>/conversations/<id>.json, replaced by rename. No
torch.

A conversation has a branch for each time its last question was asked again; each holds both columns from the beginning.
A crash loses at most what is being written of an answer: its question is in the file before the first word is.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from core import files
from core.errors import ChatError
from core.values import Frozen
from core.workspace import names
from core.workspace.folder import Workspace

MOST_NAME = 80
_ID = re.compile(r"[a-z0-9_-]{1,80}")


class Branch(Frozen):
    """Turns of each column; that of a base alone has no tuned one."""

    base: tuple[dict[str, Any], ...] = ()
    tuned: tuple[dict[str, Any], ...] = ()

    @property
    def told(self) -> tuple[dict[str, Any], ...]:
        return self.tuned or self.base


class Conversation(Frozen):
    """target: what answers (run:<id>, base:<model>, adapter:<folder>), which may be gone by now; label: what people
    called it."""

    v: Literal[1] = 1
    id: str
    name: str
    target: str
    label: str = ""
    created: float
    changed: float
    branches: tuple[Branch, ...] = Field(min_length=1)
    at: int = Field(0, ge=0)

    @property
    def branch(self) -> Branch:
        return self.branches[min(self.at, len(self.branches) - 1)]

    def with_branch(self, branch: Branch, is_another: bool = False) -> Conversation:
        """Showing this branch: one that is there already, another one, or the shown one gone on."""
        branches, at = list(self.branches), self.at
        there = next((place for place, one in enumerate(branches) if one.told == branch.told), None)
        if there is not None:
            if there < at and branches[at].told[-1]["role"] == "user":
                del branches[at]  # it was to be another one, and became the same
            at = there
        elif is_another:
            branches, at = [*branches, branch], len(branches)
        else:
            branches[at] = branch
        return self.model_copy(update={"branches": tuple(branches), "at": at, "changed": round(time.time(), 3)})


class Conversations:
    def __init__(self, workspace: Workspace):
        self._root = workspace.root / "conversations"

    def begin(self, target: str, label: str, branch: Branch) -> Conversation:
        """Called by its first question, and on the disk. Raises ChatError."""
        now, asked = time.time(), next((turn["content"] for turn in branch.told if turn["role"] == "user"), "")
        id = f"{time.strftime('%Y-%m-%d_%H%M%S')}_{names.short_id()}"
        name = names.display_name(asked, MOST_NAME) or id
        made = Conversation(id=id, name=name, target=target, label=label, created=now, changed=now, branches=(branch,))
        return self.save(made)

    def save(self, conversation: Conversation) -> Conversation:
        try:
            self._root.mkdir(exist_ok=True)
            files.replace_json(self._file(conversation.id), conversation.model_dump(mode="json"))
        except OSError as error:
            raise ChatError("conversations.cannot_save", reason=error.strerror or str(error)) from error
        return conversation

    def get(self, id: object) -> Conversation:
        """Raises ChatError for one that is not there or cannot be read."""
        found = files.read_model(Conversation, self._file(id)) if isinstance(id, str) and _ID.fullmatch(id) else None
        if found is None:
            raise ChatError("conversations.unknown")
        return found

    def find(self, words: str = "") -> list[Conversation]:
        """Those with the words in their name or in what was said, the newest first."""
        sought = words.strip().casefold()
        read = (files.read_model(Conversation, path) for path in self._root.glob("*.json") if _ID.fullmatch(path.stem))
        found = [one for one in read if one and (not sought or any(sought in text.casefold() for text in _texts(one)))]
        return sorted(found, key=lambda one: one.changed, reverse=True)

    def rename(self, id: object, name: str) -> Conversation:
        shown = names.display_name(name, MOST_NAME)
        if not shown:
            raise ChatError("conversations.no_name")
        return self.save(self.get(id).model_copy(update={"name": shown}))

    def delete(self, id: object) -> None:
        path = self._file(self.get(id).id)
        try:
            files.patiently(lambda: path.unlink(missing_ok=True), files.MOMENT_S)
        except OSError as error:
            raise ChatError("conversations.cannot_save", reason=error.strerror or str(error)) from error

    def _file(self, id: object) -> Path:
        return self._root / f"{id}.json"


def _texts(conversation: Conversation) -> Iterator[str]:
    yield conversation.name
    yield from (
        str(turn.get("content", "")) for branch in conversation.branches for turn in (*branch.base, *branch.tuned)
    )


def first_asked(conversations: Iterable[Conversation]) -> list[str]:
    """The question that began each, in one line, once; a later one cannot be asked without what was said before it."""
    began = (next((turn["content"] for turn in one.branch.told if turn["role"] == "user"), "") for one in conversations)
    return list(dict.fromkeys(line for content in began if (line := " ".join(content.split()))))


def lines(conversations: Iterable[Conversation]) -> Iterator[str]:
    """As JSONL that any trainer reads: {"messages": [...]} of the branch that is shown, as it was answered by what was
    tuned."""
    for one in conversations:
        turns = one.branch.told
        if turns and turns[-1]["role"] == "assistant":
            yield json.dumps({"messages": turns}, ensure_ascii=False) + "\n"
