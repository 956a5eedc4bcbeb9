"""`benchmark`: lm-eval over the loaded model of a run, where it is installed, and a sentence where it is not."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from core.models import starter
from core.runs.all import Runs
from core.runs.cards import benchmarked
from core.runs.run_json import RunFacts
from core.workspace.folder import Workspace
from tests.kit.runs import trained
from tests.process.test_commands import command

TASK = """
task: colours
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: answer
doc_to_choice: ["blue", "green", "red", "yellow"]
metric_list: [{{metric: acc}}, {{metric: acc_norm}}, {{metric: brier_score}}]
"""
THINGS = {
    "sky": 0,
    "grass": 1,
    "blood": 2,
    "lemon": 3,
    "sea": 0,
    "leaf": 1,
    "tomato": 2,
    "sun": 3,
    "ocean": 0,
    "frog": 1,
}
IS_THERE = importlib.util.find_spec("lm_eval") is not None


@pytest.mark.skipif(IS_THERE, reason="lm-eval is installed")
def test_without_lm_eval_it_is_a_sentence(tmp_path: Path) -> None:
    trained(Workspace.open(tmp_path), "Pirate")
    refused = command("benchmark", "Pirate", workspace=tmp_path)
    assert refused.returncode == 2 and "pip install lm_eval" in refused.stderr


def test_results_are_kept_for_the_step_that_was_measured(tmp_path: Path) -> None:
    run = trained(Workspace.open(tmp_path), "Pirate")
    measured = {
        "base": {"colours": {"alias": 1.0, "acc,none": 0.5, "acc_stderr,none": 0.1}},
        "tuned": {"colours": {"alias": 1.0, "acc,none": 0.25, "acc_stderr,none": 0.2}},
    }
    benchmarked.write(run, benchmarked.benchmark_results(measured))
    benchmarked.write(run, benchmarked.benchmark_results({name: {"other": {"f1,none": 1.0}} for name in measured}))
    colours, other = benchmarked.read(run)
    assert str(colours.sentence) == "“colours” (acc): base model 0.5000, fine-tuned 0.2500 (standard error 0.2000)."
    assert (other.task, other.metric, other.error) == ("other", "f1", None)
    run.add_facts(RunFacts(adapter_step=7))
    assert benchmarked.read(run) == ()


@pytest.mark.skipif(not IS_THERE, reason="lm-eval is no dependency: pip install lm_eval")
def test_a_local_task_on_the_starter_equals_lm_evals_own_harness_to_the_last_digit(
    make_workspace: Callable[[], Workspace], tmp_path: Path
) -> None:
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    space = make_workspace()
    (tmp_path / "rows.jsonl").write_text('{"question": "Who?", "answer": "Glimmer"}\n' * 4, "utf-8")
    train = "{learning_rate: 3e-3, max_steps: 3, per_device_train_batch_size: 1, sample_seconds: 0}"
    recipe = f"name: Glimmer\ndata: {{source: rows.jsonl}}\nadapter: {{method: lora, r: 8}}\ntrain: {train}\n"
    (tmp_path / "recipe.yaml").write_text(recipe, "utf-8")
    done = command("train", str(tmp_path / "recipe.yaml"), "--json", workspace=space.root)
    assert done.returncode == 0, done.stderr
    (folder := tmp_path / "tasks").mkdir()
    rows = [{"question": f"Which colour is the {thing}?", "answer": answer} for thing, answer in THINGS.items()]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "colours.yaml").write_text(TASK.format(file=folder / "rows.jsonl"), "utf-8")

    ours = command(
        "benchmark", "Glimmer", "--tasks", "colours", "--folder", str(folder), "--json", workspace=space.root
    )
    assert ours.returncode == 0, ours.stderr
    run = Runs(space).find("Glimmer")
    metrics = {one["metric"]: one for one in json.loads(ours.stdout)}
    for name, peft in (("base", {}), ("tuned", {"peft": str(run.adapter)})):
        theirs = simple_evaluate(
            "hf", model_args={"pretrained": str(starter.folder(space.models)), "dtype": run.facts().dtype,
                "device": "cpu", **peft},
            tasks=["colours"], task_manager=TaskManager(include_path=str(folder)), batch_size=1,
        )["results"]["colours"]  # fmt: skip
        for metric in ("acc", "acc_norm", "brier_score"):
            assert metrics[metric][name] == theirs[f"{metric},none"], (name, metric)
