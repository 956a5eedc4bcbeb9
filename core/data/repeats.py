"""Rows that repeat an earlier row, exactly or except for case, width, spaces and punctuation at the end of words.

Two rows are the same only if all their texts are: a different question or a different answer makes a different row.
Marks inside numbers and words (3.5, a-b, don't) count, so that "2+2" stays another text than "2-2". 100,000 rows of 300
characters take about 4 s (one shared core, 2026-11). No torch.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from core.data.findings.near import Near
from core.data.findings.row_words import RowWords
from core.data.formats import Example
from core.data.sets.earliest import earliest
from core.recipe import Data

CHECK_EVERY = 1000  # rows
_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"'})
_MARKS = re.compile(r"[.,;:!?。、]+(?=[\s\"')\]\u3040-\u30ff\u3400-\u9fff]|$)")


@dataclass(frozen=True, eq=False)
class Repeats:
    """The earliest row with the same content, for each of R rows.

    first (R,): position of the earliest row that is the same, its own if none is. exact (R,): whether the two are equal
    word for word. near (R,): position of the earliest row that is the same or nearly so (core/data/findings/near); None
    if it was not computed.
    """

    first: np.ndarray
    exact: np.ndarray
    near: np.ndarray | None = None

    @classmethod
    def find(cls, examples: Iterable[Example], check: Callable[[], None] = lambda: None, near: bool = False) -> Repeats:
        """Compare all examples and return which repeat which. check: called every CHECK_EVERY rows, and may raise.
        near: also find near repeats, which doubles the time."""
        near_rows = Near() if near else None
        text_hashes, example_hashes = array("q"), array("q")  # 64-bit hashes
        for i, example in enumerate(examples):
            if i % CHECK_EVERY == 0:
                check()
            text_hashes.append(hash(compared_texts(example)))
            example_hashes.append(hash(example))
            if near_rows is not None:
                near_rows.add(RowWords(i, example))
        first, exact_hashes = earliest(np.array(text_hashes, np.int64)), np.array(example_hashes, np.int64)
        return cls(
            first, exact_hashes == exact_hashes[first], None if near_rows is None else _together(first, near_rows.first)
        )

    def __len__(self) -> int:
        return len(self.first)

    @property
    def repeated_positions(self) -> np.ndarray:
        """Positions of the rows whose texts equal those of an earlier row (by `first`). Near repeats do not count."""
        return np.flatnonzero(self.first != np.arange(len(self.first)))


def needs_repeats(data: Data) -> bool:
    """Return True if the data settings remove rows by comparison: duplicates, or training rows equal or nearly equal to
    validation rows. Otherwise rows need not be compared."""
    return data.deduplicate or data.drop_leaked or data.drop_near_leaked


def _together(first: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return (R,) the position of the earliest row that is the same as each row or nearly so, combining the exact
    comparison with the near one.

    first (R,): the earliest row that is the same, for all rows. near: the earliest near row, for as many of the first
    rows as were compared.
    """
    earliest_row = first.copy()
    # Followed twice: the row that a near one repeats may repeat an earlier one itself.
    earliest_row[: len(near)] = np.minimum(first[: len(near)], near)
    return earliest_row[earliest_row]


def compared_texts(example: Example) -> tuple[str, ...]:
    """Return the texts of a row that must be equal in a repeat, normalized: of messages also roles, thinking, calls and
    tools, but not the worse answer."""
    if example.messages:
        parts = (
            part
            for m in example.messages
            for part in (m.role, normalized(m.content), normalized(m.reasoning), str(m.tool_calls or ""))
        )
        return (*parts, example.tools or "")
    if example.text is not None:
        return (normalized(example.text),)
    return normalized(example.prompt or ""), normalized(example.completion or "")


def normalized(content: str) -> str:
    """Return content for a comparison: in small letters, with characters of full width and typographic quotes made
    plain, blanks made single, and punctuation at the end of words removed. A text of nothing but such marks is returned
    as it is."""
    folded = unicodedata.normalize("NFKC", content).casefold().translate(_QUOTES)
    return " ".join(_MARKS.sub("", folded).split()) or content


def same_prompt_key(prompt: str) -> str:
    """Return prompt without case, punctuation and spacing; prompts with equal keys are the same question."""
    return re.sub(r"[\W_]+", " ", prompt).casefold().strip()
