"""What tests of the arithmetic leave out, and bases that several of them copy."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# No library of the arithmetic stands up here: the process that prints reads this file too, before it starts those that test.


def pytest_pycollect_makemodule() -> None:
    """bitsandbytes is read before a module reads peft, as the workers do."""
    from core.engine import device

    device.read_bitsandbytes()


@pytest.fixture(scope="module", autouse=True)
def nothing_beside_the_numbers() -> Iterator[None]:
    """Where a test saves without core.engine.adapter peft draws no model card, which nobody reads."""
    from peft import PeftModel

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PeftModel, "create_or_update_model_card", lambda self, folder: None)
        yield


@pytest.fixture(scope="session")
def starter_in_4_bit(starter_folder: Path) -> Callable[[], Any]:
    """Each call a copy of the starter in NF4 that computes in bfloat16; quantising it takes seconds of the processor."""
    from tests.kit.trainer import BF16

    return copies_in_4_bit(starter_folder, BF16)


@pytest.fixture(scope="session")
def starter_in_4_bit_fp32(starter_folder: Path) -> Callable[[], Any]:
    """The same, computing in float32."""
    from tests.kit.trainer import FP32

    return copies_in_4_bit(starter_folder, FP32)


def copies_in_4_bit(folder: Path, compute: Any) -> Callable[[], Any]:
    from core.engine import base_model

    base = base_model.load(folder, compute, four_bit=True)
    return lambda: copy.deepcopy(base)


@pytest.fixture(autouse=True)
def transformers_own_rotary(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that fused a step and let it go without a release leaves its family's function replaced (core/engine/variants/elementwise)."""
    from core.engine.variants import elementwise

    for code in [sys.modules[name] for name in sys.modules if ".modeling_" in name]:
        found = vars(code).get(elementwise.ROTARY)
        if hasattr(found, "turns"):
            monkeypatch.setattr(code, elementwise.ROTARY, found.own)
