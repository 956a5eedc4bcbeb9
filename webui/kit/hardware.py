"""This PC's hardware as HTML: pure functions of a Machine and a Wording. Unknown values are shown as unknown, never as
0."""

from __future__ import annotations

from core.memory.budget import sold_gb
from core.system.devices import best_card, why_left_out
from core.system.gpu import Card, Holder, Nvidia
from core.system.machine import Machine
from core.values import GIB
from webui.kit.format import decimals, number
from webui.kit.html import Html, facts, join, muted, notice, tag
from webui.kit.wording import Wording

MAX_HOLDERS = 8
# NVML's error numbers with a sentence of their own; all others are quoted.
EXPLAINED = {12: "no_library", 9: "not_running", 18: "not_restarted"}


def chip(machine: Machine, w: Wording) -> Html:
    """Return one short line for the page's header: the device that a run would use, how full it is, and any card that
    was lost."""
    card = best_card(machine.nvidia)
    lost = [other for other in machine.nvidia.cards if other.lost]
    parts = [tag("span", w.t("hardware_view.chip_lost", name=_card_name(other, w)), class_="lg-bad") for other in lost]
    if card is not None:
        others = sum(other.usable for other in machine.nvidia.cards) - 1
        name = _card_name(card, w) + (f" +{others}" if others else "")
        meter = None if card.mig else _meter(card.used_bytes, card.total_bytes)
        parts.insert(0, tag("span", tag("span", f"{name} · {_used_memory(card, w)}"), meter))
    elif not lost:
        total, free = machine.ram_total_bytes, machine.ram_free_bytes
        meter = _meter(None if total is None or free is None else total - free, total)
        text = " · ".join([w.t("hardware_view.no_card"), _ram(machine, "chip_ram", w)])
        parts.append(tag("span", tag("span", text), meter))
    return tag("span", *parts, class_="lg-chip")


def _used_memory(card: Card, w: Wording) -> str:
    """Return used and total memory of a GPU in GiB, in words; that it is in MIG mode, or that the memory is unknown."""
    if card.mig:
        return w.t("hardware_view.mig_short")
    if card.used_bytes is None or card.total_bytes is None:
        return w.t("hardware_view.memory_unknown")
    return w.t("hardware_view.used", used=gib(w, card.used_bytes), total=gib(w, card.total_bytes))


def _meter(used_bytes: int | None, total_bytes: int | None) -> Html | None:
    """Return a bar of the memory in use; None if it is unknown. The numbers stand beside it, so screen readers skip
    it."""
    if used_bytes is None or not total_bytes:
        return None
    percent = min(100, round(100 * used_bytes / total_bytes))
    return tag(
        "span",
        tag("span", class_="lg-bar-fill", style=f"width:{percent}%"),
        class_="lg-bar lg-meter",
        aria_hidden="true",
    )


def details(machine: Machine, w: Wording) -> Html:
    """Return a list of this PC's parts and of each card, or the reason why there is no card."""
    pairs = [
        (w.t("hardware_view.processor"), machine.cpu or _unknown_word(w)),
        (w.t("hardware_view.cores"), _unknown_word(w) if machine.cores is None else str(machine.cores)),
        (w.t("hardware_view.ram"), _ram(machine, "ram_free", w)),
        (w.t("hardware_view.driver"), machine.nvidia.driver or _unknown_word(w)),
    ]
    if machine.nvidia.error is not None:
        pairs.pop()
    chosen = best_card(machine.nvidia) if len(machine.nvidia.cards) > 1 else None
    parts = [facts(pairs), *(_card(card, card == chosen, w) for card in machine.nvidia.cards)]
    if why := why_no_card(machine.nvidia, w):
        parts.append(muted(why))
    return tag("div", *parts, class_="lg-hardware")


def why_no_card(nvidia: Nvidia, w: Wording) -> str:
    """Return why no card is listed or the driver does not answer; "" if neither is so."""
    if nvidia.error is not None:
        explained = EXPLAINED.get(nvidia.error_code or 0)
        return w.t(f"hardware_view.{explained}") if explained else w.t("hardware_view.driver_says", reason=nvidia.error)
    return "" if nvidia.cards else w.t("hardware_view.driver_alone", driver=nvidia.driver or _unknown_word(w))


def _card(card: Card, chosen: bool, w: Wording) -> Html:
    """Return a GPU as HTML: its name, why it is left out (if so), and its numbers; of a lost one only that. chosen:
    mark it as the one that is used."""
    badge = tag("span", w.t("hardware_view.chosen"), class_="lg-badge lg-plain") if chosen else None
    head = tag("p", tag("strong", _card_name(card, w)), Html(" ") if chosen else None, badge)
    if card.lost:
        return join([head, tag("p", w.t("hardware_view.lost"), class_="lg-notice lg-bad")])
    left_out = why_left_out(card)
    why = notice(w.render(left_out), "warn") if left_out else None
    return join([head, why, facts([*_numbers(card, w), (w.t("hardware_view.holders"), _holders(card.holders, w))])])


def _numbers(card: Card, w: Wording) -> list[tuple[str, str]]:
    """Return (label, text) of a GPU's memory, load, temperature, power and compute capability."""
    capability = _unknown_word(w) if card.capability is None else "{}.{}".format(*card.capability)
    return [
        (w.t("hardware_view.memory"), _memory(card, w)),
        (w.t("hardware_view.utilization"), _with_unit(card.utilization_percent, "%", w)),
        (w.t("hardware_view.temperature"), _with_unit(card.temperature_c, "°C", w)),
        (w.t("hardware_view.power"), _power_use(card, w)),
        (w.t("hardware_view.capability"), capability),
    ]


def _memory(card: Card, w: Wording) -> str:
    """Return used, total and free memory in words; of a card in MIG mode only the total."""
    if card.mig:
        return w.t("hardware_view.mig", total=gib(w, card.total_bytes) if card.total_bytes else _unknown_word(w))
    if card.total_bytes is None or card.used_bytes is None or card.free_bytes is None:
        return _unknown_word(w)
    sizes = {"used": gib(w, card.used_bytes), "total": gib(w, card.total_bytes), "free": gib(w, card.free_bytes)}
    return w.t("hardware_view.used_and_free", **sizes)


def _power_use(card: Card, w: Wording) -> str:
    """Return the power that a GPU draws, with its limit if both are known, in whole watts; "unknown" without it."""
    if card.power_w is None or card.power_limit_w is None:
        return _with_unit(card.power_w and round(card.power_w), "W", w)
    return w.t("hardware_view.watts", now=round(card.power_w), limit=round(card.power_limit_w))


def title_of(card: Card, w: Wording) -> str:
    """Return a GPU's title such as "GPU 0: NVIDIA GeForce RTX 3060, 12 GB", numbered as by nvidia-smi."""
    title = w.t("hardware_view.numbered", index=card.index, about=card.name or "?")
    return (
        title
        if card.total_bytes is None
        else f"{title}{w.t('run_memory.comma')}{number(w, sold_gb(card.total_bytes))} GB"
    )


def current_state(card: Card, w: Wording) -> str:
    """Return a GPU's state such as "GPU 0: 6.0 of 12.0 GiB free, 7 % load, drives the display"."""
    known = card.free_bytes is not None and card.total_bytes is not None
    sizes = {"free": gib(w, card.free_bytes or 0), "total": gib(w, card.total_bytes or 0)}
    parts = [w.t("hardware_view.ram_free", **sizes) if known else w.t("hardware_view.memory_unknown")]
    if card.utilization_percent is not None:
        parts.append(w.t("hardware_view.load", load=card.utilization_percent))
    if card.drives_display:
        parts.append(w.t("hardware_view.drives_display"))
    return w.t("hardware_view.numbered", index=card.index, about=w.t("run_memory.comma").join(parts))


def _holders(holders: tuple[Holder, ...] | None, w: Wording) -> str:
    """Return a list of up to MAX_HOLDERS programs that use a GPU, or that there are none or they are unknown."""
    if holders is None:
        return _unknown_word(w)
    if not holders:
        return w.t("hardware_view.no_holders")
    lines = [tag("li", _holder(holder, w)) for holder in holders[:MAX_HOLDERS]]
    if len(holders) > MAX_HOLDERS:
        lines.append(tag("li", w.t("hardware_view.more_holders", count=len(holders) - MAX_HOLDERS)))
    return tag("ul", *lines, class_="lg-holders")


def _holder(holder: Holder, w: Wording) -> str:
    """Return a sentence on a program that has memory on a GPU: its name, process id and GiB.

    A program without a name is called "some program", as the language has it; unknown memory is shown as unknown.
    """
    used = (
        w.t("hardware_view.memory_unknown")
        if holder.used_bytes is None
        else w.t("fits_view.gib", gib=gib(w, holder.used_bytes))
    )
    return w.t(
        "hardware_view.holder", name=holder.name or w.t("hardware_view.some_program"), pid=str(holder.pid), used=used
    )


def gib(w: Wording, size_bytes: int) -> str:
    """Return a size, which is given in bytes, as a number of GiB with one decimal."""
    return decimals(w, size_bytes / GIB, 1)


def _ram(machine: Machine, key: str, w: Wording) -> str:
    """Return this PC's RAM by the sentence hardware_view.<key> ({free}, {used}, {total}); "unknown" if it is not
    known."""
    free, total = machine.ram_free_bytes, machine.ram_total_bytes
    if free is None or total is None:
        return _unknown_word(w)
    return w.t(f"hardware_view.{key}", free=gib(w, free), used=gib(w, total - free), total=gib(w, total))


def _with_unit(value: float | None, unit: str, w: Wording) -> str:
    """Return a number with its unit: "65 °C"; "unknown" for None."""
    return _unknown_word(w) if value is None else f"{number(w, value)} {unit}"


def _card_name(card: Card, w: Wording) -> str:
    return card.name or w.t("hardware_view.card", index=card.index)


def _unknown_word(w: Wording) -> str:
    return w.t("hardware_view.unknown")
