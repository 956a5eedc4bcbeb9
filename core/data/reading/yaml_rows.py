"""Reads rows from YAML and TOML: a list of objects, or an object around one, as chatbots store them (ChatterBot, Rasa).

A file takes some thirty times its size in memory, so it may have at most MAX_BYTES. An alias, which can stand for a
thousand others, is refused before anything is built; only plain values are built.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any

import yaml

from core.data.reading.file_rows import Limits, RawRow, Readable, Source
from core.data.reading.json_rows import rows_of_other_shapes
from core.data.shapes.known import COLUMNS
from core.data.shapes.labelled import rows_in_object
from core.data.shapes.left_out import Omission, has_value
from core.data.shapes.sides import LISTED
from core.errors import DataError
from core.messages import YAML_ERRORS, msg
from core.values import MIB

MAX_BYTES = 8 * MIB
_OPENS = (yaml.SequenceStartEvent, yaml.MappingStartEvent)
_CLOSES = (yaml.SequenceEndEvent, yaml.MappingEndEvent)
_ITEM = "- "  # Rasa writes a list of texts as one text
_MARKED = re.compile(r"\[([^\]]+)\](?:\([^()]*\)|\{[^{}]*\})")  # an entity in it


class _Loader(yaml.CSafeLoader):
    """Loader that reads everything but true, false, null and plain integers as text: "yes", "18:30" and 010 too.

    YAML 1.1 reads those as other types.
    """


# Without those of CSafeLoader, which would read 18:30 as a number.
_Loader.yaml_implicit_resolvers = {}
for _tag, _plainly in {"bool": "true|false", "null": "~|null|Null|NULL|", "int": r"0|-?[1-9]\d{0,17}"}.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_plainly})$"), None)
_ANSWERS = {alias for columns in COLUMNS.values() for ours in columns.keys() & {"messages", "output", "answer",
    "completion"} for alias in columns[ours]}  # fmt: skip
# Values of fields beside an answer that say if it is trained, and if it is good.
_MARKS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False, "0.0": 0, "1.0": 1}


def yaml_rows(source: Source, limits: Limits) -> Iterator[RawRow | Omission]:
    """Yield the rows of a YAML or TOML file: of its list, or of the list under one key; other filled keys are
    omissions. Lists of texts are read by the chosen columns. Raises DataError without a filled list.

    Of Rasa's intents (Source.requests) those without a response are omissions.
    """
    value = _load(source.path, source.encoding, limits)
    items = value
    if isinstance(value, dict):
        name = _rows_key(value)
        items = value.get(name)
        yield from (Omission("beside", str(other)) for other in value if other != name and has_value(value[other]))
        if name is None and (rows := rows_of_other_shapes(value)) and len(rows) > 1:  # a list of terms, say
            items = rows
    if not isinstance(items, list) or not items:
        fields = [*map(str, value)][:8] if isinstance(value, dict) and value else ["–"]
        raise DataError("data.yaml_no_list", file=source.path.name, fields=fields)
    chosen = (source.choices.columns or {}).keys()
    are_lists = all(isinstance(item, list) and all(isinstance(text, str) for text in item) for item in items)
    odd = [item for item in items if are_lists and len(item) > 1 and len(item) % 2]
    if answered := source.requests:  # the intents that have a response
        yield from (Omission("chat", "unanswered") for item in items if _intent(item) not in answered)
        items = [item | answered[_intent(item)] for item in items if _intent(item) in answered]
    rows_of: Callable[[Any], Iterable[Any]] = _rows_of_item
    if are_lists and not chosen.isdisjoint(LISTED[0]):
        rows_of = _first_with_each
    elif are_lists and not chosen.isdisjoint(LISTED[1]):
        rows_of = _in_turn
        yield from (Omission("chat", "unanswered") for _ in odd)
    elif 10 * len(odd) >= len(items):  # so many odd lists let both readings seem possible
        rows_of = _both_readings
    for row, one in enumerate(chain.from_iterable(map(rows_of, items)), 1):
        yield RawRow(row, one)


def _rows_of_item(item: object) -> Iterable[Any]:
    """Return the rows of one item of the list: usually one, several for an object with a list of rows in it; a list
    becomes {"turns": ...}."""
    return rows_in_object(_plain(item))


def _first_with_each(texts: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield a row for each later text of a list, as an answer to the first one."""
    for text in texts[1:]:
        yield dict(zip(LISTED[0], (texts[0], text), strict=True))


def _in_turn(texts: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield one row of a list of questions and answers in turn: the last pair, with the pairs before it as history. A
    last question without an answer is left out, and a list without a pair gives no row."""
    pairs = [[*texts[place : place + 2]] for place in range(0, len(texts) - 1, 2)]
    if pairs:
        yield {**dict(zip(LISTED[1], pairs[-1], strict=True)), "history": pairs[:-1]}


def _both_readings(texts: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield a row for each later text of a list, as an answer to the first text. The first, third, ... of these rows
    also hold a text and the one after it as question and answer in turn, so that a person can choose between both
    readings."""
    for place, row in enumerate(_first_with_each(texts), 1):
        pair = texts[place - 1 : place + 1] if place % 2 else ()
        yield row | dict(zip(LISTED[1], pair, strict=False))


def is_dataset(file: Readable, limits: Limits) -> bool:
    """Return True if a YAML or TOML file holds rows: a list that begins with an object or a list, at the top or under a
    key. False for a training recipe (it has a key such as "model" or "data") and for an unreadable file."""
    value = _readable(file, limits)
    if isinstance(value, dict):
        return not {"data", "model", "base_model", "model_name_or_path"} & value.keys() and _rows_key(value) is not None
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict | list)


def _readable(file: Readable, limits: Limits) -> Any:
    """Return the value of a YAML or TOML file; None for an unreadable one."""
    try:
        return _load(file, "utf-8-sig", limits)
    except (DataError, OSError, UnicodeDecodeError):
        return None


def with_responses_attached(read: Sequence[Source], limits: Limits) -> list[Source]:
    """Attach to Rasa's files of intents the response that stories and rules give right after each intent, if it is
    always the same (Source.requests, with a note), and return the sources without the files of responses and stories.

    All sources are returned unchanged if no intent has a response.
    """
    values = [_readable(each.path, limits) if each.kind == "yaml" and len(read) > 1 else None for each in read]
    files = [value if isinstance(value, dict) else {} for value in values]
    named = {name: each for file in files for name, each in _named(file.get("responses"))}
    follows: defaultdict[str, set[str]] = defaultdict(set)
    # Which of two responses follows depends on the talk before.
    for talk in (talk for file in files for key in ("stories", "rules") for talk in file.get(key) or ()):
        for step, then in pairwise(talk.get("steps") or () if isinstance(talk, dict) else ()):
            for one in step.get("or") or [step]:
                follows[_intent(one)].add(str(then.get("action")))
    only = {intent: named[action] for intent, (action, *more) in follows.items() if not more and action in named}
    answers = {intent: {"responses": texts} for intent, texts in only.items() if intent}
    if not answers:
        return list(read)
    used = [
        str(s.path.name) for s, file in zip(read, files, strict=True) if {"responses", "stories", "rules"} & {*file}
    ]
    note = msg("data.note_rasa", files=used)
    return [
        replace(source, requests=answers, notes=(*source.notes, note)) if "nlu" in file else source
        for source, file in zip(read, files, strict=True)
        if "nlu" in file or source.path.name not in used
    ]


def _named(responses: object) -> Iterator[tuple[str, list[str]]]:
    """Yield (name, its texts) of each of Rasa's responses that has a text. Nothing if `responses` is not an object."""
    for name, variants in responses.items() if isinstance(responses, dict) else ():
        texts = [one["text"] for one in variants or () if isinstance(one, dict) and isinstance(one.get("text"), str)]
        if texts:
            yield name, texts


def _intent(item: object) -> str:
    """Return the intent that an item of Rasa names; "" without one."""
    return str(item.get("intent", "")) if isinstance(item, dict) else ""


def _rows_key(value: Mapping[str, object]) -> str | None:
    """Return the key of an object's first filled list that begins with an object or with a list, which is a
    conversation. Test cases of promptfoo ("tests") go before all. None if there is no such list."""
    tests = value.get("tests")
    if isinstance(tests, list) and any(isinstance(test, dict) and "vars" in test for test in tests):
        return "tests"
    return next(
        (key for key, part in value.items() if isinstance(part, list) and part and isinstance(part[0], dict | list)),
        None,
    )


def _plain(item: object) -> Any:
    """Return an item as a row: a list as {"turns": ...}, Rasa's text of examples as a list; anything else as it is."""
    if isinstance(item, list):
        return {"turns": item}
    if (
        isinstance(item, dict)
        and isinstance(examples := item.get("examples"), str)
        and examples.lstrip().startswith(_ITEM)
    ):
        # "- fly to [Berlin](city)" is "fly to Berlin".
        texts = [_MARKED.sub(r"\1", line.strip().removeprefix(_ITEM).strip()) for line in examples.splitlines()]
        return item | {"examples": [text for text in texts if text]}
    return item


def _with_flags(value: object) -> Any:
    """Return a copy of the value in which words such as "yes" or "off" are booleans ("0.0" and "1.0" numbers), but only
    under keys that take a flag: train, loss, weight, kto_tag, and label beside an answer. At any depth."""
    if not isinstance(value, dict):
        return [_with_flags(one) for one in value] if isinstance(value, list) else value
    flag_names = (
        "train",
        "loss",
        "weight",
        "kto_tag",
        *(("label",) if _ANSWERS & {name.lower() for name in value} else ()),
    )
    flags = {
        name: _MARKS.get(one.lower(), one) for name, one in value.items() if name in flag_names and isinstance(one, str)
    }
    return {name: flags.get(name, _with_flags(one)) for name, one in value.items()}


def _load(file: Readable, encoding: str, limits: Limits) -> Any:
    """Return the value of a file, of types that JSON has too (dates as text), with words such as "yes" as true or false
    under keys that take a flag. Raises DataError if it is too large or too deep, and with the line if it is broken or
    has aliases."""
    with file.open(encoding=encoding) as opened:
        text = opened.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise DataError("data.yaml_too_large", file=file.name, limit_mib=MAX_BYTES // MIB)
    try:
        if file.suffix.lower() != ".toml":
            _check(file, text, limits)
        # The loader makes plain values alone.
        value = tomllib.loads(text) if file.suffix.lower() == ".toml" else yaml.load(text, Loader=_Loader)  # noqa: S506
        # By way of JSON, so that only its types are left.
        return _with_flags(json.loads(json.dumps(value, default=str)))
    except (*YAML_ERRORS, TypeError) as error:
        if isinstance(error, tomllib.TOMLDecodeError):
            raise DataError("data.broken_toml", file=file.name, reason=str(error)) from None
        mark = getattr(error, "problem_mark", None)
        raise DataError("data.broken_yaml", file=file.name, line=mark.line + 1 if mark else 1) from None


def _check(file: Readable, text: str, limits: Limits) -> None:
    """Raise DataError with the line if the text has aliases, which can make it endless, or if it is nested deeper than
    limits.depth."""
    depth = 0
    # Before anything is built: some aliases stand for gigabytes.
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise DataError(
                "data.yaml_alias", file=file.name, line=event.start_mark.line + 1 if event.start_mark else 1
            )
        depth += isinstance(event, _OPENS) - isinstance(event, _CLOSES)
        if depth > limits.depth:
            raise DataError("data.yaml_too_deep", file=file.name, limit=limits.depth)
