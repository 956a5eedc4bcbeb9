"""Rows that repeat an earlier row, exactly or nearly: MinHash with bands, in numpy, for whole batches of rows at once.

Questions and answers are compared separately, as their windows of WINDOW bytes, ignoring case and blanks. In each of
BINS parts of the hash range the smallest window is kept, as one byte (one permutation hashing, Li 2012; b-bit minhash,
Li & König 2010): the share of equal bytes is the share of common windows. Rows are candidates if one of the BANDS
agrees. They are near if NEAR of the bytes agree on both sides, and all numbers are equal: 3 + 4 is no repetition of 3 +
5, a second question about a page none of the first, and several wordings of a question are wanted. Windows in more than
COMMON of the first rows (a constant instruction) are ignored; a side with too few windows left must be equal. 160 bytes
a row. Cost: 19 us a row of 430 characters, against 885 us by datasketch, which also needs scipy (150 MB), and 95 us by
rensa, without the code around them (two cores shared with others, 2026-11).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from core.data.findings.finding import Finding, Marked
from core.data.findings.row_words import QUOTE, RowWords
from core.data.findings.secrets import masked

WINDOW = 6  # bytes
BINS, BANDS = 64, 32  # of one side, of both
NEAR = 0.75  # share of equal bytes, which is exact to +- 0.05
COMMON, JUDGED_BY = 0.2, 1_000  # share of the first rows; number of those rows
MIN_WINDOWS = 40  # that are not common: another word in a short text makes another question
BATCH_BYTES, FIRST_BYTES = 1 << 18, 1 << 19  # of texts hashed at once; the first batch also decides what is common
MAX_COMPARED = 1_000_000  # rows
COMPARED_AT_ONCE = 50_000  # pairs: 12 MB
QUOTED = 20_000  # rows whose first words are kept to be quoted
_NO_FIGURES = bytes(byte for byte in range(256) if not 48 <= byte <= 57)
_EMPTY = np.uint32(0xFFFFFFFF)
_SLOT = np.uint32(12)  # leaves the upper 20 bits of a hash


class Near:
    """Finds near repeats. Call `add` for each row, then read `first` or `pairs`."""

    def __init__(self) -> None:
        self._rows, self._same, self._figures = array("q"), array("q"), array("q")
        self._signatures = bytearray()  # (rows, 2 BINS) of the questions, then of the answers
        self._waiting: list[tuple[bytes, bytes]] = []
        self._bytes = 0
        self._common: np.ndarray | None = None

    def add(self, words: RowWords) -> None:
        """Keep the row's hashes, and its texts until a batch of bytes is reached and its signatures computed. Rows
        after the first MAX_COMPARED are ignored."""
        if len(self._rows) >= MAX_COMPARED:
            return
        question, answer = words.compared
        both = question + b"\0" + answer
        self._rows.append(words.row)
        self._same.append(hash(both))
        self._figures.append(hash(both.translate(None, _NO_FIGURES)))
        self._waiting.append((question, answer))
        self._bytes += len(both)
        is_first = self._common is None
        if self._bytes >= (FIRST_BYTES if is_first else BATCH_BYTES) or (is_first and len(self._waiting) >= JUDGED_BY):
            self._hash_waiting()

    def _hash_waiting(self) -> None:
        """Compute the signatures of the rows that wait and forget their texts; the first batch decides which windows
        are common and ignored. A text with few windows has its own hash as its signature."""
        if not self._waiting:
            return
        sides = [_windows(list(texts)) for texts in zip(*self._waiting, strict=True)]
        if self._common is None:
            both = [np.concatenate(parts) for parts in zip(*sides, strict=True)]
            self._common = _common(both[0], both[1], len(self._waiting))
        # Question and answer have signatures of their own: a short question would not count beside a long answer.
        signed = []
        for place, (hashes, text_of) in enumerate(sides):
            kept = np.flatnonzero(~self._common[hashes >> _SLOT])
            signatures, counts = _signatures(hashes[kept], text_of[kept], len(self._waiting))
            few = np.flatnonzero(counts < MIN_WINDOWS)
            own = np.array([hash(self._waiting[row][place]) for row in few.tolist()], np.dtype("<i8"))
            signatures[few] = np.tile(own.view(np.uint8).reshape(-1, 8), BINS // 8)
            signed.append(signatures)
        self._signatures += np.concatenate(signed, axis=1).tobytes()
        self._waiting, self._bytes = [], 0

    @cached_property
    def first(self) -> np.ndarray:
        """Position (R,) for each compared row of the earliest row that it repeats, its own if there is none. A row
        repeats another if they differ in case and blanks alone, or if they are near: questions and answers are alike in
        the share NEAR each, and all digits are the same. The rows are compared at the first access; rows added later
        are left out."""
        self._hash_waiting()
        first = np.arange(len(self._rows))
        if len(first) < 2:
            return first
        equal = self._equal
        alone = np.delete(first, equal[1])  # an equal row is near to the rows that its earlier copy is near to
        # not copied: most of the memory
        signatures = np.frombuffer(self._signatures, np.uint8).reshape(-1, 2 * BINS)
        figures = np.frombuffer(self._figures, np.int64)
        for earlier, later in _pairs(signatures, alone):
            for at in range(0, len(later), COMPARED_AT_ONCE):
                one, other = earlier[at : at + COMPARED_AT_ONCE], later[at : at + COMPARED_AT_ONCE]
                same = signatures[one] == signatures[other]
                alike = (
                    (same[:, :BINS].mean(1) >= NEAR)
                    & (same[:, BINS:].mean(1) >= NEAR)
                    & (figures[one] == figures[other])
                )
                np.minimum.at(first, other[alike], one[alike])
        del signatures
        self._signatures = bytearray()
        np.minimum.at(first, equal[1], equal[0])
        return first

    @cached_property
    def _equal(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions (earliest, later) of rows that differ in case and blanks alone."""
        _, index, inverse = np.unique(np.frombuffer(self._same, np.int64), return_index=True, return_inverse=True)
        later = np.flatnonzero(index[inverse] != np.arange(len(inverse)))
        return index[inverse][later], later

    def pairs(self) -> Iterator[tuple[int, int, bool]]:
        """Yield (row, earlier row, is_equal) for each row that repeats an earlier one, rows by their numbers in the
        file. is_equal: the row also differs from some earlier row in case and blanks alone; False: it is only nearly
        the same."""
        equal = set(self._equal[1].tolist())
        for later in np.flatnonzero(self.first != np.arange(len(self.first))).tolist():
            yield self._rows[later], self._rows[int(self.first[later])], later in equal


class Repeated:
    """Equal rows and near ones, as two findings."""

    def __init__(self, max_repair_rows: int | None):
        """Begin without rows. max_repair_rows: how many rows a finding's repair names at most; None for all."""
        self._max_rows, self._near = max_repair_rows, Near()
        self._quotes: dict[int, str] = {}

    def add(self, words: RowWords) -> None:
        """Keep the row's hashes for the comparison, which is made at the end, and of the first QUOTED rows the
        beginning of the text for a quotation."""
        self._near.add(words)
        if len(self._quotes) < QUOTED:  # repeats are known only at the end
            self._quotes[words.row] = " ".join((words.question or words.answer)[: 2 * QUOTE].split())[:QUOTE]

    def findings(self, rows: int) -> list[Finding]:
        """Return up to two findings, each with a repair that removes the later rows: rows that equal an earlier one but
        for case and blanks, and rows that are nearly the same as an earlier one. [] without any."""
        equal, near = Marked(), Marked()
        for row, first, is_equal in self._near.pairs():
            (equal if is_equal else near).add(row, masked(self._quotes.get(row, "")), first)
        result = equal.finding("repeated", rows, [equal.repair("remove", "repeated", self._max_rows)])
        return result + near.finding("near_repeated", rows, [near.repair("remove", "near_repeated", self._max_rows)])


def _windows(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Return (W,) uint32 hashes of the windows of WINDOW bytes of all texts, and (W,) the text of each. Short texts are
    padded, so that each has at least one window."""
    padded = [text.ljust(WINDOW, b"\0") for text in texts]
    data = np.frombuffer(b"".join(padded), np.uint8).astype(np.uint32)
    sizes = np.array([len(text) for text in padded])
    # A polynomial of the window's bytes in FNV's prime; below, MurmurHash3's last step spreads every bit over all 32.
    hashes = np.zeros(len(data) - WINDOW + 1, np.uint32)
    for place in range(WINDOW):
        hashes *= np.uint32(0x01000193)
        hashes += data[place : len(data) - WINDOW + 1 + place]
    text_of = np.repeat(np.arange(len(padded), dtype=np.int32), sizes)
    inside = np.ones(len(data), bool)
    for place in range(1, WINDOW):  # no window reaches from one text into the next
        inside[np.cumsum(sizes) - place] = False
    hashes, text_of = hashes[inside[: len(hashes)]], text_of[: len(hashes)][inside[: len(hashes)]]
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return hashes ^ (hashes >> np.uint32(16)), text_of


def _common(hashes: np.ndarray, text_of: np.ndarray, texts: int) -> np.ndarray:
    """Return which hashes are of windows so common that the comparison of rows ignores them.

    The result is (2^20,) bool, indexed by the upper 20 bits of a hash, so that hashes with these bits in common share
    an entry. It is True if a window occurs in more than 10 texts and in more than the share COMMON of them. hashes:
    (W,) uint32, of the windows of all texts; text_of: (W,), the number of the text of each; texts: number of all texts.
    """
    order = np.lexsort((text_of, hashes))
    hashes, text_of = hashes[order], text_of[order]
    # A window counts once for each text, however often it occurs in it.
    new = np.ones(len(hashes), bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (text_of[1:] != text_of[:-1])
    different, counts = np.unique(hashes[new], return_counts=True)
    table = np.zeros(1 << 20, bool)
    table[different[counts > max(10, COMMON * texts)] >> _SLOT] = True
    return table


def _signatures(hashes: np.ndarray, text_of: np.ndarray, texts: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (T, BINS) uint8 signatures: the smallest hash of each bin, its low byte; and (T,) windows of each text. An
    empty bin takes its next neighbour's value."""
    # One permutation hashing (Li, Owen and Zhang 2012): one hash, divided into bins, serves as many hash functions.
    smallest = np.full(texts * BINS, _EMPTY)
    # The lowest bits of a hash choose its bin, the others are what the smallest is sought of.
    place = text_of * BINS + (hashes & np.uint32(BINS - 1)).astype(np.int32)
    np.minimum.at(smallest, place, hashes >> np.uint32(5))
    table = smallest.reshape(texts, BINS)
    hollow = np.flatnonzero((table == _EMPTY).any(1) & (table != _EMPTY).any(1))
    # Densification by rotation (Shrivastava and Li 2014).
    while len(hollow):
        some = table[hollow]
        some = np.where(some == _EMPTY, np.roll(some, -1, axis=1), some)
        table[hollow] = some
        hollow = hollow[(some == _EMPTY).any(1)]
    return (table & np.uint32(0xFF)).astype(np.uint8), np.bincount(text_of, minlength=texts)


def _pairs(signatures: np.ndarray, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield for each band the pairs (earlier, later) of rows that agree in it.

    Each row is paired with the first that agrees, and with the one before it. A band holds bytes of both sides;
    otherwise one long answer that many rows share would make all of them candidates.
    """
    # Locality-sensitive hashing: rows that agree in any band are compared, others never.
    sides, width = signatures.reshape(len(signatures), 2, BINS), BINS // BANDS
    for band in range(BANDS):
        keys = (
            # Two bytes of each side, read as one number of 32 bits.
            np.ascontiguousarray(sides[rows, :, band * width : (band + 1) * width])
            .reshape(len(rows), 2 * width)
            .view(np.uint32)[:, 0]
        )
        order = np.argsort(keys, kind="stable")
        begins = np.ones(len(order), bool)
        begins[1:] = keys[order][1:] != keys[order][:-1]
        first = order[np.flatnonzero(begins)[np.cumsum(begins) - 1]]
        yield rows[first[~begins]], rows[order[~begins]]
        yield rows[order[np.flatnonzero(~begins) - 1]], rows[order[~begins]]
