"""The step as a GPU would get it, on the pretended one of tests/kit/pretended: which devices meet, what the processor
waits for, how many kernels a layer launches. No numbers: tests of numbers are elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import transformers

from core.presets import PROJECT
from tests.kit.pretended import CASES, KEPT, PLANTED, Case, Elsewhere, Observed

TOLERANCE = 0.02  # of the kept launches


@dataclass(frozen=True)
class Wait:
    """A place where the processor may wait for the GPU. most: times in a step of one micro-batch. why: it cannot be
    done without.
    where: in which cases."""

    most: int
    why: str
    where: Callable[[Case], bool] = lambda case: True


def _is_padded(case: Case) -> bool:
    return case.rows == "padded"


def _compares(case: Case) -> bool:
    return bool(case.objective)


def _offloads(case: Case) -> bool:
    return case.offload == "activations"


def _lacks_pins(case: Case) -> bool:
    return case.pins == 0


# Beside these, where no case here comes: bitsandbytes synchronizes after each tensor of adamw_8bit (optim/optimizer.py,
# `sync_gpu` in `step`), and looks for outliers before each matrix of an 8-bit base (backends/cuda/ops.py,
# `outliers.any()`).
WAITS = {
    "core/engine/step.py compute": Wait(2, "the step's norm and loss, once a step: they decide whether it is applied"),
    "core/engine/step.py take_pair_metrics": Wait(1, "metrics of pairs, once a step", _compares),
    "core/engine/variants/pinned.py sent": Wait(1, "the batch, from RAM that is not pinned", _lacks_pins),
    "core/engine/variants/offload.py __enter__": Wait(
        1, "pinned RAM of the last micro-batch is reused, not doubled", _offloads
    ),
    "core/engine/variants/offload.py _put_aside": Wait(4, "activations, to RAM that is not pinned", _lacks_pins),
    "core/engine/variants/offload.py _fetch": Wait(4, "activations, from RAM that is not pinned", _lacks_pins),
    "core/engine/variants/streaming.py send": Wait(
        6, "the four offloaded layers, from RAM that is not pinned", _lacks_pins
    ),
    "transformers/masking_utils.py _ignore_causal_mask_sdpa": Wait(
        2, "transformers asks whether the mask has padding", _is_padded
    ),
}


@pytest.fixture(scope="module")
def card() -> Iterator[Elsewhere]:
    with Elsewhere() as elsewhere:
        yield elsewhere


def two_devices(seen: Observed) -> list[str]:
    return seen.mixed


def other_gradients(seen: Observed) -> list[str]:
    return [each for each in seen.gradients if each != "torch.float32 on card"] if seen.gradients else ["none"]


def unnamed_waits(case: Case, seen: Observed) -> dict[str, int]:
    """What was waited for more often than WAITS allows."""
    allowed = {place: wait.most for place, wait in WAITS.items() if wait.where(case)}
    return {place: times for place, times in seen.waits.items() if times > allowed.get(place, 0)}


def other_launches(seen: Observed, kept: dict[str, float]) -> dict[str, tuple[float, float]]:
    """By phase, what a layer launched and the kept number."""
    pairs = {phase: (seen.launches[phase], count) for phase, count in kept.items()}
    return {phase: pair for phase, pair in pairs.items() if abs(pair[0] - pair[1]) > TOLERANCE * pair[1]}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_step_mixes_no_devices_waits_nowhere_else_and_launches_what_is_kept(case: Case, card: Elsewhere) -> None:
    """After an intended change of launches: python -m tests.kit.pretended."""
    observed = card.observe(case)
    assert not two_devices(observed)
    assert not other_gradients(observed)
    assert not unnamed_waits(case, observed)
    assert not other_launches(observed, json.loads(KEPT.read_text("utf-8"))[case.name])


def test_the_kept_table_has_each_case_and_a_named_wait_a_case_and_a_place() -> None:
    assert list(json.loads(KEPT.read_text("utf-8"))) == [case.name for case in CASES]
    for place, wait in WAITS.items():
        file, function = place.split()
        folder = PROJECT if file.startswith("core/") else Path(transformers.__file__).parents[1]
        assert f"def {function}(" in (folder / file).read_text("utf-8") and any(map(wait.where, CASES)), place


PLAIN = Case("llama", checkpointing=False)


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_fault_is_seen(planted: str, card: Elsewhere) -> None:
    """So each of the four assertions above can fail."""
    observed = card.observe(replace(PLAIN, planted=planted))
    outcomes = {
        "devices": bool(two_devices(observed)),
        "gradients": bool(other_gradients(observed)),
        "waits": bool(unnamed_waits(PLAIN, observed)),
        "launches": bool(other_launches(observed, json.loads(KEPT.read_text("utf-8"))[PLAIN.name])),
    }
    assert outcomes[PLANTED[planted].seen_as], outcomes
