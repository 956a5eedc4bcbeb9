"""A row as a model receives it: its text in runs that are context, trained or truncated. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from core.data.labels import FullExample, LongExamples, fit
from core.data.template import Part

SHOWN_CHARACTERS = 4_000
LONG_PIECE = 1_000  # characters; in a row that is too long to be shown, longer pieces lose their middle

SpanKind = Literal["given", "learned", "cut_given", "cut_learned", "more", "example"]


@dataclass(frozen=True)
class Span:
    """A run of characters of one kind.

    "more" stands for hidden characters, and its text is their number; the text of "example" is the number of the
    example that begins there. part: of learned text, whether it is thinking or a tool call.
    """

    text: str
    kind: SpanKind
    part: Part = ""


@dataclass(frozen=True)
class RowView:
    """One row after the template. index: its position among the `total` trainable rows; row_number: the one in the
    file.

    length: tokens before the cut; learned: tokens the loss counts; cut: tokens lost; parts: pieces that it is split
    into for its length; dropped: nothing of it is learned. examples: one for each answer if the template renders
    earlier ones differently; all are shown. is_pair: they are the better answer and the worse one. special: the special
    tokens that occur. The texts of the pieces joined are the row, if none of them is "more".
    """

    index: int
    total: int
    row_number: int
    pieces: tuple[Span, ...]
    length: int
    learned: int
    cut: int
    parts: int
    dropped: bool
    special: tuple[str, ...]
    examples: int = 1
    is_pair: bool = False

    @classmethod
    def build(
        cls,
        full_examples: Sequence[FullExample],
        place: tuple[int, int, int],
        within: tuple[int, LongExamples, int],
        special: Iterable[str],
        is_pair: bool = False,
    ) -> RowView:
        """Build the view of a row from what the template made of it. place: its index, the number of rows, its number
        in the file. within: most tokens of an example, what is done to longer ones, and the overlap of their pieces.
        special: tokens to look for. is_pair: one example that is too long drops both."""
        limit, long_examples, overlap = within
        if is_pair and any(len(full.input_ids) > limit for full in full_examples):  # both are left out
            limit = 0
        shown: list[Span] = []
        lengths = learned = cut = parts = 0
        for number, full in enumerate(full_examples, 1):
            length, end, pieces = len(full.input_ids), limit, 1
            if length > limit and (long_examples == "split" or (full.is_text and long_examples == "cut")):
                pieces, end = len(fit(full, limit, long_examples, overlap)), length
            elif length > limit and long_examples == "drop":
                end = 0
            if len(full_examples) > 1:
                shown.append(Span(str(number), "example"))
            shown += _shortened(_pieces(full, end), SHOWN_CHARACTERS // len(full_examples))
            lengths, learned, parts = lengths + length, learned + sum(full.learned[1:end]), parts + pieces
            cut += max(0, length - end)
        text = "".join(full.text for full in full_examples)
        occurring = tuple(sorted(token for token in special if token in text))
        parts += 1 - len(full_examples)
        return cls(
            *place, tuple(shown), lengths, learned, cut, parts, learned == 0, occurring, len(full_examples), is_pair
        )


def _pieces(full: FullExample, limit: int) -> list[Span]:
    """Return the text of a row in runs of one kind (given or learned, cut after `limit` tokens) and part. A character
    of several tokens belongs to the first of them."""
    pieces: list[Span] = []
    begin = reach = 0
    current: SpanKind = "given"
    part: Part = ""
    marks = full.rendered.marks if full.rendered else ()
    for i, ((start, end), learned) in enumerate(zip(full.offsets, full.learned, strict=True)):
        # Nothing stands before the first token that could predict it.
        is_learned = learned and i > 0
        kind: SpanKind
        if i >= limit:
            kind = "cut_learned" if is_learned else "cut_given"
        else:
            kind = "learned" if is_learned else "given"
        at, reach = max(start, reach), max(end, reach)
        in_part: Part = next((name for first, last, name in marks if first <= at < last), "") if is_learned else ""
        if (kind, in_part) != (current, part):
            if at > begin:
                pieces.append(Span(full.text[begin:at], current, part))
            begin, current, part = at, kind, in_part
    if begin < len(full.text):
        pieces.append(Span(full.text[begin:], current, part))
    return pieces


def _shortened(pieces: Sequence[Span], most: int = SHOWN_CHARACTERS) -> tuple[Span, ...]:
    """Return the pieces; if they have more than `most` characters, long ones lose their middle and the rest is hidden,
    each replaced by the number of hidden characters."""
    if sum(len(piece.text) for piece in pieces) <= most:
        return tuple(pieces)
    shown: list[Span] = []
    room, hidden = most, 0
    for piece in pieces:
        # The ends are what shows whether a template is right; the middle of a long text is not.
        for part in _without_middle(piece):
            if part.kind == "more":
                if room > 0:
                    shown.append(part)
                else:
                    hidden += int(part.text)
                continue
            if part.text[:room]:
                shown.append(Span(part.text[:room], part.kind, part.part))
            hidden += max(0, len(part.text) - room)
            room = max(0, room - len(part.text))
    if hidden:
        shown.append(Span(str(hidden), "more"))
    return tuple(shown)


def _without_middle(piece: Span) -> tuple[Span, ...]:
    """Return a piece of more than LONG_PIECE characters as its beginning, "more" and its end; a shorter one alone."""
    hidden = len(piece.text) - LONG_PIECE
    if hidden <= 0:
        return (piece,)
    half = LONG_PIECE // 2
    return replace(piece, text=piece.text[:half]), Span(str(hidden), "more"), replace(piece, text=piece.text[-half:])
