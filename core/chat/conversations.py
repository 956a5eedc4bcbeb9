"""Saved conversations of the Chat page: one file each, <workspace>/conversations/<id>.json, replaced by rename. No
torch.

A conversation holds both columns as its one branch; files of earlier versions may have more, one for each time that the
last question was asked again. A crash loses at most the answer in progress: its question is saved before the first
token.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from core import files
from core.errors import ChatError
from core.files import JsonObject
from core.values import Frozen
from core.workspace import names
from core.workspace.folder import Workspace

MAX_NAME = 80
_ID = re.compile(r"[a-z0-9_-]{1,80}")


class Branch(Frozen):
    """Turns of each column; a chat with a base alone has no tuned turns."""

    base: tuple[JsonObject, ...] = ()
    tuned: tuple[JsonObject, ...] = ()

    @property
    def turns(self) -> tuple[JsonObject, ...]:
        """The tuned column's turns, or the base's without a tuned one."""
        return self.tuned or self.base


class Conversation(Frozen):
    """A conversation. target: the model (run:<id>, base:<model>), which may no longer exist; label: its name for
    the user."""

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
        """The shown branch."""
        return self.branches[min(self.at, len(self.branches) - 1)]

    def with_branch(self, branch: Branch) -> Conversation:
        """Return a copy of the conversation with this branch as its only one, changed now."""
        return self.model_copy(update={"branches": (branch,), "at": 0, "changed": time.time()})


class Conversations:
    """The saved conversations of a workspace."""

    def __init__(self, workspace: Workspace):
        self._root = workspace.root / "conversations"

    def begin(self, target: str, label: str, branch: Branch) -> Conversation:
        """Create and save a conversation, named after its first question, and return it. Raises ChatError."""
        now, question = time.time(), next((turn["content"] for turn in branch.turns if turn["role"] == "user"), "")
        id = f"{time.strftime('%Y-%m-%d_%H%M%S')}_{names.short_id()}"
        name = names.display_name(question, MAX_NAME) or id
        made = Conversation(id=id, name=name, target=target, label=label, created=now, changed=now, branches=(branch,))
        return self.save(made)

    def save(self, conversation: Conversation) -> Conversation:
        """Write the conversation, complete or not at all, over an earlier one of its id; return it. Raises
        ChatError."""
        try:
            self._root.mkdir(exist_ok=True)
            files.replace_json(self._file(conversation.id), conversation.model_dump(mode="json"))
        except OSError as error:
            raise ChatError("conversations.cannot_save", reason=error.strerror or str(error)) from error
        return conversation

    def get(self, id: object) -> Conversation:
        """Return a saved conversation. Raises ChatError if it does not exist or cannot be read."""
        conversation = (
            files.read_model(Conversation, self._file(id)) if isinstance(id, str) and _ID.fullmatch(id) else None
        )
        if conversation is None:
            raise ChatError("conversations.unknown")
        return conversation

    def find(self, words: str = "") -> list[Conversation]:
        """Return the conversations with this phrase in their name or text (any case), the last changed first; all for
        ""."""
        needle = words.strip().casefold()
        read = (files.read_model(Conversation, path) for path in self._root.glob("*.json") if _ID.fullmatch(path.stem))
        matches = [
            one for one in read if one and (not needle or any(needle in text.casefold() for text in _texts(one)))
        ]
        return sorted(matches, key=lambda one: one.changed, reverse=True)

    def rename(self, id: object, name: str) -> Conversation:
        """Give a conversation another name, and return it. Raises ChatError for an unknown one, or without a name."""
        shown = names.display_name(name, MAX_NAME)
        if not shown:
            raise ChatError("conversations.no_name")
        return self.save(self.get(id).model_copy(update={"name": shown}))

    def delete(self, id: object) -> None:
        """Delete a conversation. Raises ChatError for an unknown one, or if the disk refuses."""
        path = self._file(self.get(id).id)
        try:
            files.retry_if_busy(lambda: path.unlink(missing_ok=True), files.MOMENT_S)
        except OSError as error:
            raise ChatError("conversations.cannot_save", reason=error.strerror or str(error)) from error

    def _file(self, id: object) -> Path:
        """Return the path of a conversation's file; the caller has checked that the id is a safe file name."""
        return self._root / f"{id}.json"


def _texts(conversation: Conversation) -> Iterator[str]:
    """Yield the name, and the texts of all turns in all branches."""
    yield conversation.name
    yield from (
        str(turn.get("content", "")) for branch in conversation.branches for turn in (*branch.base, *branch.tuned)
    )


def lines(conversations: Iterable[Conversation]) -> Iterator[str]:
    """Yield the conversations as JSONL for any trainer: {"messages": [...]} of the shown branch, if it ends with an
    answer."""
    for one in conversations:
        turns = one.branch.turns
        if turns and turns[-1]["role"] == "assistant":
            yield json.dumps({"messages": turns}, ensure_ascii=False) + "\n"
