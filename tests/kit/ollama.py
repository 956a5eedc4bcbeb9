"""A script in the place of Ollama's program, which is in no package index here; on Windows within pip's launcher, as
pip makes its own .exe."""

from __future__ import annotations

import io
import os
import stat
import sys
import zipfile
from importlib.resources import files
from pathlib import Path

# As Ollama behaves: `create` keeps a model, `show` knows it afterwards, `run` answers behind a wheel that turns, with
# the signs that move a terminal's cursor.
GOOD = """
store = here / "models"
if verb == "--version": print("ollama version is 0.40.12")
elif verb == "create": store.write_text(words[1]); print("\\x1b[?25lgathering model components\\r\\x1b[Ksuccess")
elif verb == "show": sys.exit(print("FROM /blobs/sha256-1")) if store.exists() else sys.exit("Error: model not found")
elif verb == "run": print("\\x1b[?25l\\x1b[1G\u2819 \\x1b[K\\x1b[1G\u2839 \\x1b[K\\x1b[2K\\x1b[1G\\x1b[?25hArr, matey!\\n")
"""


def script(folder: Path, behaviour: str = GOOD) -> Path:
    """Write an executable of the name that Ollama's has into folder; its arguments are recorded beside it in
    `asked`."""
    folder.mkdir(exist_ok=True)
    head = (
        "import sys, time, pathlib\nsys.stdout.reconfigure(encoding='utf-8')\nhere, verb, words = "
        "pathlib.Path(sys.argv[0]).parent, sys.argv[1], sys.argv[1:]\n"
    )
    log = '(here / "asked").open("a", encoding="utf-8").write(repr(words) + "\\n")\n'
    first, rest = f"#!{sys.executable}\n".encode(), f"{head}{log}{behaviour}".encode()
    if os.name != "nt":
        file = folder / "ollama"
        file.write_bytes(first + rest)
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        return file
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("__main__.py", rest)
    file = folder / "ollama.exe"
    file.write_bytes((files("pip._vendor.distlib") / "t64.exe").read_bytes() + first + packed.getvalue())
    return file


def instead(verb: str, behaviour: str) -> str:
    """Return GOOD with another behaviour for one verb."""
    return f"if verb == {verb!r}:\n    {behaviour}\nelse:\n    " + GOOD.strip().replace("\n", "\n    ")
