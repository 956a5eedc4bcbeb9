"""Divides documents into passages of some 300 to 600 tokens along their headings, and sets some apart for validation
before anything is written from them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from core.data.reading.file_rows import DEFAULT_LIMITS, Row
from core.data.reading.sniff import probe
from core.data.sets.interpretation import interpret
from core.data.sets.paragraphs import JOINTS
from core.data.store import DatasetStore
from core.data.text_pieces import borders, cuts
from core.errors import ChatError
from core.values import Frozen

MIN_BYTES, MAX_BYTES = 1200, 2400  # of a passage in UTF-8: about four bytes are a token, in Chinese as in English
TABLE_BYTES = 4 * MAX_BYTES  # a table is not divided up to this size
APART = 0.1  # share of the passages for validation
MIN_PASSAGES = 4  # of which some are set apart
MIN_FILES = 5  # from which on whole files are set apart, rather than chapters
_HEADING = re.compile(r"(#{1,6})[ \t]+(\S.*)")


@dataclass(frozen=True)
class Block:
    """A paragraph of a document. joint: the text between it and the block before, None where a text begins; place: of
    its first character in the text; page: of a PDF, else 0."""

    text: str
    row: int = 0
    file: str = ""
    joint: str | None = None
    place: int = 0
    page: int = 0

    @property
    def is_heading(self) -> bool:
        """True if it has nothing but headings."""
        return all(_HEADING.match(line) or not line.strip() for line in self.text.split("\n"))


class Passage(Frozen):
    """A part of a document. headings: that it stands under, the topmost first; rows: the first and the last of the
    dataset that it has; start, end: its characters in the text of its file; pages: of a PDF, each (the character of the
    passage that it begins at, its number). validation: set apart."""

    number: int
    file: str = ""
    headings: tuple[str, ...] = ()
    rows: tuple[int, int]
    start: int
    end: int
    text: str
    pages: tuple[tuple[int, int], ...] = ()
    validation: bool = False

    def pages_of(self, spans: Sequence[tuple[int, int]]) -> list[int]:
        """Return the page of a PDF on which each part begins; without parts, the passage's own pages; none of other
        documents."""
        if not spans or not self.pages:
            return [page for _, page in self.pages]
        return [next((page for at, page in reversed(self.pages) if at <= start), 0) for start, _ in spans]


def blocks_of(store: DatasetStore, dataset: str) -> Iterator[Block]:
    """Yield the paragraphs of a dataset's documents, as edited. Raises DataError, and ChatError for rows that are no
    plain text."""
    rows, info = store.rows(dataset), store.get(dataset)
    files, pages = _file_of_row(store, dataset), rows.pages()
    paragraphs = rows.paragraphs()
    for place, (number, example) in enumerate(rows):
        if example.text is None:
            raise ChatError("making.no_text", dataset=info.name, format=str(info.format))
        joint = JOINTS[paragraphs.joint[place]] if paragraphs is not None else None
        file = files.get(number, "") or info.source_name
        yield Block(example.text, number, file, joint, page=pages.get(number, 0))


def _file_of_row(store: DatasetStore, dataset: str) -> dict[int, str]:
    """Return the file that each row of a dataset came from, by the row's number, if the dataset was a folder or an
    archive; {} for a single file."""
    source = probe(store.path(dataset), choices=store.choices(dataset))
    if not source.parts:
        return {}
    *_, items = interpret(source, "text", DEFAULT_LIMITS, store.choices(dataset))
    return {row.number: row.file for row in items if isinstance(row, Row)}


@dataclass
class _Open:
    """The passage that is being gathered. headings: above its first paragraph."""

    headings: tuple[str, ...] = ()
    blocks: list[Block] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The blocks' text, with the joints between them."""
        return "".join((block.joint or "") * (number > 0) + block.text for number, block in enumerate(self.blocks))

    @property
    def has_body(self) -> bool:
        """True if it has more than headings."""
        return not all(block.is_heading for block in self.blocks)

    def passage(self, number: int) -> Passage:
        """Return it as a passage with this number and its place in the document."""
        first, last = self.blocks[0], self.blocks[-1]
        rows, end = (first.row, last.row), last.place + len(last.text)
        pages = {block.page: block.place - first.place for block in reversed(self.blocks) if block.page}
        return Passage(
            number=number,
            file=first.file,
            headings=self.headings,
            rows=rows,
            start=first.place,
            end=end,
            text=self.text,
            pages=tuple((begins, page) for page, begins in reversed(pages.items())),
        )

    def following(self) -> _Open:
        """Move the headings at the end of this passage into a new one, and return that; it is empty if the passage ends
        with no heading."""
        kept = len(self.blocks)
        while kept and self.blocks[kept - 1].is_heading:
            kept -= 1
        carried, self.blocks = self.blocks[kept:], self.blocks[:kept]
        return _Open(blocks=carried)


def passages_of(blocks: Iterable[Block], seed: int = 0) -> list[Passage]:
    """Divide documents into passages, and set about a tenth of them apart for validation, drawn by the seed: whole
    files or chapters where they are small enough; none of a few passages.

    A passage begins at a heading where the one before is long enough, and never ends with a heading alone. A paragraph
    longer than MAX_BYTES is divided at its sentences, a table longer than TABLE_BYTES at its lines.
    """
    passages, above, current, place = list[Passage](), list[tuple[int, str]](), _Open(), 0
    for paragraph in blocks:
        if paragraph.joint is None:
            if current.has_body:
                passages.append(current.passage(len(passages)))
            above, current, place = [], _Open(), 0
        for block in _parts(paragraph):
            place += len(block.joint or "")
            heading, size = _HEADING.match(block.text), _utf8_bytes(current.text)
            if current.has_body and (size + _utf8_bytes(block.text) > MAX_BYTES or (heading and size >= MIN_BYTES)):
                following = current.following()
                passages.append(current.passage(len(passages)))
                current = following
            if heading:
                level = len(heading[1])
                above = [*(one for one in above if one[0] < level), (level, heading[2].strip(" #"))]
            if not current.has_body:
                current.headings = tuple(title for _, title in above)
            current.blocks.append(replace(block, place=place))
            place += len(block.text)
    if current.has_body:
        passages.append(current.passage(len(passages)))
    apart = _apart(passages, seed)
    return [passage.model_copy(update={"validation": passage.number in apart}) for passage in passages]


def _utf8_bytes(text: str) -> int:
    """Return the number of bytes of a text in UTF-8; a character that cannot be encoded counts as one."""
    return len(text.encode("utf-8", "replace"))


def _parts(block: Block) -> Iterator[Block]:
    """Yield a block, divided at sentences, or a table at its lines, if it is too long for a passage."""
    is_table = block.text.count("\n|") > 1 or block.text.count(" | ") > block.text.count("\n") > 0
    limit, size = TABLE_BYTES if is_table else MAX_BYTES, _utf8_bytes(block.text)
    if size <= limit:
        yield block
        return
    ends = borders(block.text, [(place, place + 1) for place in range(len(block.text))])
    for number, (start, end) in enumerate(cuts(ends, len(block.text), max(2, limit * len(block.text) // size))):
        # a piece begins with the last character of the one before
        text = block.text[start + (number > 0) : end]
        yield replace(block, text=text, joint="" if number else block.joint)


def _apart(passages: Sequence[Passage], seed: int) -> set[int]:
    """Return the numbers of the passages that are set apart for validation, about the share APART: of some files,
    chapters or, where those are too large, single passages. Empty for fewer than MIN_PASSAGES."""
    if len(passages) < MIN_PASSAGES:
        return set()
    for units in _divisions(passages):
        together, apart = dict[object, list[int]](), set[int]()
        for passage, unit in zip(passages, units, strict=True):
            together.setdefault(unit, []).append(passage.number)
        order = list(together.values())
        random.Random(f"{seed}/apart").shuffle(order)
        for numbers in order:
            if len(apart) < APART * len(passages) and len(apart) + len(numbers) <= max(1, 2 * APART * len(passages)):
                apart.update(numbers)
        if apart:
            return apart
    return set()


def _divisions(passages: Sequence[Passage]) -> Iterator[list[object]]:
    """Yield ways of keeping passages together, from coarse to fine; each is a list with a key for each passage, and
    passages with equal keys are set apart together.

    The keys are files (of MIN_FILES or more), then chapters by ever more headings, at last each passage alone.
    """
    if len({passage.file for passage in passages}) >= MIN_FILES:
        yield [passage.file for passage in passages]
    for depth in range(1, max(len(passage.headings) for passage in passages) + 1):
        yield [(passage.file, passage.headings[:depth]) for passage in passages]
    yield [passage.number for passage in passages]
