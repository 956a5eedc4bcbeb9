"""A document is read by a process of its own, which ends by whatever its library raises: the app says one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.data.reading import reader_process
from core.data.sets.inspection import inspect_file
from core.errors import DataError
from tests.kit.office import zipped


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.pdf", b"%PDF-1.7\n1 0 obj << /Root 1 0 R >>"),
        ("a.docx", zipped({"word/document.xml": "<w:document>"})),
        ("a.epub", zipped({"mimetype": "application/epub+zip", "META-INF/container.xml": "<a/>"})),
    ],
)
def test_a_broken_document_is_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} cannot be read as this format"):
        inspect_file(tmp_path / name)


def test_a_page_is_read_through_the_process_and_one_that_says_nothing_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.html").write_text("<html><body><p>One.</p><p>Two.</p></body></html>")
    assert inspect_file(tmp_path / "a.html").good_rows == 2
    monkeypatch.setattr(reader_process, "LONGEST_SILENCE_S", -1)
    monkeypatch.setattr(reader_process, "LOOK_S", 0)
    with pytest.raises(DataError, match="takes too long"):
        inspect_file(tmp_path / "a.html")


def test_a_paragraph_of_any_length_and_what_stands_behind_it_are_read(tmp_path: Path) -> None:
    """Seen: behind a paragraph of 10 MB a page ended, without a word."""
    (tmp_path / "a.html").write_text("<html><body><p>One.</p><p>" + "x " * 5_500_000 + "</p><p>Two.</p></body></html>")
    kept: list[tuple[int, str]] = []
    inspect_file(tmp_path / "a.html", keep=lambda row: kept.extend(row.good()))
    texts = [json.loads(text)["text"] for _, text in kept]
    assert texts[0] == "One." and texts[-1] == "Two." and sum(map(len, texts)) > 10_900_000
