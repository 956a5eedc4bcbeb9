"""Writes one entry of presets/models.yaml as text: formatted as the file is, in place of the old entry or appended. No
torch.

The file is edited by people: its comments, its order and every other entry stay as they are, byte for byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from core.messages import YAML_LOADER

WIDTH = 138
_KEYS = (
    "id", "hub", "title", "family", "billions", "in_files", "beside", "released", "licence", "commercial", "gated",
    "languages",
    "thinking", "tools", "flags", "note", "shape", "config", "held", "source",
)  # fmt: skip
_SENTENCES = ("note", "flags", "source")  # always in quotes
_PLAIN = re.compile(r"[A-Za-z][\w.+ -]*")
_ENTRY = re.compile(r"^- id: .*\n(?:(?:[ #].*)?\n)*?(?=^- id: |^\S|\n^#|\Z)", re.MULTILINE)


class EntryError(Exception):
    """There is no entry; the message tells the keeper of the catalogue why."""


def text_of(entry: Mapping[str, Any]) -> str:
    """Return the lines of entry, with the keys of presets/models.yaml and no others."""
    lines: list[str] = []
    for key in (key for key in _KEYS if entry.get(key) is not None):
        value = entry[key]
        if key == "note":
            lines += [
                "  note:",
                *(f"    {language}: {json.dumps(reason, ensure_ascii=False)}" for language, reason in value.items()),
            ]
        else:
            lines += _folded(f"  {key}: ", json.dumps(value, ensure_ascii=False) if key in _SENTENCES else _flow(value))
    return "\n".join(["- " + lines[0].strip(), *lines[1:]]) + "\n"


def read(text: str) -> dict[str, Any]:
    """Read the text that `text_of` wrote."""
    (entry,) = yaml.load(text, YAML_LOADER)
    return dict(entry)


def entries(file: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return the text of a catalogue, and its entries by hub id. Raises EntryError if it is no catalogue."""
    try:
        text = file.read_text("utf-8")
        return text, {str(entry["hub"]): entry for entry in yaml.load(text, YAML_LOADER)["models"]}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise EntryError(f"{file.name} is not a model catalogue ({type(error).__name__}).") from None


def put(catalogue: str, entry: Mapping[str, Any]) -> str:
    """Return catalogue (the text of presets/models.yaml) with entry in place of the one with its hub id, keeping
    comments between its lines; otherwise appended."""
    written, places = text_of(entry), list(_ENTRY.finditer(catalogue))
    for place in places:
        if re.search(rf"^  hub: {re.escape(str(entry['hub']))}$", place[0], re.MULTILINE):
            first, rest = written.split("\n", 1)
            comments = "".join(f"{line}\n" for line in place[0].split("\n") if line.lstrip().startswith("#"))
            return f"{catalogue[: place.start()]}{first}\n{comments}{rest}{catalogue[place.end() :]}"
    end = places[-1].end()
    return f"{catalogue[:end]}{written}{catalogue[end:]}"


def _folded(start: str, value: str) -> list[str]:
    """Break a value after commas, as the file has its shapes; a sentence stays in one piece."""
    if value.startswith('"'):
        return [start + value]
    lines, line = [], start
    for piece in value.split(", "):
        if len(line) + len(piece) + 1 >= WIDTH and line.strip():
            lines.append(line.rstrip())
            line = " " * 9
        line += f"{piece}, "
    return [*lines, line.removesuffix(", ")]


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_flow(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and (not _PLAIN.fullmatch(value) or yaml.load(value, YAML_LOADER) != value):
        return value if re.fullmatch(r"[\w.-]+/[\w.-]+|\d{4}-\d\d", value) else json.dumps(value, ensure_ascii=False)
    return str(value)
