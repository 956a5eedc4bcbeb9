"""Texts in the encodings that people's programs write: read as such, said, and corrected by a word where it was
wrong."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pytest

from core.data.reading.choices import Choices
from core.data.reading.encodings import LIKELY
from core.data.reading.file_rows import Problem, Row
from core.data.reading.reader import read_rows
from core.data.reading.sniff import probe
from core.errors import DataError
from core.messages import LANGUAGES, core_catalogue

TEXTS = {
    "gb18030": "天空是什么颜色？天空是蓝色的。一年有几个季节？四个：春夏秋冬。",
    "big5": "天空是什麼顏色？天空是藍色的。一年有幾個季節？四個：春夏秋冬。",
    "cp932": "空は何色ですか？空は青いです。一年にはいくつ季節がありますか？春夏秋冬です。",
    "euc_jp": "空は何色ですか？空は青いです。一年にはいくつ季節がありますか？春夏秋冬です。",
    "cp949": "하늘은 무슨 색입니까? 하늘은 파란색입니다. 계절이 몇 개 있습니까?",
    "cp1252": "Was kostet ein Brötchen? Fünfzig Cent. Où est la bibliothèque? ¿Cuántos años tienes?",
    "cp1251": "Сколько стоит хлеб? Хлеб стоит сорок рублей. Где находится музей?",
    "koi8_r": "Сколько стоит хлеб? Хлеб стоит сорок рублей. Где находится музей?",
    "cp1250": "Ile kosztuje chleb? Pięć złotych. Gdzie jest muzeum? W śródmieściu tuż obok kościoła.",
    "cp1253": "Πόσο κοστίζει το ψωμί; Το ψωμί κοστίζει ένα ευρώ.",
    "cp1256": "كم سعر الخبز؟ سعر الخبز عشرة دراهم.",
    "mac_roman": "Was kostet ein Brötchen? Fünfzig Cent. Wo ist die nächste Straße?",
}


def written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def texts(path: Path, **choices: str) -> list[str]:
    return [
        "".join(row.values.values())
        for row in read_rows(probe(path, choices=Choices(**choices)))
        if isinstance(row, Row)
    ]


@pytest.mark.parametrize("encoding", TEXTS)
@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.jsonl"])
def test_a_text_is_read_in_its_encoding_which_is_said(tmp_path: Path, name: str, encoding: str) -> None:
    text = TEXTS[encoding]
    content = {
        "a.csv": f"text\r\n{text}\r\n",
        "a.txt": text,
        "a.jsonl": json.dumps({"text": text}, ensure_ascii=False),
    }[name]
    path = written(tmp_path, name, content.encode(encoding))
    source = probe(path)
    assert source.encoding == encoding and texts(path) == [text]
    label = core_catalogue().raw(f"data.encoding_{encoding}", "en")
    assert f"read as {label}" in str(source.notes[0])


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["Why?", TEXTS["gb18030"] + "\n" + TEXTS["cp1251"]])
def test_utf_16_without_its_mark_is_read_and_said(tmp_path: Path, encoding: str, text: str) -> None:
    path = written(tmp_path, "a.csv", f"text\r\n{text}\r\n".encode(encoding))
    assert probe(path).encoding == encoding and "".join(texts(path)) == text.replace("\n", "")
    assert encoding.upper() in str(probe(path).notes[0])


def test_what_makes_as_much_sense_is_said_and_another_can_be_named(tmp_path: Path) -> None:
    text = "Ekmek kaç lira? Beş lira. Şehir merkezinde müze var, değil mi? İyi günler."
    path = written(tmp_path, "a.txt", text.encode("cp1254"))
    note_text = str(probe(path).notes[0])
    assert "read as cp1252" in note_text and "could also be" in note_text and "cp1254 (Windows, Turkish)" in note_text
    assert texts(path) != [text] and texts(path, encoding="windows-1254") == [text]
    assert not any("not UTF-8" in str(note) for note in probe(path, choices=Choices(encoding="cp1254")).notes)


def test_a_word_of_a_person_goes_before_everything_and_is_held_to_what_is_known(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", codecs.BOM_UTF8 + "é".encode())
    assert texts(path, encoding="UTF8") == ["é"] and texts(path, encoding="cp1252") == ["ï»¿Ã©"]
    with pytest.raises(DataError, match="not valid BIG5: byte 0"):
        probe(written(tmp_path, "b.txt", b"\xff\xff"), choices=Choices(encoding="big5"))
    for wrong in ("latin", "rot13", "hex", "unicode_escape", "idna", "", "x" * 99, "\0"):
        if wrong:
            with pytest.raises(DataError, match="not a known encoding. Expected one of utf-8"):
                probe(path, choices=Choices(encoding=wrong))


def test_damaged_utf_8_is_no_other_encoding(tmp_path: Path) -> None:
    content = (TEXTS["gb18030"] * 20).encode()
    with pytest.raises(DataError, match="not valid UTF-8: byte 300 "):
        probe(written(tmp_path, "a.txt", content[:300] + b"\xff" + content[300:]))
    line = json.dumps({"text": TEXTS["gb18030"]}, ensure_ascii=False).encode()
    path = written(tmp_path, "a.jsonl", line + b'\n{"text": "caf\xe9"}\n')
    assert [type(item) for item in read_rows(path)] == [Row, Problem] and not probe(path).notes


def test_letters_that_come_late_decide_as_well(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", b"plain\n\n" * 300_000 + TEXTS["cp1251"].encode("cp1251"))
    assert probe(path).encoding == "cp1251"


def test_a_line_that_is_cut_for_the_sample_costs_no_candidate(tmp_path: Path) -> None:
    text = "x" + TEXTS["cp932"] * 2000
    path = written(tmp_path, "a.txt", text.encode("cp932"))
    assert probe(path).encoding == "cp932" and "".join(texts(path)) == text


def test_every_encoding_has_a_name_in_both_languages() -> None:
    for name in LIKELY:
        assert all(core_catalogue().raw(f"data.encoding_{name}", language) for language in LANGUAGES)
        assert codecs.lookup(name)
