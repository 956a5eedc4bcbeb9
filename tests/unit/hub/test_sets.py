"""Claims about core.hub.sets: finding a data set, what is told of it, which of its files are what. A hub of our own on 127.0.0.1."""

from __future__ import annotations

import pytest

from core.errors import DataError
from core.hub import peek
from core.hub.listing import Listing
from core.hub.sets import viewer
from core.hub.sets.about import about
from core.hub.sets.name import PartName, SetName
from core.hub.sets.parts import part_of, parts_of, safe_name
from core.hub.sets.search import search
from tests.kit import hub_sets as kit
from tests.unit.hub.conftest import SECRET

NAME = "owner/pirate-talk"
# As https://huggingface.co/api/datasets?search=...&expand=... answers (huggingface_hub 2.4's DatasetInfo names the same fields).
TOLD = {
    "tags": ["license:mit", "language:en", "language:de", "size_categories:10K<n<100K", "modality:text", "format:parquet"],
    "likes": 7, "downloads": 900, "gated": False, "lastModified": "2026-07-26T03:46:27.000Z", "mainSize": 5_000_000,
    "cardData": {"license": "mit", "dataset_info": [{"config_name": "a", "splits": [{"name": "train", "num_examples": 15_000}]}]},
}  # fmt: skip


@pytest.fixture
def hub(monkeypatch):
    with kit.hub_with_viewer(monkeypatch) as server:
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


@pytest.mark.parametrize("written", ["", "squad", "a/b:c:d:e", "a/../b", "a/b:", "a/b:x/y", "C:\\data\\a.csv", "./a/b.jsonl:x"])
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
    assert (pirates.licence, pirates.languages, pirates.modified, pirates.why_not) == ("mit", ("en", "de"), "2026-07-26", None)
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
        assert why(NAME) == "hub_set.slow"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert why(NAME) == "hub_set.no_network"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert why(NAME) == "hub_set.offline_mode"


def test_a_set_is_told_with_its_parts_rows_licence_and_gate(hub):
    kit.put_converted(
        hub, NAME, {"en/train": [kit.pirates(120), kit.pirates(30)], "en/test": [kit.pirates(9)], "de/partial-train": [kit.pirates(4)]}, **TOLD
    )  # fmt: skip
    told = about(SetName.parse(NAME))
    facts = [(each.part.config, each.part.split, len(each.part.files), each.rows, each.at_least) for each in told.parts]
    assert facts == [("en", "train", 2, 150, False), ("en", "test", 1, 9, False), ("de", "train", 1, 4, True)]
    assert (told.licence, told.gated, told.likes) == ("mit", False, 7) and told.page == f"{hub.url}/datasets/{NAME}"
    assert all(each.part.bytes == sum(file.size for file in each.part.files) > 0 and each.memory for each in told.parts)
    assert told.part(("de",)).part.split == "train" and told.part(("test",)).part.config == "en"
    with pytest.raises(DataError, match="en:train, en:test, de:train"):
        told.part(("fr",))
    with pytest.raises(DataError, match="no part “en:dev”"):
        told.part(("en", "dev"))


def test_without_a_viewer_and_its_parquet_the_sets_own_files_are_read(hub, monkeypatch):
    monkeypatch.delenv(viewer.SERVER)
    kit.put(hub, NAME, {"README.md": b"", "data/train-00000-of-00001.jsonl": kit.jsonl(kit.pirates(3)), "data/test.jsonl": b"{}", "LICENSE.txt": b"MIT"})  # fmt: skip
    told = about(SetName.parse(NAME))
    assert [(each.part.config, each.part.split, each.part.kind, each.rows) for each in told.parts] == [
        ("default", "train", "jsonl", None),
        ("default", "test", "jsonl", None),
    ]
    assert not any("/viewer" in line for line in hub.requests), "a mirror has no datasets server"


def test_files_are_sorted_as_the_card_says_with_its_patterns(hub):
    configs = [
        {"config_name": "cola", "data_files": [{"split": "train", "path": "cola/**"}, {"split": "test", "path": ["x/*.csv"]}]},
        {"config_name": "all", "data_files": "**/*.csv"},
        {"config_name": "odd"},
        "no config",
    ]
    kit.put(
        hub, NAME, {"cola/a/1.csv": b"a", "cola/2.csv": b"b", "x/3.csv": b"c", "x/y/4.csv": b"d"}, cardData={"configs": configs}
    )
    parts = about(SetName.parse(NAME)).parts
    assert [(each.part.config, each.part.split, [file.name for file in each.part.files]) for each in parts] == [
        ("cola", "train", ["cola/2.csv", "cola/a/1.csv"]),
        ("cola", "test", ["x/3.csv"]),
        ("all", "train", ["cola/2.csv", "cola/a/1.csv", "x/3.csv", "x/y/4.csv"]),
    ]


def test_what_the_hub_could_not_convert_is_read_from_its_own_files(hub):
    kit.put_converted(hub, NAME, {"en/train": [kit.pirates(3)]})
    configs = [{"config_name": name, "data_files": f"{name}.jsonl"} for name in ("en", "de")]
    hub.repos[f"datasets/{NAME}"] |= {"en.jsonl": b"{}", "de.jsonl": b"{}"}
    hub.rows[-1]["cardData"] = {"configs": configs}
    assert [(each.part.config, each.part.kind) for each in about(SetName.parse(NAME)).parts] == [("en", "parquet"), ("de", "jsonl")]


@pytest.mark.parametrize(
    ("files", "key"),
    [
        (["pirate-talk.py", "README.md"], "hub_set.only_script"),
        (["a.jpg", "b.jpg", "README.md"], "hub_set.only_media"),
        (["train/0.tar"], "hub_set.only_media"),
        (["data.arrow", "state.json"], "hub_set.nothing_readable"),
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


def test_a_stale_token_does_not_keep_from_what_is_open_and_is_never_said(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    hub.bad_tokens = True
    kit.put_converted(hub, NAME, {"default/train": [kit.pirates(3)]})
    assert about(SetName.parse(NAME)).parts[0].rows == 3
    hub.status = 401
    assert why(NAME) == "hub_set.bad_token"


@pytest.mark.parametrize("status", [401, 404, 429, 500, 501])
def test_a_viewer_that_is_off_or_in_trouble_costs_only_the_number_of_rows(hub, status):
    kit.put_converted(hub, NAME, {"default/train": [kit.pirates(3)]})
    hub.viewer_status = status
    (only,) = about(SetName.parse(NAME)).parts
    assert only.rows is None and only.part.bytes > 0


@pytest.mark.parametrize("told", [[], {"size": 3}, {"size": {"splits": [3, {"config": 1}]}}, {"size": {"splits": None}}])
def test_what_a_viewer_answers_beside_the_point_is_no_size(hub, told):
    kit.put_converted(hub, NAME, {"default/train": [kit.pirates(3)]})
    hub.viewed[f"size?{NAME}"] = told
    assert about(SetName.parse(NAME)).parts[0].rows is None


@pytest.mark.parametrize(
    "name", ["../a.csv", "a/../b.csv", "/a.csv", "a\\b.csv", "C:a.csv", "a/.b.csv", "a//b.csv", "x\n.csv", "a /b.csv"]
)
def test_a_file_that_would_leave_its_folder_is_never_taken(name):
    assert not safe_name(name) and safe_name("data/en/train-00000.parquet")


def test_of_parts_the_first_configurations_train_is_what_is_meant():
    class Info:
        sha, siblings, card_data = "0" * 40, [], None

    listing = Listing("a/b", Info())
    listing.siblings = dict.fromkeys(["data/test.csv", "data/train.csv", "data/dev.csv"])
    listing.file = lambda name: name
    parts = parts_of(listing, None)
    assert part_of(parts, "a/b", ()).split == "train" and [part.split for part in parts] == ["train", "validation", "test"]
