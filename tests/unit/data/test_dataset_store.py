"""The store: files under names of ours, complete or not there, and no id leads out of it."""

import json
import os
import shutil
import threading
import time

import pytest

from core import files
from core.data import formats
from core.data.formats import Example, examples_of, inspect_file
from core.data.store import DatasetStore
from core.errors import DataError
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
    assert sorted(p.name for p in (store.root / "my-data").iterdir()) == ["dataset.json", "source.jsonl"]
    written = json.loads((store.root / "my-data" / "dataset.json").read_text("utf-8"))
    assert written["v"] == 1 and written["sha256"] == inspect_file(path).sha256 and written["columns"] == ["question", "answer"]
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
    with pytest.raises(DataError, match="“x” could not be stored .No space left on device.: check that the disk has room"):
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
    with pytest.raises(DataError, match="no data set “half”"):
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


HOSTILE = ["..", "../mine", "mine/../mine", "/etc/passwd", "", "MINE", "a\0b", "x" * 5000, "con", ".reports", None, 7, ["mine"]]
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
    assert "There is no data set" in str(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_out_of_a_folder_is_not_followed(store, tmp_path):
    secret = data_file(tmp_path / "outside", "secret.jsonl")
    (tmp_path / "library" / "link.jsonl").symlink_to(secret)
    info = store.import_file(data_file(tmp_path), "mine")
    source = store.path(info.id)
    source.unlink()
    source.symlink_to(secret)
    for id in ("library:link.jsonl", info.id):
        with pytest.raises(DataError, match="no data set"):
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
        patch.setattr("core.data.formats.inspect_file", lambda *args: pytest.fail("inspected again"))
        assert store.report(id) == report
        fresh = DatasetStore(store.root, tmp_path / "presets", [tmp_path / "library"])
        assert fresh.report(id) == report
    path.write_text(json.dumps({"question": "q", "answer": ""}) + "\n" + json.dumps(ROWS[0]))
    assert store.report(id).rows == 2 and store.report(id).error_count == 1
    assert store.report(id, "question_answer").rows == 2


def test_examples_and_the_arrow_table_say_the_same_and_the_cache_stays_in_its_folder(store, tmp_path):
    import datasets

    rows = [*ROWS, {"question": "q", "answer": ""}, {"question": "天", "answer": "蓝"}]
    info = store.import_file(data_file(tmp_path, rows=rows), "mine")
    examples = [example for _, example in examples_of(store.path(info.id))]
    table = store.load(info.id, tmp_path / "cache")
    assert isinstance(table, datasets.Dataset)
    assert table["row"][:] == [1, 2, 3, 4, 5, 7]
    assert [Example.from_dict(json.loads(value)) for value in table["example"]] == examples
    assert table.cache_files and all(str(tmp_path / "cache") in file["filename"] for file in table.cache_files)
    assert store.load(info.id, tmp_path / "cache").cache_files == table.cache_files
    assert store.load("sample:style", tmp_path / "cache").num_rows == 5


def test_loading_what_teaches_nothing_is_our_sentence(store, tmp_path):
    data_file(tmp_path / "library", "empty.jsonl", [{"question": "q", "answer": ""}])
    with pytest.raises(DataError, match="No row of empty.jsonl can be learned from"):
        store.load("library:empty.jsonl", tmp_path / "cache")


def test_the_names_in_the_cache_are_short_wherever_the_workspace_lies(store, tmp_path, monkeypatch):
    """Seen: the name of a lock held the whole path of its folder again, colon included: too long for Windows from 78 characters on."""
    monkeypatch.setattr("core.data.store.ROWS_A_BATCH", 2)  # several, the last one short
    info = store.import_file(data_file(tmp_path, rows=[*ROWS, *ROWS, ROWS[0]]), "mine")
    cache = tmp_path / "a folder with a long name" / "cache"
    assert store.load(info.id, cache).num_rows == 2 * len(ROWS) + 1
    names = [path.relative_to(cache).as_posix() for path in cache.rglob("*")]
    assert names and all(len(name) <= 40 and "long" not in name for name in names)


def test_a_conversion_that_breaks_off_leaves_nothing_to_be_taken_for_a_whole_one(store, tmp_path, monkeypatch):
    monkeypatch.setattr("core.data.store.ROWS_A_BATCH", 1)
    info = store.import_file(data_file(tmp_path), "mine")

    def full(path, *more):
        yield {"row": 1, "example": "{}"}
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("core.data.store._records", full)
        with pytest.raises(OSError, match="No space left"):
            store.load(info.id, tmp_path / "cache")
        assert not list((tmp_path / "cache").iterdir())
    assert store.load(info.id, tmp_path / "cache").num_rows == len(ROWS)


def test_two_threads_that_prepare_one_set_at_once_share_no_file(store, tmp_path, monkeypatch):
    """The second emptied the file that the first was writing, and its hole read as the end of the data: fewer rows, for ever."""
    (tmp_path / "many.jsonl").write_text("".join(json.dumps({"text": f"row {n} " + "x" * 20_000}) + "\n" for n in range(40)))
    info, cache = store.import_file(tmp_path / "many.jsonl"), tmp_path / "cache"
    monkeypatch.setattr("core.data.store.ROWS_A_BATCH", 10)
    two, done, calls, whole = threading.Event(), threading.Event(), [], formats.examples_of

    def paused(path, format, columns):
        calls.append(path)
        stop, until = ((25, two), (5, done))[len(calls) - 1]
        for number, found in enumerate(whole(path, format)):
            if number == stop:
                two.set() if until is done else None
                assert until.wait(10)
            yield found

    monkeypatch.setattr(formats, "examples_of", paused)
    rows = []
    first, second = (threading.Thread(target=lambda: rows.append(store.load(info.id, cache).num_rows)) for _ in range(2))
    first.start()
    wait_until(lambda: calls, 5)
    second.start()
    first.join()
    done.set()
    second.join()
    assert rows == [40, 40] and [file.suffix for file in cache.iterdir()] == [".arrow"]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_cache_that_another_process_has_made_and_mapped_is_taken_as_it_is(store, tmp_path, monkeypatch, is_there):
    def refused(source, target):
        if is_there:
            shutil.copy(source, target)
        raise PermissionError(13, "used by another process")

    monkeypatch.setattr(files, "rename", refused)
    if is_there:
        assert store.load("sample:style", tmp_path / "cache").num_rows == 5
    else:
        with pytest.raises(PermissionError):
            store.load("sample:style", tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == is_there


def test_what_a_killed_process_and_earlier_versions_left_in_the_cache_goes(store, tmp_path):
    cache = tmp_path / "cache"
    (cache / "generator" / "default").mkdir(parents=True)
    left, at_work = cache / ".0123.arrow.77", cache / ".4567.arrow.78.1"
    for file in (left, at_work):
        file.write_bytes(b"half")
    os.utime(left, (1, 1))
    assert store.load("sample:style", cache).num_rows == 5
    assert sorted(file.name[:5] for file in cache.iterdir() if file.name.startswith(".")) == [".4567"]
    assert not (cache / "generator").exists()
