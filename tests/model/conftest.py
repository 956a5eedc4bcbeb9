"""What tests of the arithmetic leave out, and bases that several of them copy."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# No library of the arithmetic stands up here: the process that prints reads this file too, before it starts those that
# test.


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
def in_4_bit(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Any]:
    """Gives a copy of a base of four layers in NF4 that computes as asked. As wide as bitsandbytes repacks where a
    processor has AVX512_BF16, so that its trap (core.engine.base_model) shows; a narrower one is left alone."""
    from tests.kit import tiny

    return copies_in_4_bit(tiny.of_layers(4, tmp_path_factory.mktemp("nf4") / "base"))


@pytest.fixture(scope="session")
def starter_in_4_bit(starter_folder: Path) -> Callable[[Any], Any]:
    """The same of the starter; quantising it takes seconds of the processor."""
    return copies_in_4_bit(starter_folder)


def copies_in_4_bit(folder: Path) -> Callable[[Any], Any]:
    from core.engine import base_model

    bases: dict[Any, Any] = {}

    def made(compute: Any) -> Any:
        if compute.dtype not in bases:
            bases[compute.dtype] = base_model.load(folder, compute, four_bit=True)
        return copy.deepcopy(bases[compute.dtype])

    return made


@pytest.fixture(autouse=True)
def transformers_own_rotary() -> Iterator[None]:
    """A test that fused a step and let it go without a release leaves its family's function replaced
    (core/engine/variants/elementwise), also for tests of other folders in this process."""
    yield
    from core.engine.variants import elementwise

    for code in [sys.modules[name] for name in sys.modules if ".modeling_" in name]:
        rotary = vars(code).get(elementwise.ROTARY)
        if hasattr(rotary, "rotaries"):
            setattr(code, elementwise.ROTARY, rotary.own)
