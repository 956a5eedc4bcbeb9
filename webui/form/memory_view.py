"""Under the plan's card: which programs hold the memory that the plan lacks, and whether the free memory has changed so
much that the card must be drawn again. Pure functions, except `holders`, which looks.
"""

from __future__ import annotations

from typing import Any

from core.memory.budget import Budget
from core.system.machine import Machine
from core.system.processes import top_by_ram
from core.values import GIB
from webui.form.planner import FormResult
from webui.kit.format import gib
from webui.kit.html import Html, tag
from webui.kit.wording import Wording

MOST_HOLDERS = 6
MOVED = 0.05  # of the free memory; a desktop breathes by less
LEAST_MOVED_GIB = 0.25


def is_short(result: FormResult) -> bool:
    """Whether the plan, for this PC as it is, lacks memory that closing something might give."""
    advice = result.plan.advice if result.plan else None
    return bool(advice and advice.verdict in ("tight", "does_not_fit") and not advice.budget.planned)


def holders(result: FormResult, machine: Machine, w: Wording) -> Html | str:
    """Programs that hold the memory which the plan lacks, the largest first; "" where it lacks none."""
    if result.plan is None or not is_short(result):
        return ""
    here = result.plan.advice.budget
    by_ram = (
        [(name, w.t("fits_view.gib", gib=gib(w, size / GIB))) for name, size in top_by_ram(MOST_HOLDERS)]
        if here.kind == "cpu"
        else None
    )
    held = by_ram if here.kind == "cpu" else _on_card(here, machine, w)
    if held is None:
        return tag("p", w.t("free_memory.holders_unknown"), class_="lg-quiet")
    if not held:
        return tag("p", w.t("free_memory.nobody"), class_="lg-quiet")
    lines = [tag("li", w.t("free_memory.holder", name=name, used=used)) for name, used in held]
    return tag(
        "div", tag("p", tag("strong", w.t("free_memory.who"))), tag("ul", *lines, class_="lg-holders"), class_="lg-held"
    )


def _on_card(here: Budget, machine: Machine, w: Wording) -> list[tuple[str, str]] | None:
    """None where the driver does not tell who is there."""
    uuids = {here.card_uuid, *(uuid for uuid, _ in here.beside)}
    told = [card.holders for card in machine.nvidia.cards if card.uuid in uuids]
    if not told or None in told:
        return None
    found = []
    for holder in [holder for holders in told for holder in holders or ()][:MOST_HOLDERS]:
        used = (
            w.t("free_memory.amount_unknown")
            if holder.used_bytes is None
            else w.t("fits_view.gib", gib=gib(w, holder.used_bytes / GIB))
        )
        found.append((holder.name or w.t("free_memory.process", pid=str(holder.pid)), used))
    return found


# ---- since it was drawn --------------------------------------------------------------------------


def mark(result: FormResult) -> dict[str, float]:
    """What the card's verdict was drawn from, as the browser keeps it; {} where free memory decides nothing."""
    advice = result.plan.advice if result.plan else None
    if advice is None or advice.budget.planned or advice.budget.free_gib is None:
        return {}
    drawn = {"free": advice.budget.free_gib}
    return drawn | (
        {"bare": advice.estimate.on_card_gib, "needed": advice.estimate.needed_gib} if advice.estimate else {}
    )


def has_moved(drawn: Any, free_gib: float | None) -> bool:
    """Whether the verdict might be another with so much free, or the number beside it is plainly old."""
    if not isinstance(drawn, dict) or not isinstance(was := drawn.get("free"), int | float) or free_gib is None:
        return False
    limits = [value for name in ("bare", "needed") if isinstance(value := drawn.get(name), int | float)]
    if any((was >= limit) != (free_gib >= limit) for limit in limits):
        return True
    return abs(free_gib - was) > max(LEAST_MOVED_GIB, MOVED * was)
