"""A worker with a fault that is in its own process, and of which nothing of ours knows.

    python -m tests.faults.instead MODULE BEFORE [arguments of MODULE]

BEFORE: Python that is carried out before MODULE is read and its main called.
"""

from __future__ import annotations

import importlib
import sys


def main() -> int:
    module, before = sys.argv[1:3]
    sys.argv[1:3] = []
    exec(before, {"__name__": "before"})
    return importlib.import_module(module).main()


if __name__ == "__main__":
    sys.exit(main())
