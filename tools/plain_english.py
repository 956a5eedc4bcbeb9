"""Check the rules of plain English that a program can check; a part of `python launch.py check`.

    python -m tools.plain_english

1. The first word of a docstring in core, webui, launcher and tools begins a sentence or a noun phrase: it is no
   preposition, conjunction or question word (FRAGMENTS).
2. No function, method, class or parameter there has one of the names that say nothing of what it is (VAGUE). Fields
   and local variables may: many are names in files that exist.
3. A constant that bounds a number is MAX_ or MIN_, never MOST_, LEAST_ or FEWEST_.
4. The title of the newest commit has at most TITLE characters.

Prints one line for each place, and exits with 1 if there is any. There is no way to except a place.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
ROOMS = ("core", "webui", "launcher", "tools")
FRAGMENTS = frozenset(
    re.findall(
        r"\w+",
        """of in on at as by for from to with without what whether where which who how until while before after also
        only never none not beside between inside once whatever that than into under over and or so but when if since
        because like""",
    )
)
VAGUE = frozenset({"found", "said", "asked", "told", "wanted", "seen", "here", "whole", "of"})
BOUND = re.compile(r"_?(MOST|LEAST|FEWEST)_[A-Z]")
TITLE = 72
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_Named = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def problems(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and problem for each place of a Python file."""
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 1)
        first = re.match(r"[A-Za-z]+", (isinstance(node, _Documented) and ast.get_docstring(node)) or "")
        if first and first[0].lower() in FRAGMENTS:
            yield line, f'a docstring begins with "{first[0]}": write what it is or does, in a full sentence'
        name = node.name if isinstance(node, _Named) else node.arg if isinstance(node, ast.arg) else ""
        if name.strip("_") in VAGUE:
            yield line, f'"{name}" says nothing of what it is: name its result or its action'
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and BOUND.match(node.id):
            yield line, f'"{node.id}": a bound is named MAX_ or MIN_'


def main() -> int:
    """Check the files and the newest commit; return the exit status."""
    lines = []
    for file in sorted(file for room in ROOMS for file in (PROJECT / room).rglob("*.py")):
        name = file.relative_to(PROJECT).as_posix()
        lines += [f"{name}:{line}: {problem}" for line, problem in problems(file.read_text("utf-8"))]
    title = subprocess.run(
        ["git", "log", "-1", "--format=%s"], cwd=PROJECT, capture_output=True, encoding="utf-8"
    ).stdout
    if len(title.strip()) > TITLE:
        lines.append(f"the newest commit's title has {len(title.strip())} characters, at most {TITLE}: {title.strip()}")
    print("\n".join(lines))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
