"""The run doctor: each fault on real rows and real curves; nothing on healthy ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core import plan, run_doctor
from core.budget import Budget
from core.datasets_store import DatasetStore
from core.models import Models
from core.presets import PRESETS
from core.preview import Preview, Previews
from core.recipe import Recipe
from core.run_doctor import Finding, Planned
from core.text import LANGUAGES
from core.workspace import Workspace

ROOMY = Budget(kind="cpu", free_gib=64.0)
SAMPLES = ("sample:pirate_answers", "sample:kettlewisp_facts", "sample:shop_messages")


def rows(count: int) -> list[dict[str, str]]:
    return [{"question": f"What is on shelf {n}?", "answer": f"Shelf {n} holds jar number {n}."} for n in range(count)]


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "ws")


def looked_at(space: Workspace, lines: list[dict[str, str]] | str, **sections: dict[str, Any]) -> dict[str, Finding]:
    """What the doctor says of a plan for these rows (or a set that is there), by id."""
    store = DatasetStore(space.datasets, PRESETS)
    source = lines
    if not isinstance(source, str):
        file = space.cache / "rows.jsonl"
        file.write_text("\n".join(map(json.dumps, lines)), "utf-8")
        source = store.import_file(file, "rows").id
    given = sections.pop("data", {})
    recipe = Recipe.parse({"data": {"source": source} | given, **sections})
    models = Models(space)
    seen: Preview = Previews(store, models).of(source, "starter")
    shape = models.shape("starter", None)
    made = plan.make(recipe, plan.Grounds(ROOMY, shape, seen.facts(), examples=seen.examples, repeats=lambda: seen.repeats))
    found = {finding.id: finding for finding in run_doctor.before(Planned.of(made.recipe, made.advice, seen))}
    for finding in found.values():
        run_doctor.applied(recipe, finding)  # what it changes can be
        for part in (finding.evidence, finding.meaning, finding.remedy):
            assert all("{" not in part.render(language) for language in LANGUAGES), part
    return found


def after(space: Workspace, lines: list[dict[str, str]], finding: Finding, **given: Any) -> dict[str, Finding]:
    """What is still said once the remedy was taken."""
    sections: dict[str, dict[str, Any]] = {section: dict(values) for section, values in given.items()}
    for name, value in finding.fix.items():
        section, key = name.split(".")
        sections.setdefault(section, {})[key] = value
    return looked_at(space, lines, **sections)


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_set_as_it_comes_has_nothing_wrong(space: Workspace, sample: str) -> None:
    assert looked_at(space, sample) == {}


def test_five_rows_are_too_few_and_give_too_few_steps(space: Workspace) -> None:
    found = looked_at(space, rows(5))
    assert set(found) == {"few_rows", "few_steps"}
    assert found["few_rows"].action == "more_data" and "5 rows" in str(found["few_rows"].evidence)
    steps = found["few_steps"]
    assert steps.evidence.params["steps"] == 10 and steps.fix == {"train.num_train_epochs": 10}
    assert set(after(space, rows(5), steps)) == {"few_rows"}
    capped = looked_at(space, rows(100), train={"max_steps": 6})["few_steps"]
    assert capped.fix["train.max_steps"] == -1
    assert after(space, rows(100), capped, train={"max_steps": 6}) == {}


def test_thirty_percent_of_repeated_rows_are_named_and_can_be_left_out(space: Workspace) -> None:
    data = rows(70)
    data += [dict(row) for row in data[:25]]  # word for word
    data += [{"question": f"  what is on Shelf {n} ", "answer": f"shelf {n} holds jar number {n}"} for n in range(25, 30)]
    found = looked_at(space, data)["duplicates"]
    assert found.evidence.params | {"pairs": []} == {"count": 30, "rows": 100, "percent": 30, "exact": 25, "pairs": []}
    assert found.rows == (71, 72, 73, 74, 75) and "row 71 = row 1" in str(found.evidence)
    assert after(space, data, found) == {}
    assert "duplicates" not in looked_at(space, rows(98) + rows(2)), "two of a hundred do no harm"


def test_rows_that_differ_in_what_they_say_are_not_repeated(space: Workspace) -> None:
    answers = ("2+2", "2-2", "2.2", "22", "2 2", "don't", "dont")
    data = [{"question": "Write it down.", "answer": answer} for answer in answers] + rows(40)
    assert looked_at(space, data) == {}


def test_measured_rows_that_are_trained_too_are_named_and_can_be_left_out(space: Workspace) -> None:
    from core.schedule import split

    data = rows(100)
    _, measured = split(100, 0.05, 42)
    data[0] = {key: value.upper() + "!" for key, value in data[measured[1]].items()}
    found = looked_at(space, data)
    assert set(found) == {"leakage"}
    leak = found["leakage"]
    assert (leak.evidence.params["leaked"], leak.evidence.params["measured"]) == (1, 5)
    assert f"row 1 = row {measured[1] + 1}" in str(leak.evidence)
    assert after(space, data, leak) == {}


def test_a_rate_far_from_the_usual_is_told_before_the_start(space: Workspace) -> None:
    found = looked_at(space, rows(100), train={"learning_rate": 0.03})
    assert set(found) == {"hot_plan"} and found["hot_plan"].fix == {"train.learning_rate": 1e-3}
    assert looked_at(space, rows(100), train={"learning_rate": 3e-3}) == {}
