"""Word files, PDFs, web pages, books and subtitles as text: what a reader of them would read, and a sentence where
there is none."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from core.data.reading.file_rows import Row
from core.data.reading.reader import read_rows
from core.data.reading.sniff import probe
from core.data.reading.table_rows import MAX_CHARACTERS, Paragraph
from core.data.sets.inspection import inspect_file
from core.errors import DataError
from tests.kit.office import pdf, read_documents_here, zipped

PAGE = """<!DOCTYPE html><html><head><title>t</title><style>p {color: red}</style></head><body>
<nav>Home</nav><script>alert(1)</script>
<h1>The cat</h1><p>It <b>slept</b>,<br>and&nbsp;woke.</p><ul><li>One</li><li>Two</li></ul>
<table><tr><td>a</td><td>b</td></tr></table><!-- no --></body></html>"""
SAID = ["# The cat\nIt slept,", "and woke.", "- One", "- Two", "a b"]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    read_documents_here(monkeypatch)


def texts(folder: Path, name: str, content: bytes | str) -> list[str]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [row.values["text"] for row in read_rows(path) if isinstance(row, Row)]


def epub(chapters: dict[str, str], more: dict[str, str] | None = None) -> bytes:
    manifest = "".join(
        f'<item id="{i}" href="{name}" media-type="application/xhtml+xml"/>' for i, name in enumerate(chapters)
    )
    spine = "".join(f'<itemref idref="{i}"/>' for i in reversed(range(len(chapters))))
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
            "OEBPS/book.opf": '<package xmlns="http://www.idpf.org/2007/opf">'
            f"<manifest>{manifest}</manifest><spine>{spine}</spine></package>",
            **{f"OEBPS/{name}": content for name, content in chapters.items()},
            **(more or {}),
        }
    )


def test_a_web_page_is_what_a_browser_shows_of_it(tmp_path: Path) -> None:
    assert texts(tmp_path, "a.html", PAGE) == SAID
    assert (
        texts(tmp_path, "b.htm", PAGE.replace("slept", "schlief für").encode("cp1252"))[0]
        == "# The cat\nIt schlief für,"
    )
    report = inspect_file(tmp_path / "a.html")
    assert (report.kind, report.format, report.good_rows) == (
        "html",
        "text",
        5,
    ) and "each paragraph with the headings above it is one row" in str(report.notes[0])
    with pytest.raises(DataError, match="is a web page, not the data itself"):
        texts(tmp_path, "a.json", PAGE)


def test_a_word_file_keeps_headings_lists_and_tables(tmp_path: Path) -> None:
    import docx

    file = docx.Document()
    file.add_heading("The cat", 1)
    file.add_paragraph("It slept.")
    file.add_paragraph("One", "List Bullet")
    table = file.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "a", "b"
    file.add_paragraph("End.")
    buffer = io.BytesIO()
    file.save(buffer)
    assert texts(tmp_path, "a.docx", buffer.getvalue()) == ["# The cat\nIt slept.", "- One", "a | b", "End."]
    assert probe(tmp_path / "a.docx").kind == "docx"


def test_lines_of_a_pdf_are_put_together_and_pages_without_text_are_said(tmp_path: Path) -> None:
    lines = [
        "It was a long line that goes on to the",
        "next one, and a hyphen-",
        "ated word. It ended.",
        "A new paragraph begins here and is as long.",
        "7",
    ]
    found = texts(tmp_path, "a.pdf", pdf([lines, [], ["Last."]]))
    assert found == [
        "It was a long line that goes on to the next one, and a hyphenated word. It ended.",
        "A new paragraph begins here and is as long.",
        "Last.",
    ]
    left = inspect_file(tmp_path / "a.pdf").left_out
    assert [(str(one.what), one.count) for one in left] == [("Pages without text", 1)]
    assert [item.page for item in read_rows(tmp_path / "a.pdf") if isinstance(item, Row)] == [1, 1, 3]


@pytest.mark.parametrize("pages", [[[], []], []])
def test_a_pdf_without_text_or_without_pages_is_a_sentence(tmp_path: Path, pages: list[list[str]]) -> None:
    with pytest.raises(DataError, match="contains no text, perhaps only images of it, like a scan"):
        texts(tmp_path, "scan.pdf", pdf(pages))


@pytest.mark.parametrize("cipher", ["RC4-128", "AES-256"])
def test_a_pdf_with_a_password_is_a_sentence(tmp_path: Path, cipher: str) -> None:
    """Seen: with AES, which needs another package, it said that the file cannot be read as this format."""
    import pypdf

    buffer, plain = io.BytesIO(), pdf([["One."]])
    if cipher == "RC4-128":
        writer = pypdf.PdfWriter(clone_from=io.BytesIO(plain))
        writer.encrypt("secret", algorithm=cipher)
        writer.write(buffer)
    else:
        lengths = {"O": 48, "U": 48, "OE": 32, "UE": 32, "Perms": 16}
        keys = " ".join(f"/{name} <{'00' * length}>" for name, length in lengths.items())
        cf = "/CF << /StdCF << /CFM /AESV3 >> >> /StmF /StdCF /StrF /StdCF"
        entry = f"/Encrypt << /Filter /Standard /V 5 /R 6 /Length 256 /P -4 {keys} {cf} >> /ID [<00> <00>]"
        buffer.write(pdf([["One."]], entry.encode()))
    with pytest.raises(DataError, match="password-protected"):
        texts(tmp_path, "a.pdf", buffer.getvalue())


def test_a_book_is_read_in_its_own_order(tmp_path: Path) -> None:
    chapters = {"b.xhtml": PAGE, "a%20a.xhtml": "<html><body><p>First.</p></body></html>"}
    content = epub(
        {"b.xhtml": PAGE, "a.xhtml": chapters["a%20a.xhtml"]}, {"META-INF/encryption.xml": "<a>fonts/x.otf</a>"}
    )
    assert texts(tmp_path, "a.epub", content) == ["First.", *SAID]
    with pytest.raises(DataError, match="password-protected"):
        texts(tmp_path, "b.epub", epub(chapters, {"META-INF/encryption.xml": "<a>OEBPS/b.xhtml</a>"}))


SRT = (
    "1\r\n00:00:01,000 --> 00:00:02,500\r\n<i>Well,</i> it\r\nwas late.\r\n\r\n2\r\n00:00:02,600 --> "
    "00:00:04,000\r\n"
    "Very late.\r\n\r\n3\r\n00:00:20,000 --> 00:00:21,000\r\nMorning!\r\n"
)
VTT = (
    "WEBVTT\n\n00:01.000 --> 00:02.500\nWell, it\nwas late.\n\n00:02.600 --> 00:04.000\nVery late.\n\n00:20.000 --> "
    "00:21.000\nMorning!\n"
)


@pytest.mark.parametrize("name, content", [("a.srt", SRT), ("a.vtt", VTT), ("a.txt", SRT), ("a.srt", "\ufeff" + SRT)])
def test_subtitles_are_sentences_without_times(tmp_path: Path, name: str, content: str) -> None:
    assert texts(tmp_path, name, content) == ["Well, it was late. Very late.", "Morning!"]


def test_a_folder_of_documents_is_one_set_and_beside_data_they_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    texts(tmp_path / "set", "1.html", PAGE)
    texts(tmp_path / "set", "2.srt", SRT)
    assert inspect_file(tmp_path / "set").good_rows == 7
    (tmp_path / "set" / "a.csv").write_text("question,answer\na,b\n")
    assert inspect_file(tmp_path / "set").good_rows == 1


def test_without_its_libraries_the_command_and_its_size_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(
        DataError, match="not installed \\(pypdf, about 5 MB\\): run “.*-m pip install 'lxml>=5.3' .*'pysubs2>=1.7'”"
    ):
        texts(tmp_path, "a.pdf", pdf([["x"]]))


def test_entities_that_grow_without_end_and_files_outside_stay_out(tmp_path: Path) -> None:
    laughs = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "' + "&a;" * 10 + '"><!ENTITY s SYSTEM "file:///etc/passwd">]>'
    book = epub({"a.xhtml": laughs + "<html><body><p>x &b; &s; y</p></body></html>"})
    assert not [text for text in texts(tmp_path, "a.epub", book) if "root:" in text or "haha" in text]


def test_a_line_of_a_hundred_megabytes_costs_what_its_parts_cost() -> None:
    """Seen: what was left of it was written anew for each of its parts, for minutes."""
    line, paragraph, parts = "word " * 400_000 + "\n", Paragraph(), []
    for _, text, _ in paragraph.add(1, line):
        parts.append(text)
        assert len(paragraph._text) <= MAX_CHARACTERS
    parts += [text for _, text in paragraph.end()]
    assert "".join(parts) == line.strip("\n") and len(parts) > 100
