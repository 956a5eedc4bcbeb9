"""A script in the place of Ollama's program, which is in no package index here."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

# As Ollama behaves: `create` keeps a model, `show` knows it afterwards, `run` answers with the signs that move a terminal's cursor.
GOOD = """
store = here / "models"
if verb == "--version": print("ollama version is 0.40.12")
elif verb == "create": store.write_text(words[1]); print("\\x1b[?25lgathering model components\\r\\x1b[Ksuccess")
elif verb == "show": sys.exit(print("FROM /blobs/sha256-1")) if store.exists() else sys.exit("Error: model not found")
elif verb == "run": print("\\x1b[?25hArr, matey!\\n")
"""


def script(folder: Path, behaviour: str = GOOD) -> Path:
    """An executable `ollama` in folder; what it is asked is kept beside it in `asked`."""
    file = folder / "ollama"
    folder.mkdir(exist_ok=True)
    head = "import sys, time, pathlib\nhere, verb, words = pathlib.Path(__file__).parent, sys.argv[1], sys.argv[1:]\n"
    log = '(here / "asked").open("a").write(repr(words) + "\\n")\n'
    file.write_text(f"#!{sys.executable}\n{head}{log}{behaviour}")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


def instead(verb: str, behaviour: str) -> str:
    """GOOD, but for what it does when asked for verb."""
    return f"if verb == {verb!r}:\n    {behaviour}\nelse:\n    " + GOOD.strip().replace("\n", "\n    ")
