"""The memory that a plan may use: a GPU's (as sold, and free now), that of a GPU not in this PC, or this PC's RAM."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Literal

from core.errors import RecipeError
from core.system import devices
from core.system.gpu import Card, Nvidia
from core.system.machine import Machine
from core.values import GIB, Frozen

SOLD_SIZES_GB = (1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 141, 180, 192, 288)
# Memory of a desktop on a GPU that is not in this PC, GiB (docs/memory.md, 1.6).
DESKTOP_GIB = {"Windows": 1.3}
DESKTOP_GIB_ELSEWHERE = 0.7


class Budget(Frozen):
    """The memory for a plan.

    kind "card": a GPU; sold_gb is the size on the box (as in the documented table), free_gib what is available now.
    kind "cpu": no GPU; free_gib is free RAM. free_gib None: unknown. planned: a GPU that is not in this PC; free_gib is
    then sold_gb less reserve_gib for the desktop. ram_gib: free RAM of a PC with a GPU, to which layers may be
    offloaded; None: unknown. ranks: GPUs, or processes, of a run; sizes are those of the smallest, named in `smallest`.
    beside: the GPUs of ranks 1 and up, uuid and name. largest: of several GPUs the one with most free memory, as if
    alone. equal_cards: other GPUs of this PC with the same sold size; equal_free_gib: the least that is free on any of
    them.
    """

    kind: Literal["card", "cpu"]
    name: str | None = None
    sold_gb: float | None = None
    free_gib: float | None = None
    reserve_gib: float = 0.0
    ram_gib: float | None = None
    capability: tuple[int, int] | None = None
    planned: bool = False
    card_index: int | None = None
    card_uuid: str | None = None
    ranks: int = 1
    smallest: str | None = None
    beside: tuple[tuple[str, str], ...] = ()
    largest: Budget | None = None
    equal_cards: int = 0
    equal_free_gib: float | None = None


def sold_gb(total_bytes: int) -> float:
    """Return the size on the box: 79.6 GiB reported is an 80 GB GPU, 23.6 a 24 GB GPU.

    That is the smallest size sold that is no more than 0.35 GiB below what the driver reports: it keeps a little back,
    and error correction up to a sixteenth (an L4 of 24 GB reports 22.5).
    """
    at_least = total_bytes / GIB - 0.35
    return float(next((size for size in SOLD_SIZES_GB if size >= at_least), math.ceil(at_least)))


def of_machine(machine: Machine) -> Budget:
    """Return the budget of the best GPU, or else of this PC's RAM."""
    card = devices.best_card(machine.nvidia)
    return of_cpu(machine) if card is None else of_card(card, machine.ram_free_bytes)


def of_card(card: Card, ram_free_bytes: int | None = None) -> Budget:
    """Return the budget of a GPU: its size as sold and the memory free now. In MIG mode its size is unknown: only its
    instances have one, and NVML reports the whole."""
    return Budget(
        kind="card",
        name=card.name,
        sold_gb=None if card.mig or card.total_bytes is None else sold_gb(card.total_bytes),
        free_gib=_gib(card.free_bytes),
        ram_gib=_gib(ram_free_bytes),
        capability=card.capability,
        card_index=card.index,
        card_uuid=card.uuid,
    )


def of_cpu(machine: Machine) -> Budget:
    """Return the budget of this PC's CPU: its free RAM."""
    return Budget(kind="cpu", name=machine.cpu, free_gib=_gib(machine.ram_free_bytes))


def of_chosen(cards: Sequence[Card], nvidia: Nvidia, ram_free_bytes: int | None = None) -> Budget:
    """Return the budget of one rank on each of cards (at least one); the first rank gets the GPU with most free
    memory."""
    first = max(cards, key=lambda card: card.free_bytes or 0)
    return of_ranks(of_card(first, ram_free_bytes), nvidia, len(cards), [card.uuid or "" for card in cards])


def of_ranks(budget: Budget, nvidia: Nvidia, ranks: int, chosen: Collection[str] = ()) -> Budget:
    """Return the budget of each of several ranks, as large as the smallest of them: the first on budget's GPU, the
    others on GPUs beside it, preferably those with the uuids `chosen`; of RAM an equal share. For one rank it is budget
    with the number of equal GPUs; a planned budget stays. Raises RecipeError for more GPUs than there are."""
    if ranks == budget.ranks or budget.planned:
        return budget if ranks > 1 or budget.planned else _with_equals(budget, nvidia)
    if budget.kind == "cpu":
        share = None if budget.free_gib is None else budget.free_gib / ranks
        return budget.model_copy(update={"ranks": ranks, "free_gib": share})
    others = (
        [of_card(card) for card in devices.beside(budget.card_uuid, nvidia, chosen)[: ranks - 1]]
        if budget.card_uuid
        else []
    )
    if len(others) < ranks - 1:
        raise RecipeError("ranks.too_few_cards", ranks=ranks, cards=1 + len(others))
    smallest = min([budget, *others], key=lambda each: each.free_gib or 0)
    largest = max([budget, *others], key=lambda each: each.free_gib or 0)
    sizes = {
        "ranks": ranks,
        "smallest": smallest.name,
        "beside": tuple((other.card_uuid or "", other.name or "?") for other in others),
        "sold_gb": smallest.sold_gb,
        "free_gib": smallest.free_gib,
        "largest": largest,
    }
    return budget.model_copy(update=sizes)


def _with_equals(budget: Budget, nvidia: Nvidia) -> Budget:
    """Return the budget with the number of other GPUs sold in the same size, and the least free memory among all of
    them; as it is if there are none."""
    others = [of_card(card) for card in devices.beside(budget.card_uuid, nvidia)] if budget.card_uuid else []
    equal = [each for each in others if each.sold_gb == budget.sold_gb and each.free_gib is not None]
    if not equal or budget.free_gib is None:
        return budget
    least = min([budget, *equal], key=lambda each: each.free_gib or 0).free_gib
    return budget.model_copy(update={"equal_cards": len(equal), "equal_free_gib": least})


def device_of(budget: Budget, nvidia: Nvidia) -> str | None:
    """Return the device selector (core/system/devices) of a process that uses this budget; None for a planned GPU."""
    card = next((card for card in nvidia.cards if budget.kind == "card" and card.index == budget.card_index), None)
    return None if budget.planned else devices.selector_of(card, nvidia)


def planned(gb: float, system: str) -> Budget:
    """Return the budget of a GPU not in this PC, sold with gb GB, in a PC with this operating system
    (platform.system()): gb less what a desktop takes.

    Raises RecipeError for anything but 1 to 1000.
    """
    if not isinstance(gb, int | float) or not 1 <= gb <= 1000:
        raise RecipeError("hardware.bad_size", found=str(gb)[:40])
    reserve = DESKTOP_GIB.get(system, DESKTOP_GIB_ELSEWHERE)
    return Budget(kind="card", sold_gb=float(gb), free_gib=gb - reserve, reserve_gib=reserve, planned=True)


def _gib(size_bytes: int | None) -> float | None:
    """Return bytes as GiB; None stays None."""
    return None if size_bytes is None else size_bytes / GIB
