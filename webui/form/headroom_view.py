"""Sentences, a curve and a table on how much more would fit, in the plan's card: pure functions of a FormResult and a
Wording."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import replace

from core.advice import headroom
from core.advice.case import Advice
from core.advice.headroom import Headroom, LengthCurve, OnCard
from core.models.known import KnownModel, of_hub
from core.values import round_up
from webui.form.planner import FormResult
from webui.kit.format import METHODS, badge, gib, grouped, number
from webui.kit.html import Html, join, tag
from webui.kit.wording import Wording

# The drawing, in units of its viewBox.
WIDE, HIGH, LEFT, RIGHT, TOP, BOTTOM = 420, 220, 34, 24, 16, 36
MAX_TICKS = 5


def setting_limits(result: FormResult, w: Wording) -> Html | None:
    """Return how far each setting could be raised on this PC while the others stay; None if memory or model are
    unknown."""
    plan, shape = result.plan, result.shape
    if plan is None or shape is None or (free_gib := plan.advice.budget.free_gib) is None:
        return None
    advice = plan.advice
    catalogued = of_hub(plan.recipe.model.id)
    limits = headroom.limits(shape, advice.setup, free_gib / advice.factor, catalogued)
    lines = [tag("li", sentence) for sentence in _limits(limits, advice, catalogued, w)]
    return tag("div", tag("p", w.t("fits_view.stretched_info"), class_="lg-quiet"), tag("ul", *lines))


def _limits(limits: Headroom, advice: Advice, catalogued: KnownModel | None, w: Wording) -> list[str]:
    """Return sentences on the longest text, largest rank, other method and largest model."""
    other = METHODS["lora" if advice.recipe.adapter.method == "qlora" else "qlora"]
    sentences = [
        w.t("fits_view.longest", value=grouped(w, limits.max_length), now=grouped(w, advice.recipe.data.max_length))
        if limits.max_length
        else w.t("fits_view.no_length"),
        w.t("fits_view.largest_r", value=limits.r, now=advice.recipe.adapter.r) if limits.r else w.t("fits_view.no_r"),
        w.t("fits_view.other_fits" if limits.method else "fits_view.other_does_not", method=other),
    ]
    if catalogued is not None:
        same = limits.model is not None and limits.model.id == catalogued.id
        if limits.model is None:
            sentences.append(w.t("fits_view.no_model"))
        else:
            sentences.append(w.t("fits_view.same_model" if same else "fits_view.model", model=limits.model.title))
    return sentences


# ---- memory against length -----------------------------------------------------------------------


def by_length(result: FormResult, w: Wording) -> Html | None:
    """Return a chart and a table of both methods' memory against max_length, with the free memory as a line."""
    plan, shape = result.plan, result.shape
    if plan is None or shape is None:
        return None
    setup = plan.advice.setup
    counted = [headroom.by_length(shape, setup, method) for method in ("lora", "qlora")]
    curves = [
        replace(curve, needed_gib=tuple(plan.advice.factor * needed for needed in curve.needed_gib))
        for curve in counted
    ]
    free = plan.advice.budget.free_gib
    return tag("div", drawing(curves, free, setup.max_length, w), _legend(free, w), _numbers(curves, free, w))


def drawing(curves: Sequence[LengthCurve], free: float | None, now: int, w: Wording) -> Html:
    """Return an SVG with lengths doubling from left to right. Values above three times the free memory are cut off."""
    lengths = curves[0].lengths
    most = max(max(curve.needed_gib) for curve in curves)
    top = min(most, 3 * free) if free else most
    step = round_up(top / MAX_TICKS)
    top = step * math.ceil(top / step)

    def across(length: int) -> float:
        low, high = math.log2(lengths[0]), math.log2(lengths[-1])
        return LEFT + (WIDE - LEFT - RIGHT) * ((math.log2(length) - low) / (high - low) if high > low else 0.5)

    def up(needed: float) -> float:
        return TOP + (HIGH - TOP - BOTTOM) * (1 - min(needed, top) / top)

    parts: list[Html] = []
    for count in range(round(top / step) + 1):
        y = f"{up(count * step):.1f}"
        parts.append(tag("line", x1=LEFT, x2=WIDE - RIGHT, y1=y, y2=y, class_="fv-grid"))
        parts.append(
            tag("text", number(w, count * step), x=LEFT - 5, y=f"{up(count * step) + 4:.1f}", text_anchor="end")
        )
    # Powers of two; this plan's length has its own line, named in the legend.
    for length in (each for each in lengths if each & (each - 1) == 0 and (each >= 512 or len(lengths) < 7)):
        x = f"{across(length):.1f}"
        parts.append(tag("text", grouped(w, length), x=x, y=HIGH - BOTTOM + 16, text_anchor="middle"))
    parts.append(
        tag("line", x1=f"{across(now):.1f}", x2=f"{across(now):.1f}", y1=TOP, y2=HIGH - BOTTOM, class_="fv-now")
    )
    for curve in curves:
        points = " ".join(
            f"{across(length):.1f},{up(needed):.1f}"
            for length, needed in zip(curve.lengths, curve.needed_gib, strict=True)
            if needed <= top or length == curve.lengths[0]
        )
        parts.append(tag("polyline", points=points, class_=f"fv-{curve.method}"))
    if free is not None:
        y = f"{up(free):.1f}"
        parts.append(tag("line", x1=LEFT, x2=WIDE - RIGHT, y1=y, y2=y, class_="fv-free"))
    parts.append(tag("text", w.t("fits_view.axis_gib"), x=4, y=10))
    parts.append(tag("text", w.t("fits_view.axis_length"), x=WIDE - RIGHT, y=HIGH - 2, text_anchor="end"))
    return tag(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDE} {HIGH}",
        class_="fv-drawing",
        role="img",
        aria_label=w.t("fits_view.drawing"),
    )


def _legend(free: float | None, w: Wording) -> Html:
    entries = [("lora", "LoRA"), ("qlora", "QLoRA"), ("now", w.t("fits_view.now"))]
    if free is not None:
        entries.append(("free", w.t("fits_view.free", gib=gib(w, free))))
    return tag(
        "ul",
        *(tag("li", tag("i", class_=f"fv-key-{key}", aria_hidden="true"), name) for key, name in entries),
        class_="lg-mem-legend",
    )


def _numbers(curves: Sequence[LengthCurve], free: float | None, w: Wording) -> Html:
    """Return the curves as a table: memory by length and method, marked where it is too much."""
    head = tag(
        "tr",
        tag("th", w.t("fits_view.length"), scope="col"),
        *(tag("th", METHODS[c.method], scope="col") for c in curves),
    )
    rows = []
    for index, length in enumerate(curves[0].lengths):
        cells = []
        for curve in curves:
            needed = curve.needed_gib[index]
            too_much = free is not None and needed > free
            cells.append(tag("td", w.t("fits_view.gib_too_much" if too_much else "fits_view.gib", gib=gib(w, needed))))
        rows.append(tag("tr", tag("th", grouped(w, length), scope="row"), *cells))
    return table([head], rows, w.t("fits_view.by_length"))


# ---- other cards ---------------------------------------------------------------------------------


def on_cards(result: FormResult, w: Wording) -> Html | None:
    """Return a table of this plan on each common GPU: verdict, longest rows, and the plan advised there."""
    plan, shape = result.plan, result.shape
    if plan is None or shape is None:
        return None
    facts = result.preview.facts() if result.preview else None
    cards = headroom.on_cards(plan.advice, shape, platform.system(), facts)
    head = tag(
        "tr",
        *(
            tag("th", w.t(f"fits_view.{name}"), scope="col")
            for name in ("card", "this_plan", "longest_there", "advised")
        ),
    )
    own_gb = plan.advice.budget.sold_gb
    rows = [
        tag("tr", *_card(card, card.gb == own_gb, w), class_="lg-here" if card.gb == own_gb else None) for card in cards
    ]
    return tag(
        "div", tag("p", w.t("fits_view.cards_info"), class_="lg-quiet"), table([head], rows, w.t("fits_view.on_cards"))
    )


def _card(card: OnCard, is_own: bool, w: Wording) -> list[Html]:
    """Return the cells of a GPU: what the plan needs, longest text and advice there."""
    is_bare = (
        card.verdict == "tight" and card.needed_gib > card.free_gib
    )  # "7.8 of 7.3" would look as if it did not fit
    needed = gib(w, card.bare_gib if is_bare else card.needed_gib)
    numbers = tag(
        "span",
        w.t("fits_view.of_bare" if is_bare else "fits_view.of", needed=needed, free=gib(w, card.free_gib)),
        class_="lg-quiet",
    )
    length = grouped(w, card.max_length) if card.max_length else w.t("fits_view.none")
    advice = card.advised
    if advice.verdict == "does_not_fit":
        advised = w.t("fits_view.nothing")
    else:
        advised = w.t(
            "fits_view.advice",
            method=METHODS[advice.recipe.adapter.method],
            r=advice.recipe.adapter.r,
            max_length=grouped(w, advice.recipe.data.max_length),
        )
    name = [f"{card.gb} GB", tag("span", w.t("fits_view.yours"), class_="lg-badge lg-active") if is_own else None]
    return [
        tag("th", join([part for part in name if part]), scope="row"),
        tag("td", tag("div", badge(card.verdict, w), numbers, class_="lg-stack")),
        tag("td", length),
        tag("td", advised),
    ]


def table(head: Sequence[Html], rows: Sequence[Html], name: str) -> Html:
    inside = tag("table", tag("thead", *head), tag("tbody", *rows), class_="lg-table")
    return tag("div", inside, class_="lg-scroll", tabindex=0, role="region", aria_label=name)
