"""The command that combines runs: three of them, with the weights that PEFT itself would write, as a run that says how
it was made; a refusal is one sentence, and Ctrl-C leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file

from core.engine import base_model
from core.runs import foreign
from core.runs.all import Runs
from core.workspace.folder import Workspace
from tests.kit.adapters import fill_b
from tests.kit.trainer import FP32
from tests.kit.waits import wait_until
from tests.process.test_commands import assert_one_sentence, command
from tests.process.test_fetching import hears_ctrl_c
from tests.process.test_further import open_space

NAMES, WEIGHTS = ["one", "two", "three"], [0.7, -0.5, 0.3]
MERGE = ["merge", *(f"{name}@{weight}" for name, weight in zip(NAMES, WEIGHTS, strict=True))]


@pytest.fixture
def three(tmp_path: Path, tiny_model: Path) -> tuple[Workspace, PeftModel]:
    """A workspace with three runs, and PEFT's model with the same adapters."""
    space, settings = open_space(tmp_path / "space", tiny_model), {"r": 4, "target_modules": ["q_proj", "down_proj"]}
    tuned = get_peft_model(
        base_model.load(tiny_model, FP32, four_bit=False),
        LoraConfig(task_type="CAUSAL_LM", lora_alpha=2, **settings), NAMES[0],
    )  # fmt: skip
    for alpha, name in enumerate(NAMES[1:], start=6):
        tuned.add_adapter(name, LoraConfig(task_type="CAUSAL_LM", lora_alpha=alpha, **settings))
    fill_b(tuned.requires_grad_(True), std=0.2).save_pretrained(tmp_path)
    for name in NAMES:
        foreign.from_folder(space, tmp_path / name, "library:tiny")
    return space, tuned


def test_three_runs_become_one_with_the_weights_that_peft_writes(three: tuple[Workspace, PeftModel]) -> None:
    space, tuned = three
    done = command(*MERGE, "--combination-type", "ties", "--density", "0.4", "--json", workspace=space.root)
    assert done.returncode == 0, done.stderr
    run = Runs(space).get(json.loads(done.stdout)["run"])
    tuned.add_weighted_adapter(NAMES, WEIGHTS, "theirs", "ties", density=0.4)
    torch.testing.assert_close(
        load_file(run.adapter / foreign.WEIGHTS), get_peft_model_state_dict(tuned, adapter_name="theirs")
    )
    how = run.facts().combined
    assert how and [(one.name, one.weight) for one in how.adapters] == list(zip(NAMES, WEIGHTS, strict=True))
    assert (how.combination_type, how.density, run.status().state) == ("ties", 0.4, "completed")
    assert run.recipe().model.id == "library:tiny" and run.recipe().adapter.r == 4


def test_a_refusal_is_one_sentence(three: tuple[Workspace, PeftModel]) -> None:
    space, _ = three
    for more, mention in ((["--combination-type", "mean"], "mean"), (["absent@1"], "absent"), (["base"], "two")):
        assert_one_sentence(command(*MERGE, *more, workspace=space.root), mention)


@pytest.mark.spawn
@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to a console, not to a process")
def test_ctrl_c_leaves_no_run(three: tuple[Workspace, PeftModel]) -> None:
    space, _ = three
    before = sorted(space.runs.iterdir())
    process = subprocess.Popen(
        [sys.executable, "-m", "core.commands", *MERGE, "--workspace", str(space.root)],
        start_new_session=True, preexec_fn=hears_ctrl_c,
    )  # fmt: skip
    wait_until(lambda: any(space.cache.glob("*/.*.part*")), 60)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert sorted(space.runs.iterdir()) == before and not list(space.cache.glob("*/.*"))
