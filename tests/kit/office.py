"""Office files as their programs write them, in the parts that a reader looks at."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import pytest

from core.data.reading import document_rows, document_worker

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
Sheets = Mapping[str, Sequence[Sequence[object]]]


def zipped(files: Mapping[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def read_documents_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read documents in this process instead of one of their own."""

    def listen(path: Path, kind: str, encoding: str) -> Iterator[object]:
        archive = getattr(path, "archive", None)
        yield from document_worker.read_document(str(archive or path), path.name if archive else "", kind, encoding)

    monkeypatch.setattr(document_rows, "listen", listen)


def pdf(pages: list[list[str]], trailer: bytes = b"") -> bytes:
    """Return a PDF with lines of text, as a writer of them would put it. trailer: more entries of its trailer."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for lines in pages:
        shown = "".join(f"({line}) Tj 0 -14 Td " for line in lines)
        stream = f"BT /F1 12 Tf 50 700 Td {shown}ET".encode()
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        objects.append(
            (
                b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents %d 0 R /Resources << /Font << /F1 3 0 "
                b"R "
                b">> >> >>"
            )
            % len(objects)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(kids), len(kids))
    out, places = io.BytesIO(b"%PDF-1.4\n"), []
    out.seek(0, 2)
    for number, content in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, content))
    at = out.tell()
    out.write(
        b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
        + b"".join(b"%010d 00000 n \n" % place for place in places)
    )
    out.write(b"trailer << /Size %d /Root 1 0 R %s >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, trailer, at))
    return out.getvalue()


def _cell(reference: str, value: object) -> str:
    if isinstance(value, bool):
        return f'<c r="{reference}" t="b"><v>{int(value)}</v></c>'
    if isinstance(value, int | float):
        return f'<c r="{reference}"><v>{value}</v></c>'
    return (
        f'<c r="{reference}" t="inlineStr"><is><t xml:space="preserve">{escape(str(value))}</t></is></c>'
        if value != ""
        else ""
    )


def column(number: int) -> str:
    """Return a column's name: A, B, ..., Z, AA, ..."""
    return (column(number // 26 - 1) if number >= 26 else "") + chr(65 + number % 26)


def xlsx(sheets: Sheets, hidden: Iterable[str] = (), merged: Iterable[str] = (), raw_rows: str = "") -> bytes:
    """Return a workbook. merged: ranges of cells, raw_rows: XML of more rows; both for every sheet."""
    listed = ""
    for i, name in enumerate(sheets, 1):
        state = ' state="hidden"' if name in hidden else ""
        listed += f'<sheet name={quoteattr(name)} sheetId="{i}" r:id="rId{i}"{state}/>'
    sheet_type = f"{_RELS}/worksheet"
    rels = "".join(
        f'<Relationship Id="rId{i}" Type="{sheet_type}" Target="worksheets/sheet{i}.xml"/>'
        for i, _ in enumerate(sheets, 1)
    )
    ranges = "".join(f'<mergeCell ref="{each}"/>' for each in merged)
    files: dict[str, str | bytes] = {
        "[Content_Types].xml": (
            f'<Types xmlns="{_PACKAGE}/content-types"><Default Extension="xml" ContentType="application/xml"/></Types>'
        ),
        "_rels/.rels": (
            f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="rId1" '
            f'Type="{_RELS}/officeDocument" Target="xl/workbook.xml"/></Relationships>'
        ),
        "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_RELS}"><sheets>{listed}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">{rels}</Relationships>',
    }
    for i, rows in enumerate(sheets.values(), 1):
        lines = "".join(
            f'<row r="{number}">'
            f"{''.join(_cell(f'{column(at)}{number}', value) for at, value in enumerate(cells))}</row>"
            for number, cells in enumerate(rows, 1)
        )
        below = f"<mergeCells>{ranges}</mergeCells>" if ranges else ""
        files[f"xl/worksheets/sheet{i}.xml"] = (
            f'<worksheet xmlns="{_MAIN}"><sheetData>{lines}{raw_rows}</sheetData>{below}</worksheet>'
        )
    return zipped(files)


def ods(sheets: Sheets) -> bytes:
    office = "urn:oasis:names:tc:opendocument:xmlns:office:1.0"
    tables = ""
    for name, rows in sheets.items():
        lines = "".join(f"<table:table-row>{''.join(map(_ods_cell, cells))}</table:table-row>" for cells in rows)
        tables += f"<table:table table:name={quoteattr(name)}>{lines}</table:table>"
    content = (
        f'<office:document-content xmlns:office="{office}" '
        f'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" '
        f'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"><office:body><office:spreadsheet>{tables}'
        "</office:spreadsheet></office:body></office:document-content>"
    )
    manifest = '<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"/>'
    return zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.spreadsheet",
            "content.xml": content,
            "META-INF/manifest.xml": manifest,
        }
    )


def _ods_cell(value: object) -> str:
    if isinstance(value, int | float):
        return (
            f'<table:table-cell office:value-type="float" '
            f'office:value="{value}"><text:p>{value}</text:p></table:table-cell>'
        )
    return f'<table:table-cell office:value-type="string"><text:p>{escape(str(value))}</text:p></table:table-cell>'
