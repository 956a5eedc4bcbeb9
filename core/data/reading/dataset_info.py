"""dataset_info.json, in which LLaMA-Factory and easy-dataset say what the columns of the files beside it are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from core.errors import DataError
from core.messages import msg
from core.values import Frozen

NAME = "dataset_info.json"
_MOST = 4 << 20  # bytes
# Its names of columns and of the fields of a turn, and ours.
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
    """columns: {name in the file: ours}. role, content: how a turn calls them; roles: {name in the file: ours}."""

    columns: dict[str, str]
    role: str = "from"
    content: str = "value"
    roles: dict[str, str] = {}

    def of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A row with our names. What dataset_info.json does not name keeps its own, and is left out by name like any
        other column."""
        row = {
            self.columns.get(name, name): value
            for name, value in values.items()
            if name in self.columns or name not in self.columns.values()
        }
        turns = row.get("conversations")
        if isinstance(turns, list) and (self.roles or (self.role, self.content) != ("from", "value")):
            row["conversations"] = [self._turn(turn) for turn in turns]
        return row

    def _turn(self, turn: Any) -> Any:
        if not isinstance(turn, dict):
            return turn
        names = {self.role: "from", self.content: "value"}
        new = {names.get(name, name): value for name, value in turn.items()}
        role = new.get("from")
        return new | {"from": self.roles[role]} if isinstance(role, str) and role in self.roles else new


class _Opened(Protocol):
    name: str

    def open(self, mode: str) -> Any: ...


def read(file: _Opened) -> dict[str, Layout]:
    """{file: its layout} of every set that names one. Raises DataError."""
    with file.open("rb") as opened:
        text = opened.read(_MOST + 1)
    try:
        sets = json.loads(text[:_MOST])
    except (ValueError, RecursionError):
        raise DataError("data.broken_dataset_info", file=file.name, reason=msg("data.dataset_info_json")) from None
    if not isinstance(sets, dict):
        raise DataError("data.broken_dataset_info", file=file.name, reason=msg("data.dataset_info_object"))
    found = {}
    for about in sets.values():
        name = about.get("file_name") if isinstance(about, dict) else None
        if isinstance(name, str):
            found[name] = _layout(about)
    return found


def _layout(about: Mapping[str, Any]) -> Layout:
    form = "sharegpt" if about.get("formatting") == "sharegpt" else "alpaca"
    theirs = about.get("columns")
    said = {key: name for key, name in theirs.items() if isinstance(name, str)} if isinstance(theirs, dict) else {}
    ours = _COLUMNS[form] | _RANKED
    columns = {name: ours[key] for key, name in said.items() if key in ours}
    tags = about.get("tags")
    tags = {key: name for key, name in tags.items() if isinstance(name, str)} if isinstance(tags, dict) else {}
    return Layout(
        columns=columns,
        role=tags.get("role_tag", "from"),
        content=tags.get("content_tag", "value"),
        roles={name: _TAGS[key] for key, name in tags.items() if key in _TAGS},
    )
