"""`python tools/lock.py [--upgrade]`: writes constraints.txt from pyproject.toml, by `uv pip compile --universal`: a
version a package, for Windows, Linux and macOS and every supported Python. Present versions stay while the ranges allow
it; --upgrade takes the newest.

Left out: torch, whose build depends on the machine, packages that torch alone requires, packages that should stay
fresh, and browsers.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
LOCK = PROJECT / "constraints.txt"
LEFT_OUT = re.compile(
    r"(torch|triton|sympy|mpmath|networkx|setuptools|cuda-\w+|nvidia-(?!ml-py)[\w-]+|pip|certifi|tzdata|pytz)=="
    r"|.*sys_platform == 'emscripten'",
    re.IGNORECASE,
)
HEADING = """\
# The versions that were tested together, for every system: derived from pyproject.toml by `python tools/lock.py` (uv).
# torch is left out, its build depends on the machine, and so are torch's own needs, pip's tools and certificate and
# time zone data, which should stay fresh.
# pyproject.toml's requirements: {digest}
"""


def digest(pyproject: str) -> str:
    """Return a hash of everything that the lock depends on: the requirements, those of the extras and the Pythons."""
    project = tomllib.loads(pyproject)["project"]
    needs = [project["requires-python"], project["dependencies"], project["optional-dependencies"]]
    return hashlib.sha256(json.dumps(needs, sort_keys=True).encode()).hexdigest()[:16]


def derive(*more: str) -> str:
    """Return the lock's text. Raises CalledProcessError if uv finds no versions, its reason on stderr."""
    sys.path.insert(0, str(PROJECT))
    from launcher.tools import environ_for, find_uv

    uv = find_uv() or sys.exit("tools/lock.py needs uv: python -m pip install uv")
    preferred = [] if more else ["-c", str(LOCK)]
    line = [
        uv,
        "pip",
        "compile",
        "pyproject.toml",
        "--all-extras",
        "--universal",
        "-q",
        "--no-annotate",
        "--no-header",
        *preferred,
        *more,
    ]
    resolved = subprocess.run(
        line, cwd=PROJECT, env=environ_for(line), check=True, stdout=subprocess.PIPE, encoding="utf-8"
    ).stdout
    kept = [pin for pin in resolved.splitlines() if not LEFT_OUT.match(pin)]
    return HEADING.format(digest=digest((PROJECT / "pyproject.toml").read_text("utf-8"))) + "\n".join(kept) + "\n"


def main(arguments: list[str]) -> int:
    try:
        LOCK.write_text(derive(*arguments), "utf-8", newline="\n")
    except subprocess.CalledProcessError as failed:
        return failed.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
