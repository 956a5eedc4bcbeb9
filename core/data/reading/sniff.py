"""Probes a file before any row is read: size, encoding, kind, delimiter, checksum; refuses files that are not data."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePath

from core import files
from core.data.chats import kinds
from core.data.reading import database_rows, encodings, folders, label_names, line_rows, source_code, spreadsheets, zips
from core.data.reading.arrow_rows import STREAM
from core.data.reading.choices import NO_CHOICES, Choices
from core.data.reading.compressed import Unpacked, unpacked
from core.data.reading.file_rows import DEFAULT_LIMITS, Limits, RawRow, Readable, Source
from core.data.reading.suffixes import CODE, COMPRESSED, DOCUMENTS, MARKDOWN, SPREADSHEETS, SUFFIXES, FileKind
from core.data.reading.table_rows import ANKI, csv_rows, rows_as_wide
from core.data.shapes import header, prose, turn_markers
from core.errors import DataError
from core.messages import Message, msg
from core.progress import go_on
from core.values import MIB

_HEAD = 64 << 10
_MAX_PICTURE = 16 * MIB
_IN_USE = 32  # error of Windows for a file that another program holds, which Python calls a lack of permission
_DELIMITERS = (",", ";", "\t", "|")
# Files that people choose by mistake, by their first bytes; the sentence is `data.is_<name>`.
_MAGIC: dict[str, tuple[bytes, ...]] = {
    "zip": (b"PK\x03\x04", b"PK\x05\x06"),
    "office": (b"\xd0\xcf\x11\xe0",),
    "program": (b"MZ", b"\x7fELF"),
    "compressed": (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ\0"),
    "pickle": (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
    "picture": (b"\x89PNG", b"\xff\xd8\xff", b"GIF8"),
    "model": (b"GGUF",),
    "lfs": (b"version https://git-lfs",),
}


_BINARY: dict[bytes, FileKind] = {
    b"%PDF": "pdf",
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"SQLite format 3\0": "sqlite",
}
_UNREAD = {
    "is_mailbox": re.compile(rb"From \S.*\d{4}\r?\n[A-Za-z-]+: "),
    "is_unread_chat": re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\[LINE\]|# aider chat started at )"),
}
# The marks of quiz questions in a text: Moodle's GIFT and Aiken, and OpenTriviaQA.
_QUIZ = {
    "{=...~...}": re.compile(rb"\{\s*(?:=[^{}~=]{1,400}~|~[^{}~=]{1,400}[=~])[^{}]{1,2000}\}"),
    "ANSWER:": re.compile(rb"^[A-J][.)] \S.*\r?\nANSWER: ?[A-J]\b", re.MULTILINE),
    "#Q, ^": re.compile(rb"^#Q .+\r?\n(?:.+\r?\n){0,4}?\^ ?\S", re.MULTILINE),
}
_QUIZ_HEAD = 16 << 10  # bytes
_WEB_PAGE = re.compile(r"\ufeff?\s*<(?:!doctype html|html)\b", re.IGNORECASE)
_XML, _ELEMENT = re.compile(rb"(?:\xef\xbb\xbf)?\s*<\?xml\s"), re.compile(rb"<([A-Za-z][\w:.-]{0,40})[\s/>]")
_ELEMENTS_SHOWN = 6
_JSON = re.compile(r"\{|(?:\[\s*)+(?:$|[\]{\"'\d-]|(?:true|false|null|NaN)\b)")  # not [section] of another format
_TIMES = re.compile(r"(?:\d+:)?\d{1,2}:\d\d[.,]\d{3} --> ")  # of a subtitle


# --- looking at the file ---------------------------------------------------------------------------------------------
def probe(
    path: str | Readable,
    limits: Limits = DEFAULT_LIMITS,
    choices: Choices = NO_CHOICES,
    check: Callable[[], None] = lambda: None,
) -> Source:
    """Read a file or folder once and return what it is, with the stamps by which a change shows. check: called often,
    and may raise. Raises DataError for a file without readable rows."""
    if isinstance(path, str) and not path.strip():
        raise DataError("data.no_name")
    path = Path(path) if isinstance(path, str) else path
    stamps = ((path, files.stamp(path)),) if isinstance(path, Path) and "\0" not in str(path) else ()
    # The stamps first: changes from here on show.
    source = _probed(path, limits, choices, check)
    return source if source.stamps else replace(source, stamps=stamps)


def _probed(path: Readable, limits: Limits, choices: Choices, check: Callable[[], None]) -> Source:
    """Return a file or folder as a source: compressed, zip, binary kind, or text, with its checksum, sheet or table,
    and class names. Raises DataError for what is no data."""
    with os_errors_as_data_errors(path):
        if isinstance(path, Path) and _is_folder(path):
            return folders.from_folder(path, limits, choices, partial(probe, check=check))
        size = _size(path, limits)
        with path.open("rb") as file:
            head = file.read(_HEAD)
        # One layer only: what is compressed twice is refused below.
        if not isinstance(path, Unpacked) and (inside := unpacked(path, head, limits)):
            return _compressed_source(inside, size, _probed(inside, limits, choices, check), _digest(path, check))
        packed = _zip_or_spreadsheet(path, head, limits)
        if packed == "zip" and isinstance(path, Path):
            return folders.from_zip(path, limits, choices, partial(probe, check=check), _digest(path, check))
        _refuse_what_is_not_data(path, head, packed)
        if kind := packed or _binary_kind(path, head):
            _refuse_in_compressed(path, kind)
            source = Source(path, kind, size, _digest(path, check), "", choices=choices)
            if kind == "sqlite":
                table, tables, notes = database_rows.read_tables(path, choices.sheet, limits)
                source = replace(source, sheet=table, sheets=tables, notes=notes)
            else:
                source = (
                    _with_sheet(source, choices, limits)
                    if kind in SPREADSHEETS
                    else replace(source, notes=_notes(source))
                )
        else:
            source = _text_source(path, size, encodings.find(path, head, choices.encoding, check), choices, limits)
        return _with_label_names(source)


def _with_label_names(source: Source) -> Source:
    """Return the source with the names of its classes, from a Parquet file itself, else from a file beside it; chats
    and documents as they are."""
    if source.chat or source.kind in DOCUMENTS:
        return source
    names = label_names.NO_NAMES
    if source.kind == "parquet":
        with zips.seekable(source.path) as file:
            names = label_names.of_parquet(file)
    if names == label_names.NO_NAMES and isinstance(source.path, Path):
        names = label_names.beside(source.path)
    return replace(source, label_names=names)


def _binary_kind(path: Readable, head: bytes) -> FileKind | None:
    """Return the kind of a PDF, Parquet, Arrow or SQLite file by its first bytes; None for any other. A stream of Arrow
    needs the suffix of one too."""
    if head.startswith(STREAM) and SUFFIXES.get(path.suffix.lower()) == "arrow":
        return "arrow"
    return next((kind for magic, kind in _BINARY.items() if head.startswith(magic)), None)


def _compressed_source(inside: Unpacked, size: int, source: Source, sha256: str) -> Source:
    """Return the source of the file inside with the size and sha256 of the compressed file, and stored_as such as
    "jsonl.gz". Raises DataError for a spreadsheet, document or database."""
    _refuse_in_compressed(inside, source.kind)
    suffix = PurePath(inside.name).suffix.lower()
    stored_as = f"{source.kind}{suffix if suffix in COMPRESSED else COMPRESSED[0]}"
    return replace(source, bytes=size, sha256=sha256, stored_as=stored_as)


def _refuse_in_compressed(path: Readable, kind: FileKind) -> None:
    """Raise DataError for a compressed file of a kind that another process opens by its path."""
    if isinstance(path, Unpacked) and kind in (*SPREADSHEETS, *DOCUMENTS, "sqlite"):
        raise DataError("data.is_compressed", file=path.name)


def _with_sheet(source: Source, choices: Choices, limits: Limits) -> Source:
    """Return a workbook with its sheets, the one that is read, whether its first row has names, and notes."""
    sheets = spreadsheets.read_head(source.path, choices.sheet, limits)
    has_names = _header_choice(choices, spreadsheets.holds_names(sheets.first))
    notes = (*sheets.notes(), *_note_header(has_names, choices), *_notes(source))
    return replace(source, notes=notes, sheet=sheets.sheet or "", sheets=sheets.choices, header=has_names)


def _text_source(path: Readable, size: int, decoding: encodings.Decoding, choices: Choices, limits: Limits) -> Source:
    """Return a text file as a source: its kind, app of a chat, shape of lines, delimiter, header, turn markers, with
    notes on guesses. Raises DataError for a log, a kind that is not read, or bytes of another encoding (except in UTF-8
    JSON Lines, whose reader reports them by row)."""
    encoding, first_bad = decoding.encoding, decoding.first_bad
    kind = _kind(path, encoding, limits)
    # Elsewhere it may have hidden a quote or a bracket.
    if first_bad is not None and not (kind == "jsonl" and encoding.startswith("utf-8")):
        raise DataError("data.bad_encoding", file=path.name, byte=first_bad, encoding=encoding.upper())
    chat = kinds.recognize(path, kind, encoding)
    if kind == "txt" and not chat and path.suffix.lower() == ".log":
        raise DataError("data.is_log", file=path.name)
    source = Source(path, kind, size, decoding.sha256, encoding, first_bad_byte=first_bad, chat=chat, choices=choices)
    notes = [*decoding.notes]
    if kind == "txt" and not chat and path.suffix.lower() not in MARKDOWN:
        source = _with_lines(source)
        kind = source.kind
    if source.lines:
        notes.append(msg(f"data.note_{source.lines}", separator=source.separator.strip()))
        return replace(source, notes=(*notes,))
    if kind == "code":
        source_code.refuse_dump(path, encoding)
        return replace(source, notes=(*notes, *source_code.note([path.name], Counter())))
    if kind == "csv":
        source = replace(source, delimiter=source.delimiter or _delimiter(path, encoding))
        # Between tabs a quotation mark may be a mere character.
        if source.delimiter == "\t" and any(b'"' in chunk for chunk in encodings.chunks(path, go_on)):
            source = replace(source, quoted=rows_as_wide(source, limits, True) >= rows_as_wide(source, limits, False))
        if source.delimiter != ",":
            name = msg(f"data.delimiter_{_DELIMITERS.index(source.delimiter or ',')}")
            notes.append(msg("data.note_delimiter", delimiter=name))
        if not chat and not _is_anki(source):
            rows = csv_rows(replace(source, header=False), limits)
            first = [[*raw.value.values()] for raw in islice(rows, header.LOOKED_AT) if isinstance(raw, RawRow)]
            source = replace(
                source, header=_header_choice(choices, header.holds_names(first[0], first[1:]) if first else True)
            )
            notes += _note_header(source.header, choices)
    if kind == "txt" and not chat:
        with path.open(encoding=encoding) as file:
            style = turn_markers.style_of_file(file.read(turn_markers.LOOKED_AT))
        source = replace(source, is_marked=style is not None)
    return replace(source, notes=(*notes, *_notes(source)))


def _with_lines(source: Source) -> Source:
    """Return the source of a text whose lines are no prose as what they are: a table, or lines of a shape.
    Raises DataError for words with tags."""
    lines = line_rows.first_lines(source.path, source.encoding)
    shape = line_rows.shape_of(lines)
    if shape == "conll":
        raise DataError("data.is_conll", file=source.path.name)
    if shape == "table":
        return replace(source, kind="csv", delimiter=line_rows.delimiter_of(lines))
    return replace(source, lines=shape, separator=line_rows.separator_of(lines) if shape == "cards" else "")


def _is_anki(source: Source) -> bool:
    """Return True if a file is an export of Anki: its first line begins with "#separator:", in any case."""
    with source.path.open(encoding=source.encoding, errors="replace") as file:
        return bool(file.readline(100).lower().startswith(ANKI))


def _notes(source: Source) -> tuple[Message, ...]:
    """Return notes: how a text or document is split into rows, and a suffix that contradicts the content."""
    suffix, kind = source.path.suffix.lower(), source.kind
    taken = (
        "document"
        if kind in DOCUMENTS
        else ("conversations" if source.is_marked else "paragraphs")
        if kind == "txt" and not source.chat
        else ""
    )
    is_other = kind not in ("parquet", "arrow") and SUFFIXES.get(suffix, kind) != kind
    other = [msg("data.note_kind", suffix=suffix, kind=kind.upper())] if is_other else []
    return (*([msg(f"data.note_{taken}")] if taken else []), *other)


def _header_choice(choices: Choices, holds_names: bool | None) -> bool | None:
    """Return the value of Source.header: a person's choice if there is one; else None if the first row surely holds
    names, True if that is in doubt, False if it is a row of data.

    holds_names: True, None and False for these three, as `header.holds_names` decides.
    """
    return choices.header if choices.header is not None else None if holds_names else holds_names is None


def _note_header(named: bool | None, choices: Choices) -> list[Message]:
    """Return a note if a table is taken to have no names of columns and no person has said so; else []."""
    return [msg("data.note_no_header")] if named is False and choices.header is None else []


@contextmanager
def os_errors_as_data_errors(path: Readable) -> Iterator[None]:
    """Context manager: raises errors of the operating system as DataError, naming path."""
    name = path.name[:200] or str(path)[:200]
    try:
        yield
    except FileNotFoundError:
        raise DataError("data.missing_file", file=name) from None
    except IsADirectoryError:
        raise DataError("data.not_a_file", file=name) from None
    except OSError as error:
        if isinstance(error, PermissionError) and getattr(error, "winerror", None) != _IN_USE:
            raise DataError("data.no_permission", file=name) from None
        raise DataError("data.cannot_read", file=name, reason=error.strerror or str(error)) from error


def _size(path: Readable, limits: Limits) -> int:
    """Return the file's size in bytes (1 if unknown). Raises DataError if it is missing, no file, empty or larger than
    limits.bytes."""
    try:
        size = path.stat().st_size if isinstance(path, Path) else getattr(path, "size", 1)
        is_file = not isinstance(path, Path) or path.is_file()
    except ValueError:  # a NUL in the name
        raise DataError("data.missing_file", file=path.name.replace("\0", "")[:200]) from None
    if not is_file:  # opening a pipe would wait for a writer, and /dev/zero has no end
        raise DataError("data.is_device", file=str(path))
    if size == 0:
        raise DataError("data.empty_file", file=path.name)
    if size > limits.bytes:
        raise DataError("data.too_large", file=path.name, mib=size // MIB, limit_mib=limits.bytes // MIB)
    return size


def _is_folder(path: Path) -> bool:
    """Return True if the path is a folder; False also if it cannot be read or is no valid path."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a NUL in the name
        return False


def _digest(path: Readable, check: Callable[[], None]) -> str:
    """Return the sha256 of a file in hexadecimal. check: called for each part, and may raise."""
    digest = hashlib.sha256()
    for chunk in encodings.chunks(path, check):
        digest.update(chunk)
    return digest.hexdigest()


def _zip_or_spreadsheet(path: Readable, head: bytes, limits: Limits) -> FileKind | None:
    """Return the kind of a zip ("zip" for an archive) or spreadsheet by content, None for other files. Old Office files
    and encrypted ones begin alike: those count as a spreadsheet only by their suffix."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return zips.kind_of(path, limits) or "zip"
    if head.startswith(_MAGIC["office"]) and SUFFIXES.get(path.suffix.lower()) in SPREADSHEETS:
        return "xls"
    return None


def _refuse_quiz(path: Readable, head: bytes) -> None:
    """Raise DataError for a text with at least two quiz questions in the notation of a quiz program (GIFT, Aiken,
    OpenTriviaQA). A .txt whose questions stand in blocks that this app reads passes."""
    for marks, pattern in _QUIZ.items():
        if len(pattern.findall(head, 0, _QUIZ_HEAD)) > 1:
            lines = head.decode("utf-8", "replace").splitlines()[: line_rows.LOOKED_AT]
            if path.suffix.lower() == ".txt" and line_rows.shape_of(lines) == "quiz":
                continue
            raise DataError("data.is_quiz", file=path.name, marks=marks)


def _holds_character_card(path: Readable) -> bool:
    """Return True for a PNG with a character card in one of its texts."""
    with path.open("rb") as file:
        raw = file.read(_MAX_PICTURE)
    return any(mark in raw for mark in (b"tEXtchara\0", b"tEXtccv3\0", b"iTXtchara\0", b"iTXtccv3\0"))


def _refuse_what_is_not_data(path: Readable, head: bytes, packed: FileKind | None) -> None:
    """Raise DataError for a file whose beginning shows another kind: an archive, a picture, a program, a web page, a
    quiz, an app's chat that is not read. packed: its kind as a zip or spreadsheet."""
    if packed and packed != "zip":
        return
    if head[257:262] == b"ustar":
        raise DataError("data.is_tar", file=path.name)
    for name, begins in _MAGIC.items():
        if head.startswith(begins):
            if head.startswith((b"MZ", b"BZh")) and b"\0" not in head:  # a text may begin so
                continue
            is_card = name == "picture" and _holds_character_card(path)
            raise DataError("data.is_card_picture" if is_card else f"data.is_{name}", file=path.name)
    if SUFFIXES.get(path.suffix.lower()) == "sqlite" and not head.startswith(b"SQLite format 3\0"):
        raise DataError("data.not_database", file=path.name)
    if SUFFIXES.get(path.suffix.lower(), "txt") == "txt":
        _refuse_quiz(path, head)
    if key := next((key for key, begins_so in _UNREAD.items() if begins_so.match(head)), ""):
        raise DataError(f"data.{key}", file=path.name)
    if _XML.match(head) and SUFFIXES.get(path.suffix.lower()) not in (*DOCUMENTS, "txt", "code"):
        names = Counter(name.decode() for name in _ELEMENT.findall(head)).most_common(_ELEMENTS_SHOWN)
        raise DataError("data.is_xml", file=path.name, elements=[name for name, _ in names])
    if _WEB_PAGE.match(head.decode("utf-8", "replace")) and SUFFIXES.get(path.suffix.lower()) != "html":
        raise DataError("data.is_web_page", file=path.name)


def _kind(path: Readable, encoding: str, limits: Limits) -> FileKind:
    """Return the kind of a text by content if that is clear, otherwise by the file's suffix. Raises DataError for a
    kind that is not read, or not what the suffix says."""
    by_suffix = SUFFIXES.get(path.suffix.lower())
    if by_suffix == "csv" or by_suffix in SPREADSHEETS:  # many programs write text and call it .xls
        if path.suffix.lower() == ".tsv":
            _refuse_tags(path, encoding)
        return "csv"
    with path.open(encoding=encoding, errors="replace") as file:
        lines: list[str] = []
        while len(lines) < 20 and (line := file.readline(limits.row_bytes)):
            if line.strip():
                lines.append(line.strip())
            if sum(map(len, lines)) > limits.row_bytes:
                break
    first = lines[0] if lines else ""
    if by_suffix == "html" or first.startswith("WEBVTT") or any(_TIMES.match(line) for line in lines[:3]):
        return "html" if by_suffix == "html" else "srt"
    if by_suffix in ("yaml", "toml", "ipynb", "code"):
        return by_suffix
    if by_suffix in DOCUMENTS:  # a text with such a suffix
        by_suffix = "txt"
    # A .txt may hold JSON.
    if by_suffix == "txt" and not _is_json_of(dict, first):
        return "csv" if first.lower().startswith(ANKI) else "txt"
    # A conversation in each line, as a list of its turns.
    if (
        by_suffix == "jsonl"
        and len(lines) > 1
        and all(line.startswith("[") for line in lines[:2])
        and _is_json_of(list, first)
    ):
        return "jsonl"
    if (
        by_suffix == "jsonl"
        and any(line.startswith("{") for line in lines)
        and first != "{"
        and not first.startswith("[")
    ):
        return "jsonl"
    if not first.startswith(("[", "{")) or by_suffix is None and not _JSON.match(first):
        start = "".join(c if c.isprintable() else "?" for c in first[:20])
        if by_suffix is None:
            _refuse_tags(path, encoding)
            why = prose.doubt(line_rows.first_lines(path, encoding))
            advice = msg("data.if_lines", why=why) if why else msg("data.if_plain_text")
            raise DataError(
                "data.unknown_kind",
                file=path.name,
                start=start,
                suffixes=sorted(SUFFIXES.keys() - CODE.keys()),
                advice=advice,
            )
        if by_suffix in ("parquet", "arrow"):
            raise DataError("data.not_parquet", file=path.name, suffix=path.suffix.lower(), start=start)
        raise DataError("data.not_json", file=path.name, suffix=path.suffix.lower(), start=start)
    return "jsonl" if by_suffix != "jsonl" and len(lines) > 1 and _is_json_of(dict, first) else "json"


def _refuse_tags(path: Readable, encoding: str) -> None:
    """Check the first lines of a text file, and raise DataError if nearly every one is a word with its tags, as in
    CoNLL's files, which are nothing to train on."""
    if line_rows.shape_of(line_rows.first_lines(path, encoding)) == "conll":
        raise DataError("data.is_conll", file=path.name)


def _is_json_of(kind: type, line: str) -> bool:
    """Return True if a line is a complete JSON value of this type."""
    try:
        return isinstance(json.loads(line), kind)
    except (ValueError, RecursionError):
        return False


def _delimiter(path: Readable, encoding: str) -> str:
    """Return the delimiter that Anki's or Excel's first line names, else the one of comma, semicolon, tab and bar that
    splits the first records into the most equal columns; a comma if none does."""
    with path.open(encoding=encoding, newline="", errors="replace") as file:
        sample = file.read(_HEAD)
    if sample.lower().startswith(ANKI):
        named = sample[len(ANKI) :].split("\n", 1)[0].strip().lower()
        return {"comma": ",", "semicolon": ";"}.get(named, named if named in _DELIMITERS else "\t")
    if sample.lower().startswith("sep=") and sample[4:5] in _DELIMITERS:
        return sample[4]
    # The last record may be cut off.
    if len(sample) == _HEAD:
        sample = sample[: sample.rfind("\n") + 1] or sample
    return max(_DELIMITERS, key=partial(_fit_of_delimiter, re.sub(r"\A(?:#(?:[#! ]|\w+=).*\n)+", "", sample) or sample))


def _fit_of_delimiter(sample: str, delimiter: str) -> float:
    """Return how well a delimiter splits a sample into columns: the share of records that are as wide as the first,
    from 0 to 1, plus a thousandth for each of its columns. 0 if the first has one column, or csv cannot read the
    sample."""
    try:
        records = [*csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)]
    except csv.Error:
        return 0.0
    widths = [len(record) for record in records if record]
    is_one = not widths or widths[0] < 2
    return 0.0 if is_one else sum(width == widths[0] for width in widths) / len(widths) + widths[0] / 1000
