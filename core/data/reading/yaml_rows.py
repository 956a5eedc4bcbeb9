"""Rows from YAML: a list of objects, or an object around one, as chatbots store them (ChatterBot, Rasa).

A file is held in memory as a whole, some thirty times its size, so it may have MOST_BYTES. An alias, which can stand
for a thousand others, is refused before anything is made of it; nothing but plain values is made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from core.data.reading.file_rows import Limits, Raw, Readable, Source
from core.data.shapes.known import COLUMNS
from core.data.shapes.labelled import several
from core.data.shapes.left_out import Loss, has_value
from core.errors import DataError
from core.values import MIB

MOST_BYTES = 8 * MIB
_OPENS = (yaml.SequenceStartEvent, yaml.MappingStartEvent)
_CLOSES = (yaml.SequenceEndEvent, yaml.MappingEndEvent)
_ITEM = "- "  # Rasa writes a list of texts as one text


class _Loader(yaml.CSafeLoader):
    """What is no true, false, null or plain integer is a text as it is written: "yes", "18:30" and 010 too, which YAML
    1.1 takes for others."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _plainly in {"bool": "true|false", "null": "~|null|Null|NULL|", "int": r"0|-?[1-9]\d{0,17}"}.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_plainly})$"), None)
_ANSWERS = {alias for columns in COLUMNS.values() for ours in columns.keys() & {"messages", "output", "answer",
    "completion"} for alias in columns[ours]}  # fmt: skip
# Beside an answer they are no words: whether it is to be learned, and whether it is a good one.
_MARKS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False, "0.0": 0, "1.0": 1}


def yaml_rows(source: Source, limits: Limits) -> Iterator[Raw | Loss]:
    value = _loaded(source.path, source.encoding, limits)
    items = value
    if isinstance(value, dict):
        name = _of_rows(value)
        items = value.get(name)
        yield from (Loss("beside", str(other)) for other in value if other != name and has_value(value[other]))
    if not isinstance(items, list) or not items:
        raise DataError("data.yaml_no_list", file=source.path.name)
    row = 0
    for item in items:
        for one in several(_plain(item)):
            row += 1
            yield Raw(row, one)


def is_set(file: Readable, limits: Limits) -> bool:
    """Whether a YAML file holds rows, and no recipe."""
    try:
        value = _loaded(file, "utf-8-sig", limits)
    except (DataError, OSError, UnicodeDecodeError):
        return False
    if isinstance(value, dict):
        return not {"data", "model"} & value.keys() and _of_rows(value) is not None
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict | list)


def _of_rows(value: dict[str, Any]) -> str | None:
    """The first list of objects, or of lists, which are conversations."""
    return next(
        (key for key, part in value.items() if isinstance(part, list) and part and isinstance(part[0], dict | list)),
        None,
    )


def _plain(item: Any) -> Any:
    if isinstance(item, list):
        return {"turns": item}
    if (
        isinstance(item, dict)
        and isinstance(examples := item.get("examples"), str)
        and examples.lstrip().startswith(_ITEM)
    ):
        said = [line.strip().removeprefix(_ITEM).strip() for line in examples.splitlines()]
        return item | {"examples": [text for text in said if text]}
    return item


def _marked(value: Any) -> Any:
    if not isinstance(value, dict):
        return [_marked(one) for one in value] if isinstance(value, list) else value
    marks = ("train", "loss", "weight", "kto_tag", *(("label",) if _ANSWERS & {name.lower() for name in value} else ()))
    marked = {
        name: _MARKS.get(one.lower(), one) for name, one in value.items() if name in marks and isinstance(one, str)
    }
    return {name: marked.get(name, _marked(one)) for name, one in value.items()}


def _loaded(file: Readable, encoding: str, limits: Limits) -> Any:
    """What JSON could hold too. Raises DataError."""
    with file.open(encoding=encoding) as opened:
        text = opened.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise DataError("data.yaml_too_large", file=file.name, limit_mib=MOST_BYTES // MIB)
    try:
        _check(file, text, limits)
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - it makes plain values alone
        return _marked(json.loads(json.dumps(value, default=str)))
    except (yaml.YAMLError, ValueError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        raise DataError("data.broken_yaml", file=file.name, line=mark.line + 1 if mark else 1) from None


def _check(file: Readable, text: str, limits: Limits) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise DataError(
                "data.yaml_alias", file=file.name, line=event.start_mark.line + 1 if event.start_mark else 1
            )
        depth += isinstance(event, _OPENS) - isinstance(event, _CLOSES)
        if depth > limits.depth:
            raise DataError("data.yaml_too_deep", file=file.name, limit=limits.depth)
