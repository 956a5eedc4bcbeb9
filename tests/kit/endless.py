"""Our app, for which a CSV file called "endless" has rows without end: `python -m tests.kit.endless`, with the options
of webui. A file of LARGE_BYTES or more is read by a process of its own, which is then this module again, with the
arguments of core.data.large.dataset_worker."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

LARGE_BYTES = 64 << 10


def without_end() -> None:
    from core.data.reading import raw_rows
    from core.data.reading.file_rows import Limits, RawRow, Source

    read = raw_rows.READERS["csv"]

    def rows(source: Source, limits: Limits) -> Iterator[Any]:
        for found in read(source, limits):
            yield found
        for row in count(found.row + 1) if isinstance(found, RawRow) and "endless" in source.path.name else ():
            time.sleep(0.001)  # half an hour for as many as are taken
            yield replace(found, row=row)

    raw_rows.READERS["csv"] = rows


def serve() -> int:
    from core.data.large import dataset_process as large
    from core.data.reading import reader_process
    from webui.__main__ import main

    listen = reader_process.listen

    def to_this(module: str, path: Any, *arguments: str, **more: Any) -> Any:
        is_endless = module == "core.data.large.dataset_worker" and "endless" in path.name
        return listen("tests.kit.endless" if is_endless else module, path, *arguments, **more)

    large.LARGE_BYTES, reader_process.listen = LARGE_BYTES, to_this
    return main()


def work(path: str, *arguments: str) -> int:
    from core.data.large import dataset_worker

    dataset_worker.main(path, *arguments)
    return 0


if __name__ == "__main__":
    without_end()
    sys.exit(serve() if sys.argv[1].startswith("-") else work(sys.argv[1], *sys.argv[3:]))
