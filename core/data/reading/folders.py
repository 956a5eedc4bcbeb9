"""Several files as one dataset: the data files of a folder or a zip, and their order.

An archive of ChatGPT or Claude is its conversations.json, one of WhatsApp its chat, a folder of LLaMA-Factory or
easy-dataset the files in its dataset_info.json; otherwise all files of a readable kind, by name. All other files are
reported by name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from core import files
from core.data.chats.messengers import SLACK_USERS, slack_users
from core.data.reading import batch_files, dataset_info, label_names, line_files, source_code, yaml_rows, zips
from core.data.reading.choices import Choices
from core.data.reading.file_rows import Limits, Readable, Source
from core.data.reading.split_names import is_for_training, is_for_validation, is_of_all_rows
from core.data.reading.suffixes import CODE, DOCUMENTATION_SUFFIXES, DOCUMENTS, SUFFIXES, data_suffix
from core.errors import DataError
from core.messages import Message, msg
from core.values import MIB

MAX_FILES = 5_000
_MAX_NAMED = 10
_TABLES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".feather", ".xlsx", ".xls", ".ods")
_SYSTEM_FILES = ("__MACOSX", "Thumbs.db", "desktop.ini")
# Files beside data that describe it.
_ABOUT = re.compile(
    r"(?:(?:readme|changelog)(?![a-z0-9])[^/]*|(?:licen[sc]e(?:[-.](?:mit|apache|bsd|[al]?gpl|mpl|cc"
    r"|isc)(?:[-_.\d][\w.-]*)?)?|dataset_infos?|mkdocs|pyproject|cargo|dataset_dict|state(?:_dict)?"
    r"|config(?:\.\w+)?|package(?:-lock)?)"
    r"(?: \(\d+\))?(?:\.\w+)?)$",
    re.IGNORECASE,
)
_CACHE = re.compile(r"cache-[0-9a-f]+(?:_\d+_of_\d+)?\.arrow")  # what `datasets` computed, beside a saved set
Probe = Callable[[Readable, Limits, Choices], Source]


class Inside:
    """A file of a folder. name: its path within the folder, with /."""

    def __init__(self, folder: Path, path: Path):
        self.path = path
        self.name = path.relative_to(folder).as_posix()
        self.suffix, self.stem, self.size = path.suffix, path.stem, path.stat().st_size
        self.flaw = ""
        self.open = path.open

    def __str__(self) -> str:
        """Return the whole path of the file, by which another process opens it; `name` is its path within the
        folder."""
        return str(self.path)


Part = zips.Member | Inside


def from_zip(path: Path, limits: Limits, choices: Choices, probe: Probe, sha256: str) -> Source:
    """Return the files of an archive as one source. sha256: of the archive. Raises DataError as `_source`."""
    return _source(
        path, [each for each in zips.members(path, limits) if _is_own(each.name)], limits, choices, probe, sha256
    )


def from_folder(folder: Path, limits: Limits, choices: Choices, probe: Probe) -> Source:
    """Return a folder's files as one source, with their stamps. Raises DataError if there is no data in it, or more
    than limits.bytes."""
    parts = [Inside(folder, path) for path in files_of(folder)]
    if sum(part.size for part in parts) > limits.bytes:
        mib = sum(part.size for part in parts) // MIB
        raise DataError("data.too_large", file=folder.name, mib=mib, limit_mib=limits.bytes // MIB)
    stamps = tuple((part.path, files.stamp(part.path)) for part in parts)
    return replace(_source(folder, parts, limits, choices, probe, ""), stamps=stamps)


def files_of(folder: Path) -> list[Path]:
    """Return the files of a folder and those below, without links, hidden ones and those of a system. Raises DataError
    if there are more than MAX_FILES, OSError if none can be read."""
    paths: list[Path] = []
    refused: list[OSError] = []
    # Without onerror an unreadable folder would look empty.
    for top, folders, names in os.walk(folder, onerror=refused.append):
        folders[:] = sorted(name for name in folders if not (Path(top) / name).is_symlink())
        for name in names:
            path = Path(top) / name
            if path.is_file() and not path.is_symlink() and _is_own(path.relative_to(folder).as_posix()):
                paths.append(path)
        if len(paths) > MAX_FILES:
            raise DataError("data.too_many_files", file=folder.name, limit=MAX_FILES)
    if refused and not paths:
        raise refused[0]
    return paths


def _is_own(name: str) -> bool:
    """Return True unless the file, or a folder on its path, is hidden or made by the operating system (Thumbs.db,
    __MACOSX). name: its path in the folder."""
    # Not a path with "..", which leads out of an archive: it is reported (zips.Member.flaw).
    hidden = (part.startswith(".") and not part.startswith("..") for part in PurePosixPath(name).parts)
    return not any(hidden) and not any(part in _SYSTEM_FILES for part in PurePosixPath(name).parts)


def by_name(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts chapter 2 before chapter 10."""
    return [
        (int(part), "") if part.isdecimal() and len(part) < 20 else (0, part.lower())
        for part in re.split(r"(\d+)", name)
    ]


def _source(path: Path, parts: Sequence[Part], limits: Limits, choices: Choices, probe: Probe, sha256: str) -> Source:
    """Return the files of a folder or zip as one source whose `parts` are the data files in the order of their names;
    if only one is data, that file itself.

    Each part gets its column layout, the names of people and classes, and a mark if it is for validation. Other files
    are listed in notes, and so are files that cannot be read; if none can, the first one's error is raised. parts: all
    files. sha256: of the archive; "" computes one of the data files. Raises DataError for too many or too large files,
    for none with data, and where labels stand in other files or in file names.
    """
    if len(parts) > MAX_FILES:
        raise DataError("data.too_many_files", file=path.name, limit=MAX_FILES)
    parts = sorted(parts, key=lambda part: by_name(part.name))
    data_parts, layouts = _data_parts(parts)
    line_files.refuse_side_by_side(path.name, parts)
    line_files.refuse_classes(path.name, data_parts)
    own_code, others_code = _code_parts(parts, data_parts)
    beside = tuple(part.name for part in parts if own_code and _is_data_beside(part, limits))
    # Only a source folder is trained on its code; elsewhere code is no data, unless there is nothing else.
    data_parts = own_code or [part for part in data_parts if not source_code.is_code(part.name)] or data_parts
    read: list[Source] = []
    refused: list[DataError] = []
    unpacked = 0
    for part in data_parts:
        try:
            if part.flaw:
                raise DataError(part.flaw, file=part.name)
            read.append(replace(probe(part, limits, choices), layout=layouts.get(part.name), beside=beside))
            unpacked += getattr(read[-1].path, "unpacked", 0)
        except DataError as error:
            refused.append(error)
        if unpacked > limits.bytes:  # of many compressed files together
            raise DataError("data.too_large_unpacked", file=path.name, limit_mib=limits.bytes // MIB)
    read = _with_splits(_with_label_names(_with_people(_only_chat(read), parts), parts))
    read, again = _without_repeated_files(read)
    if not read:
        raise refused[0] if refused else _no_data_error(path, parts)
    names_and_hashes = "".join([*(f"{source.path.name}\0{source.sha256}\0" for source in read), *beside])
    digest = sha256 or hashlib.sha256(names_and_hashes.encode()).hexdigest()
    size = sum(part.size for part in parts)
    used = {name for source in read for name in (str(source.path.name), source.label_names.file)} | (
        {SLACK_USERS} if any(source.people for source in read) else set()
    )
    others = [part.name for part in parts if part.name not in used]
    # After the hash, which is of the files as they are.
    read = yaml_rows.with_responses_attached(batch_files.with_requests_attached(read, limits), limits)
    notes = (*(distinct_notes(read) if len(read) > 1 else ()), *again, *_notes(others, refused))
    if own_code:
        about_code = source_code.note([str(source.path.name) for source in read], others_code, beside[:_MAX_NAMED])
        notes = (*about_code, *(note for note in notes if not _is_about_code(note)))
    if len(read) == 1:
        about = msg("data.note_one_file", file=read[0].path.name)
        return replace(read[0], bytes=size, sha256=digest, stored_as="zip", notes=(about, *read[0].notes, *notes))
    chats = {source.chat for source in read}
    same_chat = chats.pop() if len(chats) == 1 else ""
    return Source(
        path, "zip", size, digest, read[0].encoding,
        notes=notes, chat=same_chat, choices=choices, parts=tuple(read), stored_as="zip",
    )  # fmt: skip


def _no_data_error(path: Path, parts: Sequence[Part]) -> DataError:
    """Return the DataError for a folder without data, with the endings of its files and those that can be read; a deck
    of Anki (collection.anki2) has an error of its own."""
    if any(part.name.startswith("collection.anki2") for part in parts):
        return DataError("data.is_deck", file=path.name)
    endings = _endings(part.name for part in parts) or [msg("data.none")]
    suffixes = sorted(SUFFIXES.keys() - CODE.keys())
    return DataError("data.no_data_inside", file=path.name, found=endings, suffixes=suffixes)


def _is_about_code(note: Message) -> bool:
    """Return True for the note on the language of one file, which a note on all files replaces."""
    return note.key == "data.note_in_file" and Message.model_validate(note.params["note"]).key == "data.note_code"


def _code_parts(parts: Sequence[Part], data: Sequence[Part]) -> tuple[list[Part], Counter[str]]:
    """Return a source folder's own code files, and a count of its other code files by the reason that they are left out
    (vendored, generated, ...). ([], empty) for any other folder.

    A folder is a source folder if it has more files of code than other files among data.
    """
    code = [part for part in parts if source_code.is_code(part.name) and not part.flaw]
    if len(code) <= sum(not source_code.is_code(part.name) for part in data):
        return [], Counter()
    reasons = [source_code.reason_against(part) for part in code]
    own = [part for part, why in zip(code, reasons, strict=True) if not why]
    return own, Counter(why for why in reasons if why)


def _is_data_beside(part: Part, limits: Limits) -> bool:
    """Return True for a table, or a list of objects in YAML or TOML, unless it describes a project (README,
    package.json), is named as test data, or cannot be read."""
    is_other = part.flaw or _ABOUT.match(PurePosixPath(part.name).name) or is_for_validation(part.name, ())
    return not is_other and (
        data_suffix(part.name) in _TABLES
        or (SUFFIXES.get(part.suffix.lower()) in ("yaml", "toml") and yaml_rows.is_dataset(part, limits))
    )


def _data_parts(parts: Sequence[Part]) -> tuple[list[Part], dict[str, dataset_info.Layout]]:
    """Return the files that hold rows, with their layouts by name: only those that a dataset_info.json lists, if there
    are any; else all of a readable kind, without layouts.

    Then README and similar files, caches of `datasets`, and, where other files hold rows, documentation and lists of
    classes are left out.
    """
    info = next((part for part in parts if PurePosixPath(part.name).name == dataset_info.NAME and not part.flaw), None)
    if info:
        layouts_by_name = dataset_info.read(info)
        base = str(PurePosixPath(info.name).parent)
        layouts = {
            str(PurePosixPath(base) / name) if base != "." else name: layout for name, layout in layouts_by_name.items()
        }
        listed = [part for part in parts if part.name in layouts]
        if listed:
            return listed, layouts
    # README files and caches have suffixes of data too, but describe it.
    known = [
        part
        for part in parts
        if data_suffix(part.name) in SUFFIXES
        and not _ABOUT.match(PurePosixPath(part.name).name)
        and not (_CACHE.fullmatch(PurePosixPath(part.name).name) and len(parts) > 1)
    ]
    data = [part for part in known if data_suffix(part.name) not in DOCUMENTATION_SUFFIXES]
    rows = [part for part in data if not label_names.LISTS.match(PurePosixPath(part.name).name)]
    return rows or data or known, {}


def _only_chat(read: list[Source]) -> list[Source]:
    """Return only the files of one chat app, if a known app (ChatGPT, WhatsApp, Slack, ...) exported any of the files:
    those of the same app as the first such file. Otherwise return all files.

    The other files of an app's archive describe the account.
    """
    archive = [
        source
        for source in read
        if source.chat in ("chatgpt", "deepseek", "claude", "grok", "whatsapp", "slack", "meta", "teams")
    ]
    return [source for source in archive if source.chat == archive[0].chat] if archive else read


def _with_people(read: list[Source], parts: Sequence[Part]) -> list[Source]:
    """Return Slack's files with the names of people, by their ids, from users.json; all files unchanged if they are not
    Slack's, or if users.json is missing, too large or unreadable."""
    users = next((part for part in parts if part.name == SLACK_USERS and not part.flaw), None)
    if users is None or not read or read[0].chat != "slack" or users.size > zips.MAX_HELD:
        return read
    with users.open("rb") as file:
        try:
            people = slack_users(json.load(file))
        except (*zips.BROKEN, RecursionError):
            return read
    return [replace(source, people=people) for source in read]


def _with_label_names(read: list[Source], parts: Sequence[Part]) -> list[Source]:
    """Return the files with the names of their classes, from the nearest file in their folder or in one around it;
    chats, and files with names of their own, as they are."""
    about = [part for part in parts if label_names.is_about_labels(part.name) and not part.flaw]
    known: dict[PurePosixPath, label_names.LabelNames] = {}
    named: list[Source] = []
    for source in read:
        folder = PurePosixPath(source.path.name).parent
        if source.label_names == label_names.NO_NAMES and not source.chat and about:
            if folder not in known:  # thousands of files may stand beside one description
                near = [
                    (part.name, part)
                    for around in (folder, *folder.parents)
                    for part in about
                    if PurePosixPath(part.name).parent == around and part.name != source.path.name
                ]
                known[folder] = label_names.first_of(near)
            source = replace(source, label_names=known[folder])
        named.append(source)
    return named


def _with_splits(read: list[Source]) -> list[Source]:
    """Return the files, those of test and validation rows marked by their names. Chats and documents have no splits."""
    names = [source.path.name for source in read]
    return [
        replace(source, validation=True)
        if not source.chat and source.kind not in (*DOCUMENTS, "code") and is_for_validation(source.path.name, names)
        else source
        for source in read
    ]


def _without_repeated_files(read: list[Source]) -> tuple[list[Source], list[Message]]:
    """Return the files without those that are named as all rows (all.jsonl) and whose lines all stand in the other
    files too, and a note on each one that is dropped.

    Only where the other files have both a training and a validation file; otherwise all stay.
    """
    rest = [source for source in read if not is_of_all_rows(source.path.name)]
    has_both = any(each.validation for each in rest) and any(is_for_training(each.path.name) for each in rest)
    if len(rest) == len(read) or not has_both:
        return read, []
    # Splits may have the rows in another order.
    lines = {line for source in rest if source.kind in ("jsonl", "csv", "txt") for line in _line_hashes(source)}
    repeated = [
        source
        for source in read
        if source not in rest and source.kind in ("jsonl", "csv", "txt") and lines.issuperset(_line_hashes(source))
    ]
    notes = [msg("data.note_file_of_all", file=source.path.name) for source in repeated]
    return [source for source in read if source not in repeated], notes


def _line_hashes(source: Source) -> Iterator[bytes]:
    """Yield a hash of each line that is not blank, without outer spaces; of a very long one that of its parts."""
    with source.path.open("rb") as file:
        for line in iter(lambda: file.readline(MIB), b""):
            if text := line.strip():
                yield hashlib.blake2b(text, digest_size=16).digest()


def distinct_notes(read: Sequence[Source]) -> list[Message]:
    """Return the first different notes (at most _MAX_NAMED) on the files, each with the first file that has it."""
    with_files: list[tuple[Message, str]] = []
    for source in read:
        for note in source.notes:
            if len(with_files) < _MAX_NAMED and all(note != other for other, _ in with_files):
                with_files.append((note, source.path.name))
    return [msg("data.note_in_file", file=file, note=note) for note, file in with_files]


def _notes(others: Sequence[str], refused: Sequence[DataError]) -> tuple[Message, ...]:
    """Return notes on files that could not be read, and on those that are no data."""
    notes = [msg("data.note_refused_file", why=error.message) for error in refused[:_MAX_NAMED]]
    if others:
        notes.append(msg("data.note_other_files", count=len(others), endings=_endings(others)))
    return tuple(notes)


def _endings(names: Iterable[str]) -> list[Message]:
    """Return the commonest endings of files (at most _MAX_NAMED), each with its number; the name of a file without
    one."""
    endings = Counter(PurePosixPath(name).suffix.lower() or PurePosixPath(name).name for name in names)
    return [msg("data.counted", name=ending, count=count) for ending, count in endings.most_common(_MAX_NAMED)]
