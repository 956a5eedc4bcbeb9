"""Which device a process gets: which GPUs may be used, which one is meant, and the environment that makes CUDA use it.

What is wanted is the uuid of a card, "cpu", or None where nothing was chosen or nothing can be told apart. A card is
named by its uuid because CUDA numbers cards by speed and NVML by bus. Numbers in a person's CUDA_VISIBLE_DEVICES count
as NVML's and nvidia-smi's do.
No torch: how it was built is read from its version.py as text.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path

from core.errors import RecipeError
from core.messages import Message, msg
from core.system import gpu
from core.system.gpu import Card, Nvidia
from core.values import Frozen

CPU = "cpu"
VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
NO_CARD = {VISIBLE: "-1"}  # an environment; "" may read as unset on Windows
# The lowest and the highest compute capability that torch's wheels for a version of CUDA have code for; a test holds it
# against launcher/torch_build.py's table. PyPI has more minor versions (torch 2.15.0: CUDA 13.2): each counts as the
# nearest of its major version here. A build for another major version is taken to have code for all.
KERNELS = {(12, 6): ((5, 0), (9, 0)), (12, 8): ((7, 5), (12, 1)), (13, 0): ((7, 5), (99, 0))}
# The lowest compute capability that a bitsandbytes library for CUDA has code for (0.50.2: sm_60 in that for 12.6, sm_70
# and sm_75 in the others). Where it has none its kernels do not raise: they end the process.
LEAST_FOR_BITSANDBYTES = (6, 0)


class TorchBuild(Frozen):
    """version: "2.13.0+cpu". cuda, hip: versions it was built for, None without."""

    version: str | None = None
    cuda: str | None = None
    hip: str | None = None

    @property
    def knows_cards(self) -> bool:
        return bool(self.cuda or self.hip)

    def has_kernels(self, capability: tuple[int, int] | None) -> bool:
        """True too where it cannot be told."""
        numbers = re.findall(r"\d+", self.cuda or "")
        major, minor = (int(number) for number in (*numbers, 0, 0)[:2])
        near = min(
            (known for known in KERNELS if known[0] == major), key=lambda known: abs(known[1] - minor), default=None
        )
        low, high = KERNELS[near] if near else ((0, 0), (99, 9))
        return capability is None or low <= capability <= high


@lru_cache(maxsize=1)
def torch_build() -> TorchBuild | None:
    """None without torch, or where its version.py cannot be read. The package's metadata would not do: on Windows
    PyPI's torch, whose version names no build there, is built for the processor alone."""
    found = importlib.util.find_spec("torch")
    try:
        return read_build(Path(found.origin or "").with_name("version.py").read_text("utf-8")) if found else None
    except (OSError, ValueError):
        return None


def read_build(text: str) -> TorchBuild:
    """Of torch/version.py. Raises ValueError for a line that is no plain value."""
    lines = re.findall(r"^(__version__|cuda|hip)\b[^=\n]*=\s*(.+)$", text, re.MULTILINE)
    values = {name.strip("_"): ast.literal_eval(value.strip()) for name, value in lines}
    return TorchBuild.model_validate(values)


def here() -> Nvidia:
    """The cards of this PC, and which of them are left out."""
    return judged(gpu.probe(), os.environ.get(VISIBLE), torch_build())


def judged(nvidia: Nvidia, visible: str | None, build: TorchBuild | None) -> Nvidia:
    """visible: as CUDA_VISIBLE_DEVICES says, None where it is not set."""
    shown = _shown(nvidia.cards, visible)

    def judge(card: Card) -> Card:
        has_code = build is None or build.has_kernels(card.capability)
        why = (
            "hidden"
            if card.index not in shown
            else "too_old"
            if is_too_old(card)
            else None
            if has_code
            else "no_kernels"
        )
        return card.model_copy(update={"left_out": why})

    return nvidia.model_copy(update={"cards": tuple(map(judge, nvidia.cards))})


def is_too_old(card: Card) -> bool:
    """A GPU for which bitsandbytes has no code: QLoRA and 8-bit optimizers would end their process without an error."""
    return card.capability is not None and card.capability < LEAST_FOR_BITSANDBYTES


def _shown(cards: Sequence[Card], visible: str | None) -> set[int]:
    """Indices. As CUDA reads it: up to the first word that names nothing; the beginning of a uuid is enough."""
    if visible is None:
        return {card.index for card in cards}
    found: set[int] = set()
    for word in map(str.strip, visible.split(",")):
        if word.isdecimal():
            named = {card.index for card in cards if card.index == int(word)}
        elif word.startswith("MIG-"):  # an instance: of a card that is cut into some
            named = {card.index for card in cards if card.mig}
        else:
            named = {card.index for card in cards if word.startswith("GPU-") and (card.uuid or "").startswith(word)}
        if not named:
            break
        if named & found:  # said twice: CUDA then shows none
            return set()
        found |= named
    return found


def best_card(nvidia: Nvidia) -> Card | None:
    """The card that a run would use: the one with most free memory; one that does not tell it only where no other
    does."""
    usable = [card for card in nvidia.cards if card.usable]
    return max(usable, key=lambda card: -1 if card.free_bytes is None else card.free_bytes, default=None)


def wanted_of(card: Card | None, nvidia: Nvidia) -> str | None:
    """What a process is told that is to compute on card, or on the processor. An instance of a card is found by CUDA
    alone, and so is a card that NVML does not know."""
    if card is not None:
        return None if card.mig else card.uuid
    return CPU if nvidia.cards else None


def nearest(wanted: str | None, nvidia: Nvidia) -> str | None:
    """wanted where it is there, else the best card: for what may be done on another device, and says so."""
    is_there = wanted == CPU or any(card.uuid == wanted for card in nvidia.cards if wanted and card.usable)
    return wanted if is_there else wanted_of(best_card(nvidia), nvidia)


def environment_of(wanted: str | None, nvidia: Nvidia, count: int = 1, chosen: Collection[str] = ()) -> dict[str, str]:
    """What every process of ours that computes is started with. The one card of a PC is found without being named.
    count: of cards, the others as `beside` has them."""
    if wanted == CPU:
        return dict(NO_CARD)
    if not wanted or len(nvidia.cards) < 2:
        return {}
    return {
        ORDER: "PCI_BUS_ID",
        VISIBLE: ",".join([wanted, *(card.uuid or "" for card in beside(wanted, nvidia, chosen)[: count - 1])]),
    }


def beside(wanted: str | None, nvidia: Nvidia, chosen: Collection[str] = ()) -> list[Card]:
    """The other cards that a run on wanted may use too: those of these uuids first, then those with most free
    memory."""
    others = (card for card in may_be_chosen(nvidia) if card.uuid != wanted)
    return sorted(others, key=lambda card: (card.uuid not in chosen, -(card.free_bytes or 0)))


def may_be_chosen(nvidia: Nvidia) -> list[Card]:
    """Cards that a process can be given by name."""
    return [card for card in nvidia.cards if card.usable and card.uuid and not card.mig]


def named(words: Sequence[str], nvidia: Nvidia) -> list[Card]:
    """The cards that these words name: numbers as NVML and nvidia-smi count, or beginnings of uuids.

    Raises RecipeError for a word that names no card that can be used."""
    there = may_be_chosen(nvidia)
    found = {}
    for word in words:
        card = next(
            (
                each
                for each in there
                if word == str(each.index) or (word.startswith("GPU-") and (each.uuid or "").startswith(word))
            ),
            None,
        )
        if card is None:
            raise RecipeError(
                "device.no_such_card",
                found=word[:60],
                cards=", ".join(f"{each.index} ({each.name})" for each in there) or "-",
            )
        found[card.index] = card
    return [*found.values()]


def why_left_out(card: Card) -> Message | None:
    """None for a card that may be used."""
    if card.lost:
        return msg("device.lost", card=card.name or card.index)
    if card.left_out == "hidden":
        return msg("device.hidden", card=card.name or card.index, value=os.environ.get(VISIBLE, ""))
    if card.left_out == "too_old":
        return too_old(card)
    if card.left_out == "no_kernels":
        build, capability = torch_build(), "{}.{}".format(*(card.capability or (0, 0)))
        return msg(
            "device.no_kernels",
            card=card.name or card.index,
            torch=(build and build.version) or "?",
            capability=capability,
        )
    return None


def too_old(card: Card) -> Message:
    capability, least = ("{}.{}".format(*each) for each in (card.capability or (0, 0), LEAST_FOR_BITSANDBYTES))
    return msg("device.too_old", card=card.name or card.index, capability=capability, least=least)
