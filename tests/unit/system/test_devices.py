"""Which card is meant: hidden ones, ones without code, and what a process is started with. Cards are made by hand
here."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import pytest

from core.errors import RecipeError
from core.memory import budget
from core.system import devices
from core.system.devices import CPU, ORDER, VISIBLE, TorchBuild
from core.system.gpu import Card, Nvidia
from core.system.machine import Machine
from core.values import GIB
from launcher import torch_build
from webui.kit import hardware
from webui.kit.wording import Wording

CUDA_13 = TorchBuild(version="2.15.0", cuda="13.2")  # as PyPI has it for Linux


def card(index: int, free: float = 8, capability: tuple[int, int] | None = (8, 9), **more: object) -> Card:
    name = f"card {index}"
    return Card(
        index=index, name=name, uuid=f"GPU-{index}abc", free_bytes=int(free * GIB), capability=capability, **more
    )


TWO = Nvidia(driver="580", cards=(card(0), card(1, free=10)))


def left_out(nvidia: Nvidia) -> list[str | None]:
    return [each.left_out for each in nvidia.cards]


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        (None, [0, 1]), ("0,1", [0, 1]), ("1", [1]), (" 1 , 0", [0, 1]), ("GPU-1", [1]), ("GPU-0abc", [0]),
        ("", []), ("-1", []), ("NoDevFiles", []), ("7", []), ("0,7,1", [0]), ("GPU-", [0, 1]), ("MIG-3", []), ("0,0",
            []),
    ],
)  # fmt: skip
def test_cards_that_the_environment_hides_are_not_planned_for(visible: str | None, seen: list[int]):
    judged = devices.with_exclusions(TWO, visible, CUDA_13)
    assert left_out(judged) == [None if index in seen else "hidden" for index in (0, 1)]
    best = devices.best_card(judged)
    assert (best and best.index) == max(seen, default=None)


def test_an_instance_hides_the_cards_that_have_none():
    cut = Nvidia(cards=(card(0), card(1, mig=True)))
    assert left_out(devices.with_exclusions(cut, "MIG-8f", CUDA_13)) == ["hidden", None]


def test_a_card_without_code_is_skipped_however_large_it_is():
    old = Nvidia(cards=(card(0, free=11, capability=(6, 1)), card(1, free=7, capability=(12, 0))))
    assert left_out(devices.with_exclusions(old, None, CUDA_13)) == ["no_kernels", None]
    assert devices.best_card(devices.with_exclusions(old, None, CUDA_13)).index == 1
    assert devices.best_card(devices.with_exclusions(old, None, TorchBuild(cuda="12.6"))).index == 0
    for unknown in (None, TorchBuild(cuda="14.0"), TorchBuild(version="2.13.0+cpu")):
        assert left_out(devices.with_exclusions(old, None, unknown)) == [None, None]


@pytest.mark.parametrize(
    ("cuda", "has", "lacks"),
    [("12.1", (6, 1), (12, 0)), ("12.6", (6, 1), (12, 0)), ("12.8", (12, 0), (6, 1)), ("12.9", (12, 0), (6, 1)),
        ("13.0", (7, 5), (6, 1)),
     ("13.2", (7, 5), (6, 1)), ("13.9", (12, 0), (7, 0))],
)  # fmt: skip
def test_a_minor_version_of_cuda_that_the_table_lacks_counts_as_the_nearest_of_its_major(
    cuda: str, has: tuple, lacks: tuple
):
    """PyPI's torch 2.15.0, built for CUDA 13.2, was taken to have code for every card: a GTX 10xx counted as usable."""
    assert TorchBuild(cuda=cuda).has_kernels(has) and not TorchBuild(cuda=cuda).has_kernels(lacks)


@pytest.mark.parametrize("language", ["en", "de", "zh"])
def test_a_card_that_bitsandbytes_has_no_code_for_is_left_out_with_both_numbers(language: str):
    """A GTX 970: torch for CUDA 12.6 has code for it, and QLoRA's first kernel ended the worker without an error."""
    for build in (None, TorchBuild(cuda="12.6")):
        old, least = devices.with_exclusions(
            Nvidia(cards=(card(0, capability=(5, 2)), card(1, capability=(6, 0)))), None, build
        ).cards
        assert (old.left_out, least.left_out) == ("too_old", None)
        sentence = devices.why_left_out(old).render(language)
        assert "5.2" in sentence and "6.0" in sentence and "bitsandbytes" in sentence


def test_launch_and_core_agree_on_the_code_of_a_build():
    assert {f"cu{major}{minor}": span for (major, minor), span in devices.KERNELS.items()} == {
        row.build: (row.low, row.high) for row in torch_build.CUDA_BUILDS
    }
    assert torch_build.LEAST == devices.MIN_FOR_BITSANDBYTES


def architectures(library: bytes) -> set[tuple[int, int]]:
    """Compute capabilities of the machine code in a CUDA library: entries of kind 2 of its fat binaries
    (fatbinary.h)."""
    versions, at = set(), 0
    while (at := library.find(b"\x50\xed\x55\xba", at)) >= 0:
        header, size = struct.unpack_from("<HQ", library, at + 6)
        entry = at + header
        at = end = entry + size
        while entry < end:
            kind, header, size = struct.unpack_from("<HxxIQ", library, entry)
            if kind == 2:
                versions.add(divmod(struct.unpack_from("<I", library, entry + 28)[0], 10))
            entry += header + size
    return versions


@pytest.mark.parametrize("cuda", devices.KERNELS)
def test_bitsandbytes_has_code_for_every_card_that_is_used(cuda: tuple[int, int]):
    """Its launches end the process where it has none."""
    folder = Path(importlib.util.find_spec("bitsandbytes").origin).parent
    library = folder / f"libbitsandbytes_cuda{cuda[0]}{cuda[1]}.so"
    if not library.exists():
        pytest.skip("this wheel has no libraries for CUDA on Linux")
    has, low = architectures(library.read_bytes()), devices.KERNELS[cuda][0]
    assert min(has) <= max(low, devices.MIN_FOR_BITSANDBYTES)
    assert cuda != (12, 6) or min(has) == devices.MIN_FOR_BITSANDBYTES, "no card is left out that it has code for"


def test_how_torch_was_built_is_read_without_importing_it():
    """PyPI's torch for Windows calls itself 2.15.0 in its metadata, and was built for the processor alone."""
    windows = (
        "from typing import Optional\n\n__version__ = '2.15.0'\ndebug = False\ncuda: Optional[str] = None\nhip: "
        "Optional[str] = None\n"
    )
    assert devices.read_build(windows) == TorchBuild(version="2.15.0") and not devices.read_build(windows).knows_cards
    older = "__version__ = '2.9.1+cu128'\ncuda = '12.8'\nhip = None\n"
    assert (
        devices.read_build(older) == TorchBuild(version="2.9.1+cu128", cuda="12.8")
        and devices.read_build(older).knows_cards
    )
    assert devices.read_build("__version__ = '2.9'\nhip: Optional[str] = '7.2'\n").knows_cards


def test_the_torch_that_is_here_is_found():
    import torch

    build = devices.torch_build()
    assert (build.version, build.cuda, build.hip) == (torch.__version__, torch.version.cuda, torch.version.hip)


def test_what_a_process_is_started_with():
    one = Nvidia(cards=TWO.cards[:1])
    assert devices.environment_of("GPU-1abc", TWO) == {VISIBLE: "GPU-1abc", ORDER: "PCI_BUS_ID"}
    assert devices.environment_of("GPU-0abc", one) == {} == devices.environment_of(None, TWO)
    assert devices.environment_of("GPU-0abc", TWO, 2) == {VISIBLE: "GPU-0abc,GPU-1abc", ORDER: "PCI_BUS_ID"}
    assert devices.environment_of("GPU-0abc", Nvidia(cards=(card(0), card(1, lost=True))), 2)[VISIBLE] == "GPU-0abc"
    assert devices.environment_of(CPU, TWO) == devices.environment_of(CPU, Nvidia()) == {VISIBLE: "-1"}


def test_what_is_not_there_gives_way_to_the_best_that_is():
    lost = Nvidia(cards=(card(0, lost=True), card(1)))
    assert (
        devices.available_or_best("GPU-0abc", TWO) == "GPU-0abc"
        and devices.available_or_best("GPU-0abc", lost) == "GPU-1abc"
    )
    assert devices.available_or_best(None, TWO) == "GPU-1abc" and devices.available_or_best(CPU, TWO) == CPU
    assert devices.available_or_best("GPU-0abc", Nvidia()) is None  # what torch finds, which NVML may not know
    assert devices.available_or_best(None, devices.with_exclusions(TWO, "", CUDA_13)) == CPU


def test_a_plan_names_the_card_that_it_is_for():
    excluded = devices.with_exclusions(TWO, "0", CUDA_13)
    of = lambda nvidia: budget.device_of(budget.of_machine(Machine(system="Linux", nvidia=nvidia)), nvidia)  # noqa: E731
    assert (of(excluded), of(TWO), of(devices.with_exclusions(TWO, "-1", None)), of(Nvidia())) == (
        "GPU-0abc",
        "GPU-1abc",
        CPU,
        None,
    )
    assert of(Nvidia(cards=(card(0, mig=True),))) is None  # CUDA alone finds the instance
    assert budget.device_of(budget.planned(24, "Linux"), TWO) is None


@pytest.mark.parametrize("language", ["en", "zh"])
def test_why_a_card_is_not_used_is_said_beside_it(language: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VISIBLE, "GPU-1abc")
    monkeypatch.setattr(devices, "torch_build", lambda: CUDA_13)
    old = Nvidia(cards=(card(0), card(1, capability=(6, 1))))
    shown = hardware.details(
        Machine(system="Linux", nvidia=devices.with_exclusions(old, "GPU-1abc", CUDA_13)), Wording(language)
    )
    assert "GPU-1abc" in shown and "2.15.0" in shown and "6.1" in shown


def test_cards_are_named_by_number_or_uuid():
    three = Nvidia(cards=(card(0), card(1, free=10), card(2, free=4, mig=True), card(3, lost=True)))
    for words in (["0", "1"], ["GPU-1", "GPU-0abc"], ["1", "0", "GPU-1abc"]):
        assert {each.index for each in devices.cards_named(words, three)} == {0, 1}
    for bad in ("2", "3", "7", "", "-1", "GPU-9", "card 0", "GPU-3"):
        with pytest.raises(RecipeError, match=r"Available: 0 \(card 0\), 1 \(card 1\)"):
            devices.cards_named(["0", bad], three)


def test_chosen_cards_are_planned_for_by_the_smallest_of_them():
    three = Nvidia(cards=(card(0), card(1, free=10), card(2, free=20)))
    planned = budget.of_chosen(devices.cards_named(["0", "1"], three), three)
    assert (planned.ranks, planned.card_uuid, planned.beside) == (2, "GPU-1abc", (("GPU-0abc", "card 0"),))
    assert (planned.free_gib, planned.smallest, planned.largest.name) == (8, "card 0", "card 1")
    assert budget.of_ranks(planned, three, 2) is planned and hash(planned)  # what fits is kept by it
    alone = budget.of_chosen(devices.cards_named(["0"], three), three)
    assert (alone.ranks, alone.free_gib, alone.beside) == (1, 8, ())
    by_itself = budget.of_ranks(budget.of_machine(Machine(system="Linux", nvidia=three)), three, 2)
    assert (by_itself.card_uuid, by_itself.beside) == ("GPU-2abc", (("GPU-1abc", "card 1"),))
