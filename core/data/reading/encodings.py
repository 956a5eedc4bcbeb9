"""Detects the encoding of a text: by its BOM, as UTF-8, as UTF-16 without BOM, or with charset-normalizer.

Every assumption is reported: an encoding other than UTF-8 is a note, and so are equally plausible ones. A text that is
UTF-8 but for some bytes is damaged UTF-8 and nothing else.
"""

from __future__ import annotations

import codecs
import difflib
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from core.data.reading.file_rows import Readable
from core.errors import DataError
from core.messages import Message, msg
from core.values import MIB

_CHUNK = MIB
_SAMPLE = 64 << 10  # bytes of lines that are not ASCII
# Of equally plausible encodings the first is taken: those of several bytes a character first, because those of one
# byte fit everything, then by the number of users.
LIKELY = (
    "gb18030", "big5", "cp932", "euc_jp", "cp949", "cp1252", "cp1251", "cp1250", "cp1253", "cp1254", "cp1255", "cp1256",
    "cp1257", "koi8_r",
    "cp874", "mac_roman", "cp850",
)  # fmt: skip
_PADDING = re.compile(rb"(?<=\n)\0{8,}|(?<!\0)\0{8,}+\Z")  # a crash leaves it where lines were being written
_WIDE = 5  # the first of them have characters of several bytes
_ALONE, _HIGH = re.compile(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])"), re.compile(rb"[\x80-\xff]")
_LETTER_AT_NUMBER = re.compile(r"[^\W\d_a-zA-Z](?=\d)")
_UNICODE = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")
_AS_LIKELY = 0.01  # difference in charset-normalizer's measure of disorder, 0 to 1
_MAX_NAMED = 4
_BLANKS = "\ufeff\0 \t\r\n\x0b\x0c\u3000\xa0"


@dataclass(frozen=True)
class Decoding:
    """A detected encoding. encoding: a Python codec name. first_bad: offset of the first byte that it cannot decode."""

    encoding: str
    sha256: str
    first_bad: int | None = None
    notes: tuple[Message, ...] = ()


def find(path: Readable, head: bytes, chosen: str | None, check: Callable[[], None]) -> Decoding:
    """Read a text file and return its encoding, sha256, the offset of the first byte that this encoding cannot decode
    (None: all decode), and a note if the encoding was guessed.

    Invalid bytes are no error: UTF-8 with some of them stays UTF-8, and so does a file that no likely encoding fits.
    chosen: an encoding that a person named; it is used as it is. check: called often, and may raise. Raises DataError
    for a binary or blank file, and for an unknown chosen encoding.
    """
    encoding = _normalized_name(chosen, head) if chosen else _by_first_bytes(path, head)
    sha256, first_bad, blank = _scan(path, encoding, check)
    if blank:
        raise DataError("data.only_whitespace", file=path.name)
    if first_bad is None or chosen or not encoding.startswith("utf-8"):
        is_plain = encoding.startswith("utf-8") or chosen
        notes = () if is_plain else (msg("data.note_encoding", encoding=encoding.upper()),)
        return Decoding(encoding, sha256, first_bad, notes)
    if _is_damaged(path):
        return Decoding(encoding, sha256, first_bad)
    # A guess from a sample counts only if the whole file decodes.
    for name, others in _likely(_sample(path)):
        if _scan(path, name)[1] is None:
            return Decoding(name, sha256, None, (_note(name, others),))
    return Decoding(encoding, sha256, first_bad)


def _normalized_name(chosen: str, head: bytes) -> str:
    """Return Python's name of the encoding that a person has chosen ("utf-8-sig" for UTF-8 after a byte order mark in
    head). Raises DataError with the nearest known name."""
    normalized = chosen.strip().lower().replace("_", "-")
    known = {name.replace("_", "-"): name for name in (*_UNICODE, *LIKELY)}
    try:
        name = codecs.lookup(normalized).name
    except (LookupError, UnicodeError, ValueError):
        name = normalized
    # windows-1252, 1252 and cp1252 are one codec.
    codec = next((codec for codec in known.values() if codecs.lookup(codec).name == name), None)
    if codec is None:
        near = difflib.get_close_matches(normalized, known, 1, 0) or ["utf-8"]
        raise DataError("data.no_such_encoding", found=chosen[:60], expected=[*known], near=near[0])
    return "utf-8-sig" if codec == "utf-8" and head.startswith(codecs.BOM_UTF8) else codec


def _by_first_bytes(path: Readable, head: bytes) -> str:
    """Return the encoding by a byte order mark or by the NULs in the first bytes; "utf-8" for any other text, few NULs
    included. Raises DataError for a binary file."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    nuls = head.count(0)
    if nuls == 0 or ((padded := _PADDING.sub(b"", head)) and 0 not in padded and _is_utf8(padded)):
        return "utf-8"
    # A text has no NUL. If all of them are halves of characters, it is UTF-16: of Latin letters, or of blanks between
    # other letters.
    first, second = head[0::2].count(0), head[1::2].count(0)
    if max(first, second) * 10 > nuls * 9 and len(head) > 3 and (nuls * 4 > len(head) or not _is_utf8(head)):
        name = "utf-16-le" if second > first else "utf-16-be"
        if _scan(path, name)[1] is None:
            return name
    if nuls * 10 > len(head):
        raise DataError("data.is_binary", file=path.name, byte=head.index(0))
    return "utf-8"


def _is_utf8(head: bytes) -> bool:
    """Return True for the beginning of a text in UTF-8, which may end within a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def chunks(path: Readable, check: Callable[[], None] = lambda: None) -> Iterator[bytes]:
    """Yield the bytes of a file, _CHUNK at a time. check: called before each, and may raise."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            check()
            yield chunk


def _scan(path: Readable, encoding: str, check: Callable[[], None] = lambda: None) -> tuple[str, int | None, bool]:
    """Read a file once in an encoding and return its sha256, its first undecodable byte and whether it is blank.

    The sha256 is hexadecimal. The second value is the offset from the file's start, byte order mark included; None if
    all bytes decode. A file is blank that decodes to white space, NUL and byte order marks alone, also an empty one.
    check: called before each chunk, and may raise.
    """
    digest, blank, first_bad, position = hashlib.sha256(), True, None, 0
    # Plain utf-8 also with a BOM, because offsets of utf-8-sig begin after it.
    decoder = codecs.getincrementaldecoder("utf-8" if encoding == "utf-8-sig" else encoding)()
    rest = chunks(path, check)
    while True:
        chunk = next(rest, b"")
        digest.update(chunk)
        if first_bad is None:
            # Bytes of a character that began in the chunk before: the error's place counts from them.
            held = len(decoder.getstate()[0])
            try:
                characters = decoder.decode(chunk, final=not chunk)
                blank = blank and not characters.strip(_BLANKS)
            except UnicodeDecodeError as error:
                first_bad, blank = position - held + error.start, False
        position += len(chunk)
        if not chunk:
            return digest.hexdigest(), first_bad, blank


def _is_damaged(path: Readable) -> bool:
    """Return whether a file that is no valid UTF-8 is UTF-8 with errors: at least half of its bytes and characters
    beyond ASCII are valid."""
    good = bad = 0
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for chunk in chunks(path):
        text = decoder.decode(chunk)
        if not text.isascii():
            # surrogateescape: each is a byte that is no UTF-8.
            escaped = sum("\udc80" <= character <= "\udcff" for character in text)
            bad += escaped
            good += sum(character > "\x7f" for character in text) - escaped
    return good >= bad


def _sample(path: Readable) -> bytes:
    """Return the first lines that are not ASCII, at most _SAMPLE bytes, not ending within a character."""
    lines, size = [], 0
    with path.open("rb") as file:
        while size < _SAMPLE and (line := file.readline(_SAMPLE)):
            if not line.isascii():
                lines.append(line)
                size += len(line)
    # An incomplete character at the end of a truncated line is removed.
    return b"".join(lines)[:_SAMPLE].rstrip(bytes(range(0x80, 0x100))) if size >= _SAMPLE else b"".join(lines)


def _likely(sample: bytes) -> list[tuple[str, list[str]]]:
    """Return the encodings of LIKELY in which all of the sample decodes, the most plausible first, each as (name,
    others).

    others: at most _MAX_NAMED other encodings that are as plausible as the best of all and give another text. [] if
    none decodes.
    """
    import charset_normalizer

    # Letters with accents stand alone among ASCII; characters of several bytes do not.
    alone = 2 * len(_ALONE.findall(sample)) > len(_HIGH.findall(sample))
    order = [*LIKELY[_WIDE:], *LIKELY[:_WIDE]] if alone else list(LIKELY)
    candidates = [
        (match.chaos + _letters_at_numbers(str(match)), order.index(name), name, str(match))
        for match in charset_normalizer.from_bytes(sample, cp_isolation=list(LIKELY))
        for name in match.could_be_from_charset
        if name in LIKELY
    ]
    least = min((chaos for chaos, *_ in candidates), default=0.0)
    # Those that are as plausible as the best keep the order of LIKELY.
    candidates.sort(
        key=lambda each: (each[0] > least + _AS_LIKELY, each[0] if each[0] > least + _AS_LIKELY else 0, each[1])
    )
    equal = [(name, text) for chaos, _, name, text in candidates if chaos <= least + _AS_LIKELY]
    result = []
    for _, _, name, text in candidates:
        texts = {text}
        others = []
        for other, its_text in equal:
            if its_text not in texts:  # encodings that give the same text are listed once
                texts.add(its_text)
                others.append(other)
        result.append((name, others[:_MAX_NAMED]))
    return result


def _letters_at_numbers(text: str) -> float:
    """Return the share, of all characters beyond ASCII, of letters that stand directly before a digit: Ł100 suggests
    that the encoding is wrong and a pound sign was meant. 0.0 for plain ASCII."""
    return len(_LETTER_AT_NUMBER.findall(text)) / max(1, sum(character > "\x7f" for character in text))


def _note(name: str, others: list[str]) -> Message:
    """Return the note on an assumed encoding. others: equally plausible ones."""
    label = msg(f"data.encoding_{name}")
    if not others:
        return msg("data.note_assumed_encoding", encoding=label)
    return msg("data.note_unsure_encoding", encoding=label, others=[msg(f"data.encoding_{other}") for other in others])
