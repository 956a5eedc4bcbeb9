"""An adapter trained elsewhere, brought in on the Models page: a refusal says why, and the run opens in Chat."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save_file

from core.runs.all import Runs
from core.workspace.folder import Workspace
from tests.kit import browser as kit

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"


def by_llama_factory(folder: Path) -> Path:
    """Write an adapter of the starter with the files that LLaMA-Factory 0.9.5 leaves beside it."""
    folder.mkdir()
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "loftq_config": {},
        "base_model_name_or_path": "/home/a/smollm2-135m-instruct", "target_modules": ["q_proj"],
        "megatron_core": "megatron.core", "qalora_group_size": 16, "inference_mode": True,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    factors = {Q.format("A"): np.ones((2, 576), np.float32), Q.format("B"): np.ones((576, 2), np.float32)}
    save_file(factors, folder / "adapter_model.safetensors")
    for name in ("README.md", "all_results.json", "trainer_log.jsonl", "trainer_state.json", "training_args.bin"):
        (folder / name).write_bytes(b"x")
    return folder


def test_an_adapter_is_brought_in_on_the_models_page(
    chrome: Browser, make_workspace: Callable[[], Workspace], tmp_path: Path
) -> None:
    space, folder = make_workspace(), by_llama_factory(tmp_path / "pirate")
    app = kit.start_app(space.root, **kit.ENGLISH)
    try:
        page, watch = kit.open_page(chrome, app)
        kit.go_to_tab(page, "Models")
        kit.open_details(page.locator("#models-foreign"))
        said, bring = page.locator("#models .ev-message"), page.locator("#models-foreign button[data-act=bring_in]")
        for wrong, why in ((tmp_path / "absent", "neither a folder"), (folder / "README.md", "GGUF format")):
            page.locator("#models-adapter").fill(str(wrong))
            bring.click()
            kit.expect(said).to_contain_text(why)
        page.locator("#models-adapter").fill(str(folder))
        bring.click()
        kit.expect(said).to_contain_text("“pirate”")
        kit.expect(page.locator("#models-adapter")).to_have_value("")
        kit.assert_accessible(page, "brought-in")
        (run,) = Runs(space).folders()
        assert run.recipe().model.id == "starter" and run.has_adapter()
        kit.go_to_tab(page, "Chat")
        kit.expect(page.locator("#chat-choose input").first).to_have_value(re.compile(r"^pirate\b"))
        watch.check()
        page.context.close()
    finally:
        app.stop()
