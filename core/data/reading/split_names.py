"""Names that say which rows are for validation: test, dev, val, validation, eval.

Files, folders, sheets, lists in a file, and words in a column have such names. A file's name counts only as a word of
its own: the only one, the last one (`qa-test`, `en_dev`), or the first one before words that say nothing else
(`dev-v2.0`), or that a file for training has too (`test-en` beside `train-en`) or has none of (`test_hard` beside
`train`). Beside a file for training, files of adversarial or challenge rows are for validation too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Literal

from core.data.reading.file_rows import Row

_APART = re.compile(
    r"(?:tests?|testing|dev|devel|val|valid|validation|eval|evaluation|held[-_]?out|hold[-_]?out)(?:set|data|daten"
    r"|split)?"
    r"|(?:测试|验证|評估|评估|測試|驗證)(?:集|数据|數據)?",
    re.IGNORECASE,
)
_HARD = re.compile(r"adversarial|challenge", re.IGNORECASE)
# all, full_data, merged-rows
_ALL = re.compile(
    r"(?:all|full|combined|merged|complete|total|together)(?:[-_]?(?:data|set|rows|splits))?", re.IGNORECASE
)
_TRAINED = ("train", "training", "trn", "训练", "训练集")
_COLUMNS = ("split", "subset", "fold", "partition", "data_split", "dataset_split")
_WORDS = re.compile(r"[-_.]+")
# Words beside it that say nothing of the contents: numbers, versions, the hash of a shard.
_SAYS_NOTHING = re.compile(r"v?\d+|of|[0-9a-f]{16}|set|data|dataset|split|file|part|shard|all|full|final|clean", re.I)


def is_for_validation(name: str, names: Collection[str]) -> bool:
    """Return True if a file is named as one of test or validation rows: by a folder, its last word, or its first one
    beside a file for training. name: in a folder or an archive; names: of all files there."""
    path = PurePosixPath(name)
    if any(_APART.fullmatch(folder) for folder in path.parts[:-1]):
        return True
    words = _WORDS.split(path.name.lower())
    kept = words[:-1] if len(words) > 1 else words  # without the suffix, and that of a compressed file
    while kept and kept[-1] in ("gz", "zst", "bz2", "xz", "json", "jsonl", "csv", "tsv", "txt", "parquet", "arrow"):
        kept.pop()
    if not (kept := _telling(kept)):
        return False
    if _APART.fullmatch(kept[-1].rstrip("0123456789")):
        return True
    if len(kept) == 1 and _HARD.fullmatch(kept[0]):
        return any(is_for_training(other) for other in names)
    if not _APART.fullmatch(kept[0]):
        return False
    # test_questions.json alone may be about tests.
    siblings = {(*_telling([*_key(other)[:-1]]), _key(other)[-1]) for other in names}  # train_0 is train
    beside = ((*_telling(words[:-1])[1:], words[-1]), words[-1:])  # train-en.json, train.json
    return any((trained, *rest) in siblings for trained in _TRAINED for rest in beside)


def split_of(name: object) -> Literal["train", "validation", ""]:
    """Return "train" or "validation" for a word that names a part of a dataset, such as a cell of a column, a sheet or
    a list; "" for any other. Names of test rows count as "validation"."""
    if not isinstance(name, str):
        return ""
    last = _telling(_WORDS.split(name.strip().lower()))[-1]
    return "train" if last in _TRAINED else "validation" if _APART.fullmatch(last) or _APART.fullmatch(name) else ""


def _telling(words: list[str]) -> list[str]:
    """Return the words of a name without those at its end that say nothing, but at least one."""
    count = len(words)
    while count > 1 and _SAYS_NOTHING.fullmatch(words[count - 1]):
        count -= 1
    return words[:count]


def split_column(rows: Sequence[Row]) -> str:
    """Return the column that says which rows are for training and which for validation; "" if there is none."""
    names = dict.fromkeys(name for row in rows for name in row.values if str(name).strip().lower() in _COLUMNS)
    return next((name for name in names if all(split_of(row.values.get(name)) for row in rows)), "")


def without_split_column(row: Row, column: str) -> Row:
    """Return a row without the given column, marked as a validation row if that column's value names validation or test
    rows; otherwise not marked."""
    values = {name: value for name, value in row.values.items() if name != column}
    return replace(row, values=values, validation=split_of(row.values.get(column)) == "validation")


def is_for_training(name: str) -> bool:
    """Return True if any word of a file's name says that it has training rows."""
    return any(word in _TRAINED for word in _WORDS.split(PurePosixPath(name).name.lower()))


def is_of_all_rows(name: str) -> bool:
    """Return True if a file's name says that it holds all rows, such as all.jsonl or full_data.csv. Other files are not
    looked at."""
    return _ALL.fullmatch(PurePosixPath(name).name.partition(".")[0]) is not None


def _key(name: str) -> tuple[str, ...]:
    """Return the words of a file's name in lower case, its suffix last."""
    return tuple(_WORDS.split(PurePosixPath(name).name.lower()))
