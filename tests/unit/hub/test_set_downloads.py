"""Parts of data sets in the list of downloads, against a hub of our own; the work on threads of this process
(tests/kit/fetching)."""

from __future__ import annotations

import errno
import gzip
import json
import shutil
from collections import namedtuple
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import HTTPError

from core.data.hub_sets import adding
from core.data.store import DatasetStore
from core.errors import DataError
from core.hub import download, partial_file
from core.hub.downloads import Download, Downloads, part_folder
from core.hub.sets import transfer as set_transfer
from core.hub.sets.about import about
from core.hub.sets.name import PartName, SetName
from core.presets import PRESETS
from core.workspace.folder import Workspace
from tests.kit import hub_sets as kit
from tests.kit.fetching import fetch_here, here_holds_its_file, incomplete
from tests.kit.hub import CHUNK, FakeHub
from tests.kit.waits import wait_until

NAME = "owner/pirate-talk"
WHOLE = PartName(NAME, "default", "train")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    fetch_here(monkeypatch)
    monkeypatch.setattr(download, "WAITS_S", (0.01, 0.01))
    monkeypatch.setattr(set_transfer, "PIECE", 50)
    with kit.hub_of_sets(monkeypatch, tmp_path) as server:
        yield server


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "my [ai] ws")


@pytest.fixture
def store(space: Workspace) -> DatasetStore:
    return DatasetStore(space.datasets, PRESETS)


@pytest.fixture
def app(space: Workspace, store: DatasetStore) -> Iterator[Downloads]:
    """As an app has it: what waits is begun."""
    downloads = Downloads(space, bring=partial(adding.add_part, store))
    downloads.begin()
    yield downloads
    downloads.close()


def until(app: Downloads, part: PartName, state: str | None = "done") -> Download:
    def now() -> str | None:
        row = app.row(str(part))
        assert state == "failed" or row is None or row.state != "failed", row
        return row.state if row else None

    wait_until(lambda: now() == state)
    row = app.row(str(part))
    assert row is not None
    return row


def rows_of(store: DatasetStore, id: str) -> list[dict[str, str]]:
    return [
        {"question": example.messages[0].content, "answer": example.messages[1].content}
        for _, example in store.rows(id)
    ]


def folder(app: Downloads, part: PartName) -> Path:
    return part_folder(app.workspace, part)


def test_shards_arrive_as_one_set_that_says_where_it_is_from(hub, app, store):
    shards = [kit.pirates(120), kit.pirates(80, first=120)]
    kit.put_parts(hub, NAME, {"default/train": shards}, cardData={"license": "mit"})
    app.start(str(WHOLE))
    row = until(app, WHOLE)
    info = store.get(row.result)
    assert rows_of(store, row.result) == kit.pirates(200)
    assert (info.origin_name, info.licence, info.name) == (f"{NAME}:default:train", "mit", "pirate-talk:train")
    assert info.revision == about(SetName.parse(NAME)).commit and len(info.revision) == 40
    assert row.done == row.total and row.unit == "bytes" and not folder(app, WHOLE).exists()
    assert (
        adding.find_added(store, SetName.parse(f"{NAME}:train")) == info
        and adding.find_added(store, SetName.parse(f"{NAME}:fr")) is None
    )


def test_a_paused_download_goes_on_where_it_was_also_in_the_next_app(hub, space, store):
    big = [{"question": f"{i}?", "answer": f"{i * 7919 % 104729:x}" * 40} for i in range(3_000)]
    kit.put_parts(hub, NAME, {"default/train": [big]})
    hub.stall_after = 3 * CHUNK
    first = Downloads(space, bring=partial(adding.add_part, store))
    first.begin()
    first.start(str(WHOLE))
    wait_until(hub.stalled.is_set)
    wait_until(lambda: any(path.stat().st_size == 3 * CHUNK for path in folder(first, WHOLE).rglob("*.incomplete")))
    first.pause(str(WHOLE))
    first.close()
    hub.release.set()
    hub.stall_after = None
    second = Downloads(space, bring=partial(adding.add_part, store))
    second.begin()
    try:
        assert second.row(str(WHOLE)).state == "paused"
        hub.requests.clear()
        second.resume(str(WHOLE))
        row = until(second, WHOLE)
        assert [line.split()[-1] for line in hub.requests if "/resolve/" in line and "GET" in line] == [
            f"bytes={3 * CHUNK}-"
        ]
        assert store.get(row.result).rows == 3_000
    finally:
        second.close()


@here_holds_its_file
def test_a_cancelled_one_leaves_nothing(hub, app, store):
    kit.put_parts(hub, NAME, {"default/train": [kit.pirates(3_000)]})
    hub.stall_after = CHUNK
    app.start(str(WHOLE))
    wait_until(hub.stalled.is_set)
    app.cancel(str(WHOLE))
    wait_until(lambda: not folder(app, WHOLE).exists())
    assert app.rows() == [] and not [info for info in store.list() if info.origin == "imported"]


def test_two_downloads_of_one_are_one_and_models_come_beside_it(hub, app):
    kit.put_parts(hub, NAME, {"default/train": [kit.pirates(3_000)], "default/test": [kit.pirates(9)]})
    hub.stall_after = CHUNK
    first = app.start(str(WHOLE))
    wait_until(hub.stalled.is_set)
    other = PartName(NAME, "default", "test")
    assert app.start(str(WHOLE)).requested == first.requested
    app.start(str(other))
    until(app, other)
    assert app.row(str(WHOLE)).state == "running" and len(app.rows()) == 2
    hub.release.set()
    until(app, WHOLE)


def test_the_first_rows_come_without_the_rest(hub, app, store):
    shards = [kit.pirates(300), kit.pirates(300, first=300), kit.pirates(5_000, first=600)]
    kit.put_parts(hub, NAME, {"default/train": shards})
    part = PartName(NAME, "default", "train", 420)
    app.start(str(part))
    row = until(app, part)
    assert rows_of(store, row.result) == kit.pirates(420)
    assert (row.done, row.total, row.unit) == (420, 420, "rows")
    assert store.get(row.result).origin_name == f"{NAME}:default:train[:420]"
    assert not [line for line in hub.file_requests() if "00002.parquet" in line]


@pytest.fixture
def cut(hub, monkeypatch):
    """Cuts the line once, after a number of rows. Returns a list that is empty once that has happened."""
    real = set_transfer.library.rows_of

    def after(rows: int) -> list[int]:
        left = [rows]

        def rows_of_stream(stream: Any) -> Iterator[dict[str, Any]]:
            for number, row in enumerate(real(stream), 1):
                yield row
                if left and number == left[0]:
                    left.clear()
                    hub.requests.clear()
                    raise HTTPError("cut")

        monkeypatch.setattr(set_transfer.library, "rows_of", rows_of_stream)
        return left

    return after


def test_first_rows_go_on_after_those_that_are_there(hub, app, store, cut):
    kit.put_parts(hub, NAME, {"default/train": [kit.pirates(300), kit.pirates(300, first=300)]})
    left = cut(470)
    part = PartName(NAME, "default", "train", 520)
    app.start(str(part))
    assert rows_of(store, until(app, part).result) == kit.pirates(520) and not left
    assert len(hub.file_requests("00000.parquet")) <= 1, "of the first shard its footer alone"


def test_first_rows_of_a_set_with_pictures_go_on_after_those_that_are_there(
    hub, app, store, monkeypatch, tmp_path, cut
):
    """Seen: the state that was kept was that of the dataset whose pictures are decoded, which nobody read: rows came
    twice."""
    from datasets import Dataset, Features, Image, Value

    monkeypatch.setattr(set_transfer, "PIECE", 100)
    rows = kit.pirates(400)
    columns = {name: [row[name] for row in rows] for name in ("question", "answer")} | {
        "picture": [{"bytes": b"x", "path": None}] * 400
    }
    features = Features({"question": Value("string"), "answer": Value("string"), "picture": Image()})
    Dataset.from_dict(columns, features).to_parquet(tmp_path / "a.parquet")
    kit.put(hub, NAME, {"train.parquet": (tmp_path / "a.parquet").read_bytes()})
    left = cut(250)
    part = PartName(NAME, "default", "train", 350)
    app.start(str(part))
    assert rows_of(store, until(app, part).result) == kit.pirates(350) and not left


def test_what_an_earlier_version_had_of_a_paused_download_is_passed_over(hub, app, store):
    kit.put_parts(hub, NAME, {"default/train": [kit.pirates(100)]})
    part = PartName(NAME, "default", "train", 60)
    pieces = folder(app, part) / "rows" / about(SetName.parse(NAME)).commit
    pieces.mkdir(parents=True)
    (pieces / "000000000.parquet").write_bytes(kit.parquet(kit.pirates(50)))
    app.start(str(part))
    assert rows_of(store, until(app, part).result) == kit.pirates(60)


@pytest.mark.parametrize(("rows", "whole_up_to"), [(0, 0), (25, 64 << 20), (25, 0)])
@pytest.mark.parametrize(
    ("names", "made"),
    [
        (["a.jsonl", "b.jsonl"], kit.jsonl),
        (["a.jsonl.gz", "b.jsonl.gz"], lambda rows: gzip.compress(kit.jsonl(rows))),
        (["a.json", "b.json"], lambda rows: json.dumps(rows).encode()),
        (["a.csv", "b.csv"],
            lambda rows: b"question,answer\n"
            + "".join(f'{r["question"]},"{r["answer"]}\n ,"\n' for r in rows).encode()),
    ],
)  # fmt: skip
def test_files_of_a_kind_are_joined_and_their_first_rows_taken(
    hub, app, store, monkeypatch, names, made, rows, whole_up_to
):
    monkeypatch.setattr(set_transfer, "SMALL", whole_up_to)
    kit.put(hub, NAME, {name: made(kit.pirates(20, first=20 * i)) for i, name in enumerate(names)})
    part = PartName(NAME, "default", "train", rows)
    app.start(str(part))
    info = store.get(until(app, part).result)
    assert info.rows == (rows or 40) and not info.problems
    answers = [row["question"] for row in rows_of(store, info.id)]
    assert answers == [row["question"] for row in kit.pirates(rows or 40)]


@pytest.mark.parametrize(("file", "made"), [("train [1].parquet", kit.parquet), ("train.jsonl", kit.jsonl)])
def test_classes_come_by_their_names(hub, app, store, file, made):
    """Seen: "0" was trained where the set says "friend"."""
    label = {"class_label": {"names": {"0": "friend", "1": "foe"}}}
    features = [{"name": "question", "dtype": "string"}, {"name": "answer", "dtype": label}]
    rows = [{"question": f"What is thing number {i}?", "answer": i % 2} for i in range(40)]
    kit.put(hub, NAME, {file: made(rows)}, cardData={"dataset_info": {"features": features}})
    for part in (WHOLE, PartName(NAME, "default", "train", 20)):
        app.start(str(part))
        learned = [row["answer"] for row in rows_of(store, until(app, part).result)]
        assert learned == ["friend", "foe"] * (part.rows // 2 or 20)


@pytest.mark.parametrize(("header", "key"), [(b"frage,antwort\n", "hub_set.other_columns")])
def test_files_that_do_not_go_together_say_so(hub, app, header, key):
    kit.put(hub, NAME, {"a.csv": b"question,answer\na,b\n", "b.csv": header + b"c,d\n"})
    app.start(str(WHOLE))
    assert until(app, WHOLE, "failed").message.key == key


def test_shards_whose_columns_differ_say_so(hub, app):
    kit.put_parts(hub, NAME, {"default/train": [kit.pirates(3), [{"frage": "a", "antwort": "b"}]]})
    app.start(str(WHOLE))
    assert until(app, WHOLE, "failed").message.key == "hub_set.other_columns"


def test_what_came_damaged_is_thrown_away(hub, app):
    kit.put_parts(hub, NAME, {"default/train": [kit.pirates(300)]})
    hub.corrupt = True
    app.start(str(WHOLE))
    assert until(app, WHOLE, "failed").message.key == "hub.damaged"
    hub.corrupt = False
    app.resume(str(WHOLE))
    until(app, WHOLE)


def test_too_little_room_is_said_before_a_byte_comes(hub, app, monkeypatch):
    kit.put_parts(hub, NAME, {"default/train": [kit.pirates(3_000)]})
    twice = 2 * len(hub.repos[f"datasets/{NAME}"]["default/train-00000.parquet"])  # it comes, is read and is kept
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "total used free")(1, 1, twice))
    app.start(str(WHOLE))
    row = until(app, WHOLE, "failed")
    assert row.message.key == "hub_set.disk_full" and incomplete(folder(app, WHOLE)) == 0


def test_a_disk_that_fills_up_keeps_what_came(hub, app, monkeypatch):
    kit.put_parts(
        hub,
        NAME,
        {"default/train": [[{"question": f"{i}?", "answer": f"{i * 7919 % 104729:x}" * 40} for i in range(3_000)]]},
    )
    real = partial_file.PartialFile.write

    def write(self: partial_file.PartialFile, chunk: bytes) -> int:
        if self.size >= 2 * CHUNK:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, chunk)

    monkeypatch.setattr(partial_file.PartialFile, "write", write)
    app.start(str(WHOLE))
    assert until(app, WHOLE, "failed").message.key == "hub_set.disk_full_midway"
    monkeypatch.setattr(partial_file.PartialFile, "write", real)
    hub.requests.clear()
    app.resume(str(WHOLE))
    until(app, WHOLE)
    assert [line.split()[-1] for line in hub.requests if line.startswith("GET") and "/resolve/" in line] == [
        f"bytes={2 * CHUNK}-"
    ]


def test_a_disk_that_fills_up_among_the_first_rows_counts_rows(hub, app, monkeypatch):
    kit.put_parts(hub, NAME, {"default/train": [kit.pirates(300)]})

    def replace_json(path: Path, value: dict[str, Any]) -> None:
        if value["rows"] == 100:
            raise OSError(errno.ENOSPC, "No space left on device")

    kept = SimpleNamespace(replace_json=replace_json, read_object=lambda path: {})
    monkeypatch.setattr(set_transfer, "files", kept)
    part = PartName(NAME, "default", "train", 200)
    app.start(str(part))
    message = until(app, part, "failed").message
    assert message.key == "hub_set.disk_full_in_rows" and (message.params["done"], message.params["total"]) == (
        100,
        200,
    )


@pytest.mark.parametrize("token", ["", "hf_aTokenOfSomebodyElse"])
def test_a_gated_set_fails_with_what_to_accept(hub, app, monkeypatch, token):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    kit.put_parts(hub, NAME, {"default/train": [kit.pirates(3)]}, gated="manual")
    hub.gated = True
    for part in (WHOLE, PartName(NAME, "default", "train", 2)):
        app.start(str(part))
        message = until(app, part, "failed").message
        assert message.key == ("hub.gated_token" if token else "hub.gated") and message.params["page"].endswith(
            f"/datasets/{NAME}"
        )


@pytest.mark.parametrize(("status", "key"), [(429, "hub.rate_limit"), (503, "hub.server_trouble")])
def test_a_hub_that_refuses_is_a_sentence(hub, app, status, key):
    kit.put_parts(hub, NAME, {"default/train": [kit.pirates(3)]})
    hub.status = status
    app.start(str(WHOLE))
    assert until(app, WHOLE, "failed").message.key == key


def test_a_line_that_breaks_in_the_first_rows_is_tried_again_from_there(hub, app, store):
    kit.put_parts(hub, NAME, {"default/train": [kit.pirates(2_000)]})
    hub.drop_after, hub.drops_left = CHUNK, 1
    part = PartName(NAME, "default", "train", 1_500)
    app.start(str(part))
    assert rows_of(store, until(app, part).result) == kit.pirates(1_500)


def test_what_holds_nothing_to_learn_is_refused_as_a_file_is(hub, app, store):
    kit.put_parts(hub, NAME, {"default/train": [[{"x": 1.5, "y": 2.5}]]})
    app.start(str(WHOLE))
    assert until(app, WHOLE, "failed").message.key.startswith("data.")
    assert not [info for info in store.list() if info.origin == "imported"]


def test_what_is_too_large_is_said_before_it_is_asked_for(hub):
    kit.put_parts(hub, NAME, {"default/train": [kit.pirates(3)]})
    (part,) = about(SetName.parse(NAME)).parts
    part = part.model_copy(update={"unpacked_bytes": 9 << 30, "rows": 44_000_000})
    assert adding.is_too_large(part)
    with pytest.raises(DataError, match="44,000,000 rows and 9.7 GB"):
        adding.part_of(NAME, part, 0)
    assert adding.part_of(NAME, part, 20_000).rows == 20_000
