"""The training examples as HTML: counts in words, lengths as bars, and a row with its marks. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from core.data.preview import Bin, Counts, Preview
from core.data.sets.row_view import RowView, Span
from core.data.template import Part
from webui.kit import format
from webui.kit.format import grouped
from webui.kit.html import Html, join, notice, tag
from webui.kit.wording import Wording

# The drawing's own units; CSS scales it to the page, at 390 px to about 0.9.
WIDTH, HEIGHT = 380, 168
LEFT, RIGHT, TOP, BOTTOM = 8, 8, 28, 36
MAX_TICKS = 5

_PARTS: dict[Part, str] = {"thinking": "lg-learned lg-thinking", "call": "lg-learned lg-call"}
_TAGS = {
    "given": ("span", None),
    "learned": ("mark", "lg-learned"),
    "cut_given": ("s", "lg-cut"),
    "cut_learned": ("s", "lg-cut lg-cut-learned"),
}


def counters(counts: Counts, w: Wording) -> Html:
    """Return number and sentence each about the tokens learned, the rows truncated or split, and those left out, with
    notes. Inexact numbers are marked as estimates."""
    is_projected = counts.counted < counts.rows

    def number(value: float) -> str:
        """Return a number with separators between thousands, marked as "about" if it is an estimate or was projected
        from a part of the rows."""
        shown = grouped(w, value)
        return shown if counts.exact and not is_projected else w.t("learned_view.about", number=shown)

    values = {"all": grouped(w, counts.rows), "max_length": grouped(w, counts.max_length)}
    learned = w.t("learned_view.learned", learned=number(counts.learned), tokens=number(counts.tokens))
    if counts.is_joined:
        cut = w.t("learned_view.joined", pieces=number(counts.pieces), **values)
    elif counts.rows_split:
        how = "learned_view.split_text" if counts.is_text else "learned_view.split"
        cut = w.t(how, pieces=number(counts.pieces), **values)
    elif counts.rows_cut:
        cut = w.t("learned_view.cut", tokens=number(counts.tokens_cut), **values)
    else:
        cut = w.t("learned_view.cut_none")
    is_split = counts.rows_split or counts.long_examples == "split"
    split = "joined_short" if counts.is_joined else "split_short" if is_split else "cut_short"
    left_out = "learned_view.too_long" if counts.long_examples == "drop" else "learned_view.dropped"
    dropped = w.t(left_out, **values) if counts.rows_dropped else w.t("learned_view.dropped_none")
    if counts.first_dropped:
        listed = ", ".join(grouped(w, row) for row in counts.first_dropped)
        more = ", …" if counts.rows_dropped > len(counts.first_dropped) else ""
        dropped = w.text(dropped, w.t("learned_view.dropped_rows", rows=listed + more))
    notes = []
    if not counts.exact:
        notes.append(w.t("learned_view.estimated"))
    if is_projected:
        notes.append(w.t("learned_view.projected", counted=grouped(w, counts.counted), rows=grouped(w, counts.rows)))
    return tag(
        "div",
        tag(
            "dl",
            _counter(
                w.t("learned_view.learned_short"),
                number(counts.learned_percent) + format.NARROW + "%",
                learned,
                "plain",
            ),
            _counter(
                w.t(f"learned_view.{split}"),
                number(counts.pieces if counts.is_joined else counts.rows_split or counts.rows_cut),
                cut,
                "warn" if counts.rows_cut else "plain",
            ),
            _counter(
                w.t("learned_view.dropped_short"),
                number(counts.rows_dropped),
                dropped,
                "warn" if counts.rows_dropped else "plain",
            ),
            class_="lg-counters",
        ),
        *(tag("p", note, class_="lg-quiet lg-counters-note") for note in notes),
    )


def _counter(label: str, value: str, sentence: str, tone: str) -> Html:
    """Return one figure: label, value and sentence. tone: plain or warn."""
    return tag(
        "div",
        tag("dt", label),
        tag("dd", tag("strong", value), tag("span", sentence)),
        class_=f"lg-counter lg-counter-{tone}",
    )


# --- lengths ---------------------------------------------------------------------------------------------------------


def histogram(preview: Preview, max_length: int, w: Wording) -> Html:
    """Return row lengths as bars, the part beyond max_length hatched, and a dashed line at max_length. Described in
    words for screen readers."""
    limit = preview.limit(max_length)
    bins = preview.histogram(max_length)
    description = w.t(
        "learned_view.lengths" if preview.exact else "learned_view.lengths_estimated",
        median=grouped(w, preview.median), p99=grouped(w, preview.p99), longest=grouped(w, preview.longest),
        max_length=grouped(w, limit),
    )  # fmt: skip
    stripe = tag("path", d="M0 6 L6 0", class_="lg-hatch")
    drawing = tag(
        "svg",
        tag("defs", tag("pattern", stripe, id="lg-hatch", width=6, height=6, patternUnits="userSpaceOnUse")),
        *_bars(bins),
        *_axis(bins, w),
        *_limit_line(bins, limit, w),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=description,
        class_="lg-lengths",
    )
    return tag("figure", drawing, tag("figcaption", description, aria_hidden="true"), class_="lg-lengths-figure")


def _bar_width(bins: Sequence[Bin]) -> float:
    """Return the width of one bar of the histogram, in the drawing's units; bins must not be empty."""
    return (WIDTH - LEFT - RIGHT) / len(bins)


def _bars(bins: Sequence[Bin]) -> Iterator[Html]:
    """Yield one bar per bin; cut rows stand on top of the others. A bin with one row is still visible."""
    floor, room, most = HEIGHT - BOTTOM, HEIGHT - TOP - BOTTOM, max(b.rows for b in bins)
    for i, b in enumerate(bins):
        if not b.rows:
            continue
        height = max(2.0, room * b.rows / most)
        cut = height * b.cut / b.rows
        box = {"x": f"{LEFT + i * _bar_width(bins) + 1:.1f}", "width": f"{_bar_width(bins) - 2:.1f}"}
        if b.cut < b.rows:
            yield tag(
                "rect", y=f"{floor - height + cut:.1f}", height=f"{height - cut:.1f}", class_="lg-bar-kept", **box
            )
        if b.cut:
            yield tag("rect", y=f"{floor - height:.1f}", height=f"{cut:.1f}", class_="lg-bar-cut", **box)


def _axis(bins: Sequence[Bin], w: Wording) -> Iterator[Html]:
    """Yield the histogram's axis with at most MAX_TICKS + 1 lengths, and its caption."""
    floor = HEIGHT - BOTTOM
    yield tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=floor, y2=floor, class_="lg-axis")
    every = -(-len(bins) // MAX_TICKS)
    for i in range(0, len(bins) - every // 2, every):
        anchor = "start" if i == 0 else "middle"
        x = f"{LEFT + i * _bar_width(bins):.1f}"
        yield tag("text", grouped(w, bins[i].start), x=x, y=floor + 14, text_anchor=anchor, class_="lg-tick")
    yield tag("text", grouped(w, bins[-1].end), x=WIDTH - RIGHT, y=floor + 14, text_anchor="end", class_="lg-tick")
    caption = w.t("learned_view.axis", rows=grouped(w, max(b.rows for b in bins)))
    yield tag("text", caption, x=WIDTH / 2, y=floor + 31, text_anchor="middle", class_="lg-tick")


def _limit_line(bins: Sequence[Bin], limit: int, w: Wording) -> Iterator[Html]:
    """Yield the line at max_length (limit) and its label; at the edge if it is below or, with an arrow, beyond all
    rows."""
    at = next((i for i, b in enumerate(bins) if limit < b.end), None)
    if at is None:
        x, label = float(WIDTH - RIGHT), w.t("learned_view.limit_beyond", max_length=grouped(w, limit))
    else:
        share = max(0, limit - bins[at].start) / (bins[at].end - bins[at].start)
        x, label = LEFT + (at + share) * _bar_width(bins), w.t("learned_view.limit", max_length=grouped(w, limit))
    yield tag("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=TOP - 8, y2=HEIGHT - BOTTOM, class_="lg-limit")
    right_half = x > WIDTH / 2
    yield tag(
        "text", label, x=f"{x:.1f}", y=TOP - 13, text_anchor="end" if right_half else "start", class_="lg-limit-label"
    )


# --- a row -----------------------------------------------------------------------------------------------------------


def legend(w: Wording, parts: Collection[Part] = ()) -> Html:
    """Return samples of how tokens are marked, with their meanings. parts: the kinds of answer tokens in the row,
    besides plain text."""
    samples = {"given": tag("span", w.t("learned_view.sample_given"))}
    samples["learned"] = tag("mark", w.t("learned_view.sample_learned"), class_="lg-learned")
    samples |= {
        part: tag("mark", w.t("learned_view.sample_learned"), class_=_PARTS[part]) for part in _PARTS if part in parts
    }
    samples["cut"] = tag("s", w.t("learned_view.sample_cut"), class_="lg-cut")
    samples["special"] = tag("span", w.t("learned_view.sample_special"), class_="lg-special")
    items = (
        tag("li", sample, " ", tag("span", w.t(f"learned_view.legend_{meaning}"), class_="lg-quiet"))
        for meaning, sample in samples.items()
    )
    return tag("ul", *items, class_="lg-legend")


def row(view: RowView | None, w: Wording) -> Html:
    """Return a row as the model reads it, with learned tokens marked, and its legend. None: the tokenizer is not on
    this PC."""
    if view is None:
        return notice(w.t("learned_view.no_tokenizer"), "plain")
    counts = {"length": view.length, "learned": view.learned, "cut": view.cut, "parts": view.parts}
    numbers = {name: grouped(w, number) for name, number in counts.items()}
    where = w.t(
        "learned_view.row", row=grouped(w, view.row_number), index=grouped(w, view.index + 1), of=grouped(w, view.total)
    )
    key = "row_split" if view.parts > 1 else "row_cut" if view.cut else "row_whole"
    how_much = w.t(f"learned_view.{key}", **numbers)
    if view.examples > 1:
        key = "row_pair" if view.is_pair else "row_examples"
        how_much = w.text(how_much, w.t(f"learned_view.{key}", examples=view.examples))
    text_of_row = tag(
        "div",
        *(_piece(piece, view, w) for piece in view.pieces),
        class_="lg-row-text",
        tabindex=0,
        role="region",
        aria_label=where,
    )
    return tag(
        "div",
        tag("p", tag("strong", where), " ", tag("span", how_much, class_="lg-quiet"), class_="lg-row-head"),
        notice(w.t("learned_view.row_dropped"), "warn") if view.dropped else None,
        text_of_row,
        legend(w, {piece.part for piece in view.pieces}),
        class_="lg-row",
    )


def _piece(piece: Span, view: RowView, w: Wording) -> Html:
    """Return a piece of a row's text, marked by whether and for which part of the loss it is learned."""
    special = view.special
    if piece.kind == "more":
        return tag("span", w.t("learned_view.more", characters=grouped(w, int(piece.text))), class_="lg-more")
    if piece.kind == "example":
        side = "example" if not view.is_pair else "better" if piece.text == "1" else "worse"
        return tag("span", w.t(f"learned_view.{side}", number=piece.text), class_="lg-more lg-next-example")
    if piece.kind == "learned" and piece.part:
        return tag(
            "mark",
            _with_special(piece.text, special),
            class_=_PARTS[piece.part],
            title=w.t(f"learned_view.legend_{piece.part}"),
        )
    name, class_ = _TAGS[piece.kind]
    return tag(name, _with_special(piece.text, special), class_=class_)


def _with_special(content: str, special: Sequence[str]) -> Html:
    """Return content with its special tokens in a quieter style; escaped as it is without any."""
    if not special:
        return join([content])
    pattern = "|".join(re.escape(token) for token in sorted(special, key=len, reverse=True))
    parts = re.split(f"({pattern})", content)
    return join(tag("span", part, class_="lg-special") if i % 2 else part for i, part in enumerate(parts))
