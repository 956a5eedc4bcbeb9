"""A set is changed without touching what was added: each change is a version, which can be undone, found again and
learned from."""

from __future__ import annotations

import gc
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import files
from core.commands.__main__ import main as command
from core.data.formats import ChatMessage, Example
from core.data.labels import ANSWERS
from core.data.reading.choices import Choices
from core.data.sets import edits as edits_module
from core.data.sets import stored_rows as rows_module
from core.data.sets import working
from core.data.sets.edits import describe_change, files_of
from core.data.sets.tokens import Tokenized
from core.data.store import DatasetStore
from core.data.tokenizer import Tokenizer
from core.errors import DataError
from core.recipe import Recipe
from core.runs.run_json import RunFacts, TrainedOn
from core.training import worker
from core.workspace.folder import Workspace
from tests.unit.data.test_tokens import Counting, Silent


def added(store: DatasetStore, tmp_path: Path, count: int = 12, **more: str) -> str:
    rows = [{"question": f"q{i}", "answer": f"a{i}" if i != 5 else ""} | more for i in range(count)]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return store.import_file(file).id


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets", tmp_path)


def texts_of(store: DatasetStore, id: str, version: int | None = None) -> list[tuple[int, str]]:
    rows = store.rows(id, choices=Choices(version=version))
    assert [rows.number(i) for i in range(len(rows))] == [number for number, _ in rows] == rows.numbers().tolist()
    assert list(rows) == [rows[i] for i in range(len(rows))] and [said for _, said in rows.texts()] == [
        rows.as_json(i) for i in range(len(rows))
    ]
    return [(number, example.messages[-1].content) for number, example in rows]


def example(answer: str) -> Example:
    return Example(messages=(ChatMessage("user", "Q"), ChatMessage("assistant", answer)))


def row(answer: str) -> dict[str, str]:
    return {"question": "Q", "answer": answer}


def test_a_version_holds_sixteen_bytes_of_a_row_that_nobody_wrote(
    store: DatasetStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "IN_MEMORY_BYTES", 0)  # as of 130,000 rows
    held = {}
    for turn, count in enumerate((300, 300, 3000)):  # the first reads what is read once
        working.edit_rows(
            store, id := added(store, tmp_path, count, turn=str(turn)), remove=[1], change=[(2, row("new"))]
        )
        gc.collect()
        tracemalloc.start()
        try:
            rows = store.rows(id)
            assert (
                len(rows) == count - 2
                and rows[0][1].messages[-1].content == "new"
                and rows.number(len(rows) - 1) == count
            )
            gc.collect()
            held[count] = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert held[3000] - held[300] < 2700 * 20
    assert [path.name for path in store.root.iterdir() if path.is_file() and path.name.startswith("tmp")] == []


def test_a_look_at_a_set_of_which_every_row_was_changed_holds_a_few_numbers_of_each(
    store: DatasetStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of Python's numbers in the log was some 250 bytes a row at each look."""
    monkeypatch.setattr(rows_module, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(edits_module, "PLAIN_NUMBERS", 200)
    most = {}
    for turn, count in enumerate((300, 300, 3000)):
        id, chosen = added(store, tmp_path, count, turn=str(turn)), [n for n in range(1, count + 1) if n != 6]
        with store.editing(id) as (edits, base):
            edits.change(describe_change(changed=count), base, change=((n, example(f"b{n}")) for n in chosen))
        gc.collect()
        tracemalloc.start()
        try:
            rows = store.rows(id)
            assert rows[len(rows) - 1][1].messages[-1].content == f"b{count}"
            most[count] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert most[3000] - most[300] < 2700 * 80


def test_many_numbers_are_packed(store: DatasetStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits_module, "PLAIN_NUMBERS", 2)
    id, folder = added(store, tmp_path), store.root / "mine"
    expected = dict(texts_of(store, id))
    working.edit_rows(
        store, id, remove=[1, 2, 3], change=[(n, row(f"b{n}")) for n in (4, 7, 9)], add=[row(a) for a in "xyz"]
    )
    expected = {n: f"b{n}" if n in (4, 7, 9) else a for n, a in expected.items() if n > 3} | {16: "x", 17: "y", 18: "z"}
    (log,) = folder.glob("edits-*")
    assert all(isinstance(json.loads(log.read_text())[name], str) for name in ("remove", "change", "add"))
    assert dict(texts_of(store, id)) == expected
    working.edit_rows(store, id, change=[(17, row("Y"))])
    assert dict(texts_of(store, id)) == expected | {17: "Y"}
    assert dict(texts_of(store, id, 1)) == expected and len(store.edits(id).history()) == 2


def test_what_ends_a_change_half_way_leaves_nothing_written(store: DatasetStore, tmp_path: Path) -> None:
    id = added(store, tmp_path)
    working.edit_rows(store, id, add=[row("there")])
    files = {file: file.read_bytes() for file in (store.root / id).iterdir() if file.name != "edits.lock"}
    with pytest.raises(DataError, match="no row 99"), store.editing(id) as (edits, base):
        edits.change(describe_change(changed=2), base, change=((n, example("b")) for n in (1, 99)))
    assert {file: file.read_bytes() for file in files} == files


def test_each_change_is_a_version_and_every_version_stays(store: DatasetStore, tmp_path: Path) -> None:
    id = added(store, tmp_path)
    at_first = texts_of(store, id)
    assert len(at_first) == 11 and at_first[5] == (7, "a6")
    source = store.path(id).read_bytes()
    working.edit_rows(store, id, remove=[1, 3], change=[(7, row("new"))], add=[row("one"), row("two")])
    second = texts_of(store, id)
    assert second == [(2, "a1"), *[(n, f"a{n - 1}") for n in (4, 5)], (7, "new"), *[(n, f"a{n - 1}") for n in range(8,
        13)],
                      (14, "one"), (15, "two")]  # fmt: skip
    working.edit_rows(store, id, change=[(14, row("better")), (7, row("newer"))], remove=[15])
    third = texts_of(store, id)
    assert dict(third) == dict(second[:-1]) | {14: "better", 7: "newer"}
    assert [texts_of(store, id, version) for version in (0, 1, 2)] == [at_first, second, third]
    assert store.get(id).version == 2 and store.get(id).good_rows == 10 == store.report(id).good_rows
    assert store.path(id).read_bytes() == source
    again = DatasetStore(store.root, tmp_path)
    assert texts_of(again, id) == third
    assert [str(change.what) for change in again.edits(id).history()] == [
        "2 rows removed, 1 row rewritten, 2 rows added", "1 row removed, 2 rows rewritten",
    ]  # fmt: skip
    with pytest.raises(DataError, match="no version 3: the newest is 2"):
        texts_of(store, id, 3)


def test_undo_and_redo_go_back_and_forth_and_a_new_change_loses_no_version(store: DatasetStore, tmp_path: Path) -> None:
    id = added(store, tmp_path)
    for number in (1, 2):
        working.edit_rows(store, id, remove=[number])
    with store.editing(id) as (edits, _):
        assert edits.undo().version == 2 and edits.undo().version == 1
        with pytest.raises(DataError, match="no changes to undo"):
            edits.undo()
        assert edits.redo().version == 1
    assert [number for number, _ in texts_of(store, id)][:2] == [2, 3] and store.get(id).version == 1
    made = working.edit_rows(store, id, remove=[9])
    assert (made.version, made.parent) == (3, 1)
    with store.editing(id) as (edits, _), pytest.raises(DataError, match="no undone changes"):
        edits.redo()
    assert [len(texts_of(store, id, version)) for version in range(4)] == [11, 10, 9, 9]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"remove": [99]}, "no row 99"),
        ({"change": [(3, row(""))]}, "the answer is empty"),
        ({"add": ["text"]}, "a JSON object"),
        ({"add": [{"what": 1}]}, "do not match any known format"),
        ({}, "Nothing to remove"),
        ({"remove": [*range(1, 6), *range(7, 13)]}, "No rows would be left"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_changes_nothing(store, tmp_path, asked: dict[str, Any], told: str) -> None:
    id = added(store, tmp_path)
    with pytest.raises(DataError, match=told):
        working.edit_rows(store, id, **asked)
    assert (
        store.get(id).version == 0 and len(texts_of(store, id)) == 11 and not list((store.root / id).glob("written-*"))
    )


def test_the_report_of_a_version_is_of_its_rows_and_goes_with_the_set(store: DatasetStore, tmp_path: Path) -> None:
    """Seen: step 3 told of the file's eight repeated rows after they had been removed."""
    id = added(store, tmp_path)
    before = store.report(id)
    working.edit_rows(store, id, remove=[1], add=[row("a9, said again"), row("a9, said again")])
    report = store.report(id)
    assert (report.rows, report.good_rows, report.error_count) == (before.rows + 1, 12, 1)
    assert [finding.id for finding in report.findings] == ["repeated"] and report.duplicates == 1
    assert [problem.row for problem in report.problems] == [6, 14] and report.problem_count == 2
    assert report.notes[-1].params["version"] == 1 and store.report(id, choices=Choices(version=0)) == before
    with store.editing(id) as (edits, _):
        edits.undo()
    assert store.report(id) == before and list((store.root / id).glob("report-*-1.json"))


def test_samples_are_not_changed(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "one.jsonl").write_text(json.dumps(row("a")), "utf-8")
    store = DatasetStore(tmp_path / "datasets", tmp_path)
    with pytest.raises(DataError, match="cannot be changed here"):
        working.edit_rows(store, "sample:one", add=[row("b")])
    assert len(store.rows("sample:one")) == 1


def test_half_a_line_of_a_crash_is_no_row_and_no_version(store: DatasetStore, tmp_path: Path) -> None:
    id = added(store, tmp_path)
    working.edit_rows(store, id, add=[row("kept")])
    (pool,), (log,) = (store.root / id).glob("written-*"), (store.root / id).glob("edits-*")
    for file in (pool, log):
        file.write_bytes(file.read_bytes() + b'{"row": 0, "exam')
    assert texts_of(store, id)[-1][1] == "kept"
    working.edit_rows(store, id, add=[row("after")])
    assert [words for _, words in texts_of(store, id)][-2:] == ["kept", "after"]


def test_a_change_costs_the_tokens_of_what_was_changed(
    store: DatasetStore, tmp_path: Path, starter_folder: Path
) -> None:
    id, counting = added(store, tmp_path), Counting(Tokenizer(starter_folder))
    Tokenized(store.rows(id), counting, ANSWERS).tokens(np.arange(11))
    working.edit_rows(store, id, remove=[1], change=[(4, row("other words"))], add=[row("new ones")])
    rows = store.rows(id)
    tokens = Tokenized(rows, counting, ANSWERS).tokens(np.arange(len(rows)), trains=True)
    assert counting.encoded == 11 + 2
    fresh = [counting.encode_row(example, ANSWERS)[0].input_ids for _, example in rows]
    assert [tokens.ids(i, 0, int(tokens.lengths[i])) for i in range(len(tokens))] == fresh


def test_a_kind_of_problem_is_mended_everywhere_and_undone(store: DatasetStore, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    rows = [
        {"question": f"Who are you, {i}?", "answer": f"I am {{{{name}}}}, number {i}, and glad to help."}
        for i in range(9)
    ]
    file.write_text("\n".join(map(json.dumps, [*rows, *rows[:2]])), "utf-8")
    id = store.import_file(file).id
    working.repair_rows(store, id, "placeholders", value="Ada")
    assert texts_of(store, id)[3] == (4, "I am Ada, number 3, and glad to help.")
    working.repair_rows(store, id, "repeated")
    assert [number for number, _ in texts_of(store, id)] == list(range(1, 10))
    with pytest.raises(DataError, match="Nothing of type “markup”"):
        working.repair_rows(store, id, "markup")
    with store.editing(id) as (edits, _):
        edits.undo()
    assert len(texts_of(store, id)) == 11


@pytest.mark.parametrize(
    ("kind", "answer"),
    [("placeholders", "I am {{{{name}}}}, number {i}."), ("secrets", "Write to anna{i}@mueller-sohn.de, number {i}.")],
)
def test_rows_that_could_be_rewritten_go_where_that_was_asked_for(
    kind: str, answer: str, store: DatasetStore, tmp_path: Path
) -> None:
    """They were rewritten: the first repair of a kind was taken, whichever button was pressed."""
    file = tmp_path / "mine.jsonl"
    rows = [{"question": f"Who are you, {i}?", "answer": answer.format(i=i)} for i in range(3)]
    file.write_text(
        "\n".join(map(json.dumps, [*rows, {"question": "And you?", "answer": "Nobody in particular."}])), "utf-8"
    )
    id = store.import_file(file).id
    finding = next(each for each in store.report(id).findings if each.id == kind)
    assert [each.action for each in finding.repairs][-1] == "remove" and len(finding.repairs) > 1
    change = working.repair_rows(store, id, kind, value="Ada", action="remove")
    assert change.what == finding.repairs[-1].done and texts_of(store, id) == [(4, "Nobody in particular.")]


def test_a_run_learns_from_the_version_that_it_was_begun_with(make_workspace, tmp_path: Path) -> None:
    space = make_workspace()
    store = DatasetStore(space.datasets, tmp_path)
    id = added(store, tmp_path)
    before = Recipe.parse({"data": {"source": id}})
    working.edit_rows(store, id, remove=[1])
    pinned = store.pinned(before.data)
    assert pinned.version == 1
    working.edit_rows(store, id, remove=[2])

    def read(recipe: Recipe, version: int | None) -> int:
        reporter = Silent()
        reporter.facts = lambda: RunFacts(data=TrainedOn(id=id, version=version) if version is not None else None)
        return len(worker.read_examples(recipe, space, reporter))

    assert read(before, 0) == 11, "begun before the set was changed"
    assert read(before.model_copy(update={"data": pinned}), 1) == 10 and read(before, None) == 9


def test_columns_that_were_guessed_and_columns_that_a_recipe_says_are_one_set(
    store: DatasetStore, tmp_path: Path
) -> None:
    """A run's recipe keeps what was guessed: it would have learned from the set as it was before it was changed."""
    file = tmp_path / "mine.csv"
    file.write_text("frage;antwort\n" + "".join(f"was {i}?;das {i}\n" for i in range(5)), "utf-8")
    id = store.import_file(file).id
    working.edit_rows(store, id, remove=[1])
    choices = store.resolved_choices(id)
    assert choices.columns and len(store.rows(id, choices=choices)) == len(store.rows(id)) == 4
    recipe = Recipe.parse({"data": {"source": id, "columns": dict(choices.columns)}})
    assert store.pinned(recipe.data).version == 1


def test_a_change_that_version_0_1_logged_is_told_without_what_did_not_happen(
    store: DatasetStore, tmp_path: Path
) -> None:
    """It stood on the page as "0 removed, 0 rewritten, 1 added"."""
    id = added(store, tmp_path)
    working.edit_rows(store, id, add=[row("one")])
    (log,) = (store.root / id).glob("edits-*")
    record = json.loads(log.read_text("utf-8"))
    record["what"] = {"key": "sets.change", "params": {"removed": 0, "changed": 0, "added": 1}}
    log.write_text(json.dumps(record) + "\n", "utf-8")
    assert [change.what.render(language) for change in store.edits(id).history() for language in ("en", "de")] == [
        "1 row added", "1 Zeile hinzugefügt",
    ]  # fmt: skip


def test_rows_that_cannot_be_learned_from_are_mended_in_their_places_and_removed(
    store: DatasetStore, tmp_path: Path
) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text("\n".join(json.dumps(row("" if i % 2 else f"a{i}")) for i in range(1, 13)) + "\n{broken\n", "utf-8")
    id = store.import_file(file).id

    def state() -> tuple[list[int], list[int], int, int, int]:
        rows, report = store.rows(id), store.report(id)
        assert [number for number, _ in rows] == [number for number, _ in rows.texts()] == rows.numbers().tolist()
        assert report.good_rows == len(rows) == store.get(id).good_rows
        listed = [problem.row for problem in report.problems if problem.severity == "error"]
        flawed = [shown.number for shown in working.problems(rows).rows]
        assert listed == flawed == rows.flawed_numbers().tolist()
        return rows.numbers().tolist(), flawed, report.rows, report.error_count, report.problem_count

    good = [2, 4, 6, 8, 10, 12]
    at_first = (good, [1, 3, 5, 7, 9, 11, 13], 13, 7, 7)
    assert state() == at_first
    working.edit_rows(
        store, id, change=[(9, row("nine")), (4, row("four")), (1, row("one")), (13, row("last"))], remove=[2, 3]
    )
    mended = ([1, 4, 6, 8, 9, 10, 12, 13], [5, 7, 11], 11, 3, 3)
    assert state() == mended
    assert (
        texts_of(store, id)[0] == (1, "one")
        and texts_of(store, id)[4] == (9, "nine")
        and texts_of(store, id)[-1] == (13, "last")
    )
    for gone in (2, 3, 14):
        with pytest.raises(DataError, match=f"no row {gone}"):
            working.edit_rows(store, id, change=[(gone, row("x"))])
    working.edit_rows(store, id, change=[(9, row("better"))], remove=[1, 5], add=[row("new")])
    assert state() == ([4, 6, 8, 9, 10, 12, 13, 19], [7, 11], 10, 2, 2)
    assert dict(texts_of(store, id))[9] == "better" and dict(texts_of(store, id))[19] == "new"
    with pytest.raises(DataError, match="No rows would be left"):
        working.edit_rows(store, id, remove=[4, 6, 8, 9, 10, 12, 13, 19])
    working.edit_rows(store, id, remove=[4, 6, 8, 9, 10, 12, 13, 19], change=[(7, row("seven"))])
    assert state() == ([7], [11], 2, 1, 1)
    for _ in range(2):
        with store.editing(id) as (edits, _base):
            edits.undo()
    assert state() == mended


def test_a_page_is_found_by_words_and_says_where_the_next_begins(store: DatasetStore, tmp_path: Path) -> None:
    rows = store.rows(added(store, tmp_path, 12))
    first = working.page(rows, 0, 4)
    assert [shown.number for shown in first.rows] == [1, 2, 3, 4] and first.next == 4
    assert [shown.number for shown in working.page(rows, 8, 4).rows] == [10, 11, 12] and working.page(
        rows, 8, 4
    ).next is None
    assert [shown.number for shown in working.page(rows, words="Q1").rows] == [2, 11, 12]
    (bad,) = working.problems(rows).rows
    assert (bad.number, bad.values, bad.problem.key) == (6, {"question": "q5", "answer": ""}, "data.empty_answer")


def test_words_are_found_whatever_signs_are_in_them_in_rows_of_the_file_and_in_written_ones(
    store: DatasetStore, tmp_path: Path
) -> None:
    """Most rows are passed over by the JSON that is kept of them, in which some signs are written as two."""
    texts = ['He said "so".', "a\\b", "Straße", "two\nlines", "tab\there", "汉字", "İstanbul", "role", "content"]
    file = tmp_path / "signs.jsonl"
    file.write_text("\n".join(json.dumps(row(text)) for text in texts), "utf-8")
    id = store.import_file(file).id
    working.edit_rows(store, id, change=[(3, row("Changed Straße"))], add=[row("Added"), row('"')])
    rows = store.rows(id)
    for words in [
        '"',
        'D "S',
        "\\",
        "A\\B",
        "STRASSE",
        "o\nl",
        "\t",
        "字",
        "i̇",
        "messages",
        "Role",
        "{",
        "added",
        "no such",
        "q",
    ]:
        expected = [number for number, example in rows if words.casefold() in working.text_of(example).casefold()]
        assert [shown.number for shown in working.page(rows, words=words).rows] == expected, words


def test_rows_that_cannot_be_learned_from_are_gone_to_without_reading_the_others(
    store: DatasetStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a million rows each was read, to find the few."""
    file = tmp_path / "some.jsonl"
    file.write_text("\n".join(json.dumps(row("" if i % 100 == 7 else "A")) for i in range(500)), "utf-8")
    rows, read = store.rows(store.import_file(file).id), []
    entry = rows.entry
    monkeypatch.setattr(rows, "entry", lambda position: read.append(position) or entry(position))
    first = working.problems(rows, 0, 2)
    second = working.problems(rows, first.next or 0, 3)
    assert [shown.number for shown in (*first.rows, *second.rows)] == [8, 108, 208, 308, 408] and second.next is None
    assert read == [7, 107, 207, 307, 407]


def test_a_table_without_names_that_was_changed_before_anybody_asked_is_read_as_then(
    store: DatasetStore, tmp_path: Path
) -> None:
    """Its first row came back as a row, all numbers moved by one, and its edits were nowhere."""
    (tmp_path / "talk.csv").write_text(
        "".join(f"What is number {i}?;It is the number {i}.\n" for i in range(5)), "utf-8"
    )
    id = store.import_file(tmp_path / "talk.csv").id
    folder, as_then = store.path(id).parent, Choices(header=True)
    assert len(store.rows(id)) == 5
    store.choose(id, as_then)
    working.edit_rows(store, id, remove=[2])
    at_then = texts_of(store, id)
    store.choose(id, Choices())
    settled = store.resolved_choices(id, as_then)
    for there, then in zip(
        files_of(folder, f"None|{settled.key}"),
        files_of(folder, f"None|{settled.model_copy(update={'header': None}).key}"),
        strict=True,
    ):
        if there.exists():
            there.rename(then)
    store = DatasetStore(store.root, tmp_path)
    assert texts_of(store, id) == at_then and len(at_then) == 3 and store.version(id) == 1
    working.edit_rows(store, id, remove=[3])
    assert len(store.rows(id)) == 2 and store.report(id).good_rows == 2 and len(list(folder.glob("edits-*"))) == 1
    assert len(store.rows(id, choices=Choices(header=False))) == 5  # whoever says so reads it anew


def test_sets_are_written_joined_and_split(store: DatasetStore, tmp_path: Path) -> None:
    id = added(store, tmp_path, 12)
    assert working.write(store.rows(id), tmp_path / "out.jsonl") == 11
    other = store.import_file(tmp_path / "out.jsonl", "other")
    assert [example for _, example in store.rows(other.id)] == [example for _, example in store.rows(id)]
    both = working.join(store, [id, other.id], "both", tmp_path / "work")
    assert both.good_rows == 22 and not list((tmp_path / "work").iterdir())
    kept, held = working.split(store, id, 0.25, 1, ("kept", "held"), tmp_path / "work")
    assert (kept.good_rows, held.good_rows) == (8, 3)
    assert sorted(words for part in (kept, held) for _, words in texts_of(store, part.id)) == sorted(
        words for _, words in texts_of(store, id)
    )
    with pytest.raises(DataError, match="leaves one of the two datasets empty"):
        working.split(store, id, 0.01, 1, ("a", "b"), tmp_path / "work")
    assert [part.good_rows for part in working.split(store, id, 1, 1, ("10", "1"), tmp_path / "work")] == [10, 1]
    odd = (
        "owner/pirate-talk:train",
        "长名" * 100,
    )  # no names of files: those of a hub's sets on Windows, two long ones joined anywhere
    assert [part.good_rows for part in working.split(store, id, 1, 1, odd, tmp_path / "work")] == [10, 1]
    (tmp_path / "plain.jsonl").write_text('{"text": "Only a text."}\n' * 3, "utf-8")
    text, before = store.import_file(tmp_path / "plain.jsonl"), len(store.list())
    with pytest.raises(DataError, match="conversations, others plain text"):  # its three rows were lost
        working.join(store, [id, text.id], "mixed", tmp_path / "work")
    assert len(store.list()) == before and not list((tmp_path / "work").iterdir())
    with pytest.raises(DataError, match="could not be saved"):
        working.join(store, [id, other.id], "both", tmp_path / "plain.jsonl")


def test_versions_that_cannot_be_read_for_a_moment_are_not_taken_for_none(
    store: DatasetStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next change was written as the first one, and the versions before it were other rows."""
    id = added(store, tmp_path, 4)
    working.edit_rows(store, id, remove=[1])
    before = texts_of(store, id)

    def refused(path: Path, mode: str) -> Any:
        if path.name.startswith("edits-") and mode == "rb":
            raise PermissionError(13, "held by a scanner")
        return open(path, mode)

    with monkeypatch.context() as patched:
        patched.setattr(files, "open", refused, raising=False)
        for act in (lambda: working.edit_rows(store, id, remove=[2]), lambda: store.rows(id)):
            with pytest.raises(DataError, match="held by a scanner"):
                act()
    assert texts_of(store, id) == before
    working.edit_rows(store, id, remove=[2])
    assert texts_of(store, id, 1) == before and len(texts_of(store, id, 2)) == len(before) - 1


def test_the_commands_say_it_in_json_and_refuse_in_a_sentence(make_workspace, tmp_path: Path, capsys) -> None:
    space: Workspace = make_workspace()
    store = DatasetStore(space.datasets, tmp_path)
    id = added(store, tmp_path)

    def ask(*words: str) -> dict[str, Any]:
        assert command(["data", *words, "--workspace", str(space.root), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert next(info for info in ask("list")["sets"] if info["id"] == id)["good_rows"] == 11
    assert (
        ask("change", id, "--remove", "1", "--set", f"2={json.dumps(row('b'))}", "--add", json.dumps(row("c")))["rows"]
        == 11
    )
    shown = ask("rows", id, "--count", "1")
    assert shown["rows"][0]["row"] == 2 and shown["rows"][0]["messages"][1]["content"] == "b" and shown["next"] == 1
    assert ask("rows", id, "--problems")["rows"][0]["problem"]["sentence"].startswith("the answer is empty")
    assert ask("undo", id)["version"] == 0 and ask("redo", id)["version"] == 1
    assert [change["what"]["sentence"] for change in ask("versions", id)["versions"]] == [
        "1 row removed, 1 row rewritten, 1 row added"
    ]
    assert ask("export", id, str(tmp_path / "out.jsonl"), "--version", "0")["rows"] == 11
    assert [info["good_rows"] for info in ask("split", id, "--share", "0.2")["sets"]] == [9, 2]
    assert [info["good_rows"] for info in ask("split", id, "--count", "3")["sets"]] == [8, 3]
    assert ask("join", id, id, "--name", "twice")["sets"][0]["good_rows"] == 22
    for words, sentence in (
        (("change", id, "--remove", "99"), "no row 99"),
        (("change", id, "--set", "x"), "does not name a row"),
        (("change", id, "--add", "{"), "is not JSON"),
        (("export", id, str(tmp_path / "out.jsonl")), "already exists"),
    ):
        assert command(["data", *words, "--workspace", str(space.root)]) == 2
        assert sentence in capsys.readouterr().err


def test_an_example_is_written_in_any_shape_that_a_file_may_have() -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert working.example_of({"messages": turns}) == working.example_of(
        {"prompt": "q", "completion": "a"} and {"instruction": "q", "output": "a"}
    )
    assert working.example_of({"text": "t"}) == Example(text="t")
    assert working.example_of({"messages": turns}).messages == (ChatMessage("user", "q"), ChatMessage("assistant", "a"))
