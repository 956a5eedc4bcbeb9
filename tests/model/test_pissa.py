"""PiSSA rewrites the base while it trains, and what is saved is a plain LoRA for the untouched one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file

from core import files
from core.engine import adapter
from core.engine.variants import pissa
from core.errors import ModelError
from core.recipe import Adapter
from core.runs.folder import RunFolder
from tests.kit.adapters import logits
from tests.kit.trainer import tiny_base, trainer_of

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
IDS = torch.arange(5, 45).reshape(2, 20)


@pytest.mark.parametrize(
    "lora", [{"init_lora_weights": "pissa"}, {"init_lora_weights": "pissa_niter_16", "use_rslora": True}]
)
def test_plain_peft_on_the_untouched_base_gives_the_trained_models_logits(lora: dict, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, lora=lora)
    untouched = logits(tiny_base(), IDS)
    torch.testing.assert_close(
        logits(trainer.step.tuned, IDS), untouched, rtol=1e-4, atol=1e-5, msg="it begins as the base"
    )
    trainer.run()
    trained = logits(trainer.step.tuned, IDS)
    with trainer.step.tuned.disable_adapter():
        assert (logits(trainer.step.tuned, IDS) - untouched).abs().max() > 1e-3, (
            "meanwhile the base is not the base: PiSSA rewrites it"
        )
    assert (trained - untouched).abs().max() > 1e-2
    plain = PeftModel.from_pretrained(tiny_base(), RunFolder(tmp_path).checkpoints()[-1] / "adapter")
    torch.testing.assert_close(logits(plain, IDS), trained, rtol=1e-4, atol=1e-5)
    with plain.disable_adapter():
        assert torch.equal(logits(plain, IDS), untouched)


@pytest.mark.filterwarnings("ignore")  # peft's, of what it does itself
@pytest.mark.parametrize("use_rslora", [False, True])
def test_it_is_converted_as_peft_converts_it(use_rslora: bool, tmp_path: Path) -> None:
    tuned = adapter.add(
        tiny_base(), Adapter(r=4, init_lora_weights="pissa", use_rslora=use_rslora), "", None
    )  # a name: peft would ask the hub
    tuned.peft_config["default"].init_lora_weights = True  # as peft wants it of the initial adapter
    tuned.save_pretrained(tmp_path / "initial")
    tuned.peft_config["default"].init_lora_weights = "pissa"
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data += 0.01
    adapter.save(tuned, tmp_path / "ours", tmp_path, "", "")
    tuned.save_pretrained(tmp_path / "theirs", path_initial_model_for_weight_conversion=str(tmp_path / "initial"))
    ours, theirs = load_file(tmp_path / "ours" / WEIGHTS), load_file(tmp_path / "theirs" / WEIGHTS)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    configs = [files.read_json(tmp_path / who / CONFIG) for who in ("ours", "theirs")]
    assert all(configs[0][name] == configs[1][name] for name in ("r", "lora_alpha", "init_lora_weights", "use_rslora"))


def test_a_child_of_a_pissa_run_begins_where_it_ended(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, lora={"init_lora_weights": "pissa"})
    trainer.run()
    trainer.checkpoints.save_adapter(tmp_path / "adapter")
    child = adapter.add(tiny_base(), trainer.recipe.adapter, "tiny", None, will_restore=True)
    adapter.start_from(child, tmp_path / "adapter")
    assert torch.equal(logits(child, IDS), logits(trainer.step.tuned, IDS))
    own = get_peft_model_state_dict(child, save_embedding_layers=False)
    with pytest.raises(ModelError):
        other = adapter.add(tiny_base(), Adapter(r=2, init_lora_weights="pissa"), "tiny", None, will_restore=True)
        adapter.start_from(other, tmp_path / "adapter")
    assert all(
        torch.equal(own[name], weight)
        for name, weight in pissa.halves(load_file(tmp_path / "adapter" / WEIGHTS))[0].items()
    )


def test_a_rank_that_a_layer_has_not_is_refused() -> None:
    with pytest.raises(ModelError, match="only 16"):  # k_proj and v_proj have 2 heads of 8
        adapter.add(tiny_base(), Adapter(r=20, init_lora_weights="pissa"), "tiny", None)
