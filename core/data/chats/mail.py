"""An mbox of e-mails: the headers say who answers whom, so each thread is a conversation. No account, no network.

Learned is what somebody wrote: without the letter that is quoted below it, and without the signature. A letter of HTML
alone is left out. All texts of a file are held in memory, since an mbox is sorted by time and not by thread;
attachments are not: of a letter MOST_BYTES are read.
"""

from __future__ import annotations

import email
import re
from collections.abc import Iterable, Iterator
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parseaddr, parsedate_to_datetime

from core.data.chats.said import Said, left_of
from core.data.reading.rows import Limits, Source
from core.data.shapes.left_out import Loss
from core.values import MIB

MOST_BYTES = 2 * MIB  # more than MOST_SAID of text, in base64 too: what is cut here is named among what is left out
_BEGINS = re.compile(rb"^From \S+.*\d{4}\s*$")
_HEADER = re.compile(r"^[A-Za-z][A-Za-z0-9-]*:")
_ID = re.compile(r"<[^<>\s]+>")
_SUBJECT = re.compile(r"^(?:(?:re|fwd?|aw|wg|sv|antw|tr|rif|回复|转发|答复)\s*[:：]\s*)+", re.IGNORECASE)
# What stands above a quoted letter: "On ... Jo wrote:", or the header that Outlook repeats.
_QUOTE_BEGINS = re.compile(
    r"^(?:(?:On|Am|Le|El|Il|Op|Em|在).{5,200}"
    r"(?:wrote|schrieb|a écrit|escribió|ha scritto|schreef|escreveu|写道)\s*[:：]"
    r"|-{3,} ?(?:Original Message|Ursprüngliche Nachricht|Forwarded message|原始邮件).{0,20}|_{20,}|From: [^<>]+ "
    r"<[^<>@]+@[^<>]+(?:<[^<>]+>)?>)\s*$"
)


def is_mbox(lines: Iterable[str]) -> bool:
    """By content: an envelope's line, then headers, a From among them."""
    first = [line.rstrip("\r\n") for line in lines][:60]
    head = first[1 : first.index("")] if "" in first else first[1:]
    named = {line.partition(":")[0].lower() for line in head if _HEADER.match(line)}
    return (
        bool(first)
        and bool(_BEGINS.match(first[0].encode()))
        and "from" in named
        and bool(named & {"date", "message-id", "subject"})
    )


def mbox(source: Source, limits: Limits) -> Iterator[Said]:
    found: list[tuple[str, Said]] = []
    roots: dict[str, str] = {}
    for line, letter in _letters(source):
        sender, about = parseaddr(_header(letter, "from")), _SUBJECT.sub("", _header(letter, "subject")).strip()
        own = next(iter(_ID.findall(_header(letter, "message-id"))), "")
        before = _ID.findall(f"{_header(letter, 'references')} {_header(letter, 'in-reply-to')}")
        root = next(
            (roots[id] for id in before if id in roots), before[0] if before else own or f"subject:{about.casefold()}"
        )
        roots |= dict.fromkeys([id for id in (*before, own) if id], root)
        text, loss = _text(letter)
        found.append((root, Said(sender[0] or sender[1], text, _when(letter), root, loss or left_of(text), line)))
    first: dict[str, float] = {}
    for root, said in found:
        first[root] = min(first.get(root, float("inf")), said.when if said.when is not None else float("inf"))
    found.sort(key=lambda each: (first[each[0]], each[0], each[1].when if each[1].when is not None else float("inf")))
    yield from (said for _, said in found)


def _letters(source: Source) -> Iterator[tuple[int, Message]]:
    """(the line on which it begins, its beginning)."""
    held: list[bytes] = []
    size = begin = 0
    is_blank = True
    with source.path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if is_blank and _BEGINS.match(line):
                if begin:
                    yield begin, _parsed(held)
                held, size, begin = [], 0, number
            elif size < MOST_BYTES:
                held.append(line[:MOST_BYTES])
                size += len(line)
            is_blank = not line.strip()
    if begin:
        yield begin, _parsed(held)


def _parsed(lines: list[bytes]) -> Message:
    return email.message_from_bytes(b"".join(lines))


def _header(letter: Message, name: str) -> str:
    """In words; as it stands where its encoding is broken or unknown."""
    written = letter.get(name)
    try:
        return "" if written is None else str(make_header(decode_header(written)))
    except (HeaderParseError, LookupError, ValueError):
        return str(written)


def _when(letter: Message) -> float | None:
    try:
        return parsedate_to_datetime(_header(letter, "date")).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _text(letter: Message) -> tuple[str, Loss | None]:
    parts = [
        part
        for part in letter.walk()
        if part.get_content_maintype() == "text" and part.get_content_disposition() != "attachment"
    ]
    body = next((part for part in parts if part.get_content_subtype() == "plain"), None)
    payload = body.get_payload(decode=True) if body else b""
    if body is None or not isinstance(payload, bytes):
        return "", Loss("chat", "html") if parts else None
    try:
        written = payload.decode(body.get_content_charset() or "utf-8", "replace")
    except LookupError:  # an encoding that nobody knows
        return "", Loss("chat", "html")
    kept: list[str] = []
    lines = written.replace("\r\n", "\n").split("\n")
    for at, line in enumerate(lines):
        # Mail programs break the line above a quote where it is long.
        if (
            line.rstrip("\n") in ("-- ", "--")
            or _QUOTE_BEGINS.match(line)
            or _QUOTE_BEGINS.match(" ".join(lines[at : at + 2]))
        ):
            break
        if not line.startswith(">"):
            kept.append(line.rstrip())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip(), None
