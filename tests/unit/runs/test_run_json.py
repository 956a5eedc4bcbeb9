"""run.json: what a person's files and other versions may hold, and what our own code may not write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from core.runs.folder import RunFolder
from core.runs.run_json import MemoryFacts, Parent, RunFacts, TimeFacts


def run_with(folder: Path, facts: Any) -> RunFolder:
    (folder / "run.json").write_text(json.dumps(facts), "utf-8")
    return RunFolder(folder)


def written(run: RunFolder) -> dict[str, Any]:
    return json.loads((run.path / "run.json").read_text("utf-8"))


def test_a_key_of_another_version_stays_when_a_fact_is_added_in_a_part_too(tmp_path: Path) -> None:
    run = run_with(tmp_path, {"later": [1], "memory": {"measured_gib": 1.5, "later": "x"}})
    memory = run.facts().memory
    assert memory
    run.add_facts(RunFacts(memory=memory.model_copy(update={"peak_gib": 2.0}), adapter_step=None))
    assert written(run) == {
        "later": [1],
        "memory": {"measured_gib": 1.5, "later": "x", "peak_gib": 2.0},
        "adapter_step": None,
    }


def test_a_file_without_a_version_or_without_anything_is_read(tmp_path: Path) -> None:
    assert run_with(tmp_path, {"name": "old"}).facts().v == 1
    (tmp_path / "run.json").unlink()
    assert RunFolder(tmp_path).facts() == RunFacts()


@pytest.mark.parametrize(
    ("value", "damaged"),
    [
        ({"adapter_step": "6"}, "adapter_step"), ({"adapter_step": True}, "adapter_step"), ({"created": "yesterday"},
            "created"),
        ({"created": float("nan")}, "created"), ({"created": int("9" * 400)}, "created"), ({"launcher_pid": 1.5},
            "launcher_pid"),
        ({"memory": []}, "memory"), ({"parent": "x"}, "parent"), ({"spill": {"of": "another version"}}, "spill"),
        ({"time": {"after_steps": "x"}}, "time"), ({"probe_rows": [1]}, "probe_rows"), ({"memory_limit_gib": -1},
            "memory_limit_gib"),
    ],
)  # fmt: skip
def test_a_damaged_value_reads_as_absent_and_takes_no_other_with_it(
    value: dict[str, Any], damaged: str, tmp_path: Path
) -> None:
    facts = run_with(tmp_path, value | {"dtype": "bfloat16"}).facts()
    assert facts.dtype == "bfloat16"
    assert getattr(facts, damaged) == (TimeFacts() if damaged == "time" else getattr(RunFacts(), damaged))


def test_a_damaged_number_of_a_part_leaves_its_neighbours(tmp_path: Path) -> None:
    facts = run_with(
        tmp_path, {"memory": {"measured_gib": 1.5, "runs": "many"}, "parent": {"run": 5, "name": "Tiny"}}
    ).facts()
    assert facts.memory == MemoryFacts(measured_gib=1.5, runs=0) and facts.parent == Parent(name="Tiny", run="")


@pytest.mark.parametrize(
    "advice", [None, 5, {"usual_rate": "x"}, {"usual_rate": 2}, {"estimate": 1}, {"estimate": {"on_card_gib": "x"}}]
)
def test_an_advice_that_cannot_be_read_says_nothing(advice: Any, tmp_path: Path) -> None:
    planned = run_with(tmp_path, {"advice": advice}).facts().planned
    assert planned.usual_rate is None and planned.estimate.on_card_gib is None


def test_a_misspelt_or_wrong_fact_of_our_own_is_an_error() -> None:
    for wrong in ({"adaptr_step": 3}, {"adapter_step": "3"}, {"memory": {"measured": 1.0}}):
        with pytest.raises(ValidationError):
            RunFacts(**wrong)


def test_what_was_not_said_is_not_written(tmp_path: Path) -> None:
    run = run_with(tmp_path, {"dtype": "float32"})
    run.add_facts(RunFacts(best_eval_loss=None))
    assert written(run) == {"dtype": "float32", "best_eval_loss": None}
