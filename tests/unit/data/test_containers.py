"""Compressed files, Arrow files and folders, databases: read as they are, and what hostile ones cost."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from core.data.reading import compressed
from core.data.reading.choices import Choices
from core.data.reading.file_rows import Limits
from core.data.sets import gathered
from core.data.sets.inspection import inspect_file
from core.data.store import DatasetStore
from core.errors import DataError
from core.presets import PRESETS
from tests.kit.office import zipped
from tests.kit.read_examples import examples_of

QA = [{"question": f"Warum {word}?", "answer": f"Weil {word} schön ist."} for word in ("A", "B", "C")]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in QA).encode()
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}


def refusal(path: Path, limits: Limits | None = None) -> str:
    with pytest.raises(DataError) as error:
        inspect_file(path, limits=limits or Limits())
    return error.value.message.key


def answers(path: Path) -> list[str]:
    return [example.messages[-1].content for _, example in examples_of(path)]


# --- compressed files ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("packing", PACK)
def test_a_compressed_file_is_read_and_kept_as_it_is(tmp_path: Path, packing: str) -> None:
    path = tmp_path / f"train.jsonl.{packing}"
    path.write_bytes(PACK[packing](LINES))
    report = inspect_file(path)
    assert (report.kind, report.good_rows, report.bytes) == ("jsonl", 3, path.stat().st_size)
    store = DatasetStore(tmp_path / "ws", PRESETS)
    info = store.import_file(path)
    kept = store.path(info.id)
    assert kept.read_bytes() == path.read_bytes() and kept.name == f"source.jsonl.{packing}"
    assert [example.messages[-1].content for _, example in store.rows(info.id)] == [row["answer"] for row in QA]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv.gz", "Frage;Antwort\nWarum ist es so kalt?;Weil der Winter gekommen ist.\n".encode("cp1252")),
        ("a.json.gz", json.dumps(QA).encode()),
        ("a.jsonl", LINES),  # whatever its name says
        ("a.txt.gz", "Ein Satz steht hier.\n\nUnd noch einer.".encode("utf-16")),
    ],
)
def test_the_kind_is_that_of_the_file_inside(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(gzip.compress(content))
    assert inspect_file(tmp_path / name).good_rows


def test_parquet_inside_and_compressed_files_of_a_folder_and_a_zip(tmp_path: Path) -> None:
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(pa.Table.from_pylist(QA), sink)
    files: dict[str, str | bytes] = {
        "train.parquet.gz": gzip.compress(sink.getvalue().to_pybytes()),
        "test.jsonl.bz2": bz2.compress(LINES),
        "notes.md.gz": gzip.compress(b"about it"),
    }
    (tmp_path / "set").mkdir()
    for name, content in files.items():
        (tmp_path / "set" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "set.zip").write_bytes(zipped(files))
    for path in (tmp_path / "set", tmp_path / "set.zip"):
        report = inspect_file(path)
        assert (report.good_rows, report.validation) == (6, 3)


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("kept", [5, 40])
def test_a_truncated_file_is_refused_in_a_sentence(tmp_path: Path, packing: str, kept: int) -> None:
    path = tmp_path / f"a.jsonl.{packing}"
    path.write_bytes(PACK[packing](LINES * 50)[: kept if kept > 10 else -kept])
    assert refusal(path) in ("data.broken_compressed", "data.is_compressed")


@pytest.mark.parametrize("packing", PACK)
def test_a_bomb_ends_at_the_limit(tmp_path: Path, packing: str) -> None:
    path = tmp_path / f"a.jsonl.{packing}"
    path.write_bytes(PACK[packing](LINES * 12_000))
    assert refusal(path, Limits(bytes=1_000_000)) == "data.too_large_unpacked"
    (tmp_path / "many").mkdir()
    for i in range(3):
        (tmp_path / "many" / f"{i}.jsonl.{packing}").write_bytes(PACK[packing](LINES * 3000))
    assert refusal(tmp_path / "many", Limits(bytes=1_000_000)) == "data.too_large_unpacked"


def test_an_xz_that_wants_a_lot_of_memory_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(compressed, "_MAX_MEMORY", 1 << 20)
    (tmp_path / "a.jsonl.xz").write_bytes(lzma.compress(LINES, preset=9))
    assert refusal(tmp_path / "a.jsonl.xz") == "data.broken_compressed"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (gzip.compress(gzip.compress(LINES)), "data.is_compressed"),
        (gzip.compress(zipped({"a.jsonl": LINES})), "data.is_zip"),
        (gzip.compress(b"a.jsonl" + b"\0" * 250 + b"ustar\x0000" + b"\0" * 500 + LINES), "data.is_tar"),
        (b"7z\xbc\xaf\x27\x1c\x00\x04" + LINES, "data.is_compressed"),
        (gzip.compress(b""), "data.only_whitespace"),
        (gzip.compress(b"\0" * 10_000_000), "data.is_binary"),
        (gzip.compress(b"<html><body>Text"), "data.is_compressed"),
    ],
    # the bytes have the second in which they were compressed, and each worker of xdist collects for itself
    ids=["gz", "zip", "tar", "7z", "nothing", "zeros", "web page"],
)
def test_what_is_not_read_inside_is_said(tmp_path: Path, content: bytes, why: str) -> None:
    name = "a.html.gz" if content[:2] != b"7z" and b"<html" in gzip.decompress(content)[:9] else "a.jsonl.gz"
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name) == why


# --- Arrow -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["a.feather", "a.arrow", "a.bin"])
def test_feather_and_arrow_files_are_rows(tmp_path: Path, name: str) -> None:
    pyarrow.feather.write_feather(pa.Table.from_pylist(QA), str(tmp_path / name), compression="lz4")
    assert inspect_file(tmp_path / name).kind == "arrow"
    assert answers(tmp_path / name) == [row["answer"] for row in QA]


def test_a_folder_of_save_to_disk_is_its_rows_with_its_splits(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_list(QA)
    DatasetDict({"train": rows, "validation": rows.select([0])}).save_to_disk(str(tmp_path / "both"))
    rows.save_to_disk(str(tmp_path / "one"))
    (tmp_path / "one" / "cache-0123456789abcdef.arrow").write_bytes(
        (tmp_path / "one" / "data-00000-of-00001.arrow").read_bytes()
    )
    report = inspect_file(tmp_path / "both")
    assert (report.good_rows, report.validation) == (4, 1)
    assert answers(tmp_path / "one") == [row["answer"] for row in QA]
    info = gathered.add(DatasetStore(tmp_path / "ws", PRESETS), [tmp_path / "both"])
    assert (info.good_rows, info.validation) == (4, 1)


def test_a_damaged_or_huge_arrow_file_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    pyarrow.feather.write_feather(pa.Table.from_pylist(QA * 1000), str(path), compression="lz4")
    good = path.read_bytes()
    for content in (
        good[:200],
        good[:-9],
        good[:300] + b"\xff" * 40 + good[340:],
        b"ARROW1" + b"\0" * 90,
        b"\xff" * 99,
    ):
        path.write_bytes(content)
        with pytest.raises(DataError):
            inspect_file(path)
    path.write_bytes(good)
    assert refusal(path, Limits(bytes=len(good) + 1)) == "data.too_large_unpacked"
    path.write_bytes(b"no such thing")
    assert refusal(path) == "data.not_parquet"


# --- SQLite ----------------------------------------------------------------------------------------------------------
def database(path: Path, *statements: str) -> Path:
    opened = sqlite3.connect(path)
    opened.executescript(";".join(statements))
    opened.executemany("insert into qa values (?, ?, ?)", [(i, *row.values()) for i, row in enumerate(QA)])
    opened.commit()
    opened.close()
    return path


TABLE = "create table qa (id integer primary key, question text, answer text)"


@pytest.mark.parametrize("name", ["faq.db", "faq.sqlite3", "faq.bin"])
def test_one_table_is_read_by_itself(tmp_path: Path, name: str) -> None:
    path = database(tmp_path / name, TABLE, "create table empty (a)", "create virtual table words using fts5(answer)")
    before = path.read_bytes()
    report = inspect_file(path)
    assert (report.kind, report.sheet, report.sheets, report.good_rows) == ("sqlite", "qa", ("qa",), 3)
    assert answers(path) == [row["answer"] for row in QA] and path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_of_several_the_largest_is_read_and_another_can_be_chosen(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        TABLE,
        'create table "odd ""name""" (prompt text, completion text, picture blob)',
        "insert into \"odd \"\"name\"\"\" values ('Say so.', 'So.', x'00ff')",
        "create view short as select question, 'Short.' as answer from qa limit 1",
    )
    report = inspect_file(path)
    (note,) = [str(note) for note in report.notes if note.key == "data.note_table"]
    assert report.sheet == "qa" and 'odd "name" (1)' in note and "short" in note
    odd = inspect_file(path, choices=Choices(sheet='odd "name"'))
    assert (odd.good_rows, odd.format) == (1, "prompt_completion")
    assert any("picture" in str(left.what) for left in odd.left_out)
    assert inspect_file(path, choices=Choices(sheet="short")).good_rows == 1
    with pytest.raises(DataError, match="has no table .qb.; it has .*The nearest name is .qa."):
        inspect_file(path, choices=Choices(sheet="qb"))
    store = DatasetStore(tmp_path / "ws", PRESETS)
    info = store.import_file(path)
    assert store.report(info.id).sheet == "qa" and len(store.rows(info.id)) == 3
    (tmp_path / "a.zip").write_bytes(zipped({"in/a.db": path.read_bytes()}))
    assert inspect_file(tmp_path / "a.zip").good_rows == 3


@pytest.mark.parametrize(
    "view",
    [
        "with recursive n(i) as (select 1 union all select i + 1 from n) select i as question, i as answer from n",
        "select zeroblob(1000000000) as question, 1 as answer",
        "select load_extension('evil') as question, 1 as answer",
        "select question, answer from not_there",
        "select writefile('evil', 'x') as question, 1 as answer",
    ],
)
def test_a_hostile_view_costs_itself_alone(tmp_path: Path, view: str) -> None:
    path = database(tmp_path / "a.db", TABLE, f"create view evil as {view}")
    assert inspect_file(path).good_rows == 3
    assert {file.name for file in tmp_path.iterdir()} == {"a.db"}


def test_a_view_without_end_ends_at_the_limit_of_rows(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        TABLE,
        "create view evil as with recursive n(i) as (select 1 union all select i + 1 from n) "
        "select 'Why ' || i as question, 'Because' as answer from n",
    )
    with pytest.raises(DataError, match="more than 500 rows"):
        inspect_file(path, limits=Limits(rows=500), choices=Choices(sheet="evil"))


def test_a_damaged_an_encrypted_and_an_open_database_are_a_sentence(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db", TABLE)
    good = path.read_bytes()
    path.write_bytes(good[:3000])
    assert refusal(path) in ("data.broken_database", "data.no_rows")
    path.write_bytes(good[:4096] + b"\xff" * (len(good) - 4096))
    assert refusal(path) in ("data.broken_database", "data.no_rows")
    path.write_bytes(bytes(range(256)) * 16)  # an encrypted one is noise from the first byte on
    assert refusal(path) == "data.not_database"
    path.write_bytes(good)
    (tmp_path / "a.db-wal").write_bytes(b"more rows")
    assert refusal(path) == "data.database_open"


def test_json_in_a_column_is_its_fields(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    opened = sqlite3.connect(tmp_path / "a.db")
    opened.executescript("create table docs (id, topic, doc); create table chats (id, messages, meta)")
    opened.executemany("insert into docs values (?, 'x', ?)", [(i, json.dumps(row)) for i, row in enumerate(QA)])
    opened.executemany("insert into docs values (?, 'x', ?)", [(7, "{broken"), (8, '{"topic": "y"}')])
    opened.execute("insert into chats values (1, ?, '[]')", [json.dumps(turns)])
    opened.commit()
    opened.close()
    report = inspect_file(tmp_path / "a.db")
    assert (report.sheet, report.rows, report.good_rows) == ("docs", 5, 3)
    assert inspect_file(tmp_path / "a.db", choices=Choices(sheet="chats")).format == "messages"


def test_a_database_beside_other_files_is_not_read(tmp_path: Path) -> None:
    database(tmp_path / "app.db", TABLE)
    assert inspect_file(tmp_path).good_rows == 3
    (tmp_path / "a.jsonl").write_bytes(LINES)
    report = inspect_file(tmp_path)
    assert (report.kind, report.good_rows) == ("jsonl", 3)


def test_the_refusal_of_a_table_names_the_others(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        database.execute("CREATE TABLE pairs (a_id INTEGER, b_id INTEGER)")
        database.executemany("INSERT INTO pairs VALUES (?, ?)", [(i, i) for i in range(9)])
        database.execute("CREATE TABLE notes (note TEXT)")
        database.execute("INSERT INTO notes VALUES ('Bees hum.')")
        database.commit()
    with pytest.raises(DataError, match=r"“pairs”.*notes"):
        inspect_file(tmp_path / "a.db")
