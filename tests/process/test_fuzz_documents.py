"""Damaged and hostile sheets and documents: rows, or one sentence; the library that ends meets it ends a process that
is not the app's."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from core.data.sets.inspection import inspect_file
from core.errors import DataError
from tests.kit.office import ods, pdf, xlsx
from tests.unit.data.test_documents import PAGE, SRT, epub

SHEET = [["question", "answer"], ["Why?", "So."], ["How?", 3.5]]
WHOLE = {
    "a.xlsx": xlsx({"S": SHEET, "T": [["x"]]}, merged=("A2:A3",)),
    "a.ods": ods({"S": SHEET}),
    "a.xls": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504) + b"Workbook" * 64,
    "a.pdf": pdf([["One line.", "Another."], ["Last."]]),
    "a.epub": epub({"a.xhtml": PAGE}),
    "a.html": PAGE.encode(),
    "a.srt": SRT.encode(),
}


def hurt(content: bytes, chance: random.Random) -> bytes:
    spoiled = bytearray(content)
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(spoiled))
        match chance.randrange(4):
            case 0:
                spoiled[at] = chance.randrange(256)
            case 1:
                del spoiled[at : at + chance.randrange(40)]
            case 2:
                spoiled[at:at] = spoiled[:at][-chance.randrange(1, 200) :]
            case _:
                spoiled[at:at] = chance.choice((b"\0" * 9, b"<a>" * 500, b"9" * 300, b"%%EOF", b"\xff\xfe"))
    return bytes(spoiled[: chance.randrange(len(spoiled))] if chance.random() < 0.2 else spoiled) or b"\0"


def read(folder: Path, name: str, content: bytes) -> bool:
    """Whether it had rows."""
    (folder / name).write_bytes(content)
    with contextlib.suppress(DataError):
        report = inspect_file(folder / name)
        assert 0 <= report.good_rows <= report.rows
        return True
    assert [path.name for path in folder.iterdir()] == [name] and (folder / name).read_bytes() == content
    return False


@pytest.mark.parametrize("name", WHOLE)
def test_a_hurt_file_is_rows_or_one_sentence(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, name, WHOLE[name]) or name == "a.xls"
    for seed in range(2):
        read(tmp_path, name, hurt(WHOLE[name], random.Random(f"{name}{seed}")))


@pytest.mark.full
@pytest.mark.parametrize("name", WHOLE)
def test_the_search_for_a_file_that_ends_the_app_goes_on(tmp_path: Path, name: str) -> None:
    for seed in range(100):
        read(tmp_path, name, hurt(WHOLE[name], random.Random(seed)))
