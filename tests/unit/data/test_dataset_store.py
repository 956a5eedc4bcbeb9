"""The store: files under names of ours, complete or not there, and no id leads out of it."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pyarrow
import pytest

from core import files
from core.data.chats import overview
from core.data.reading import encodings, json_rows
from core.data.sets import inspection, interpretation
from core.data.sets import stored_rows as rows_module
from core.data.sets.inspection import inspect_file
from core.data.store import DatasetStore
from core.errors import DataError
from tests.kit.read_examples import examples_of
from tests.kit.waits import wait_until

ROWS = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(5)]


def data_file(folder, name="mine.jsonl", rows=ROWS):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return path


@pytest.fixture
def store(tmp_path):
    data_file(tmp_path / "presets" / "samples", "style.jsonl")
    data_file(tmp_path / "presets" / "samples", "style.heldout.jsonl")
    data_file(tmp_path / "library", "数据.jsonl", ROWS[:3])
    data_file(tmp_path / "library", "readme.docx")
    data_file(tmp_path / "library", "README.md")
    return DatasetStore(tmp_path / "datasets", tmp_path / "presets", [tmp_path / "library", tmp_path / "gone"])


def test_an_imported_file_is_kept_as_given_and_described(store, tmp_path):
    path = data_file(tmp_path)
    before = time.time()
    info = store.import_file(path, "My data")
    assert info.id == "my-data" and info.name == "My data" and info.source_name == "mine.jsonl"
    assert (info.format, info.rows, info.good_rows, info.problems) == ("question_answer", 5, 5, 0)
    assert before - 1 <= info.imported <= time.time() + 1
    assert store.path("my-data").read_bytes() == path.read_bytes()
    names = sorted(p.name for p in (store.root / "my-data").iterdir())
    assert (names[0], names[1][:5], names[2:]) == ("dataset.json", "rows-", ["source.jsonl"])
    written = json.loads((store.root / "my-data" / "dataset.json").read_text("utf-8"))
    assert (
        written["v"] == 1
        and written["sha256"] == inspect_file(path).sha256
        and written["columns"] == ["question", "answer"]
    )
    assert store.get("my-data") == info
    assert DatasetStore(store.root, tmp_path / "presets").get("my-data") == info


def test_the_list_has_imports_samples_and_library_files(store, tmp_path):
    store.import_file(data_file(tmp_path), "mine")
    listed = store.list()
    assert [(info.id, info.origin, info.rows) for info in listed] == [
        ("mine", "imported", 5),
        ("sample:style", "sample", 5),
        ("library:数据.jsonl", "library", 3),
    ]
    assert all(store.get(info.id) == info for info in listed)
    assert all(store.path(info.id).is_file() for info in listed)


@pytest.mark.parametrize(
    "name, id",
    [
        ("../../etc/passwd", "etc-passwd"),
        ("CON", "data"),
        ("lpt1", "data"),
        ("我的数据", "data"),
        ("a\0b\u202ec", "a-b-c"),
        ("x" * 5000, "x" * 40),
        ("a;rm -rf ~", "a-rm-rf"),
        ("", "mine"),
        ("...", "data"),
    ],
)
def test_any_name_gives_a_safe_folder_inside_the_store(store, tmp_path, name, id):
    info = store.import_file(data_file(tmp_path), name)
    assert info.id.replace("-", "") == id.replace("-", "")
    assert store.path(info.id).resolve().is_relative_to(store.root.resolve())
    assert {p.name for p in store.root.iterdir()} == {info.id, ".reports"}
    assert "\0" not in info.name and "\u202e" not in info.name and len(info.name) <= 60


def test_a_chinese_name_is_kept_for_the_screen(store, tmp_path):
    assert store.import_file(data_file(tmp_path), "我的数据").name == "我的数据"


def test_the_same_name_gets_a_suffix_and_the_same_bytes_are_stored_once(store, tmp_path):
    first = store.import_file(data_file(tmp_path), "mine")
    again = store.import_file(data_file(tmp_path, "copy.jsonl"), "other name")
    second = store.import_file(data_file(tmp_path, rows=ROWS[:2]), "mine")
    assert again == first
    assert second.id != first.id and second.id.startswith("mine-")
    assert len([info for info in store.list() if info.origin == "imported"]) == 2


@pytest.mark.parametrize("id", [None, 7, ["a"], {"a": 1}])
def test_what_is_no_id_is_a_sentence_wherever_it_is_asked(store, id):
    """Step 3 asked how None is to be read, and a traceback stood in the log."""
    for ask in (store.choices, store.path, store.report):
        with pytest.raises(DataError):
            ask(id)


def test_a_bad_file_leaves_nothing_behind(store, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"MZ\x90\x00")
    with pytest.raises(DataError, match="is a program"):
        store.import_file(path, "x")
    assert not store.root.exists()


def test_a_full_disk_is_a_sentence_and_leaves_nothing_behind(store, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("core.data.store.os.fsync", full)
    with pytest.raises(DataError, match="“x” could not be saved .No space left on device.: check the disk space"):
        store.import_file(data_file(tmp_path), "x")
    assert list(store.root.iterdir()) == []


def test_a_half_import_is_not_listed_and_gone_after_the_next(store, tmp_path):
    half, other, foreign = (store.root / name for name in ("half", "other", "foreign"))
    for folder, owner in ((half, os.getpid()), (other, 1), (foreign, None)):
        folder.mkdir(parents=True)
        (folder / "source.jsonl").write_text("{")
        if owner is not None:
            (folder / "importing").write_text(str(owner))
    assert [info.origin for info in store.list()] == ["sample", "library"]
    with pytest.raises(DataError, match="no dataset and no file “half”"):
        store.path("half")
    store.import_file(data_file(tmp_path), "mine")
    assert not half.exists()
    assert other.exists(), "another process may be copying right now"
    assert foreign.exists(), "a folder that is none of ours is left alone"
    os.utime(other / "importing", (1, 1))
    store.import_file(data_file(tmp_path, rows=ROWS[:1]), "mine")
    assert not other.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"bytes": "x"}'])
def test_a_damaged_dataset_json_is_not_listed_and_breaks_nothing(store, tmp_path, content):
    info = store.import_file(data_file(tmp_path), "mine")
    (store.root / info.id / "dataset.json").write_text(content)
    assert [info.origin for info in store.list()] == ["sample", "library"]


HOSTILE = [
    "..",
    "../mine",
    "mine/../mine",
    "/etc/passwd",
    "",
    "MINE",
    "a\0b",
    "x" * 5000,
    "con",
    ".reports",
    None,
    7,
    ["mine"],
]
HOSTILE += [
    "sample:../style",
    "sample:style.heldout",
    "sample:",
    "library:../mine.jsonl",
    "library:readme.docx",
    "library:/etc/passwd",
]
HOSTILE += ["library:2/数据.jsonl", "mine\n", "C:\\x", "file:///etc/passwd"]


@pytest.mark.parametrize("id", HOSTILE)
@pytest.mark.parametrize("verb", ["path", "get", "delete", "report"])
def test_an_id_that_is_not_in_the_list_leads_nowhere(store, tmp_path, id, verb):
    store.import_file(data_file(tmp_path), "mine")
    with pytest.raises(DataError) as caught:
        getattr(store, verb)(id)
    assert "There is no dataset" in str(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_out_of_a_folder_is_not_followed(store, tmp_path):
    secret = data_file(tmp_path / "outside", "secret.jsonl")
    (tmp_path / "library" / "link.jsonl").symlink_to(secret)
    info = store.import_file(data_file(tmp_path), "mine")
    source = store.path(info.id)
    source.unlink()
    source.symlink_to(secret)
    for id in ("library:link.jsonl", info.id):
        with pytest.raises(DataError, match="no dataset"):
            store.path(id)


def test_files_of_one_name_in_two_library_folders_have_their_own_ids(tmp_path):
    paths = [data_file(tmp_path / folder, "same.jsonl", ROWS[:n]) for n, folder in ((1, "one"), (2, "two"))]
    store = DatasetStore(tmp_path / "datasets", tmp_path, [path.parent for path in paths])
    assert [store.path(id) for id in ("library:same.jsonl", "library:2/same.jsonl")] == paths


def test_only_imported_sets_can_be_deleted(store, tmp_path):
    info = store.import_file(data_file(tmp_path), "mine")
    store.delete(info.id)
    assert "mine" not in {info.id for info in store.list()} and not (store.root / "mine").exists()
    for id in ("sample:style", "library:数据.jsonl"):
        with pytest.raises(DataError, match="cannot be deleted here"):
            store.delete(id)
    assert (tmp_path / "library" / "数据.jsonl").exists()
    assert store.import_file(data_file(tmp_path), "mine").id == "mine"


def test_a_report_is_read_once_and_follows_the_bytes(store, tmp_path, monkeypatch):
    id, path = "library:数据.jsonl", tmp_path / "library" / "数据.jsonl"
    report = store.report(id)
    assert report == inspect_file(path)
    with monkeypatch.context() as patch:
        patch.setattr("core.data.sets.inspection.inspect_file", lambda *args, **more: pytest.fail("inspected again"))
        assert store.report(id) == report
        fresh = DatasetStore(store.root, tmp_path / "presets", [tmp_path / "library"])
        assert fresh.report(id) == report
    path.write_text(json.dumps({"question": "q", "answer": ""}) + "\n" + json.dumps(ROWS[0]))
    assert store.report(id).rows == 2 and store.report(id).error_count == 1
    assert store.report(id, "question_answer").rows == 2


def test_rows_are_what_the_file_says_and_lie_beside_it(store, tmp_path):
    rows = [*ROWS, {"question": "q", "answer": ""}, {"question": "天", "answer": "蓝"}]
    info = store.import_file(data_file(tmp_path, rows=rows), "mine")
    stored = store.rows(info.id)
    assert list(stored) == list(examples_of(store.path(info.id)))
    assert [number for number, _ in stored] == [1, 2, 3, 4, 5, 7] == [stored.number(i) for i in range(6)]
    assert list(stored.examples) == [stored.examples[i] for i in range(6)] and (len(stored), stored.stored) == (6, 7)
    refused = stored.entry(5)
    assert (refused["row"], refused["line"], refused["example"]) == (6, 6, None)
    assert (
        json.loads(refused["values"]) == rows[5]
        and rows_module.problem_of(refused["problem"]).text.key == "data.empty_answer"
    )
    assert [len(store.rows("sample:style")), len(store.rows("library:数据.jsonl"))] == [5, 3]
    assert {p.name for p in store.root.iterdir()} == {"mine", ".reports", ".rows"} and len(
        list((store.root / ".rows").iterdir())
    ) == 2


def test_a_file_is_read_once_when_it_is_added_and_never_again(store, tmp_path, monkeypatch):
    """Seen: six times in the life of a set."""
    passes, read_rows = [], interpretation.read_rows
    monkeypatch.setattr(
        interpretation, "read_rows", lambda source, limits: passes.append(source.path.name) or read_rows(source, limits)
    )
    info = store.import_file(data_file(tmp_path), "mine")
    assert passes == ["mine.jsonl", "mine.jsonl"], "the second to recognise it by its first rows"
    again = DatasetStore(store.root, tmp_path / "presets")
    assert len(again.rows(info.id)) == again.report(info.id).good_rows == 5 and len(passes) == 2
    store.rows("sample:style")
    assert store.report("sample:style").good_rows == 5 and len(passes) == 4


def test_a_row_too_long_for_a_batch_begins_another(store, tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "BATCH_BYTES", 100)
    long = [{"question": f"q{n}", "answer": "x" * (40 * n)} for n in range(9)]
    rows_read = store.rows(store.import_file(data_file(tmp_path, rows=long), "mine").id)
    assert [example.messages[1].content for _, example in rows_read] == ["x" * (40 * n) for n in range(1, 9)]
    assert rows_read[7][0] == 9 and rows_read[0][0] == 2
    for outside in (-1, 8):
        with pytest.raises(IndexError):
            rows_read[outside]


def test_loading_what_teaches_nothing_is_our_sentence(store, tmp_path):
    data_file(tmp_path / "library", "empty.jsonl", [{"question": "q", "answer": ""}])
    for _ in range(2):
        with pytest.raises(DataError, match="No row of empty.jsonl can be used"):
            store.rows("library:empty.jsonl")


def test_the_names_of_rows_are_short_wherever_the_workspace_lies(store, tmp_path, monkeypatch):
    """Seen: the name of a lock held the whole path of its folder again, colon included: too long for Windows from 78
    characters on."""
    monkeypatch.setattr(rows_module, "ROWS_A_BATCH", 2)  # several, the last one short
    rows = [*ROWS, *ROWS, ROWS[0]]
    info = store.import_file(data_file(tmp_path, rows=rows), "mine")
    rows_read = store.rows(info.id)
    assert len(rows_read) == len(rows) and [number for number, _ in rows_read] == list(range(1, 12))
    names = [path.name for path in (store.root / info.id).glob("rows*")]
    assert len(names) == 1 and len(names[0]) <= 40


def test_reading_that_breaks_off_leaves_nothing_to_be_taken_for_whole(store, tmp_path, monkeypatch):
    def full(*args, **more):
        raise OSError(28, "No space left on device")

    path = tmp_path / "library" / "数据.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr("core.data.sets.stored_rows.os.fsync", full)
        patch.setattr("core.data.sets.readings.IN_MEMORY_BYTES", 10)
        with pytest.raises(DataError, match="No space left"):
            store.rows("library:数据.jsonl")
        assert not list((store.root / ".rows").iterdir())
        patch.setattr("core.data.sets.readings.IN_MEMORY_BYTES", 10_000)
        assert list(store.rows("library:数据.jsonl")) == list(examples_of(path)), "few rows need no disk"
        assert not list((store.root / ".rows").iterdir())
    assert len(store.rows("library:数据.jsonl")) == 3 and list((store.root / ".rows").iterdir())


@pytest.mark.parametrize("harm", ["cut", "empty", "other"])
def test_damaged_rows_are_read_again(store, tmp_path, harm):
    info = store.import_file(data_file(tmp_path), "mine")
    (file,) = (store.root / info.id).glob("rows*")
    content = file.read_bytes()
    file.write_bytes({"cut": content[:-100], "empty": b"", "other": b"x" * 1000}[harm])
    assert list(store.rows(info.id)) == list(examples_of(store.path(info.id))) and file.read_bytes() == content


def test_two_threads_that_prepare_one_set_at_once_share_no_file(store, tmp_path, monkeypatch):
    """The second emptied the file that the first was writing, and its hole read as the end of the data: fewer rows, for
    ever."""
    rows = [{"text": f"row {n} " + "x" * 20_000} for n in range(40)]
    data_file(tmp_path / "library", "many.jsonl", rows)
    monkeypatch.setattr(rows_module, "ROWS_A_BATCH", 10)
    two, done, calls, inspect = threading.Event(), threading.Event(), [], inspection.inspect_file

    def paused(path, format, choices, keep, check):
        calls.append(path)
        stop, until = ((25, two), (5, done))[len(calls) - 1]

        def kept(read):
            if read.number == stop:
                two.set() if until is done else None
                assert until.wait(10)
            keep(read)

        return inspect(path, format, choices=choices, keep=kept, check=check)

    monkeypatch.setattr(inspection, "inspect_file", paused)
    lengths = []
    first, second = (
        threading.Thread(target=lambda: lengths.append(len(store.rows("library:many.jsonl")))) for _ in range(2)
    )
    first.start()
    wait_until(lambda: calls, 5)
    second.start()
    first.join()
    done.set()
    second.join()
    assert lengths == [40, 40] and [file.suffix for file in (store.root / ".rows").iterdir()] == [".arrow"]


@pytest.mark.parametrize("is_there", [True, False])
def test_rows_that_another_process_has_made_and_mapped_are_taken_as_they_are(store, tmp_path, monkeypatch, is_there):
    def refused(source, target, *more):
        if is_there:
            shutil.copy(source, target)
        raise PermissionError(13, "open in another program")

    monkeypatch.setattr(files, "rename", refused)
    assert len(store.rows("sample:style")) == 5
    assert len(list((store.root / ".rows").iterdir())) == is_there


def test_what_a_killed_process_and_earlier_versions_left_beside_the_rows_goes(store, tmp_path):
    folder = store.root / ".rows"
    folder.mkdir(parents=True)
    left, at_work, old = (
        folder / ".rows-6-0123.arrow.77",
        folder / ".rows-6-4567.arrow.78.1",
        folder / "rows-5-89ab.arrow",
    )
    for file in (left, at_work, old):
        file.write_bytes(b"half")
    os.utime(left, (1, 1))
    assert len(store.rows("sample:style")) == 5
    names = {file.name for file in folder.iterdir()}
    assert len(names) == 2 and at_work.name in names


def test_a_set_is_deleted_though_its_rows_were_looked_at(store, tmp_path, monkeypatch):
    """Windows renames no folder while a file in it is open or mapped."""
    monkeypatch.setattr(rows_module, "IN_MEMORY_BYTES", 0)
    info = store.import_file(data_file(tmp_path), "mine")
    rows = store.rows(info.id)
    assert rows[0][1].messages[1].content == "a0" and rows._kept is not None
    rows.close()
    assert rows[4][1].messages[1].content == "a4", "who asks again opens it again"
    store.delete(info.id)
    assert rows._kept is None


class Cancelled(Exception):
    pass


@pytest.mark.parametrize("line", ['{"question": "a", "answer": "b"}', '{"question": '])
def test_an_import_that_is_cancelled_reads_few_rows_more_good_or_bad_and_leaves_nothing(
    store, tmp_path, monkeypatch, line
):
    """By the rows that are read after the wish, of up to 4 MiB each. Lines before the first good one were read to their
    end."""
    file, read, wished = tmp_path / "many.jsonl", [], []
    file.write_text("\n".join([line] * 1000 + ['{"question": "c", "answer": "d"}']), "utf-8")
    decode = json_rows.decode_line

    def decoded(line):
        read.append(line)
        wished.extend([len(read)] if len(read) == 500 else [])
        return decode(line)

    def check(_=0):
        if wished:
            raise Cancelled

    monkeypatch.setattr(json_rows, "decode_line", decoded)
    with pytest.raises(Cancelled):
        store.import_file(file, "gone", check=check)
    assert 500 <= len(read) <= 500 + inspection.CHECK_EVERY
    assert [path.name for path in store.root.iterdir()] == []


def test_an_import_is_cancelled_while_the_file_is_looked_over_and_while_it_is_copied(store, tmp_path, monkeypatch):
    """Two GiB take more than a second for each."""
    file = data_file(tmp_path, "many.jsonl", [{"question": str(n), "answer": "b" * 100} for n in range(100)])
    monkeypatch.setattr(encodings, "_CHUNK", 1000)
    pieces, rows = [], []
    monkeypatch.setattr(rows_module.Writer, "add", lambda self, read: rows.append(read))

    def check(_=0):
        pieces.append(len(rows))
        if len(pieces) == 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        store.import_file(file, "gone", check=check)
    assert pieces == [0] * 5 and not rows and not store.root.exists()
    monkeypatch.undo()

    def check_copy(_=0):
        if any(store.root.glob("*/source.*")):
            raise Cancelled

    with pytest.raises(Cancelled):
        store.import_file(file, "gone", check=check_copy)
    assert [path.name for path in store.root.iterdir()] == []
    assert store.import_file(file, "here").rows == 100


def test_who_waits_for_another_import_can_be_cancelled_too(store, tmp_path):
    def check(_=0):
        if store._importing.locked():
            raise Cancelled

    with store._importing, pytest.raises(Cancelled):
        store.import_file(data_file(tmp_path), "waits", check=check)
    assert store.import_file(data_file(tmp_path), "mine").rows and not store._importing.locked()


def test_a_chat_that_is_gone_through_before_its_rows_are_made_can_be_cancelled(store, tmp_path, monkeypatch):
    """Who wrote how much is counted first: of the largest exports that takes a minute."""
    file, read, messages = tmp_path / "chat.txt", [], overview.messages
    file.write_text("".join(f"12/03/2025, 21:{n % 60:02} - {'AB'[n % 2]}: word {n}\n" for n in range(1000)), "utf-8")
    monkeypatch.setattr(
        overview, "messages", lambda *given: (read.append(message) or message for message in messages(*given))
    )

    def check(_=0):
        if len(read) > 500:
            raise Cancelled

    with pytest.raises(Cancelled):
        store.import_file(file, "gone", check=check)
    assert 500 < len(read) <= 500 + 2 * overview.CHECK_EVERY
    assert [path.name for path in store.root.iterdir()] == []


def test_rows_that_are_walked_through_are_not_mapped(store, tmp_path, monkeypatch):
    """What was read of a mapped file counts as memory: a walk through a million rows took half a gigabyte."""
    monkeypatch.setattr(rows_module, "ROWS_A_BATCH", 10)
    id = store.import_file(data_file(tmp_path, rows=[{"question": str(n), "answer": "a"} for n in range(200)])).id
    monkeypatch.setattr(rows_module, "IN_MEMORY_BYTES", 0)
    mapped, memory_map = [], pyarrow.memory_map
    monkeypatch.setattr(pyarrow, "memory_map", lambda path: mapped.append(path) or memory_map(path))
    rows = store.rows(id)
    assert rows.numbers().tolist() == [*range(1, 201)] and rows[7][0] == 8 and len(mapped) == 2
    rows.close()
    maps = Path("/proc/self/maps")
    if maps.exists():  # Windows removes no file that is mapped; a thread of Arrow may hold it a moment longer
        wait_until(lambda: str(rows.path) not in maps.read_text())
    assert [int(example.messages[0].content) for _, example in rows] == [*range(200)] and len(mapped) == 2
    assert rows[7][0] == 8 and len(mapped) == 3
    rows.close()
