"""Our app for which a CSV file that is called endless has rows without end: `python -m tests.kit.endless`, with the options of webui."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any


def serve() -> int:
    from core.data.reading import reader
    from core.data.reading.rows import Limits, Raw, Source
    from webui.__main__ import main

    read = reader._READERS["csv"]

    def rows(source: Source, limits: Limits) -> Iterator[Any]:
        for found in read(source, limits):
            yield found
        for row in count(found.row + 1) if isinstance(found, Raw) and "endless" in source.path.name else ():
            time.sleep(0.001)  # half an hour for as many as are taken
            yield replace(found, row=row)

    reader._READERS["csv"] = rows
    return main()


if __name__ == "__main__":
    sys.exit(serve())
