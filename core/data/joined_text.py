"""The tokens of a text that is stored as paragraphs: each encoded as it stands in the text, and joined again."""

from __future__ import annotations

from collections.abc import Sequence

from core.data.labels import FullExample
from core.data.tokenizer import Tokenizer


def encode_paragraph(tokenizer: Tokenizer, text: str, continues: bool, after: str | None) -> FullExample:
    """Encode a paragraph as in the middle of its text, so that the tokens of paragraphs can be joined.

    continues: a paragraph stands before it. after: the text between it and the next ("" where a long paragraph was
    divided), None for the last. Special tokens stand only where the text begins and ends. Falls back to the paragraph's
    own tokens where a token would cross its border.
    """
    # Neighbours stand in for the rest of the text, so that a tokenizer treats blanks at the borders as there.
    ends, after = after is None, after or ""
    lead, tail = "A\n\n" if continues else "", "" if ends else "A"
    full = tokenizer.encode_text(lead + text + after + tail)
    # encode_text puts special tokens around it.
    place = full.text.index(lead + text + after + tail)
    begin, end = place + len(lead), place + len(lead + text + after)
    first = next((i for i, (start, _) in enumerate(full.offsets) if start >= begin), 0) if continues else 0
    last = len(full.offsets) if ends else next((i for i, (start, _) in enumerate(full.offsets) if start >= end), 0)
    reaches_over = (first and full.offsets[first - 1][1] > begin) or (not ends and full.offsets[last - 1][1] > end)
    if first >= last or reaches_over:
        encoding = tokenizer.encoding(text + after)
        return FullExample(encoding.ids, [True] * len(encoding.ids), text + after, encoding.offsets)
    first_char, last_char = (begin if continues else 0), (len(full.text) if ends else end)
    offsets = [(max(0, start - first_char), stop - first_char) for start, stop in full.offsets[first:last]]
    return FullExample(full.input_ids[first:last], full.learned[first:last], full.text[first_char:last_char], offsets)


def joined(paragraphs: Sequence[FullExample]) -> FullExample:
    """Return the paragraphs of a text as one, with offsets in the joined text; all tokens are trained."""
    ids, offsets, text = list[int](), list[tuple[int, int]](), ""
    for one in paragraphs:
        ids += one.input_ids
        offsets += [(len(text) + start, len(text) + end) for start, end in one.offsets]
        text += one.text
    return FullExample(ids, [True] * len(ids), text, offsets)


def part(full: FullExample, start: int, end: int, given: int) -> FullExample:
    """Return the tokens from start to end (exclusive) of a text, with the characters they cover; the first `given` of
    them are not trained."""
    offsets = full.offsets[start:end]
    first, last = offsets[0][0], offsets[-1][1]
    learned = [False] * given + full.learned[start + given : end]
    within = [(begin - first, stop - first) for begin, stop in offsets]
    return FullExample(full.input_ids[start:end], learned, full.text[first:last], within)
