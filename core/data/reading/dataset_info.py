"""Reads dataset_info.json, in which LLaMA-Factory and easy-dataset describe the columns of the files beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Protocol

from core.errors import DataError
from core.files import JsonObject
from core.messages import msg
from core.values import Frozen

NAME = "dataset_info.json"
_MAX_BYTES = 4 << 20
# Names of columns and of the fields of a turn there, and ours.
_COLUMNS = {
    "alpaca": {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        "history": "history",
        "system": "system",
        "tools": "tools",
    },
    "sharegpt": {"messages": "conversations", "system": "system", "tools": "tools"},
}
_RANKED = {"chosen": "chosen", "rejected": "rejected"}
_TAGS = {
    "user_tag": "human", "assistant_tag": "gpt", "observation_tag": "observation", "function_tag": "function_call",
    "system_tag": "system",
}  # fmt: skip


class Layout(Frozen):
    """The columns of a file. columns: {name in the file: ours}. role, content: keys of a turn; roles: {name in the
    file: ours}."""

    columns: dict[str, str]
    role: str = "from"
    content: str = "value"
    roles: dict[str, str] = {}

    def apply(self, values: Mapping[str, object]) -> JsonObject:
        """Return a row with its listed columns renamed to the app's names and, in the turns of a conversation, keys and
        roles too.

        Columns that are not listed keep their names. One is dropped if its name is the new name of a listed column.
        """
        row = {
            self.columns.get(name, name): value
            for name, value in values.items()
            if name in self.columns or name not in self.columns.values()
        }
        turns = row.get("conversations")
        if isinstance(turns, list) and (self.roles or (self.role, self.content) != ("from", "value")):
            row["conversations"] = [self._turn(turn) for turn in turns]
        return row

    def _turn(self, turn: object) -> object:
        """Return a turn with ShareGPT's keys "from" and "value", its role translated; anything else as it is."""
        if not isinstance(turn, dict):
            return turn
        names = {self.role: "from", self.content: "value"}
        new = {names.get(name, name): value for name, value in turn.items()}
        role = new.get("from")
        return new | {"from": self.roles[role]} if isinstance(role, str) and role in self.roles else new


class _Opened(Protocol):
    name: str

    def open(self, mode: str) -> IO[bytes]: ...


def read(file: _Opened) -> dict[str, Layout]:
    """Return {file: its layout} of every dataset that names a file. Raises DataError if it is no JSON object."""
    with file.open("rb") as opened:
        text = opened.read(_MAX_BYTES + 1)
    try:
        sets = json.loads(text[:_MAX_BYTES])  # a longer file is cut, and no JSON
    except (ValueError, RecursionError):
        raise DataError("data.broken_dataset_info", file=file.name, reason=msg("data.dataset_info_json")) from None
    if not isinstance(sets, dict):
        raise DataError("data.broken_dataset_info", file=file.name, reason=msg("data.dataset_info_object"))
    layouts = {}
    for entry in sets.values():
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if isinstance(name, str):
            layouts[name] = _layout(entry)
    return layouts


def _layout(entry: Mapping[str, object]) -> Layout:
    """Return LLaMA-Factory's description of one file as our layout; entries of a wrong type are skipped."""
    form = "sharegpt" if entry.get("formatting") == "sharegpt" else "alpaca"  # LLaMA-Factory's default
    columns_entry = entry.get("columns")
    names = (
        {key: name for key, name in columns_entry.items() if isinstance(name, str)}
        if isinstance(columns_entry, dict)
        else {}
    )
    ours = _COLUMNS[form] | _RANKED
    columns = {name: ours[key] for key, name in names.items() if key in ours}
    tags = entry.get("tags")
    tags = {key: name for key, name in tags.items() if isinstance(name, str)} if isinstance(tags, dict) else {}
    return Layout(
        columns=columns,
        role=tags.get("role_tag", "from"),
        content=tags.get("content_tag", "value"),
        roles={name: _TAGS[key] for key, name in tags.items() if key in _TAGS},
    )
