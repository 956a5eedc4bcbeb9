"""Rows that repeat an earlier row, exactly or except for case, width, spaces and punctuation at the end of words. No
torch.

Two rows are the same only where everything they say is: questions that differ, or answers that differ, make different
rows. Marks inside numbers and words (3.5, a-b, don't) count, so that "2+2" stays another text than "2-2".
Cost: 100,000 rows of 300 characters take about 4 s (one shared core, 2026-11).
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
    """first (R,): for each example the position of the earliest that says the same, its own where it is that one.

    exact (R,): whether it says so word for word. near (R,): the earliest that says the same or nearly so
    (core/data/findings/near); None where nobody asked for it.
    """

    first: np.ndarray
    exact: np.ndarray
    near: np.ndarray | None = None

    @classmethod
    def of(cls, examples: Iterable[Example], check: Callable[[], None] = lambda: None, near: bool = False) -> Repeats:
        """check: called each thousand rows, and may raise. near: whether near ones are looked for too, which takes as
        long again."""
        alike = Near() if near else None
        said_of, whole_of = array("q"), array("q")  # 64-bit hashes
        for i, example in enumerate(examples):
            if i % CHECK_EVERY == 0:
                check()
            said_of.append(hash(said(example)))
            whole_of.append(hash(example))
            if alike is not None:
                alike.add(RowWords(i, example))
        first, whole = earliest(np.array(said_of, np.int64)), np.array(whole_of, np.int64)
        return cls(first, whole == whole[first], None if alike is None else _together(first, alike.first))

    def __len__(self) -> int:
        return len(self.first)

    @property
    def later(self) -> np.ndarray:
        """Positions of the rows that say what an earlier one says."""
        return np.flatnonzero(self.first != np.arange(len(self.first)))


def wanted(data: Data) -> bool:
    """Whether a recipe leaves rows out for what others say."""
    return data.deduplicate or data.drop_leaked or data.drop_near_leaked


def _together(first: np.ndarray, near: np.ndarray) -> np.ndarray:
    """near, with what differs in marks alone, and what came after the rows that were compared."""
    found = first.copy()
    found[: len(near)] = np.minimum(first[: len(near)], near)
    return found[found]


def said(example: Example) -> tuple[str, ...]:
    """What a row says, its parts one by one, as texts that are compared."""
    if example.messages:
        parts = (
            part
            for m in example.messages
            for part in (m.role, plain(m.content), plain(m.reasoning), str(m.tool_calls or ""))
        )
        return (*parts, example.tools or "")
    if example.text is not None:
        return (plain(example.text),)
    return plain(example.prompt or ""), plain(example.completion or "")


def plain(content: str) -> str:
    """content without what is no difference; as it is where nothing else is in it."""
    folded = unicodedata.normalize("NFKC", content).casefold().translate(_QUOTES)
    return " ".join(_MARKS.sub("", folded).split()) or content


def same_prompt_key(prompt: str) -> str:
    """prompt without case, punctuation and spacing: two prompts with equal keys are the same question."""
    return re.sub(r"[\W_]+", " ", prompt).casefold().strip()
