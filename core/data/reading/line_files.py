"""Texts whose labels are not in their own file: in another one, line by line, or in the names of files and folders."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import PurePosixPath
from typing import Protocol

from core.data.reading import line_rows
from core.data.reading.file_rows import Readable
from core.data.reading.source_code import is_code
from core.data.reading.suffixes import SUFFIXES
from core.data.shapes import prose
from core.data.shapes.left_out import NEARLY_ALL
from core.data.shapes.roles import LANGUAGE
from core.errors import DataError
from core.values import MIB

_MIN_LINES, _LARGEST = 20, 64 * MIB
_MAX_BESIDE = 4  # files of a folder; of more, two may have as many lines by chance, as two poems have
_MIN_ENTRIES, _MAX_ENTRY_CHARS = 10, 500  # lines of a text; characters of a line
_CLASSES = re.compile(
    r"pos|neg|(?:pos|poz)[iíy]t\w*|neg[aáà]t\w*|neutr\w*|spam|ham|fake|real|true|false|toxic|clean|ai|human",
    re.IGNORECASE,
)

# The end of a name that says which side a text is of: train.src beside train.trg, a.en.txt beside a.de.txt.
_SIDE = re.compile(rf"(?<![^\W_])(?:src|source|trg|tgt|target|(?:{LANGUAGE.pattern}))(?=(?:\.txt)?$)", re.IGNORECASE)


class SizedFile(Readable, Protocol):
    size: int


def refuse_side_by_side(name: str, parts: Sequence[SizedFile]) -> None:
    """Raise DataError if two files of one folder belong together line by line: a text and a list of labels, or the two
    sides of a translation, with equal numbers of lines (_MIN_LINES or more). A list is looked for beside at most
    _MAX_BESIDE - 1 other files.

    A side may be code (dev.sql beside dev.nl) if no other code is there. Files above _LARGEST bytes are not compared.
    """
    texts = [part for part in parts if SUFFIXES.get(part.suffix.lower(), "txt") == "txt"]
    code = [part for part in parts if is_code(part.name)]
    # dev.sql is a side only beside dev.txt.
    are_beside_texts = {_place(part) for part in code} <= {_place(part) for part in texts}
    by_folder: defaultdict[PurePosixPath, list[SizedFile]] = defaultdict(list)
    for part in [*texts, *(code if are_beside_texts else ())]:
        if 0 < part.size <= _LARGEST:
            by_folder[PurePosixPath(part.name).parent].append(part)
    for group in by_folder.values():
        lengths = {part.name: _lines(part) for part in group} if len(group) > 1 else {}
        for one, other in combinations(group, 2):
            # Short files have as many lines by chance.
            if lengths[one.name] != lengths[other.name] or lengths[one.name] < _MIN_LINES:
                continue
            are_sides = _are_sides(one, other)
            if are_sides or len(group) <= _MAX_BESIDE and (_is_list(one) or _is_list(other)):
                key = "data.line_pairs" if are_sides else "data.side_by_side"
                raise DataError(key, file=name, files=[one.name, other.name], lines=lengths[one.name])


def _are_sides(one: SizedFile, other: SizedFile) -> bool:
    """Return True for the names of the two sides of a translation, or of a text and of code of the same name."""
    if is_code(one.name) or is_code(other.name):
        return is_code(one.name) != is_code(other.name) and _place(one) == _place(other)
    return _SIDE.sub("", one.name) == _SIDE.sub("", other.name)


def _place(part: SizedFile) -> PurePosixPath:
    """Return the file's path in the folder without its suffix."""
    return PurePosixPath(part.name).parent / part.stem


def refuse_classes(name: str, parts: Sequence[SizedFile]) -> None:
    """Raise DataError if the names of all texts, or of their folders, are names of several classes: pos.txt beside
    neg.txt."""
    names = {
        next((word for word in (part.stem, PurePosixPath(part.name).parent.name) if _CLASSES.fullmatch(word)), "")
        for part in parts
        if SUFFIXES.get(part.suffix.lower()) == "txt" and part.size
    }
    if len(names) > 1 and all(names):
        raise DataError("data.classes_by_file", file=name, names=sorted(names))


def has_entries(file: Readable, encoding: str) -> bool:
    """Return True if the first lines of a text are at least _MIN_ENTRIES entries of one line each: nearly no empty
    lines, none longer than _MAX_ENTRY_CHARS."""
    lines = line_rows.first_lines(file, encoding)
    filled = [line for line in lines if line.strip()]
    return _MIN_ENTRIES <= len(filled) >= NEARLY_ALL * len(lines) and max(map(len, filled)) <= _MAX_ENTRY_CHARS


def _lines(part: SizedFile) -> int:
    """Return the number of lines of a file, a last one without an end included."""
    with part.open("rb") as file:
        ends, last = 0, b""
        for chunk in iter(lambda: file.read(MIB), b""):
            ends, last = ends + chunk.count(b"\n"), chunk
    return ends + (last[-1:] not in (b"\n", b""))


def _is_list(part: SizedFile) -> bool:
    """Return True for a file of words or numbers, one a line, as labels are listed; not for XML."""
    lines = line_rows.first_lines(part, "utf-8")
    why = None if any(line.lstrip().startswith("<") for line in lines) else prose.doubt(lines)
    return why is not None and why.key in ("data.lines_of_words", "data.lines_of_numbers")
