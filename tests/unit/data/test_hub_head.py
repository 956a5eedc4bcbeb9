"""The first rows of a hub's data set: from the datasets server, and from the head of its first file where that has none."""

from __future__ import annotations

import gzip
import json
import random

import pytest

from core.data.hub_sets import head as hub_head
from core.data.hub_sets.head import head_of
from core.errors import DataError
from core.hub.sets.about import about
from core.hub.sets.name import SetName
from tests.kit import hub_sets as kit
from tests.unit.hub.conftest import quiet_hub  # noqa: F401 - a fixture

NAME = "owner/pirate-talk"
ROWS = kit.pirates(300)


@pytest.fixture
def hub(monkeypatch):
    with kit.hub_with_viewer(monkeypatch) as server:
        yield server


def head(name: str = NAME):
    told = about(SetName.parse(name))
    return head_of(told, told.parts[0].part)


def test_the_server_tells_the_first_rows_and_which_cells_it_cut(hub):
    kit.put_converted(hub, NAME, {"default/train": [ROWS]})
    found = head()
    assert found.rows == tuple(ROWS[: hub_head.MOST_ROWS]) and found.columns == ("question", "answer") and found.notes == ()
    hub.viewed[f"first-rows?{NAME}:default:train"] = kit.first_rows(NAME, "default", "train", ROWS, cut=["answer"])
    found = head()
    assert found.cut[0] == {"answer"} and [note.key for note in found.notes] == ["hub_set.cells_cut"]


def test_a_disabled_viewer_leaves_the_head_of_the_parquet_file_and_not_the_rest_of_it(hub):
    big = [{"question": f"{i}?", "answer": random.Random(i).randbytes(1_000).hex()} for i in range(3_000)]
    kit.put_converted(hub, NAME, {"default/train": [big]}, group=3_000)
    hub.viewer_status = 500
    sent = hub.bytes_sent
    found = head()
    assert found.rows == tuple(big[: hub_head.MOST_ROWS]) and [note.key for note in found.notes] == ["hub_set.head_of_file"]
    whole = len(hub.repos[f"datasets/{NAME}@{kit.CONVERTED}"]["default/train/0000.parquet"])
    assert hub.bytes_sent - sent < whole / 2


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("train.jsonl", kit.jsonl(ROWS)),
        ("train.json", json.dumps(ROWS).encode()),
        (
            "train.csv",
            b"question,answer\n" + b"".join(b'"%s","%s"\n' % (r["question"].encode(), r["answer"].encode()) for r in ROWS),
        ),
        ("train.jsonl.gz", gzip.compress(kit.jsonl(ROWS))),
    ],
)
def test_the_head_of_a_file_of_text_is_whole_rows(hub, monkeypatch, file, content):
    monkeypatch.setattr(hub_head, "HEAD", 4_000)
    kit.put(hub, NAME, {file: content})
    found = head()
    assert found.rows == tuple(ROWS[: hub_head.MOST_ROWS])


def test_pictures_alone_are_refused_and_beside_text_are_said(hub):
    kit.put_converted(hub, NAME, {"default/train": [[{"image": {"bytes": b"x", "path": "a.png"}}]]})
    hub.viewer_status = 404
    with pytest.raises(DataError) as caught:
        head()
    assert caught.value.message.key == "hub_set.no_text"
    kit.put_converted(hub, "owner/both", {"default/train": [[{"image": {"bytes": b"x", "path": "a.png"}, "text": "a ship"}]]})
    assert "hub_set.some_media" in [note.key for note in head("owner/both").notes]


@pytest.mark.parametrize("token", ["", "hf_aTokenOfSomebodyElse"])
def test_a_gated_set_says_what_to_accept_and_where(hub, monkeypatch, token):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    kit.put_converted(hub, NAME, {"default/train": [ROWS]}, gated="manual")
    hub.gated, hub.viewer_status = True, 403 if token else 401
    with pytest.raises(DataError) as caught:
        head()
    assert caught.value.message.key == ("hub.gated_token" if token else "hub.gated")
    assert f"{hub.url}/datasets/{NAME}" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"<html>", b"PAR1" + bytes(40) + b"PAR1"])
def test_a_file_that_is_not_what_its_name_says_is_a_sentence(hub, content):
    kit.put(hub, NAME, {"train.parquet": content})
    with pytest.raises(DataError) as caught:
        head()
    assert caught.value.message.key == "hub_set.broken_file"
