"""The device of a process: which GPUs may be used, which one is meant, and the environment that makes CUDA use it.

A device is selected by a GPU's uuid, "cpu", or None if nothing was chosen or GPUs cannot be told apart. A uuid, because
CUDA numbers GPUs by speed and NVML by bus. Numbers in a person's CUDA_VISIBLE_DEVICES count as in NVML and nvidia-smi.

No torch: its build is read from its version.py as text.
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
MIN_FOR_BITSANDBYTES = (6, 0)


class TorchBuild(Frozen):
    """The build of torch. version: "2.13.0+cpu". cuda, hip: versions it was built for, None without."""

    version: str | None = None
    cuda: str | None = None
    hip: str | None = None

    @property
    def knows_cards(self) -> bool:
        """True if torch was built for GPUs, with CUDA or ROCm."""
        return bool(self.cuda or self.hip)

    def has_kernels(self, capability: tuple[int, int] | None) -> bool:
        """Return whether this build supports a compute capability, by the nearest known CUDA version. True if the
        capability is None, and for a build without CUDA or with an unknown one."""
        numbers = re.findall(r"\d+", self.cuda or "")
        major, minor = (int(number) for number in (*numbers, 0, 0)[:2])
        near = min(
            (known for known in KERNELS if known[0] == major), key=lambda known: abs(known[1] - minor), default=None
        )
        low, high = KERNELS[near] if near else ((0, 0), (99, 9))
        return capability is None or low <= capability <= high


@lru_cache(maxsize=1)
def torch_build() -> TorchBuild | None:
    """Return the installed build; None without torch, or if its version.py cannot be read.

    The package's metadata is not enough: on Windows PyPI's torch, whose version names no build there, is for the CPU
    alone.
    """
    spec = importlib.util.find_spec("torch")
    try:
        return read_build(Path(spec.origin or "").with_name("version.py").read_text("utf-8")) if spec else None
    except (OSError, ValueError):
        return None


def read_build(text: str) -> TorchBuild:
    """Parse torch/version.py. Raises ValueError for a line that is not a plain value."""
    lines = re.findall(r"^(__version__|cuda|hip)\b[^=\n]*=\s*(.+)$", text, re.MULTILINE)
    values = {name.strip("_"): ast.literal_eval(value.strip()) for name, value in lines}
    return TorchBuild.model_validate(values)


def read_cards() -> Nvidia:
    """Return the GPUs of this PC, with the reason why each is left out, if any."""
    return with_exclusions(gpu.probe(), os.environ.get(VISIBLE), torch_build())


def with_exclusions(nvidia: Nvidia, visible: str | None, build: TorchBuild | None) -> Nvidia:
    """Return nvidia with left_out set on the GPUs that must not be used: hidden, too old, or without kernels in this
    build. visible: value of CUDA_VISIBLE_DEVICES, None if unset."""
    shown = _shown(nvidia.cards, visible)

    def with_reason(card: Card) -> Card:
        """Return a copy of the GPU with left_out as "hidden", "too_old", "no_kernels" (the first that holds), or None
        if it may be used."""
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

    return nvidia.model_copy(update={"cards": tuple(map(with_reason, nvidia.cards))})


def is_too_old(card: Card) -> bool:
    """Return whether bitsandbytes lacks code for a GPU: QLoRA and 8-bit optimizers would end their process without an
    error."""
    return card.capability is not None and card.capability < MIN_FOR_BITSANDBYTES


def _shown(cards: Sequence[Card], visible: str | None) -> set[int]:
    """Return the indices of visible GPUs, as CUDA reads them: all for None, none if one is named twice.

    It stops at the first word that matches nothing; the beginning of a uuid is enough.
    """
    if visible is None:
        return {card.index for card in cards}
    shown: set[int] = set()
    for word in map(str.strip, visible.split(",")):
        if word.isdecimal():
            named = {card.index for card in cards if card.index == int(word)}
        elif word.startswith("MIG-"):  # an instance: of a card that is cut into some
            named = {card.index for card in cards if card.mig}
        else:
            named = {card.index for card in cards if word.startswith("GPU-") and (card.uuid or "").startswith(word)}
        if not named:
            break
        if named & shown:  # named twice: CUDA then shows none
            return set()
        shown |= named
    return shown


def best_card(nvidia: Nvidia) -> Card | None:
    """Return the GPU that a run would use: the one with most free memory; one that does not report it comes last. None
    without a usable one."""
    usable = [card for card in nvidia.cards if card.usable]
    return max(usable, key=lambda card: -1 if card.free_bytes is None else card.free_bytes, default=None)


def selector_of(card: Card | None, nvidia: Nvidia) -> str | None:
    """Return what selects a card: its uuid, None to leave it to CUDA (MIG instances, and GPUs unknown to NVML). For
    card None: CPU, or None without GPUs."""
    if card is not None:
        return None if card.mig else card.uuid
    return CPU if nvidia.cards else None


def available_or_best(device: str | None, nvidia: Nvidia) -> str | None:
    """Return device if it is the CPU or a usable GPU's uuid; otherwise what selects the best usable GPU
    (`selector_of`), or "cpu" if the PC has GPUs but none is usable. None if CUDA is to choose, or the PC has no GPU.
    For work that may move to another device."""
    is_there = device == CPU or any(card.uuid == device for card in nvidia.cards if device and card.usable)
    return device if is_there else selector_of(best_card(nvidia), nvidia)


def environment_of(device: str | None, nvidia: Nvidia, count: int = 1, chosen: Collection[str] = ()) -> dict[str, str]:
    """Return the environment variables by which our computing processes see only these devices. {} if device is None,
    and on a PC with one GPU, which needs no name.

    device: the uuid of a GPU, or CPU, which hides all GPUs. count: number of GPUs, device included; the further ones
    are those with chosen uuids first, then those with most free memory.
    """
    if device == CPU:
        return dict(NO_CARD)
    if not device or len(nvidia.cards) < 2:
        return {}
    return {
        ORDER: "PCI_BUS_ID",
        VISIBLE: ",".join([device, *(card.uuid or "" for card in beside(device, nvidia, chosen)[: count - 1])]),
    }


def beside(device: str | None, nvidia: Nvidia, chosen: Collection[str] = ()) -> list[Card]:
    """Return the usable GPUs except the one with uuid device (all for None): those with chosen uuids first, then those
    with most free memory."""
    others = (card for card in may_be_chosen(nvidia) if card.uuid != device)
    return sorted(others, key=lambda card: (card.uuid not in chosen, -(card.free_bytes or 0)))


def may_be_chosen(nvidia: Nvidia) -> list[Card]:
    """Return the usable GPUs that a uuid selects: those without a uuid, and those cut into MIG instances, are
    missing."""
    return [card for card in nvidia.cards if card.usable and card.uuid and not card.mig]


def cards_named(words: Sequence[str], nvidia: Nvidia) -> list[Card]:
    """Return the usable GPUs that words name, each once: the number that NVML and nvidia-smi give it, or the beginning
    of its uuid ("GPU-..."). Of several that fit, the first is taken. Raises RecipeError for a word that names no usable
    GPU."""
    usable = may_be_chosen(nvidia)
    chosen = {}
    for word in words:
        card = next(
            (
                each
                for each in usable
                if word == str(each.index) or (word.startswith("GPU-") and (each.uuid or "").startswith(word))
            ),
            None,
        )
        if card is None:
            raise RecipeError(
                "device.no_such_card",
                found=word[:60],
                cards=", ".join(f"{each.index} ({each.name})" for each in usable) or "-",
            )
        chosen[card.index] = card
    return [*chosen.values()]


def why_left_out(card: Card) -> Message | None:
    """Return why a GPU is not used: off the bus, hidden, too old, or without kernels in this torch. None for a usable
    one."""
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
    """Return the sentence that a GPU's compute capability is below bitsandbytes' least."""
    capability, least = ("{}.{}".format(*each) for each in (card.capability or (0, 0), MIN_FOR_BITSANDBYTES))
    return msg("device.too_old", card=card.name or card.index, capability=capability, least=least)
