"""Tokens are counted once and kept: the same pieces as row by row, found again by whoever asks, made again where they
are damaged."""

from __future__ import annotations

import gc
import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import files
from core.data.formats import ChatMessage, Example
from core.data.labels import ANSWERS, Encoded, FullExample, Learning, LongExamples, fit
from core.data.preview import Preview
from core.data.row_order import Schedule
from core.data.sets import segment
from core.data.sets import tokens as tokens_module
from core.data.sets.earliest import earliest
from core.data.sets.pieces import Pieces, learned_of, lengths_of
from core.data.sets.segment import Builder, Counted, Segment
from core.data.sets.tokens import Tokenized, counted
from core.data.store import DatasetStore
from core.data.template import Rendered
from core.data.tokenizer import Tokenizer
from core.data.validation_split import split
from core.errors import StopRequested
from core.messages import msg
from core.recipe import Recipe
from core.training.tokenizing import tokenize
from tests.kit.files import link_or_copy


@pytest.fixture(scope="module")
def tokenizer(starter_folder: Path) -> Tokenizer:
    return Tokenizer(starter_folder)


class Counting:
    """A tokenizer that counts what it is asked to encode."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self.encoded = tokenizer, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode_row(self, *args: Any) -> list[FullExample]:
        self.encoded += 1
        return self._tokenizer.encode_row(*args)


class AsTheFirst(Counting):
    """To which each row is as long as the first."""

    first: list[FullExample] | None = None

    def encode_row(self, *args: Any) -> list[FullExample]:
        self.first = self.first or super().encode_row(*args)
        return self.first


class Silent:
    """Stands where the worker's reporter stands."""

    def __init__(self) -> None:
        self.run = self

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **more: None


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets", tmp_path)


def added(store: DatasetStore, tmp_path: Path, count: int = 40) -> str:
    rows = [{"question": f"What is {i}?", "answer": f"It is {i}. " * (1 + i % 7)} for i in range(count)]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return store.import_file(file).id


def kept(store: DatasetStore) -> list[Path]:
    return sorted(store.root.glob("*/tokens-*/*.tokens"))


def at(*positions: int) -> np.ndarray:
    return np.array(positions, np.int64)


# ---- the same as row by row ----------------------------------------------------------------------


def without_first(row: Encoded) -> tuple[list[int], list[bool], int]:
    return row.input_ids, row.learned[1:], row.cut


@settings(derandomize=True, database=None, deadline=None)
@given(
    wholes=st.lists(
        st.lists(st.booleans(), min_size=1, max_size=40).flatmap(
            lambda flags: st.tuples(st.just(flags), st.booleans())
        ),
        max_size=6,
    ),
    limit=st.integers(2, 20),
    how=st.sampled_from(["cut", "split", "drop"]),
    overlap=st.integers(0, 30),
)
def test_pieces_out_of_arrays_are_the_pieces_of_each_row(
    wholes: list[tuple[list[bool], bool]], limit: int, how: LongExamples, overlap: int
) -> None:
    """`fit` knows one row, `Pieces` arrays of all: neither is made of the other."""
    text = "a. b\n\nc, "
    made = [
        FullExample([100 * n + i for i in range(len(flags))], [True] * len(flags) if is_text else flags,
              text * len(flags), [(i, i + 1) for i in range(len(flags))], None if is_text else Rendered("", ()))
        for n, (flags, is_text) in enumerate(wholes)
    ]  # fmt: skip
    builder = Builder()
    for number, full in enumerate(made):
        builder.add(number, 0, [counted(full)])
    held = Tokenized([], None, ANSWERS)
    held._keep(builder)
    pieces = Pieces.from_tokens(held.tokens(np.arange(len(made))), limit, how, overlap)
    expected = [[row for row in fit(full, limit, how, overlap) if row.learned_count] for full in made]
    assert [without_first(row) for row in pieces] == [without_first(row) for rows in expected for row in rows]
    assert list(pieces.per_example) == list(map(len, expected))
    assert list(lengths_of(pieces)) == list(lengths_of([*pieces])) and list(learned_of(pieces)) == list(
        learned_of([*pieces])
    )
    assert sum(pieces.lost) == sum(row.cut for row in pieces)


def test_rows_come_in_the_order_that_was_asked_for_whoever_counted_them(
    store: DatasetStore, tmp_path: Path, tokenizer
) -> None:
    rows = store.rows(added(store, tmp_path))
    for some in (at(3, 1), at(30, 2, 29), at(7)):
        Tokenized(rows, tokenizer, ANSWERS).tokens(some)
    positions = at(29, 0, 3, 7, 39, 1, 3)
    tokens = Tokenized(rows, tokenizer, ANSWERS).tokens(positions, trains=True)
    expected = [tokenizer.encode_row(rows[int(i)][1], ANSWERS)[0].input_ids for i in positions]
    assert [tokens.ids(i, 0, int(tokens.lengths[i])) for i in range(len(tokens))] == expected and len(kept(store)) == 4


# ---- once ----------------------------------------------------------------------------------------


def test_what_the_page_counted_a_run_finds_and_the_next_run_finds_all(
    store: DatasetStore, tmp_path: Path, tokenizer
) -> None:
    id = added(store, tmp_path)
    counting = Counting(tokenizer)
    preview = Preview.measure(store.rows(id), counting)
    assert counting.encoded == 40
    again = DatasetStore(store.root, tmp_path)
    recipe = Recipe.parse({"data": {"source": id, "max_length": 64}})
    train, evaluation = tokenize(again.rows(id).examples, recipe, counting, Silent())
    assert counting.encoded == 40 and len(train) + len(evaluation) == preview.counts(64).pieces
    fresh, _ = tokenize([example for _, example in again.rows(id)], recipe, tokenizer, Silent())
    assert list(train) == list(fresh), "as if nothing had been kept"
    everything = Learning("everything")
    Tokenized(again.rows(id), counting, everything).tokens(at(0))
    assert counting.encoded == 41, "another way to learn has other tokens that are learned"


def test_another_tokenizer_or_template_counts_anew_and_the_oldest_ways_go(
    store, tmp_path, tokenizer, starter_folder, monkeypatch
) -> None:
    monkeypatch.setattr(tokens_module, "KEPT_COUNTINGS", 2)
    rows, folders = store.rows(added(store, tmp_path)), []
    for number in range(3):
        folder = tmp_path / f"model-{number}"
        folder.mkdir()
        for file in starter_folder.glob("*.json"):
            link_or_copy(file, folder / file.name)
        (folder / "chat_template.jinja").write_text(tokenizer.template.source + "{# " + "x" * number + " #}", "utf-8")
        counting = Counting(Tokenizer(folder))
        Tokenized(rows, counting, ANSWERS).tokens(at(0, 1))
        assert counting.encoded == 2
        folders.append(counting)
    assert len(list(store.root.glob("*/tokens-*"))) == tokens_module.KEPT_COUNTINGS
    Tokenized(rows, folders[-1], ANSWERS).tokens(at(1, 0))
    assert folders[-1].encoded == 2


def test_what_was_counted_before_a_stop_is_not_lost(
    store: DatasetStore, tmp_path: Path, tokenizer, monkeypatch
) -> None:
    monkeypatch.setattr(tokens_module, "SEGMENT_ROWS", 7)
    rows, reports = store.rows(added(store, tmp_path, 60)), []

    def stop(ready: int) -> None:
        reports.append(ready)
        if ready >= 40:
            raise StopRequested

    with pytest.raises(StopRequested):
        Tokenized(rows, tokenizer, ANSWERS).tokens(np.arange(60), stop)
    counting = Counting(tokenizer)
    Tokenized(rows, counting, ANSWERS).tokens(np.arange(60), reports.append)
    assert counting.encoded == 20 and reports == [0, 20, 40, 40]
    assert len(kept(store)) == 6 + 3


def test_a_row_that_the_template_refuses_is_remembered_as_refused(
    store: DatasetStore, tmp_path: Path, tokenizer
) -> None:
    file = tmp_path / "mine.jsonl"
    refused = {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        "tools": [{"name": "t"}],
    }
    file.write_text("\n".join(map(json.dumps, [{"messages": refused["messages"]}, refused])), "utf-8")
    rows = store.rows(store.import_file(file).id)
    for _ in range(2):
        counting = Counting(tokenizer)
        tokens = Tokenized(rows, counting, ANSWERS).tokens(at(1, 0, 1))
        assert [(place, why.key) for place, why in tokens.refused] == [
            (0, "template.no_tools"),
            (2, "template.no_tools"),
        ]
        assert list(tokens.counts) == [0, 1, 0] and list(tokens.row) == [1]
    assert counting.encoded == 0


# ---- damage --------------------------------------------------------------------------------------


def flip(raw: bytes, place: int) -> bytes:
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


HARMS: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda raw: raw[:-5],
    "longer": lambda raw: raw + b"\0" * 8,
    "a bit at the beginning": lambda raw: flip(raw, 9),
    "a bit of the schema": lambda raw: flip(raw, 200),
    "a bit of the numbers": lambda raw: flip(raw, len(raw) // 2),
    "a bit at the end": lambda raw: flip(raw, len(raw) - 3),
    "empty": lambda raw: b"",
    "other": lambda raw: b"x" * 1000,
}


def is_mapped(path: Path) -> bool:
    maps = Path("/proc/self/maps")
    return maps.exists() and str(path) in maps.read_text()


@pytest.fixture
def mapped_files_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows. Linux."""
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if is_mapped(path):
            raise PermissionError(13, "mapped", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)


@pytest.mark.usefixtures("mapped_files_stay")
@pytest.mark.parametrize("harm", HARMS)
def test_damaged_tokens_are_counted_again(store: DatasetStore, tmp_path: Path, tokenizer, harm: str) -> None:
    rows = store.rows(added(store, tmp_path))
    Tokenized(rows, tokenizer, ANSWERS).tokens(np.arange(40))  # maps no file: a file that is mapped is not removed
    in_memory = Tokenized([rows[place] for place in range(40)], tokenizer, ANSWERS)
    expected = list(Pieces.from_tokens(in_memory.tokens(np.arange(40), trains=True), 64, "cut"))
    (file,) = kept(store)
    file.write_bytes(HARMS[harm](file.read_bytes()))
    counting = Counting(tokenizer)
    again = Tokenized(rows, counting, ANSWERS).tokens(np.arange(40), trains=True)
    assert list(Pieces.from_tokens(again, 64, "cut")) == expected and counting.encoded == 40
    assert kept(store) != [file] and len(kept(store)) == 1


@pytest.mark.parametrize("where", ["before", "while it is read"])
def test_tokens_that_somebody_removes_are_counted_again(
    store: DatasetStore, tmp_path: Path, tokenizer, where: str
) -> None:
    rows = store.rows(added(store, tmp_path))
    Tokenized(rows, tokenizer, ANSWERS).tokens(np.arange(40))
    held = Tokenized(rows, tokenizer, ANSWERS) if where != "before" else None
    kept(store)[0].unlink()
    counting = Counting(tokenizer)
    held = held or Tokenized(rows, counting, ANSWERS)
    held._tokenizer = counting
    assert len(held.tokens(np.arange(40), trains=True)) == 40 and counting.encoded == 40


def test_where_the_disk_takes_nothing_tokens_are_counted_all_the_same(store, tmp_path, tokenizer, monkeypatch) -> None:
    rows = store.rows(added(store, tmp_path))

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "replace", full)
    tokens = Tokenized(rows, tokenizer, ANSWERS).tokens(np.arange(40), trains=True)
    assert len(Pieces.from_tokens(tokens, 64, "cut")) == 40 and kept(store) == []


@pytest.mark.usefixtures("mapped_files_stay")
def test_a_disk_that_gives_back_something_else_is_not_asked_for_ever(store, tmp_path, tokenizer, monkeypatch) -> None:
    rows, replace = store.rows(added(store, tmp_path)), files.replace
    monkeypatch.setattr(files, "replace", lambda path, data: replace(path, flip(data, len(data) - 3)))
    tokens = Tokenized(rows, tokenizer, ANSWERS).tokens(np.arange(40), trains=True)
    assert len(Pieces.from_tokens(tokens, 64, "cut")) == 40 and kept(store) == []


def test_a_deleted_set_takes_its_tokens_with_it(store: DatasetStore, tmp_path: Path, tokenizer) -> None:
    id = added(store, tmp_path)
    Tokenized(store.rows(id), tokenizer, ANSWERS).tokens(at(0))
    assert kept(store)
    store.delete(id)
    assert not kept(store) and not list(store.root.glob("*/"))[1:]


def test_a_segment_reads_what_a_builder_wrote(tmp_path: Path) -> None:
    builder = Builder()
    text = Counted(2, [(1, 2)], ((1,), (), ()), (1, 2))
    builder.add(9, 1, [Counted(4, [(1, 2), (3, 4)], None, (7, 8, 9, 10), True, 2), text])
    builder.add(4, 2, [Counted(1, [], None, (5,))])
    builder.refuse(5, msg("template.no_tools"))
    path = segment.write(builder.table(), tmp_path / "way")
    read = segment.read(path)
    assert read == builder.table().drop_columns(["ids"])
    assert read["borders"].to_pylist() == [None, [[1], [], []], None, None]
    ids, begins = Segment(path).ids
    assert ids.tolist() == [7, 8, 9, 10, 1, 2, 5] and begins.tolist() == [0, 4, 6, 7, 7]


# ---- many rows -----------------------------------------------------------------------------------


def test_what_a_run_holds_of_a_row_is_some_numbers(store, tmp_path: Path, tokenizer) -> None:
    """Of a million rows 70 MB. A list of Python's for each would be 200 bytes, its ids some 100 more."""
    held = {}
    for count in (300, 300, 3000):  # the first reads what is read once
        rows = store.rows(name := added(store, tmp_path, count)).examples
        Tokenized(rows.rows, AsTheFirst(tokenizer), ANSWERS).tokens(np.arange(count))
        gc.collect()
        tracemalloc.start()
        try:
            recipe = Recipe.parse({"data": {"source": name}})
            train, measured = tokenize(rows, recipe, tokenizer, Silent())
            steps = [Schedule.from_recipe(recipe, lengths_of(train), packing).steps() for packing in (True, False)]
            assert len(train) + len(measured) == count and all(map(next, steps))
            gc.collect()
            held[count] = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    print(f"{(held[3000] - held[300]) / 2700:.0f} bytes a row")
    assert held[3000] - held[300] < 2700 * 80


@pytest.mark.parametrize(
    "more", [{}, {"long_examples": "split"}, {"max_steps": 9}, {"objective": "dpo"}, {"objective": "kto"}], ids=str
)
def test_rows_that_lie_on_disk_are_the_rows_counted_in_memory(store, tmp_path: Path, tokenizer, more) -> None:
    file = tmp_path / "mine.jsonl"
    answers = [f"It is {i}. " * (1 + i % 9) for i in range(120)]
    shapes = {
        "dpo": lambda i: {"chosen": answers[i], "rejected": answers[i - 1]},
        "kto": lambda i: {"completion": answers[i], "label": i % 3 > 0},
    }
    shape = shapes.get(more.get("objective"), lambda i: {"completion": answers[i]})
    file.write_text("\n".join(json.dumps({"prompt": f"What is {i}?"} | shape(i)) for i in range(120)), "utf-8")
    data = {name: value for name, value in more.items() if name == "long_examples"}
    train = {name: value for name, value in more.items() if name != "long_examples"}
    recipe = Recipe.parse({"data": {"source": store.import_file(file).id, "max_length": 80} | data, "train": train})
    rows = store.rows(recipe.data.source).examples
    results = []
    for examples in (rows, list(rows), rows):
        heard: list[Any] = []
        reporter = Silent()
        reporter.warn = heard.append  # type: ignore[attr-defined]
        reporter.add_facts = heard.append  # type: ignore[attr-defined]
        parts = tokenize(examples, recipe, tokenizer, reporter)
        results.append([heard, *([list(part), list(lengths_of(part)), list(learned_of(part))] for part in parts)])
    assert results[0] == results[1] == results[2] and results[0][1][0] and results[0][2][0]
    assert results[0][1][1] == [len(row.input_ids) for row in results[0][1][0]]


@pytest.mark.parametrize("rows", [20, 21, 100, 3000])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 0.5])
def test_rows_that_are_kept_apart_are_those_of_earlier_versions(rows: int, share: float) -> None:
    apart = split(rows, share, 7)[1].tolist()
    assert apart == sorted(random.Random(7).sample(range(rows), max(2, round(rows * share))))


def test_the_earliest_of_equal_values_is_found() -> None:
    values = np.array([5, 3, 5, 3, 3, -1, 5], np.int64)
    assert list(earliest(values)) == [0, 1, 0, 1, 1, 5, 0] and list(earliest(values[:0])) == []


def test_the_order_of_rows_is_that_of_earlier_versions() -> None:
    """A run that was begun by one goes on with the same steps. Taken from version 0.1."""
    trained, held = split(25, 0.1, 42)
    assert held.tolist() == [3, 20] and len(trained) == 23
    lengths = np.array([5, 9, 7, 3, 8, 8, 6, 1, 9], np.int32)
    padded, packed = (Schedule(lengths, 2, 2, 1.0, -1, 3, capacity) for capacity in (None, 18))
    assert list(padded.steps()) == PADDED
    assert list(packed.steps()) == PACKED


PADDED = [[[1, 8], [2, 6]], [[0, 3], [7]], [[5, 4]]]
PACKED = [[[5, 2, 3], [7]], [[1, 4], [6, 0]], [[8]]]


def test_a_message_with_thinking_and_a_system_message_are_remembered(tokenizer: Tokenizer) -> None:
    messages = (ChatMessage("system", "s"), ChatMessage("user", "q"), ChatMessage("assistant", "a"))
    tokens = Tokenized([(1, Example(messages=messages)), (2, Example(text="x y"))], tokenizer, ANSWERS).tokens(at(0, 1))
    assert list(tokens.system) == [True, False] and list(tokens.is_text) == [False, True] and not tokens.thoughts.any()
