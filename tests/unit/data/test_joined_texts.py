"""A book is a book: the paragraphs of a file are joined up to max_length, in training and in its preview."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.data.labels import ANSWERS
from core.data.preview import Preview
from core.data.reading.choices import Choices
from core.data.selection import choose
from core.data.sets import gathered, working
from core.data.sets.pieces import Pieces
from core.data.sets.stored_rows import Rows
from core.data.sets.tokens import Tokenized
from core.data.store import DatasetStore
from core.data.tokenizer import Tokenizer
from core.data.validation_split import own_validation, paragraphs_of
from core.presets import PRESETS
from core.recipe import Data
from core.training.tokenizing import tokenize
from tests.unit.data.test_training_rows import Listener, recipe


def book(paragraphs: int, word: str = "rain") -> str:
    return (
        "\n\n".join(f"It was day {n}. The {word} fell on the roof of house {n % 7}." for n in range(paragraphs)) + "\n"
    )


@pytest.fixture(scope="module")
def tokenizer(starter_folder: Path) -> Tokenizer:
    return Tokenizer(starter_folder)


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets", PRESETS)


def added(store: DatasetStore, text: str, name: str = "book.txt") -> str:
    file = store.root.parent / name
    file.write_text(text, "utf-8")
    return store.import_file(file).id


def trained(store: DatasetStore, id: str, tokenizer: Tokenizer, **data: object) -> list[str]:
    rows = store.rows(id)
    train, _ = tokenize(rows.examples, recipe({"eval_fraction": 0, **data}), tokenizer, Listener())
    return [tokenizer.decode(row.input_ids) for row in train]


def test_paragraphs_are_joined_up_to_max_length_and_none_is_lost(store: DatasetStore, tokenizer: Tokenizer) -> None:
    """Seen: a book of 881 paragraphs became 881 examples with a median of 34 tokens."""
    text = book(60)
    id = added(store, text)
    train, _ = tokenize(store.rows(id).examples, recipe({"eval_fraction": 0, "max_length": 128}), tokenizer, Listener())
    encoded = tokenizer.encode_row(working.example_of({"text": text.rstrip("\n")}), ANSWERS)[0]
    ids = train[0].input_ids + [token for row in list(train)[1:] for token in row.input_ids[1:]]
    assert ids == encoded.input_ids, "the tokens of the paragraphs joined are those of the text"
    assert len(train) < 20 and min(len(row.input_ids) for row in list(train)[:-1]) > 64
    assert all(len(row.input_ids) <= 128 for row in train)
    texts = [tokenizer.decode(row.input_ids[1:]) for row in train]
    assert all(one.startswith("It was day") for one in texts[1:]), "an example ends with a paragraph where one fits"


def test_an_overlap_repeats_the_end_of_the_example_before(store: DatasetStore, tokenizer: Tokenizer) -> None:
    id = added(store, book(60))
    train, _ = tokenize(
        store.rows(id).examples, recipe({"eval_fraction": 0, "max_length": 128, "overlap": 32}), tokenizer, Listener()
    )
    first, second = train[0], train[1]
    assert second.input_ids[:33] == first.input_ids[-33:] and not any(second.learned[:33]) and all(second.learned[33:])


def test_files_are_never_joined_with_each_other(store: DatasetStore, tokenizer: Tokenizer) -> None:
    folder = store.root.parent / "books"
    folder.mkdir()
    for name in ("one", "two", "three"):
        (folder / f"{name}.txt").write_text(book(4, name), "utf-8")
    id = gathered.add(store, [folder]).id
    texts = trained(store, id, tokenizer, max_length=512)
    assert len(texts) == 3
    assert [f"The {name} fell" in one for name, one in zip(("one", "three", "two"), texts, strict=True)] == [True] * 3


def test_a_text_whose_column_a_person_chose_is_joined_too(store: DatasetStore) -> None:
    """Seen: --columns text=text made each paragraph of a book an example of its own, and lost the pages of a PDF."""
    id = added(store, book(60))
    assert store.rows(id, choices=Choices(columns={"text": "text"})).paragraphs() is not None


def test_texts_of_a_table_stay_examples_of_their_own(store: DatasetStore, tokenizer: Tokenizer) -> None:
    id = added(store, "".join(f'{{"text": "It was day {n}."}}\n' for n in range(30)), "texts.jsonl")
    assert store.rows(id).paragraphs() is None and len(trained(store, id, tokenizer)) == 30


@pytest.mark.parametrize("how", ["cut", "split", "drop"])
def test_the_preview_counts_the_examples_of_a_run(how: str, store: DatasetStore, tokenizer: Tokenizer) -> None:
    id = added(store, book(90) + "\n" + "word " * 400 + "\n\n" + book(30, "snow"))
    counts = Preview.measure(store.rows(id), tokenizer).counts(200, how, 16)
    train, _ = tokenize(
        store.rows(id).examples,
        recipe({"eval_fraction": 0, "max_length": 200, "long_examples": how, "overlap": 16}),
        tokenizer,
        Listener(),
    )
    assert counts.is_joined and (counts.rows, counts.pieces) == (121, len(train))
    assert counts.tokens == sum(len(row.input_ids) for row in train)
    assert counts.learned == sum(row.learned_count for row in train)
    assert counts.rows_dropped == (how == "drop")


def test_a_row_is_shown_in_the_example_that_it_is_trained_in(store: DatasetStore, tokenizer: Tokenizer) -> None:
    id = added(store, book(60))
    preview = Preview.measure(store.rows(id), tokenizer)
    texts = trained(store, id, tokenizer, max_length=128)
    view = preview.row(20, 128)
    assert view is not None
    shown = "".join(piece.text for piece in view.pieces)
    assert shown in texts and "It was day 20." in shown and view.row_number == 21
    alone = preview.row(20, 128, joined=False)
    assert alone is not None and "day 21" not in "".join(piece.text for piece in alone.pieces)


def test_a_large_book_is_counted_in_stretches_and_any_row_can_be_shown(
    store: DatasetStore, tokenizer: Tokenizer
) -> None:
    id = added(store, book(3_000))
    preview = Preview.measure(store.rows(id), tokenizer)
    counts = preview.counts(256)
    exact = Preview.measure(store.rows(id), tokenizer, every_row=True).counts(256)
    assert counts.counted <= 1000 and abs(counts.pieces - exact.pieces) < 0.2 * exact.pieces
    for index in (0, 777, 1499, 2999):
        view = preview.row(index, 256)
        assert view is not None and f"It was day {index}." in "".join(piece.text for piece in view.pieces)
        assert view.length <= 256


def test_validation_takes_stretches_so_that_the_rest_stays_joined(store: DatasetStore, tokenizer: Tokenizer) -> None:
    rows = store.rows(added(store, book(600)))
    chosen = recipe({"eval_fraction": 0.1, "max_length": 128})
    train, evaluation = tokenize(rows.examples, chosen, tokenizer, Listener())
    lengths = np.array([len(row.input_ids) for row in train])
    assert 0.05 < len(evaluation) / (len(train) + len(evaluation)) < 0.2 and np.median(lengths) > 64
    selection = choose(len(rows), chosen, None, own_validation(rows), paragraphs_of(rows))
    assert sorted([*selection.training, *selection.measuring]) == list(range(600))


def test_a_run_of_few_steps_reads_few_rows_and_joins_them(store: DatasetStore, tokenizer: Tokenizer) -> None:
    rows = store.rows(added(store, book(2_000)))
    listener = Listener()
    few = recipe({"max_length": 128}, max_steps=4, per_device_train_batch_size=2, gradient_accumulation_steps=1)
    train, evaluation = tokenize(rows.examples, few, tokenizer, listener)
    assert len(train) == 8 and np.median([len(row.input_ids) for row in train]) > 64
    assert listener.progress[-1][0] < 800
    again, _ = tokenize(rows.examples, few, tokenizer, Listener())
    assert list(again) == list(train), "a run that resumes reads the same"


def test_removed_changed_and_added_paragraphs_are_read_so(store: DatasetStore, tokenizer: Tokenizer) -> None:
    id = added(store, book(6))
    working.edit_rows(store, id, remove=[2], change=[(3, {"text": "A new day."})], add=[{"text": "Written later."}])
    texts = trained(store, id, tokenizer, max_length=512)
    assert len(texts) == 2 and "Written later." in texts[1]
    assert "house 0.\n\nA new day.\n\nIt was day 3." in texts[0] and "It was day 1." not in texts[0]


def test_a_long_line_is_not_torn_by_an_empty_line(store: DatasetStore, tokenizer: Tokenizer) -> None:
    """A paragraph of more than 16,000 characters is several rows; joined, it is one paragraph again."""
    line = " ".join(f"The cat slept on day {n}." for n in range(1_500))
    rows = store.rows(added(store, line))
    assert len(rows) > 1
    tokens = Tokenized(rows, tokenizer, ANSWERS, rows.paragraphs()).tokens(np.arange(len(rows)), trains=True)
    pieces = Pieces.from_tokens(tokens, 1_000, "cut")
    ids = pieces[0].input_ids + [token for piece in list(pieces)[1:] for token in piece.input_ids[1:]]
    assert line in tokenizer.decode(ids)
    # Seen: the first row ended with the token that ends a text.
    end = tokenizer.encode_row(working.example_of({"text": line}), ANSWERS)[0].input_ids[-1]
    assert ids[-1] == end and ids.count(end) == 1


def test_a_run_from_before_keeps_its_paragraphs_apart_and_a_new_one_records_that_it_joins(store: DatasetStore) -> None:
    id = added(store, book(30))
    assert store.pinned(Data(source=id)).join_paragraphs is True
    older = store.rows(id, choices=Choices(join_paragraphs=False))
    assert isinstance(older, Rows) and older.paragraphs() is None and len(older) == 30
    other = added(store, '{"question": "What is it?", "answer": "A cat."}\n' * 3, "pairs.jsonl")
    assert store.pinned(Data(source=other)).join_paragraphs is None


def test_rows_that_were_stored_before_have_no_joints(tmp_path: Path) -> None:
    import pyarrow as pa

    table = pa.table({"row": [1], "line": [1], "example": ['{"text": "a"}'], "values": [None], "problem": [None]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    assert Rows(sink.getvalue()).paragraphs() is None
