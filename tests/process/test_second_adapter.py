"""Two runs answer at once: the sum is what is loaded, each strength in it, and what cannot be summed is a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from core.chat.client import ChatTarget
from core.chat.questions import target_of
from core.errors import GarageError
from core.runs.folder import RunFolder
from core.workspace.folder import Workspace
from tests.kit.runs import trained
from webui.kit.wording import Wording
from webui.run.second_adapter import SecondAdapter
from webui.state.services import Services

NAME = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "tiny", "target_modules": ["q_proj"]}


def with_adapter(space: Workspace, name: str, value: float, **changes: object) -> RunFolder:
    run = trained(space, name)
    run.adapter.mkdir(exist_ok=True)
    (run.adapter / "adapter_config.json").write_text(json.dumps(CONFIG | changes), "utf-8")
    weights = {NAME.format("A"): np.full((2, 3), value, np.float32), NAME.format("B"): np.ones((3, 2), np.float32)}
    save_file(weights, run.adapter / "adapter_model.safetensors")
    return run


def test_both_are_loaded_as_one_each_at_its_strength(tmp_path: Path) -> None:
    space = Workspace.open(tmp_path)
    first, second = with_adapter(space, "Pirate", 1.0), with_adapter(space, "Facts", 10.0)
    page, target = SecondAdapter(Services.open(space), Wording("en")), target_of(first)
    assert (
        page.combine(target, 0.7, "", 1.0, "cat", 50)
        == (target, 0.7)
        == page.combine(target, 0.7, None, 1.0, "cat", 50)
    )
    both, strength = page.combine(target, 0.5, second.id, -0.25, "cat", 50)
    assert strength == 1.0 and both.adapter and both.label == "Pirate at 50 % + Facts at −25 %" and both.run == first.id
    rows = load_file(both.adapter / "adapter_model.safetensors")[NAME.format("A")][:, 0].tolist()
    assert rows == [0.5 * 2, 0.5 * 2, -0.25 * 2 * 10, -0.25 * 2 * 10]
    assert page.combine(target, 0.5, second.id, -0.25, "cat", 50)[0] == both, "and is not written again"
    other, _ = page.combine(target, 0.5, second.id, 1.0, "cat", 50)
    assert other.adapter != both.adapter and not both.adapter.exists()


@pytest.mark.parametrize(
    ("changes", "said"), [({"use_dora": True}, "use_dora"), ({"base_model_name_or_path": "other"}, "other")]
)
def test_what_is_no_sum_is_a_sentence(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    space = Workspace.open(tmp_path)
    first, second = with_adapter(space, "Pirate", 1.0), with_adapter(space, "Facts", 10.0, **changes)
    page = SecondAdapter(Services.open(space), Wording("en"))
    for target, wanted, why in (
        (target_of(first), second.id, said),
        (target_of(first), "../gone", "second_adapter.gone"),
        (ChatTarget("starter"), first.id, "no_first"),
    ):
        with pytest.raises(GarageError, match=why):
            page.combine(target, 1.0, wanted, 1.0, "cat", 50)
