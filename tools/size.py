"""Counts statements, lines and the longest function of each room, and the words of each page of docs.

    python -m tools.size [ROOM or FOLDER ...]   e.g. core/export: its files one by one

A statement is one of Python's (a node ast.stmt; a docstring counts, a comment and a line break do not), so longer lines
do not make the code smaller. Lines over COLUMNS are counted too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[1]
COLUMNS = 120
ROOMS = ("core", "webui")  # whose folders are shown one by one
WHOLE = ("tests", "launcher", "benchmarks", "tools")


@dataclass(frozen=True)
class Size:
    statements: int = 0
    lines: int = 0
    wide: int = 0  # lines over COLUMNS
    longest: int = 0  # lines of the longest function

    @classmethod
    def from_file(cls, file: Path) -> Size:
        text = file.read_text("utf-8")
        nodes = list(ast.walk(ast.parse(text)))
        functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        lengths = ((node.end_lineno or node.lineno) - node.lineno + 1 for node in functions)
        lines = text.splitlines()
        statements = sum(isinstance(node, ast.stmt) for node in nodes)
        return cls(statements, len(lines), sum(len(line) > COLUMNS for line in lines), max(lengths, default=0))

    def __add__(self, other: Size) -> Size:
        longest = max(self.longest, other.longest)
        return Size(self.statements + other.statements, self.lines + other.lines, self.wide + other.wide, longest)


def python_files(folder: Path) -> list[Path]:
    files = folder.rglob("*.py") if folder.is_dir() else [folder]
    return [file for file in sorted(files) if ".cache" not in file.parts]


def total(files: Iterable[Path]) -> Size:
    return sum(map(Size.from_file, files), Size())


def words_of(text: str) -> int:
    """Count words with a letter or a digit, so not the bars of a table or the marks of a list."""
    return sum(any(letter.isalnum() for letter in word) for word in text.split())


def show(name: str, size: Size) -> None:
    print(f"{name:34} {size.statements:10,} {size.lines:8,} {size.wide:8,} {size.longest:8,}")


def main(arguments: list[str]) -> None:
    print(f"{'':34} {'statements':>10} {'lines':>8} {f'>{COLUMNS}':>8} {'longest':>8}")
    if arguments:
        for name in arguments:
            for file in python_files(PROJECT / name):
                show(file.relative_to(PROJECT).as_posix(), Size.from_file(file))
        return
    for room in ROOMS:
        for folder in sorted(each for each in (PROJECT / room).iterdir() if each.is_dir() and python_files(each)):
            show(f"{room}/{folder.name}", total(python_files(folder)))
        show(
            f"{room} (its own files)", total(file for file in python_files(PROJECT / room) if file.parent.name == room)
        )
    show(" and ".join(ROOMS), total(file for room in ROOMS for file in python_files(PROJECT / room)))
    for room in WHOLE:
        show(room, total(python_files(PROJECT / room)))
    pages = sorted([PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *(PROJECT / "docs").rglob("*.md")])
    words = {page.relative_to(PROJECT).as_posix(): words_of(page.read_text("utf-8")) for page in pages}
    print(f"\nwords of docs: {sum(words.values()):,}")
    for page, count in sorted(words.items(), key=lambda pair: -pair[1]):
        print(f"{count:8,}  {page}")


if __name__ == "__main__":
    main(sys.argv[1:])
