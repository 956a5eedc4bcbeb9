"""Memory below the plan's card: the programs that use the memory the plan lacks, and whether the free memory has
changed so much that the card must be redrawn. Pure functions, except `holders`, which measures."""

from __future__ import annotations

from core.memory.budget import Budget
from core.system.machine import Machine
from core.system.processes import top_by_ram
from core.values import GIB
from webui.form.planner import FormResult
from webui.kit.format import gib
from webui.kit.html import Html, tag
from webui.kit.wording import Wording

MAX_HOLDERS = 6
MOVED = 0.05  # share of the free memory; a desktop varies by less
MIN_MOVED_GIB = 0.25


def is_short(result: FormResult) -> bool:
    """Return whether the plan for this PC is tight or does not fit; False without a plan, or for another PC's."""
    advice = result.plan.advice if result.plan else None
    return bool(advice and advice.verdict in ("tight", "does_not_fit") and not advice.budget.planned)


def holders(result: FormResult, machine: Machine, w: Wording) -> Html | str:
    """Return a list of up to MAX_HOLDERS programs that hold memory which the plan lacks (RAM, or that of its GPUs), the
    largest first, while the plan is tight or does not fit; a sentence if there are none, or
    if the driver does not report them. "" for a plan that fits."""
    if result.plan is None or not is_short(result):
        return ""
    budget = result.plan.advice.budget
    programs = (
        [(name, w.t("fits_view.gib", gib=gib(w, size / GIB))) for name, size in top_by_ram(MAX_HOLDERS)]
        if budget.kind == "cpu"
        else _on_card(budget, machine, w)
    )
    if programs is None:
        return tag("p", w.t("free_memory.holders_unknown"), class_="lg-quiet")
    if not programs:
        return tag("p", w.t("free_memory.nobody"), class_="lg-quiet")
    lines = [tag("li", w.t("free_memory.holder", name=name, used=used)) for name, used in programs]
    return tag(
        "div", tag("p", tag("strong", w.t("free_memory.who"))), tag("ul", *lines, class_="lg-holders"), class_="lg-held"
    )


def _on_card(budget: Budget, machine: Machine, w: Wording) -> list[tuple[str, str]] | None:
    """Return (program, memory in words) of up to MAX_HOLDERS programs on the plan's GPUs; None if the driver does not
    report programs."""
    uuids = {budget.card_uuid, *(uuid for uuid, _ in budget.beside)}
    by_card = [card.holders for card in machine.nvidia.cards if card.uuid in uuids]
    if not by_card or None in by_card:
        return None
    programs = []
    every = [holder for holders in by_card for holder in holders or ()]
    for holder in sorted(every, key=lambda holder: holder.used_bytes or 0, reverse=True)[:MAX_HOLDERS]:
        used = (
            w.t("free_memory.amount_unknown")
            if holder.used_bytes is None
            else w.t("fits_view.gib", gib=gib(w, holder.used_bytes / GIB))
        )
        programs.append((holder.name or w.t("free_memory.process", pid=str(holder.pid)), used))
    return programs


# ---- changes since the card was drawn --------------------------------------------------------------------------


def mark(result: FormResult) -> dict[str, float]:
    """Return the memory figures in GiB behind the card's verdict (free, bare, needed), which the browser keeps; {} if
    free memory does not matter."""
    advice = result.plan.advice if result.plan else None
    if advice is None or advice.budget.planned or advice.budget.free_gib is None:
        return {}
    figures = {"free": advice.budget.free_gib}
    return figures | (
        {"bare": advice.estimate.on_card_gib, "needed": advice.estimate.needed_gib} if advice.estimate else {}
    )


def has_moved(drawn: object, free_gib: float | None) -> bool:
    """Return whether free_gib is on another side of a limit than the figures drawn (of `mark`), or differs clearly from
    them; False if either is unknown."""
    if not isinstance(drawn, dict) or not isinstance(was := drawn.get("free"), int | float) or free_gib is None:
        return False
    limits = [value for name in ("bare", "needed") if isinstance(value := drawn.get(name), int | float)]
    if any((was >= limit) != (free_gib >= limit) for limit in limits):
        return True
    return abs(free_gib - was) > max(MIN_MOVED_GIB, MOVED * was)
