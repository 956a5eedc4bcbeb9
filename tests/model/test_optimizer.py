"""The optimizer: LoRA+ as PEFT groups it, states in 8 bit, and paged where a system can page."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft.optimizers import create_loraplus_optimizer

from core.engine import adapter, optimizer
from core.recipe import Adapter, Recipe
from tests.kit.trainer import tiny_base, trainer_of


@pytest.mark.parametrize("use_dora", [False, True])
def test_lora_plus_has_the_groups_of_pefts_own_optimizer(use_dora: bool) -> None:
    tuned = adapter.add(tiny_base(), Adapter(r=4, use_dora=use_dora), "tiny", None)
    value = {"data": {"source": "x"}, "train": {"loraplus_lr_ratio": 16.0, "learning_rate": 1e-4}}
    ours = optimizer.make(tuned, Recipe.parse(value))
    optimizer.set_learning_rate(ours, 1e-4)
    theirs = create_loraplus_optimizer(tuned, torch.optim.AdamW, lr=1e-4, loraplus_lr_ratio=16.0)

    def rates(made: torch.optim.Optimizer) -> dict[int, float]:
        return {id(p): group["lr"] for group in made.param_groups for p in group["params"]}

    assert rates(ours) == pytest.approx(rates(theirs))


@pytest.mark.parametrize(
    ("system", "on_card", "pages"),
    [("Linux", True, True), ("Windows", True, False), ("WSL", True, False), ("Linux", False, False)],
)
def test_only_a_card_under_linux_itself_pages(
    system: str, on_card: bool, pages: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizer, "driver_system", lambda: system)
    assert optimizer.can_page(SimpleNamespace(is_cuda=on_card)) is pages


def test_where_nothing_can_be_paged_the_8_bit_one_learns_and_it_is_said(tmp_path: Path) -> None:
    """Seen: bitsandbytes asks CUDA for such memory, which nobody has without a card."""
    trainer = trainer_of(tmp_path / "paged", optim="paged_adamw_8bit")
    assert not trainer.step.optimizer.is_paged
    assert [warning.key for warning in trainer.reporter.warnings] == ["run.not_paged"]
    assert trainer_of(tmp_path / "not", optim="adamw_8bit").reporter.warnings == []
