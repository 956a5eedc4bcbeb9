"""Passages of documents: along headings, none of the text lost, some set apart before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.api.datasets import dataset_id, dataset_store
from core.chat.making.passages import MAX_BYTES, TABLE_BYTES, Block, blocks_of, passages_of
from core.data.sets import working
from core.errors import ChatError
from core.workspace.folder import Workspace
from tests.kit.office import pdf, read_documents_here

SENTENCE = "The drum of the roaster turns sixty times a minute while the beans are heated. "


def blocks(*texts: str, file: str = "manual.md") -> Iterator[Block]:
    for row, text in enumerate(texts, 1):
        yield Block(text, row, file, None if row == 1 else "\n\n")


def chapters(count: int) -> list[str]:
    return [text for number in range(count) for text in (f"# Chapter {number}", SENTENCE * 18)]


def test_passages_hold_all_of_a_text_once_and_know_where_it_stands() -> None:
    texts = ["# Roaster", "Short.", *(f"## Part {n}\n\n{SENTENCE * (n % 40)}" for n in range(30)), SENTENCE * 90]
    whole = "\n\n".join(texts)
    passages = passages_of(blocks(*texts))
    assert all(whole[one.start : one.end] == one.text for one in passages)
    gaps = [whole[before.end : after.start] for before, after in zip(passages, passages[1:], strict=False)]
    assert passages[0].start == 0 and passages[-1].end == len(whole) and not "".join(gaps).strip()
    assert all(len(one.text.encode()) <= MAX_BYTES for one in passages)


def test_a_passage_knows_its_headings_and_ends_with_none() -> None:
    passages = passages_of(blocks("# A", "## B", SENTENCE * 20, "## C", "### D", SENTENCE * 20, "# E", SENTENCE))
    assert [one.headings for one in passages] == [("A", "B"), ("A", "C", "D"), ("E",)]
    assert passages[1].text.startswith("## C\n\n### D") and passages[0].rows == (1, 3)


def test_a_table_stays_whole_and_one_without_end_is_divided() -> None:
    lines = "\n".join(f"| part {n} | every {n} roasts |" for n in range(150))
    assert MAX_BYTES < len(lines) < TABLE_BYTES and [one.text for one in passages_of(blocks(lines))] == [lines]
    assert len(passages_of(blocks(lines * 10))) > 1


@pytest.mark.parametrize("text", ["x" * 1_000_000, "咖" * 300_000, "a b " * 100_000])
def test_a_text_without_sentences_is_divided_as_well(text: str) -> None:
    passages = passages_of(blocks(text))
    assert "".join(one.text for one in passages) == text
    assert max(len(one.text.encode()) for one in passages) <= MAX_BYTES + 3


def test_whole_chapters_are_set_apart_the_same_each_time() -> None:
    passages = passages_of(blocks(*chapters(20)), seed=3)
    apart = {one.headings for one in passages if one.validation}
    assert 2 <= len(apart) <= 4 and apart.isdisjoint(one.headings for one in passages if not one.validation)
    assert passages == passages_of(blocks(*chapters(20)), seed=3) and not any(
        one.validation for one in passages_of(blocks(*chapters(3)))
    ), "of three passages none can be spared"


def test_of_one_long_chapter_single_passages_are_set_apart() -> None:
    passages = passages_of(blocks("# Only", *[SENTENCE * 20] * 30))
    assert 3 <= sum(one.validation for one in passages) <= 6


def test_a_passage_of_a_pdf_knows_the_page_of_each_of_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_documents_here(monkeypatch)
    space, folder = Workspace.open(tmp_path / "ws"), tmp_path / "docs"
    folder.mkdir()
    pages = [["The lever turns twice."], [], ["The tray is red.", "It takes chaff."]]
    for name in ("a", "b"):
        (folder / f"{name}.pdf").write_bytes(pdf([[f"About {name}."], *pages]))
    store = dataset_store(space)
    id = dataset_id(space, str(folder), tmp_path)
    _, passage = passages_of(blocks_of(store, id))
    places = [passage.text.index(word) for word in ("About b", "lever", "tray", "chaff")]
    assert passage.file == "b.pdf" and passage.pages_of([(at, at + 3) for at in places]) == [1, 2, 4, 4]
    assert passage.pages_of([]) == [1, 2, 4]
    rows = store.rows(id)
    working.edit_rows(store, id, change=[(rows.number(0), {"text": "Edited."})])
    assert [one.pages_of([]) for one in passages_of(blocks_of(store, id))] == [[1, 2, 4], [1, 2, 4]]


def test_documents_are_read_with_their_files_and_conversations_refused(tmp_path: Path) -> None:
    space, folder = Workspace.open(tmp_path / "ws"), tmp_path / "docs"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.md").write_text(f"# {name}\n\n{SENTENCE * 3}\n", "utf-8")
    store = dataset_store(space)
    passages = passages_of(blocks_of(store, dataset_id(space, str(folder), tmp_path)))
    assert [(one.file, one.headings) for one in passages] == [("a.md", ("a",)), ("b.md", ("b",))]
    (tmp_path / "chat.jsonl").write_text('{"prompt": "Hi", "completion": "Hello there"}\n' * 3, "utf-8")
    with pytest.raises(ChatError) as refused:
        list(blocks_of(store, dataset_id(space, str(tmp_path / "chat.jsonl"), tmp_path)))
    assert refused.value.message.key == "making.no_text"
