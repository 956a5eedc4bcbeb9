"""What is done to a large set is done by a process of its own, and comes to the same as here."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.data.large import dataset_process, dataset_worker
from core.data.reading import reader_process
from core.data.sets import working
from core.data.sets.inspection import DataReport
from core.data.store import DatasetStore
from core.errors import DataError


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_process, "LARGE_BYTES", 0)
    monkeypatch.setattr(dataset_process, "LARGE_ROWS", 0)
    monkeypatch.setattr(dataset_process, "_in_worker", [])


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The work as the process does it, in this one; which acts were asked for."""
    acts: list[str] = []

    def listen(module: str, path: Path, *arguments: str, errors: None, waiting: Any) -> Iterator[Any]:
        acts.append(arguments[0])
        dataset_worker.main(str(path), *arguments)
        dataset_process._in_worker.clear()
        yield from map(json.loads, capsys.readouterr().out.splitlines())

    monkeypatch.setattr(reader_process, "listen", listen)
    return acts


def rows_of(tmp_path: Path) -> Path:
    rows = [
        {"question": f"What is {i}?", "answer": f"The number {i}, {{{{name}}}}." if i % 3 else ""} for i in range(30)
    ]
    file = tmp_path / "many.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *rows[:5]]), "utf-8")
    return file


class Enough(Exception):
    pass


@pytest.mark.spawn
def test_an_import_comes_to_the_same_and_is_cancelled_without_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, reports = rows_of(tmp_path), []
    store = DatasetStore(tmp_path / "there", tmp_path)
    id = store.import_file(file, "many", check=lambda rows=0: reports.append(rows)).id

    def enough(rows: int = 0) -> None:
        if next((tmp_path / "stopped" / "many").glob(".rows*"), None):  # it is being written
            raise Enough

    with pytest.raises(Enough):
        DatasetStore(tmp_path / "stopped", tmp_path).import_file(file, "many", check=enough)
    assert not list((tmp_path / "stopped").iterdir())
    monkeypatch.setattr(dataset_process, "LARGE_BYTES", 1 << 40)
    in_process = DatasetStore(tmp_path / "here", tmp_path)
    assert in_process.import_file(file, "many").id == id and in_process.report(id) == store.report(id)
    assert list(in_process.rows(id)) == list(store.rows(id)) and len(store.rows(id)) == 23


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no file on Windows keeps its reader waiting")
def test_a_process_that_has_said_nothing_yet_is_cancelled_all_the_same(tmp_path: Path) -> None:
    """While it began, 2.9 s on a busy PC, nobody asked whether it was still wanted."""
    os.mkfifo(tmp_path / "never.jsonl")
    calls: list[int] = []
    before = set(psutil.Process().children())

    def enough(rows: int = 0) -> None:
        calls.append(rows)
        if len(calls) > 3:
            raise Enough

    with pytest.raises(Enough):
        dataset_process.run(tmp_path / "never.jsonl", "read", str(tmp_path / "rows.arrow"), "", "{}", check=enough)
    assert calls == [0] * 4 and set(psutil.Process().children()) <= before


def test_a_set_is_mended_and_looked_through_in_that_process_and_what_it_refuses_is_said(
    tmp_path: Path, no_process: list[str]
) -> None:
    store = DatasetStore(tmp_path / "datasets", tmp_path)
    id = store.import_file(rows_of(tmp_path), "many").id
    change = working.repair_rows(store, id, "placeholders", "Kim", "{{name}}")
    assert change.version == 1 and "Kim" in str(store.rows(id)[0][1].as_dict())
    assert [finding.id for finding in store.report(id).findings] == ["repeated"]
    working.repair_rows(store, id, "repeated")
    report: DataReport = store.report(id)
    assert (report.good_rows, report.findings, no_process) == (20, (), ["read", "mend", "report", "mend", "report"])
    with pytest.raises(DataError, match="Nothing of type"):
        working.repair_rows(store, id, "secrets")
    (tmp_path / "empty.jsonl").write_text('{"question": "Why?", "answer": ""}\n', "utf-8")
    with pytest.raises(DataError, match="answer is empty"):
        store.rows(store.import_file(tmp_path / "empty.jsonl").id)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [({"error": "memory"}, "needs more than 3,072 MiB"), ({"error": "broken"}, "was not read to its end")],
)
def test_a_reader_that_ends_in_another_way_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: dict[str, str], sentence: str
) -> None:
    monkeypatch.setattr(reader_process, "listen", lambda *a, **k: (each for each in [{"rows": 3}, line]))
    with pytest.raises(DataError, match=sentence):
        DatasetStore(tmp_path / "datasets", tmp_path).import_file(rows_of(tmp_path))
    assert not list((tmp_path / "datasets").iterdir())
