"""Measures how fast a file becomes a dataset, and what it costs to look into one: ours beside `datasets.load_dataset`
and pandas, on the same file.

    .venv/bin/python -m benchmarks.data_import [--rows 1000000] [--folder DIR] [--kinds jsonl csv] [--repeats 3]
    [--starter DIR] [--page]

Writes a file of questions and answers, reads it by each in a process of its own (one after the other, on one core where
the system allows that), and prints MB/s by the clock and by the processor's own count (which other programs do not
affect), and the largest memory of the process.

The three do different work: `datasets` and pandas take the columns as they are; ours checks each row, counts unread
columns, finds repeated rows, and stores a copy of the file with an editable row for each that cannot be trained on. It
then times, for ours: the first page of the table, a row anywhere in it, the preview of one (with the starter's
tokenizer, if it is on this PC, or in --starter), an edit of every row with a finding, and the cancelling of an import.
--page: the same in a real app, by a browser, with the memory of the web process.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks import child, machine
from benchmarks.peers.meter import RESULT
from core.data.large import dataset_process
from core.data.preview import Preview
from core.data.row_order import Schedule
from core.data.sets import working
from core.data.sets.pieces import lengths_of
from core.data.store import DatasetStore
from core.data.tokenizer import Tokenizer
from core.models import starter
from core.presets import PRESETS
from core.recipe import Recipe
from core.training.tokenizing import tokenize
from core.workspace.folder import Workspace

PAGE_ROWS = 50
LOOKS = 30  # rows, anywhere
MEGABYTE = 1e6


class Cancelled(Exception):
    pass


def rows_of(count: int) -> Iterator[dict[str, str]]:
    """Yield rows of some 430 bytes; of a thousand, one has an empty answer, two have a placeholder, and one nearly
    repeats another (and is one more)."""
    chance = random.Random(7)
    words = [
        f"{a}{b}"
        for a in ("ka", "lo", "mi", "nu", "pe", "ra", "so", "tu")
        for b in ("nd", "rt", "sk", "lm", "ng", "st", "ch", "ff")
    ]
    for number in range(count):
        answer = " ".join(chance.choices(words, k=70)) if number % 1000 else ""
        if number % 500 == 1:
            answer += " {{name}}"
        row = {"question": f"What of {number}, {' '.join(chance.choices(words, k=8))}?", "answer": answer}
        yield row
        if number % 1000 == 2:
            yield row | {"answer": f"{answer} mind"}


def write(path: Path, count: int) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            table = csv.DictWriter(file, ["question", "answer"])
            table.writeheader()
            table.writerows(rows_of(count))
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows_of(count))


def peak_mib() -> float:
    info = psutil.Process().memory_info()
    if of_windows := getattr(info, "peak_wset", None):
        return of_windows / 2**20
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10


def store_of(folder: Path) -> DatasetStore:
    return DatasetStore(folder / "datasets", PRESETS)


def ours(file: Path, folder: Path) -> int:
    dataset_process.work_in_this_process()  # else it is measured how long another process takes
    return store_of(folder).import_file(file, "many").good_rows or 0


def by_datasets(file: Path, folder: Path) -> int:
    import datasets

    datasets.disable_progress_bars()
    kind = "csv" if file.suffix == ".csv" else "json"
    return len(datasets.load_dataset(kind, data_files=str(file), cache_dir=str(folder / "cache"), split="train"))


def by_pandas(file: Path, folder: Path) -> int:
    import pandas

    return len(pandas.read_csv(file) if file.suffix == ".csv" else pandas.read_json(file, lines=True))


READERS: dict[str, Callable[[Path, Path], int]] = {"LoRA Garage": ours, "datasets": by_datasets, "pandas": by_pandas}


def milliseconds(act: Callable[[], Any], times: int = 1) -> float:
    begun = time.perf_counter()
    for _ in range(times):
        act()
    return 1000 * (time.perf_counter() - begun) / times


def looked(folder: Path, model: Path | None) -> dict[str, Any]:
    """Time what a person who opens the dataset waits for."""
    store, chance = store_of(folder), random.Random(3)
    begun = time.perf_counter()
    rows = store.rows("many")
    page = [rows.entry(i) for i in range(PAGE_ROWS)]
    found = {"first page": 1000 * (time.perf_counter() - begun), "rows": len(rows)}
    assert page[1]["example"]
    found["any row"] = milliseconds(lambda: rows[chance.randrange(len(rows))], LOOKS)
    if model:
        begun = time.perf_counter()
        seen = Preview.measure(rows, Tokenizer(model))
        found["preview of the set"] = 1000 * (time.perf_counter() - begun)
        found["preview of any row"] = milliseconds(lambda: seen.row(chance.randrange(len(rows)), 512), LOOKS)
        found["counts"] = milliseconds(lambda: seen.counts(512), LOOKS)
    found["peak"] = peak_mib()
    for kind in ("placeholders", "near_repeated"):
        found[f"all {kind} mended"] = milliseconds(lambda: working.repair_rows(store, "many", kind, "Kim"))  # noqa: B023 - called at once
    found["first page of that version"] = milliseconds(lambda: [store.rows("many")[i] for i in range(PAGE_ROWS)])
    return found


class AsTheFirst:
    """A tokenizer for which each row is as long as the first: a run's memory depends on the number of rows alone, and
    tokenizing a million takes four minutes."""

    def __init__(self, model: Path):
        self._real = Tokenizer(model)
        self._first: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def encode_row(self, *row: Any) -> Any:
        self._first = self._first or self._real.encode_row(*row)
        return self._first


class Silent:
    """Replaces a run's reporter and reports nothing."""

    def __getattr__(self, name: str) -> Any:
        return self if name == "run" else lambda *said, **more: None


def a_run(folder: Path, model: Path | None) -> dict[str, Any]:
    """Return MiB of a process, its own and mapped from files, before a run has read its rows and at its first step
    (Linux)."""
    if model is None or not Path("/proc/self/smaps_rollup").exists():
        return {}
    tokenizer, examples = AsTheFirst(model), store_of(folder).rows("many").examples
    recipe = Recipe.parse({"data": {"source": "many"}})
    before = own_and_mapped()
    train, _ = tokenize(examples, recipe, tokenizer, Silent())  # type: ignore[arg-type]
    first = next(Schedule.from_recipe(recipe, lengths_of(train), packed=True).steps())
    assert first and len(train[first[0][0]].input_ids)
    return {"rows": len(examples), "tokens": int(train.lengths.sum()), "before": before, "now": own_and_mapped()}


def own_and_mapped() -> tuple[float, float]:
    said = Path("/proc/self/smaps_rollup").read_text()
    own, mapped = (
        int(re.findall(rf"^{name}:\s+(\d+)", said, re.MULTILINE)[0]) / 1024 for name in ("Pss_Anon", "Pss_File")
    )
    return own, mapped


def cancelled(file: Path, folder: Path) -> dict[str, Any]:
    """Return the seconds from the request to cancel, after a second of work, to the end of the import."""
    wished: list[float] = []

    def check(rows: int = 0) -> None:
        if wished:
            raise Cancelled

    timer = threading.Timer(1.0, lambda: wished.append(time.perf_counter()))
    timer.start()
    try:
        store_of(folder / "other").import_file(file, "gone", check=check)  # where it is not stored yet
    except Cancelled:
        left = [path.name for path in (folder / "other" / "datasets").glob("*") if path.name != ".reports"]
        return {"seconds": time.perf_counter() - wished[0], "left": left}
    timer.cancel()
    return {"seconds": None, "left": []}


def measure(what: str, file: Path, folder: Path, model: Path | None) -> dict[str, Any]:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if what == "run":
        return a_run(folder, model)
    if what == "look":
        return looked(folder, model)
    if what == "cancel":
        return cancelled(file, folder)
    begun, spent = time.perf_counter(), time.process_time()
    count = READERS[what](file, folder)
    return {
        "seconds": time.perf_counter() - begun,
        "cpu": time.process_time() - spent,
        "rows": count,
        "peak": peak_mib(),
    }


def told(kind: str, file: Path, repeats: int, place: Path, model: Path | None) -> None:
    size = file.stat().st_size / MEGABYTE
    print(f"\n{kind}: {size:,.0f} MB")
    print(f"{'':12} {'MB/s':>8} {'MB/s of processor':>18} {'peak MiB':>9} {'rows':>10}")
    for name in READERS:
        results = []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory(dir=place) as folder:
                results.append(
                    child.run("benchmarks.data_import", "--measure", name, "--file", file, "--folder", folder)
                )
        best = min(results, key=lambda result: result["seconds"])
        rates = size / best["seconds"], size / min(result["cpu"] for result in results)
        print(f"{name:12} {rates[0]:8.1f} {rates[1]:18.1f} {max(r['peak'] for r in results):9.0f} {best['rows']:10,}")
    with tempfile.TemporaryDirectory(dir=place) as folder:
        child.run("benchmarks.data_import", "--measure", "LoRA Garage", "--file", file, "--folder", folder)
        more = ("--file", file, "--folder", folder, *(("--starter", model) if model else ()))
        run = child.run("benchmarks.data_import", "--measure", "run", *more)
        seen = child.run("benchmarks.data_import", "--measure", "look", *more)
        gone = child.run("benchmarks.data_import", "--measure", "cancel", "--file", file, "--folder", folder)
    print(
        "looking into it: "
        + ", ".join(f"{name} {value:,.1f} ms" for name, value in seen.items() if name not in ("rows", "peak"))
    )
    if run:
        (own, mapped), (own_now, mapped_now) = run["before"], run["now"]
        each = (own_now - own) * 2**20 / run["rows"]
        print(
            f"a run of {run['rows']:,} rows, {run['tokens']:,} tokens: {own_now - own:.0f} MiB of its own until its "
            f"first step, {each:.0f} bytes a row, "
            f"beside {own:.0f} before; mapped from files {mapped:.0f}, then {mapped_now:.0f} MiB"
        )
    print(f"peak of the process that looks: {seen['peak']:,.0f} MiB")
    print(
        f"cancelled within {gone['seconds']:.2f} s, left behind: {gone['left'] or 'nothing'}"
        if gone["seconds"] is not None
        else "not cancelled: over within a second"
    )


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rows", type=int, default=1_000_000, help="of each file, some 430 bytes each")
    options.add_argument("--kinds", nargs="*", default=["jsonl", "csv"], choices=["jsonl", "csv"])
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument(
        "--folder", type=Path, default=None, help="where the files go; as much room as ten times the file"
    )
    options.add_argument(
        "--starter", type=Path, default=None, help="the starter model, where it is not in the workspace"
    )
    options.add_argument(
        "--page", action="store_true", help="in a real app too (Linux, with a Chromium and what the tests need)"
    )
    options.add_argument("--measure", help=argparse.SUPPRESS)
    options.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.measure:
        print(RESULT + json.dumps(measure(chosen.measure, chosen.file, chosen.folder, chosen.starter)))
        return 0
    print(machine.line("pyarrow", "datasets", "pandas"))
    here = starter.folder(Workspace.open(None).models)
    model = chosen.starter or (here if here.is_dir() else None)
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        for kind in chosen.kinds:
            file = Path(place) / f"many.{kind}"
            write(file, chosen.rows)
            told(kind, file, chosen.repeats, Path(place), model)
            if chosen.page:
                from benchmarks import data_page  # and the tests' kit

                with tempfile.TemporaryDirectory(dir=place) as folder:
                    data_page.measure(file, Path(folder) / "workspace", model)
    if hasattr(os, "getloadavg"):
        print(f"\nload of the machine meanwhile: {', '.join(f'{load:.1f}' for load in os.getloadavg())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
