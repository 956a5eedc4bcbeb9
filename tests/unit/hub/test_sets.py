"""Claims about core.hub.sets: finding a data set, what is told of it, which of its files are what. A hub of our own on
127.0.0.1."""

from __future__ import annotations

import gzip
import json
import random
import socket
import tempfile

import psutil
import pytest

from core.errors import DataError
from core.hub import peek
from core.hub.sets import about as asking
from core.hub.sets.about import SetHead, about
from core.hub.sets.library import SAFE
from core.hub.sets.name import PartName, SetName
from core.hub.sets.search import search
from core.messages import Message
from core.system.lines import Child
from tests.kit import hub_sets as kit
from tests.kit.waits import wait_until
from tests.unit.hub.conftest import SECRET

NAME = "owner/pirate-talk"
# As https://huggingface.co/api/datasets?search=...&expand=... answers (huggingface_hub 2.4's DatasetInfo names the same
# fields).
TOLD = {
    "tags": ["license:mit", "language:en", "language:de", "size_categories:10K<n<100K", "modality:text",
        "format:parquet"],
    "likes": 7, "downloads": 900, "gated": False, "lastModified": "2026-07-26T03:46:27.000Z", "mainSize": 5_000_000,
    "cardData": {"license": "mit", "dataset_info": [{"config_name": "a", "splits": [{"name": "train",
        "num_examples": 15_000}]}]},
}  # fmt: skip


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with kit.hub_of_sets(monkeypatch, tmp_path) as server:
        yield server


def why(told: str) -> str:
    """The refusal of a set, in whose sentence every value found its place."""
    with pytest.raises(DataError) as caught:
        about(SetName.parse(told))
    assert "{" not in str(caught.value) + caught.value.message.render("zh")
    return caught.value.message.key


@pytest.mark.parametrize(
    ("written", "repo", "named"),
    [
        ("a/b", "a/b", ()),
        (" a/b:en ", "a/b", ("en",)),
        ("a/b:en:train", "a/b", ("en", "train")),
        ("datasets/a/b", "a/b", ()),
        ("https://huggingface.co/datasets/a/b/viewer/default/train?row=3", "a/b", ()),
        ("https://huggingface.co/datasets/a/b", "a/b", ()),
    ],
)
def test_a_name_is_taken_as_people_write_it_and_as_a_browser_has_it(written, repo, named):
    assert SetName.parse(written) == SetName(repo, named)


@pytest.mark.parametrize(
    "written", ["", "squad", "a/b:c:d:e", "a/../b", "a/b:", "a/b:x/y", "C:\\data\\a.csv", "./a/b.jsonl:x"]
)
def test_what_is_no_name_says_how_one_is_written(written):
    with pytest.raises(DataError) as caught:
        SetName.parse(written)
    assert caught.value.message.key == "hub_set.bad_id"


@pytest.mark.parametrize("part", [PartName("a/b", "default", "train"), PartName("a/b", "20220301.en", "test", 20_000)])
def test_a_part_in_the_list_of_downloads_reads_as_it_was_written(part):
    assert PartName.parse(str(part)) == part
    assert PartName.parse("owner/model") is None and PartName.parse("datasets/a/b:c:../d") is None


def test_what_the_hub_tells_of_sets_are_rows_in_one_request(hub):
    kit.put(hub, NAME, {}, **TOLD)
    kit.put(hub, "owner/pirate-pictures", {}, tags=["modality:image", "size_categories:n<1K"], gated="auto")
    pictures, pirates = sorted(search("pirate"), key=lambda row: row.id)
    assert (pirates.rows, pirates.about_rows, pirates.bytes, pirates.likes) == (15_000, "10K-100K", 5_000_000, 7)
    assert (pirates.licence, pirates.languages, pirates.modified, pirates.why_not) == (
        "mit",
        ("en", "de"),
        "2026-07-26",
        None,
    )
    assert pictures.gated and pictures.about_rows == "<1K" and pictures.why_not.key == "hub_set.search_media"
    assert [line for line in hub.requests if "dataset" in line] == ["GET /api/datasets"]


@pytest.mark.parametrize(
    ("status", "key"),
    [(429, "hub_search.rate_limit"), (500, "hub_set.search_server_trouble"), (403, "hub_set.search_refused")],
)
def test_a_search_that_gives_nothing_says_why(hub, status, key):
    hub.status = status
    with pytest.raises(DataError) as caught:
        search("pirates")
    assert caught.value.message.key == key


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b'{"error": "no"}', b"[3]"])
def test_a_page_that_is_no_hub_is_said(hub, body):
    hub.body = body
    with pytest.raises(DataError) as caught:
        search("pirates")
    assert caught.value.message.key == "hub_set.search_not_a_hub" and why(NAME) == "hub_set.not_a_hub"


def test_a_hub_that_is_slow_or_not_there_is_said(hub, monkeypatch):
    hub.silent = True
    with monkeypatch.context() as short:
        short.setattr(peek, "PEEK_S", 0.2)
        with pytest.raises(DataError) as caught:
            search("pirates")
        assert caught.value.message.key == "hub_set.search_slow"
        hub.stalls_listings = True
        short.setattr(asking, "LOOK_S", 0.2)
        assert why(NAME) == "hub_set.slow"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert why(NAME) == "hub_set.no_network"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert why(NAME) == "hub_set.offline_mode"


def test_a_set_is_told_with_its_parts_rows_licence_and_gate(hub):
    parts = {"en/train": [kit.pirates(120), kit.pirates(30)], "en/test": [kit.pirates(9)], "de/train": [kit.pirates(4)]}
    kit.put_parts(hub, NAME, parts, **TOLD | {"cardData": {"license": "mit"}})
    dataset = about(SetName.parse(NAME))
    facts = [(each.config, each.split, each.kind, each.files, each.rows) for each in dataset.parts]
    assert facts == [
        ("en", "train", "parquet", 2, 150),
        ("en", "test", "parquet", 1, 9),
        ("de", "train", "parquet", 1, 4),
    ]
    assert (dataset.licence, dataset.gated, dataset.likes) == (
        "mit",
        False,
        7,
    ) and dataset.page == f"{hub.url}/datasets/{NAME}"
    sizes = [len(content) for name, content in hub.repos[f"datasets/{NAME}"].items() if name.startswith("en/train")]
    assert dataset.part.bytes == sum(sizes) and dataset.part.unpacked_bytes == 3 * sum(sizes)
    assert about(SetName(NAME, ("de",))).part.split == "train" and about(SetName(NAME, ("test",))).part.config == "en"
    with pytest.raises(DataError, match="en:train, en:test, de:train"):
        about(SetName(NAME, ("fr",)))
    with pytest.raises(DataError, match="no part “en:dev”"):
        about(SetName(NAME, ("en", "dev")))


def test_without_a_card_files_are_sorted_by_their_names(hub):
    names = ["data/train.jsonl", "data/test.jsonl", "data/dev.jsonl"]
    kit.put(hub, NAME, dict.fromkeys(names, kit.jsonl(kit.pirates(3))) | {"LICENSE.txt": b"MIT"})
    set_about = about(SetName.parse(NAME))
    assert [(each.config, each.split, each.kind, each.rows) for each in set_about.parts] == [
        ("default", split, "json", None) for split in ("train", "validation", "test")
    ]


def test_files_are_sorted_as_the_card_says_and_its_default_comes_first(hub):
    configs = [
        {
            "config_name": "cola",
            "data_files": [{"split": "train", "path": "cola/**"}, {"split": "test", "path": ["x/*.csv"]}],
        },
        {"config_name": "all", "data_files": "**/*.csv", "default": True},
        {"config_name": "gone", "data_files": "nothing/*.csv"},
        {"config_name": "below", "data_dir": "x"},
    ]
    files = dict.fromkeys(["cola/a/1.csv", "cola/2.csv", "x/3.csv", "x/y/4.csv"], b"question,answer\na,b\n")
    kit.put(hub, NAME, files, cardData={"configs": configs})
    parts = about(SetName.parse(NAME)).parts
    assert [(each.config, each.split, each.files) for each in parts] == [
        ("all", "train", 4), ("cola", "train", 2), ("cola", "test", 1), ("below", "train", 2),
    ]  # fmt: skip


def test_many_configurations_cost_no_question_each(hub):
    kit.put_parts(hub, NAME, {f"c{i}/train": [kit.pirates(2)] for i in range(12)})
    assert len(about(SetName.parse(NAME)).parts) == 12
    assert len([line for line in hub.requests if "/tree/" in line]) <= 4


def test_the_first_rows_are_shown_with_classes_by_name_and_of_a_large_file_little_comes(hub):
    label = {"class_label": {"names": {"0": "friend", "1": "foe"}}}
    features = [{"name": "text", "dtype": "string"}, {"name": "label", "dtype": label}]
    rows = [{"text": random.Random(i).randbytes(1_000).hex(), "label": i % 2} for i in range(12_000)]
    info = {"features": features, "splits": [{"name": "train", "num_bytes": 1, "num_examples": 12_000}]}
    kit.put(hub, NAME, {"train.parquet": kit.parquet(rows, group=12_000)}, cardData={"dataset_info": info})
    set_about = about(SetName.parse(NAME), with_rows=True)
    assert isinstance(set_about.head, SetHead) and set_about.head.columns == ("text", "label")
    assert [row["label"] for row in set_about.head.rows] == ["friend", "foe"] * 5
    assert hub.bytes_sent < len(hub.repos[f"datasets/{NAME}"]["train.parquet"]) / 2


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("train.jsonl", kit.jsonl(kit.pirates(300))),
        ("train.json", json.dumps(kit.pirates(300)).encode()),
        ("train.csv", b"question,answer\n" + b"".join(b'"%s","%s"\n' % (r["question"].encode(),
            r["answer"].encode()) for r in kit.pirates(300))),
        ("train.jsonl.gz", gzip.compress(kit.jsonl(kit.pirates(300)))),
    ],
)  # fmt: skip
def test_the_first_rows_of_each_kind_of_file_are_whole(hub, file, content):
    kit.put(hub, NAME, {file: content})
    head = about(SetName.parse(NAME), with_rows=True).head
    assert isinstance(head, SetHead) and head.rows == tuple(kit.pirates(10))


def test_a_word_that_means_nothing_to_others_stays_a_word(hub):
    kit.put(hub, NAME, {"train.csv": b"question,answer\nCountry of Windhoek?,NA\n"})
    head = about(SetName.parse(NAME), with_rows=True).head
    assert isinstance(head, SetHead) and head.rows[0]["answer"] == "NA"


def test_pictures_alone_are_refused_and_beside_text_are_named(hub):
    picture = {"bytes": b"x", "path": "a.png"}
    for name, row in (("owner/seen", {"image": picture}), ("owner/both", {"image": picture, "text": "a ship"})):
        features = [
            {"name": "image", "dtype": "image"},
            *([{"name": "text", "dtype": "string"}] if "text" in row else []),
        ]
        kit.put(hub, name, {"train.parquet": kit.parquet([row])}, cardData={"dataset_info": {"features": features}})
    refused = about(SetName.parse("owner/seen"), with_rows=True).head
    assert isinstance(refused, Message) and refused.key == "hub_set.no_text"
    head = about(SetName.parse("owner/both"), with_rows=True).head
    assert isinstance(head, SetHead) and head.left_out == ("image",) and head.rows == ({"text": "a ship"},)


@pytest.mark.parametrize("content", [b"", b"<html>", b"PAR1" + bytes(40) + b"PAR1"])
def test_a_file_that_is_not_what_its_name_says_is_a_sentence(hub, content):
    kit.put(hub, NAME, {"train.parquet": content})
    failure = about(SetName.parse(NAME), with_rows=True).head
    assert isinstance(failure, Message) and failure.key == "hub_set.broken_file"


@pytest.mark.parametrize("token", ["", SECRET])
def test_a_gated_set_says_what_to_accept_and_where(hub, monkeypatch, token):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    kit.put_parts(hub, NAME, {"default/train": [kit.pirates(3)]}, gated="manual")
    hub.gated = True
    set_about = about(SetName.parse(NAME), with_rows=True)
    assert (
        set_about.gated
        and isinstance(set_about.head, Message)
        and set_about.head.key == ("hub.gated_token" if token else "hub.gated")
    )
    with pytest.raises(DataError, match=f"{hub.url}/datasets/{NAME}"):
        set_about.part  # noqa: B018 - it raises


def test_a_card_that_names_files_of_this_pc_gets_none_of_them(hub, tmp_path):
    """The library would read any address that a card has."""
    (tmp_path / "secret.txt").write_text("a secret")
    kit.put(
        hub,
        NAME,
        {"a.txt": b"text"},
        cardData={"configs": [{"config_name": "a", "data_files": str(tmp_path / "*.txt")}]},
    )
    assert why(NAME) == "hub_set.nothing_readable"


@pytest.mark.parametrize(
    ("files", "key"),
    [
        (["pirate-talk.py", "README.md"], "hub_set.only_script"),
        (["a.jpg", "b.jpg"], "hub_set.only_media"),
        (["train/0.tar"], "hub_set.only_media"),
        (["data.xlsx"], "hub_set.nothing_readable"),
        (["weights.pkl"], "hub_set.nothing_readable"),
        (["README.md", ".gitattributes"], "hub_set.empty"),
        (["../../evil.jsonl"], "hub_set.nothing_readable"),
    ],
)
def test_a_set_without_rows_that_can_be_read_says_what_it_has(hub, files, key):
    kit.put(hub, NAME, dict.fromkeys(files, b"x"))
    assert why(NAME) == key


def test_an_unknown_name_names_its_neighbours(hub):
    kit.put(hub, NAME, {})
    assert why("owner/pirat-talk") == "hub_set.missing_near"
    with pytest.raises(DataError, match="pirate-talk"):
        about(SetName.parse("owner/pirate-talks"))
    assert why("nobody/nothing-at-all") == "hub_set.missing"


@pytest.mark.parametrize("address", ["https://example.org/x.csv", "s3://bucket/x.csv", "foo://x.csv"])
def test_a_configuration_whose_files_lie_elsewhere_is_left_out_and_the_others_can_be_had(hub, address):
    configs = [
        {"config_name": "good", "data_files": "good.csv", "default": True},
        {"config_name": "away", "data_files": address},
    ]
    kit.put(hub, NAME, {"good.csv": b"question,answer\na,b\n"}, cardData={"configs": configs})
    assert [part.config for part in about(SetName.parse(NAME)).parts] == ["good"]


def test_what_the_library_asks_carries_the_token_as_all_else_does(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    kit.put_parts(hub, NAME, {"default/train": [kit.pirates(3)]})
    assert isinstance(about(SetName.parse(NAME), with_rows=True).head, SetHead)
    assert set(hub.tokens) == {f"Bearer {SECRET}"} and hub.file_requests(".parquet")


def test_a_stale_token_does_not_keep_from_what_is_open_and_is_never_said(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    hub.bad_tokens = True
    kit.put_parts(hub, NAME, {"default/train": [kit.pirates(3)]})
    set_about = about(SetName.parse(NAME), with_rows=True)
    assert isinstance(set_about.head, SetHead) and len(set_about.head.rows) == 3
    hub.status = 401
    assert why(NAME) == "hub_set.bad_token"


@pytest.mark.parametrize(
    "name", ["../a.csv", "a/../b.csv", "/a.csv", "a\\b.csv", "C:a.csv", "a/.b.csv", "a//b.csv", "x\n.csv", "a /b.csv"]
)
def test_a_file_that_would_leave_its_folder_is_never_taken(name):
    assert not SAFE.fullmatch(name) and SAFE.fullmatch("data/en/train-00000.parquet")


def test_the_process_that_looks_asks_nobody_else_keeps_nothing_and_is_ended_where_the_hub_is_silent(
    hub, monkeypatch, tmp_path
):
    """Seen: the library counts each look at a set at another address, by the name of the set."""
    elsewhere = socket.create_server(("127.0.0.1", 0))
    elsewhere.setblocking(False)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{elsewhere.getsockname()[1]}")
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr(asking, "Child", Child)
    kit.put_parts(hub, NAME, {"default/train": [kit.pirates(30)]})
    set_about = about(SetName.parse(NAME), with_rows=True)
    assert (
        isinstance(set_about.head, SetHead)
        and set_about.head.rows == tuple(kit.pirates(10))
        and set_about.part.rows == 30
    )
    with elsewhere, pytest.raises(BlockingIOError):
        elsewhere.accept()
    assert not any((tmp_path / "home").iterdir()) and not any(temporary.iterdir())
    hub.stalls_listings = True
    monkeypatch.setattr(asking, "LOOK_S", 0.2)
    assert why(NAME) == "hub_set.slow"
    wait_until(
        lambda: not [each for each in psutil.Process().children(recursive=True) if asking.WORKER in each.cmdline()]
    )


def test_a_look_whose_process_dies_is_said_as_one_and_leaves_no_folder(monkeypatch, tmp_path):
    """Seen: the sentence of a download that ended, though nothing was downloaded."""

    class Dying:
        def __init__(self, *_: object) -> None: ...

        def listen(self, heard, ended) -> None:
            ended(-9)

        def send(self, **_: object) -> None: ...

        def end(self, _: float) -> None: ...

    monkeypatch.setattr(asking, "Child", Dying)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert why(NAME) == "hub_set.look_ended" and not any(tmp_path.iterdir())
