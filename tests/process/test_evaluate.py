"""`evaluate` with the real starter model: a run, its table, an evaluation that is killed, and the one after it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from core.chat.evaluation.evaluation import SetEvaluation
from core.presets import PROJECT
from core.workspace.folder import Workspace
from tests.kit.waits import PATIENCE, wait_until
from tests.process.test_commands import command

# Answers that a few steps teach, and that no prompt can know
ROWS = [{"question": f"What is the number {n}?", "answer": "Glimmer"} for n in range(24)]
TRAIN = "{learning_rate: 3e-3, max_steps: 6, eval_steps: 6, per_device_train_batch_size: 3, sample_seconds: 0}"
WANTED = ("evaluate", "Glimmer", "--contestants", "base,base+examples,tuned,base+prompt", "--prompt", "Be brief.")


@pytest.mark.gate
def test_an_evaluation_of_the_starter_that_is_killed_goes_on_to_the_same_table(
    make_workspace: Callable[[], Workspace], tmp_path: Path
) -> None:
    """Base and fine-tuned model answer in one batch; a kill loses at most the batch that ran, and the evaluation after
    it asks nothing twice. The interval of ten points over the base excludes zero."""
    space = make_workspace()
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    recipe = tmp_path / "recipe.yaml"
    data, adapter = "{source: rows.jsonl, eval_fraction: 0.42}", "{method: lora, r: 8}"
    recipe.write_text(f"name: Glimmer\ndata: {data}\nadapter: {adapter}\ntrain: {TRAIN}\n", "utf-8")
    trained = command("train", str(recipe), "--json", workspace=space.root)
    assert trained.returncode == 0, trained.stderr

    killed = subprocess.Popen(
        [sys.executable, "-m", "core.commands", *WANTED],
        cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {"LORA_GARAGE_HOME": str(space.root)},
    )  # fmt: skip
    wait_until(lambda: any(one.answers() for one in SetEvaluation.all_of(space)), 300)
    killed.kill()
    killed.wait(60 * PATIENCE)
    [evaluation] = SetEvaluation.all_of(space)
    assert evaluation.missing(), "it was killed before its end"

    full_run = command(*WANTED, "--json", "--fail-below", "0.9", workspace=space.root)
    assert full_run.returncode == 0, full_run.stderr
    result = json.loads(full_run.stdout)
    lines = [json.loads(line) for line in (evaluation.path / "answers.jsonl").read_text("utf-8").splitlines()]
    assert result["evaluation"] == evaluation.id
    assert set(Counter((line["prompt"], line["contestant"]) for line in lines).values()) == {1}, "nothing twice"
    shares = {one["label"]: (one["right"], one["count"]) for one in result["contestants"]}
    assert shares["tuned"] == (10, 10) and shares["base"] == (0, 10) == shares["base+prompt"]
    assert result["conclusion"]["key"] in (
        "judges.brings",
        "judges.undecided",
        "judges.alike_examples",
        "judges.as_well_examples",
    )
    assert all(row["source"] == "kept_apart" and row["counts"] for row in result["rows"])
