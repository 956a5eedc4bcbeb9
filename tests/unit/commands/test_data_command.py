"""`python launch.py data ...` in this process: data sets of a hub, in sentences and as JSON, and the exit status."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.api.datasets import dataset_id
from core.commands.__main__ import main
from core.errors import DataError
from core.workspace.folder import Workspace
from tests.kit import hub_sets as kit
from tests.kit.fetching import fetch_here
from tests.kit.hub import FakeHub
from tests.unit.hub.conftest import quiet_hub  # noqa: F401 - a fixture

NAME = "owner/pirate-talk"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with kit.hub_of_sets(monkeypatch, tmp_path) as server:
        yield server


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("LORA_GARAGE_HOME", str(tmp_path / "ws"))
    monkeypatch.setenv("LORA_GARAGE_LANG", "en")

    def command(*arguments: str) -> tuple[int, str, str]:
        code = main(["data", *arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return command


def test_sets_are_found_with_rows_size_licence_and_gate(hub: FakeHub, run: Run) -> None:
    kit.put(hub, NAME, {}, tags=["size_categories:n<1K"], cardData={"license": "mit"}, mainSize=5_000_000, gated="auto")
    code, out, _ = run("search", "pirate", "talk")
    assert code == 0 and all(word in out for word in (NAME, "<1K rows", "5.0 MB", "mit", "gated"))
    (row,) = json.loads(run("search", "pirate", "--json")[1])["sets"]
    assert (row["id"], row["about_rows"], row["bytes"], row["gated"]) == (NAME, "<1K", 5_000_000, True)
    assert run("search", "nothing")[::2] == (
        0,
        "The Hub found no dataset for “nothing”. Try fewer or other words; most pages there are in English.\n",
    )


def test_a_set_is_shown_with_its_parts_and_first_rows(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    kit.put_parts(
        hub, NAME, {"en/train": [kit.pirates(1_500)], "de/train": [kit.pirates(3)]}, cardData={"license": "mit"}
    )
    code, out, _ = run("show", NAME)
    assert code == 0 and all(
        word in out
        for word in ("licence mit", "en:train", "1,500 rows", "de:train", "question: What is thing number 0?")
    )
    report = json.loads(run("show", f"{NAME}:de", "--json")[1])
    assert (
        report["chosen"]["config"] == "de"
        and report["first_rows"]["rows"][0] == kit.pirates(1)[0]
        and len(report["parts"]) == 2
    )
    assert not list((tmp_path / "ws").rglob("*.parquet")), "nothing is downloaded"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("pirates", "is not a dataset name on the Hub"), (f"{NAME}:fr", "has no part “fr”. It has: en:train"),
        ("owner/pirate-tall", "Did you mean one of these")],
)  # fmt: skip
def test_what_cannot_be_shown_is_one_sentence_and_two(hub: FakeHub, run: Run, name: str, sentence: str) -> None:
    kit.put_parts(hub, NAME, {"en/train": [kit.pirates(3)]})
    code, out, err = run("show", name)
    assert (code, out) == (2, "") and sentence in err and err.count("\n") == 1


def test_a_gated_set_is_shown_without_its_rows_and_says_what_to_accept(hub: FakeHub, run: Run) -> None:
    kit.put_parts(hub, NAME, {"en/train": [kit.pirates(3)]}, gated="manual")
    hub.gated = True
    code, out, err = run("show", NAME)
    assert code == 0 and "requires accepting its licence" in out and "Open http" in err
    report = json.loads(run("show", NAME, "--json")[1])
    assert report["first_rows"] is None and report["message"]["key"] == "hub.gated" and report["gated"] is True


def test_a_part_is_added_and_a_recipe_may_name_it(
    hub: FakeHub, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_here(monkeypatch)
    kit.put_parts(hub, NAME, {"en/train": [kit.pirates(120), kit.pirates(30, first=120)]}, cardData={"license": "mit"})
    space = Workspace.open(tmp_path / "ws")
    with pytest.raises(DataError, match=f"data add {NAME}"):
        dataset_id(space, NAME, tmp_path)
    code, out, err = run("add", NAME)
    assert (code, out) == (0, "") and "is here as pirate-talk-en-train: 150 of 150 rows" in err
    assert (
        dataset_id(space, NAME, tmp_path) == dataset_id(space, f"{NAME}:en:train", tmp_path) == "pirate-talk-en-train"
    )
    report = json.loads(run("add", NAME, "--rows", "20", "--json")[1])
    assert (report["rows"], report["origin_name"], report["licence"]) == (20, f"{NAME}:en:train[:20]", "mit") and len(
        report["revision"]
    ) == 40
    with pytest.raises(DataError, match="There is no dataset"):
        dataset_id(space, "data/missing.jsonl", tmp_path)


def test_columns_with_other_names_are_said_when_it_is_added(
    hub: FakeHub, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_here(monkeypatch)
    rows = [{"a": row["question"], "b": "x", "c": row["answer"]} for row in kit.pirates(30)]
    kit.put_parts(hub, NAME, {"en/train": [rows]})
    report = json.loads(run("add", NAME, "--columns", "question=a,answer=c", "--json")[1])
    assert report["choices"]["columns"] == {"a": "question", "c": "answer"} and report["good_rows"] == 30


def test_what_cannot_be_added_is_one_sentence(hub: FakeHub, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_here(monkeypatch)
    kit.put_parts(hub, NAME, {"en/train": [kit.pirates(30)]}, counted={"en/train": 3_000_000})
    code, out, err = run("add", NAME)
    assert (code, out) == (2, "") and "3,000,000 rows" in err and "--rows 20000" in err
    hub.gated = True
    code, out, err = run("add", NAME, "--rows", "5")
    assert (code, out) == (2, "") and "accept the licence" in err


def test_a_file_is_added_and_a_wrong_name_is_said(run: Run, tmp_path: Path) -> None:
    """It said that the file's path is no name of the Hub."""
    file = tmp_path / "mine.csv"
    file.write_text("question,answer\nWho?,Me.\nWhere?,Here.\n", "utf-8")
    assert run("add", str(file))[0] == 0
    report = json.loads(run("add", str(file), "--json")[1])
    assert (report["id"], report["good_rows"]) == ("mine", 2)
    assert (
        "has not been changed" in run("versions", "mine")[2] and "No such rows" in run("rows", "mine", "--problems")[2]
    )
    assert "no file “missing.csv”" in run("add", "missing.csv")[2]
    assert "a file is added whole" in run("add", str(file), "--rows", "1")[2]


def test_a_plan_says_that_nothing_shows_which_column_is_the_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan was printed, and the run with the same data refused."""
    file = tmp_path / "notes.csv"
    file.write_text("title,body\nOne two three,four five six\nSeven eight nine,ten eleven twelve\n", "utf-8")
    assert main(["plan", "--model", "starter", "--data", str(file), "--workspace", str(tmp_path / "ws")]) == 0
    assert "shows which column is the answer" in capsys.readouterr().err
