"""Names of the classes that a file has as numbers: from a Parquet file itself, or from a file beside the data.

features          dataset_info.json, dataset_infos.json, the front matter of README.md, as `datasets` writes them
classes.txt       a name a line, also with its number before it
label_map.json    {"0": "World"} | {"World": 0} | ["World", ...] | {"id2label": {...}}

The first kind says which column it is about; for the others, core/data/shapes/class_names decides by the numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from core.data.shapes.numbering import number_of
from core.messages import YAML_ERRORS, YAML_LOADER
from core.values import MIB, Frozen

_MAX_BYTES, _MAX_NAMES = MIB, 10_000
_FEATURES = ("dataset_info.json", "dataset_infos.json", "readme.md")
# classes.txt, label_names.txt, id2label.json
LISTS = re.compile(
    r"(?:(?:class|label|categor(?:y|ie))(?:es|s)?(?:[_-]?(?:names|map|mapping|list))?|id2label|label2id)\.(?:txt"
    r"|json)$",
    re.I,
)
# "0: World", "1,Sports", "2 Business"
_NUMBERED = re.compile(r"(\d{1,5})(?:\s*[,:;=\t]\s*|\s+)(\S.*)")
_FRONT = re.compile(r"---[^\S\n]*\n(.*?\n)---[^\S\n]*\n", re.DOTALL)  # the header of a README


class LabelNames(Frozen):
    """The names of numbers. file: where they are written; "": in the data file. columns: {column: {number: name}}.

    listed: of a list that names no column. numbered: its numbers are written, not counted from 0 or 1.
    """

    file: str = ""
    columns: dict[str, dict[int, str]] = {}
    listed: dict[int, str] = {}
    numbered: bool = False


NO_NAMES = LabelNames()


def is_about_labels(name: str) -> bool:
    """Return True for the name of a file that may hold the names of classes."""
    file = PurePosixPath(name).name
    return file.lower() in _FEATURES or LISTS.match(file) is not None


def of_parquet(file: Any) -> LabelNames:
    """Return the names in the schema of an opened Parquet file, where `datasets` writes them; NO_NAMES without any,
    also if it cannot be read."""
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_schema(file).metadata or {}
        info = json.loads(metadata.get(b"huggingface", b"{}"))
        return LabelNames(columns=_of_features(info["info"]["features"]))
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, RecursionError):
        return NO_NAMES


def beside(path: Path) -> LabelNames:
    """Return the label names in the first file, by file name, beside a data file that holds any (classes.txt,
    dataset_info.json, README.md). NO_NAMES if none does, or the folder cannot be read."""
    try:
        near = sorted(each for each in path.parent.iterdir() if is_about_labels(each.name) and each != path)
    except OSError:
        return NO_NAMES
    return first_of((each.name, each) for each in near)


def first_of(files: Iterable[tuple[str, Any]]) -> LabelNames:
    """Return the class names in the first of the files that has any; NO_NAMES without one. files: (name, file), of
    which the name decides how a file is read."""
    return next((names for name, file in files if (names := _read(name, file)) != NO_NAMES), NO_NAMES)


def _read(name: str, file: Any) -> LabelNames:
    """Return the label names in a file, by its kind; NO_NAMES if it cannot be read or holds fewer than two, or too
    many."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(_MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
        if len(raw) > _MAX_BYTES:
            return NO_NAMES
        if PurePosixPath(name).name.lower() in _FEATURES:
            columns = dict(_merged(_features_in(name, text)))
            return LabelNames(file=name, columns=columns) if columns else NO_NAMES
        listed, numbered = _listed(json.loads(text)) if name.lower().endswith(".json") else _of_lines(text)
    except (OSError, *YAML_ERRORS):
        return NO_NAMES
    return LabelNames(file=name, listed=listed, numbered=numbered) if 1 < len(listed) <= _MAX_NAMES else NO_NAMES


def _features_in(name: str, text: str) -> Iterator[Any]:
    """Yield the features (any value) in the header of a README of a dataset, or in its dataset_info.json."""
    if name.lower().endswith(".md"):
        front = _FRONT.match(text)
        card = yaml.load(front[1], Loader=YAML_LOADER) if front else None  # noqa: S506 - it makes plain values
        infos = card.get("dataset_info") if isinstance(card, dict) else None
        parts = infos if isinstance(infos, list) else [infos]
    else:
        value = json.loads(text)
        parts = [value, *(value.values() if isinstance(value, dict) else ())]
    yield from (part.get("features") for part in parts if isinstance(part, dict))


def _merged(parts: Iterable[Any]) -> Iterator[tuple[str, dict[int, str]]]:
    """Yield (column, {number: name}) of the class labels in the features of all configurations. A column to which two
    configurations give different names is left out."""
    of_parts = [_of_features(part) for part in parts]
    for column in dict.fromkeys(column for part in of_parts for column in part):
        first, *others = [part[column] for part in of_parts if column in part]
        if all(names == first for names in others):
            yield column, first


def _of_features(features: Any) -> dict[str, dict[int, str]]:
    """Return {column: {number: name}} of the class labels among features, in either notation; {} for anything else."""
    if isinstance(features, list):  # of a README: [{name: label, dtype: {class_label: {names: ...}}}]
        features = {
            each["name"]: next((each[key] for key in ("dtype", "sequence", "list") if key in each), None)
            for each in features
            if isinstance(each, dict) and isinstance(each.get("name"), str)  # the text of a list of aliases is endless
        }
    if not isinstance(features, dict):
        return {}
    return {str(column): names for column, feature in features.items() if (names := _class_names(feature))}


def _class_names(feature: Any) -> dict[int, str]:
    """Return {number: name} of a feature of `datasets` that is a ClassLabel or a list of ClassLabels; {} for anything
    else."""
    # [...] or {"feature": ...} around {"class_label": ...} or {"_type": "ClassLabel", ...}
    if isinstance(feature, list) and len(feature) == 1:
        feature = feature[0]
    if isinstance(feature, dict) and isinstance(feature.get("feature"), dict):
        feature = feature["feature"]
    if not isinstance(feature, dict):
        return {}
    if isinstance(feature.get("class_label"), dict):
        feature = feature["class_label"]
    elif feature.get("_type") != "ClassLabel":
        return {}
    return _listed(feature.get("names"))[0]


def _listed(value: Any) -> tuple[dict[int, str], bool]:
    """Return {number: name} of a list, of an object by number or name, or of one below a known key; and True if the
    numbers are written. ({}, False) for anything else."""
    if isinstance(value, list):
        return ({at: str(name) for at, name in enumerate(value)} if all(map(_is_name, value)) else {}), False
    if not isinstance(value, Mapping):
        return {}, False
    for key in ("id2label", "label2id", "label_map", "names", "labels", "classes"):
        if isinstance(value.get(key), list | dict):
            return _listed(value[key])
    pairs = [(number_of(key), name) for key, name in value.items()]
    if any(number is None or not _is_name(name) for number, name in pairs):
        # label2id: {"World": 0, "Sports": 1}
        pairs = [(number_of(number), name) for name, number in value.items()]
    if not all(number is not None and _is_name(name) for number, name in pairs):
        return {}, False
    return {number: str(name) for number, name in pairs if number is not None}, True


def _is_name(value: Any) -> bool:
    """Return True for a value that can name a class: a filled text of at most 200 characters, or a number."""
    return isinstance(value, str | int | float) and bool(str(value).strip()) and len(str(value)) <= 200


def _of_lines(text: str) -> tuple[dict[int, str], bool]:
    """Return {number: name} and whether the lines themselves have numbers; nothing unless every line is a name."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not all(map(_is_name, lines)):
        return {}, False
    matches = [_NUMBERED.fullmatch(line) for line in lines]
    if all(matches):
        return {int(match[1]): match[2].strip() for match in matches if match}, True
    return dict(enumerate(lines)), False
