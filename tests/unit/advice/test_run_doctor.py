"""The run doctor: each fault on real rows and real curves; nothing on healthy ones."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.advice import curve_doctor, plan, run_doctor
from core.advice.curve_doctor import Series
from core.advice.diagnosis import LISTED, Diagnosis, applied
from core.advice.run_doctor import Planned
from core.commands import __main__ as commands
from core.commands import running
from core.data.preview import Preview, Previews
from core.data.store import DatasetStore
from core.memory.budget import Budget
from core.messages import LANGUAGES, msg
from core.models.library import Models
from core.presets import PRESETS, PROJECT
from core.queue.supervisor import spawn_worker
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.workspace.folder import Workspace

ROOMY = Budget(kind="cpu", free_gib=64.0)
CURVES = PROJECT / "tests" / "data" / "curves"
SAMPLES = ("sample:pirate_answers", "sample:kettlewisp_facts", "sample:shop_messages")


def rows(count: int) -> list[dict[str, str]]:
    return [{"question": f"What is on shelf {n}?", "answer": f"Shelf {n} holds jar number {n}."} for n in range(count)]


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "ws")


def looked_at(space: Workspace, lines: list[dict[str, str]] | str, **sections: dict[str, Any]) -> dict[str, Diagnosis]:
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
    preview: Preview = Previews(store, models).get(source, "starter")
    shape = models.shape("starter", None)
    made = plan.make(
        recipe, plan.Grounds(ROOMY, shape, preview.facts(), examples=preview.examples, repeats=lambda: preview.repeats)
    )
    findings = {
        finding.id: finding for finding in run_doctor.before(Planned.from_advice(made.recipe, made.advice, preview))
    }
    for finding in findings.values():
        applied(recipe, finding)  # what it changes can be
        for part in (finding.evidence, finding.meaning, finding.remedy):
            assert all("{" not in part.render(language) for language in LANGUAGES), part
    return findings


def after(space: Workspace, lines: list[dict[str, str]], finding: Diagnosis, **given: Any) -> dict[str, Diagnosis]:
    """What is still said once the remedy was taken."""
    sections: dict[str, dict[str, Any]] = {section: dict(values) for section, values in given.items()}
    for name, value in finding.fix.items():
        section, key = name.split(".")
        sections.setdefault(section, {})[key] = value
    return looked_at(space, lines, **sections)


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_set_as_it_comes_has_nothing_wrong(space: Workspace, sample: str) -> None:
    assert looked_at(space, sample) == {}


GERMAN = "Der Verein trifft sich am {n}. des Monats in der Halle, und die Kosten sind nicht hoch."


def test_german_answers_for_an_english_model_are_said_and_english_ones_are_not(space: Workspace) -> None:
    """Seen: a German sheet on SmolLM2, which knows little German, and nothing that said so."""
    german = [{"question": f"Wann ist Treffen {n}?", "answer": GERMAN.format(n=n)} for n in range(1, 29)]
    finding = looked_at(space, german)["other_language"]
    assert "German" in finding.evidence.render("en") and "SmolLM2" in finding.evidence.render("en")
    assert finding.action == "other_model" and "Deutsch" in finding.remedy.render("de")
    short = [{"question": f"{GERMAN.format(n=n)} Wer kommt?", "answer": "Anna Pell."} for n in range(1, 29)]
    assert "other_language" in looked_at(space, short), "answers too short to tell: the questions do"
    sentence = "The club meets on day {n} of the month, and it is not far from the hall."
    english = [{"question": f"When is meeting {n}?", "answer": sentence.format(n=n)} for n in range(1, 29)]
    assert "other_language" not in looked_at(space, english)
    mixed = [one for pair in zip(german, english, strict=True) for one in pair]
    assert "other_language" not in looked_at(space, mixed), "of two languages none is meant alone"


def test_five_rows_are_too_few_and_give_too_few_steps(space: Workspace) -> None:
    findings = looked_at(space, rows(5))
    assert set(findings) == {"few_rows", "few_steps"}
    assert findings["few_rows"].action == "more_data" and "5 usable rows" in str(findings["few_rows"].evidence)
    steps = findings["few_steps"]
    assert steps.evidence.params["steps"] == 10 and steps.fix == {"train.num_train_epochs": 10}
    assert set(after(space, rows(5), steps)) == {"few_rows"}
    capped = looked_at(space, rows(100), train={"max_steps": 6})["few_steps"]
    assert capped.fix["train.max_steps"] == -1
    assert after(space, rows(100), capped, train={"max_steps": 6}) == {}


def test_thirty_percent_of_repeated_rows_are_named_and_can_be_left_out(space: Workspace) -> None:
    data = rows(70)
    data += [dict(row) for row in data[:25]]  # word for word
    data += [
        {"question": f"  what is on Shelf {n} ", "answer": f"shelf {n} holds jar number {n}"} for n in range(25, 30)
    ]
    finding = looked_at(space, data)["duplicates"]
    assert "30 of 100 rows (30 %)" in str(finding.evidence) and "25 of them word for word" in str(finding.evidence)
    assert finding.rows == (71, 72, 73, 74, 75) and "row 71 = row 1" in str(finding.evidence)
    assert after(space, data, finding) == {}
    assert "duplicates" not in looked_at(space, rows(98) + rows(2)), "two of a hundred do no harm"


def test_rows_that_differ_in_what_they_say_are_not_repeated(space: Workspace) -> None:
    answers = ("2+2", "2-2", "2.2", "22", "2 2", "don't", "dont")
    data = [{"question": "Write it down.", "answer": answer} for answer in answers] + rows(40)
    assert looked_at(space, data) == {}


def test_measured_rows_that_are_trained_too_are_named_and_can_be_left_out(space: Workspace) -> None:
    from core.data.validation_split import split

    data = rows(100)
    _, measured = split(100, 0.05, 42)
    data[0] = {key: value.upper() + "!" for key, value in data[measured[1]].items()}
    findings = looked_at(space, data)
    assert set(findings) == {"leakage"}
    leak = findings["leakage"]
    assert (leak.evidence.params["leaked"], leak.evidence.params["measured"]) == (1, 5)
    assert f"row 1 = row {measured[1] + 1}" in str(leak.evidence)
    assert after(space, data, leak) == {}


def test_measured_rows_that_are_trained_in_nearly_the_same_words_are_named_and_can_be_left_out(
    space: Workspace,
) -> None:
    from core.data.validation_split import split

    draw = random.Random(2)

    def words(count: int) -> str:
        return " ".join("".join(draw.choices("abdegiklmnorstu", k=draw.randint(2, 9))) for _ in range(count))

    data = [{"question": f"What is known of {words(12)}?", "answer": f"It is {words(20)}."} for _ in range(100)]
    training, measured = split(100, 0.05, 42)
    near = data[measured[1]]
    data[training[0]] = {"question": near["question"], "answer": near["answer"].replace("It is", "That is")}
    findings = looked_at(space, data)
    assert set(findings) == {"near_leakage"}
    leak = findings["near_leakage"]
    assert (leak.evidence.params["leaked"], leak.evidence.params["measured"]) == (1, 5)
    assert f"row {training[0] + 1} ≈ row {measured[1] + 1}" in str(leak.evidence)
    assert after(space, data, leak) == {}


def test_a_rate_far_from_the_usual_is_told_before_the_start(space: Workspace) -> None:
    findings = looked_at(space, rows(100), train={"learning_rate": 0.03})
    assert set(findings) == {"hot_plan"} and findings["hot_plan"].fix == {"train.learning_rate": 1e-3}
    assert looked_at(space, rows(100), train={"learning_rate": 3e-3}) == {}


def test_a_plan_without_a_browser_carries_the_findings(space: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    file = space.cache / "five.jsonl"
    file.write_text("\n".join(map(json.dumps, rows(5))), "utf-8")
    arguments = ["plan", "--model", "135M", "--data", str(file), "--workspace", str(space.root)]
    assert commands.main([*arguments, "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [finding["id"] for finding in findings] == ["few_rows", "few_steps"]
    assert "10 optimizer steps" in findings[1]["evidence"]["sentence"] and findings[1]["fix"] == {
        "train.num_train_epochs": 10
    }
    assert commands.main(arguments) == 0
    assert "--set train.num_train_epochs=10" in capsys.readouterr().err


# ---- by the curves -------------------------------------------------------------------------------


def recorded(name: str) -> tuple[Recipe, list[dict[str, Any]], int]:
    """A run of the starter as it was recorded: recipe, lines of metrics.jsonl in their order, measured rows."""
    value = json.loads((CURVES / f"{name}.json").read_text("utf-8"))
    recipe = Recipe.parse({"data": {"source": "x"}, "train": {"learning_rate": value["learning_rate"]}})
    names = ("step", "loss", "grad_norm", "learning_rate")
    lines = [{"kind": "train", **dict(zip(names, line, strict=True))} for line in value["train"]]
    lines += [{"kind": "eval", "step": step, "eval_loss": loss} for step, loss in value["eval"]]
    return recipe, sorted(lines, key=lambda line: (line["step"], line["kind"] == "eval")), value["measured_rows"]


def followed(name: str, usual: float = 1e-3) -> list[tuple[int, Diagnosis]]:
    """What is said after each line, as the page does while the run is at work; (step, finding)."""
    recipe, lines, rows = recorded(name)
    reported = []
    for count in range(1, len(lines) + 1):
        findings = curve_doctor.of_run(recipe, Series.of_records(lines[:count], rows), True, usual)
        reported += [(lines[count - 1]["step"], finding) for finding in findings]
    return reported


@pytest.mark.parametrize("name", ["pirate_answers", "shop_messages", "kettlewisp_facts", "warm"])
def test_nothing_is_said_at_any_step_of_a_healthy_run(name: str) -> None:
    assert followed(name) == []


def test_a_rate_that_is_too_hot_is_heard_early_with_its_numbers() -> None:
    reported = followed("hot")
    step, finding = reported[0]
    assert {finding.id for _, finding in reported} == {"hot_rate"} and step <= 20
    assert {at for at, _ in reported} == set(range(step, 41)), "and at every step from then on"
    assert finding.action == "stop" and finding.fix == {"train.learning_rate": 1e-3}
    assert "3.8" in str(finding.evidence) and "100 %" in str(finding.evidence)


def test_a_run_that_was_too_hot_says_so_where_it_is_listed(space: Workspace) -> None:
    recipe, lines, rows = recorded("hot")
    run = Runs(space).create(
        recipe, "command", RunFacts.from_json({"rows_measured": rows, "advice": {"usual_rate": 1e-3}})
    )
    for line in lines:
        run.log_metrics(
            line["kind"], 1, line["step"], **{name: line[name] for name in line if name not in ("kind", "step")}
        )
    status = run.status().model_copy(update={"state": State.COMPLETED})
    [finding] = running.findings_of(run, run.recipe(), status, run.all_metrics())
    assert (finding.id, finding.fix, finding.action) == ("hot_rate", {"train.learning_rate": 1e-3}, None)
    assert running.summary(run, status)["findings"][0]["id"] == "hot_rate"


def test_overfitting_on_ten_rows_says_from_which_step_and_keeps_that_one() -> None:
    (step, finding), *_ = followed("ten_rows")
    assert (finding.id, finding.step, finding.action, finding.fix) == ("overfitting", 18, "stop", {})
    assert step == 54 and "1.70 to 2.40" in str(finding.evidence)
    recipe, lines, rows = recorded("ten_rows")
    [over] = curve_doctor.of_run(recipe, Series.of_records(lines, rows), False, 1e-3)
    assert over.fix == {"train.max_steps": 20} and over.action is None
    of_facts = recipe.model_copy(update={"goal": "question_answer"})
    assert not curve_doctor.of_run(of_facts, Series.of_records(lines, rows), False, 1e-3)


def test_few_measured_rows_need_a_wider_gap() -> None:
    recipe, lines, rows = recorded("pirate_answers")
    assert rows == 3  # 1.18 to 1.60
    assert [finding.id for finding in curve_doctor.of_run(recipe, Series.of_records(lines, 20), True, 1e-3)] == [
        "overfitting"
    ]


def test_a_run_that_goes_nowhere_is_told_so_and_how() -> None:
    reported = followed("cold")
    assert reported and {finding.id for _, finding in reported} == {"plateau"}
    assert reported[-1][1].fix == {"train.learning_rate": 1e-3}


def made_up(losses: list[float], evals: dict[int, float], rates: float = 1e-3) -> Series:
    count = len(losses)
    steps = list(range(1, count + 1))
    return Series.of_columns(steps, losses, [0.5] * count, [rates] * count, list(evals), list(evals.values()), 50)


def test_a_loss_that_stays_while_the_rate_is_high_is_a_plateau_and_one_that_falls_is_none() -> None:
    recipe = Recipe.parse({"data": {"source": "x"}})
    noise = [(-1) ** i * 0.1 for i in range(160)]
    flat = [3.0 - 0.05 * min(i, 30) + noise[i] for i in range(160)]
    evals = {0: 3.0, 30: 1.6, 60: 1.595, 90: 1.6, 120: 1.601}
    [finding] = curve_doctor.of_run(recipe, made_up(flat, evals), True)
    assert (finding.id, finding.step, finding.fix) == ("plateau", 30, {})
    assert finding.remedy == msg("run_doctor.stop_keep_best", step=60), "that is the lowest, which is kept"
    last = Recipe.parse({"data": {"source": "x"}, "train": {"load_best_model_at_end": False}})
    still_lower = {0: 3.0, 30: 1.600, 60: 1.599, 90: 1.598, 120: 1.597}
    for asked, measured in ((recipe, {}), (last, evals), (recipe, still_lower)):
        [finding] = curve_doctor.of_run(asked, made_up(flat, measured), True)
        assert finding.remedy == msg("run_doctor.stop_keep_last"), "no checkpoint is the best"
    [over] = curve_doctor.of_run(recipe, made_up(flat, evals), False)
    assert over.fix == {"train.max_steps": 30}
    assert curve_doctor.of_run(recipe, made_up(flat, {}), True)[0].id == "plateau"
    falling = [3.0 - 0.01 * i + noise[i] for i in range(160)]
    assert curve_doctor.of_run(recipe, made_up(falling, {0: 3.0, 30: 2.7, 60: 2.4, 90: 2.1}), True) == []
    assert curve_doctor.of_run(recipe, made_up(falling, {}), True) == []


def test_a_single_odd_row_is_no_hot_rate_and_jumps_that_stay_are() -> None:
    recipe = Recipe.parse({"data": {"source": "x"}, "train": {"learning_rate": 2e-3}})
    calm = [3.0 * 0.97**i + 0.3 for i in range(80)]
    odd = [loss + (2.5 if i % 20 == 11 else 0) for i, loss in enumerate(calm)]
    assert curve_doctor.of_run(recipe, made_up(odd, {}), True) == []
    high = [loss + (2.5 if i % 20 in (11, 12, 13, 14) else 0) for i, loss in enumerate(calm)]
    [finding] = curve_doctor.of_run(recipe, made_up(high, {}), True)
    assert (finding.id, finding.step) == ("hot_rate", 12) and finding.evidence.params["what"][
        "key"
    ] == "run_doctor.jumps"


@pytest.mark.parametrize("seed", range(60))
def test_jumps_are_those_that_looking_at_each_step_finds(seed: int) -> None:
    chance = np.random.default_rng(seed)
    losses = 2.0 + chance.normal(0, 0.3, chance.integers(9, 400))
    for begin in chance.integers(0, len(losses), 12):
        losses[begin : begin + chance.integers(1, 8)] += chance.uniform(0.5, 3)
    series = Series(np.arange(1.0, len(losses) + 1), losses)
    jumps, i, wide = [], curve_doctor.WINDOW, curve_doctor.WINDOW
    while i + 3 <= len(losses):
        if losses[i : i + 3].min() > np.median(losses[i - wide : i]) + curve_doctor.JUMP * series.base:
            jumps.append(i + 1)
            i += wide
        i += 1
    jump = curve_doctor._jumps(series)
    assert (jump is None) == (len(jumps) <= curve_doctor.MAX_JUMPS)
    if jump:
        assert (jump[0].params["count"], jump[0].params["steps"]) == (len(jumps), jumps[:LISTED])


def test_a_long_calm_run_is_looked_at_as_a_whole_and_not_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages ask at each new number: where each step was looked at, 100,000 of them took 3.7 s."""
    losses = 1.0 + np.exp(-np.arange(50_000) / 9000) + np.random.default_rng(0).normal(0, 0.1, 50_000)
    calls = []
    median = np.median
    monkeypatch.setattr(np, "median", lambda *a, **k: (calls.append(1), median(*a, **k))[1])
    recipe = Recipe.parse({"data": {"source": "x"}})
    assert (
        curve_doctor.of_run(recipe, Series(np.arange(1.0, 50_001), losses, losses, np.full(50_000, 2e-4)), True) == []
    )
    assert len(calls) < 100


def test_a_run_that_was_above_where_it_began_for_most_of_its_way_was_too_hot_though_it_came_back() -> None:
    recipe = Recipe.parse({"data": {"source": "x"}, "train": {"learning_rate": 0.05}})
    there_and_back = [2.8, 1.0, 5.2, 8.0, 8.3, 5.7, 13.4, 12.5, 8.5, 4.6, 13.1, 5.7, 6.9, 3.7, 4.2, 3.6, 3.7, 3.0]
    [finding] = curve_doctor.of_run(recipe, made_up(there_and_back, {0: 3.3, 9: 4.5, 18: 2.9}), False)
    assert (finding.id, finding.step) == ("hot_rate", 3) and "7.68 in steps 3 to 15" in str(finding.evidence)
    half = [2.8, 1.0, *[5.0] * 8, *[2.9] * 8]
    assert curve_doctor.of_run(recipe, made_up(half, {0: 3.3, 9: 4.5, 18: 2.9}), False) == []


def test_a_run_that_went_on_from_a_checkpoint_is_judged_by_what_counts() -> None:
    line = {"kind": "train", "grad_norm": 1.0, "learning_rate": 1e-3}
    lines = [{**line, "step": step, "loss": 9.0, "attempt": 1} for step in range(1, 21)]
    lines += [{"kind": "eval", "step": 20, "eval_loss": 9.0, "attempt": 1}]
    lines += [{**line, "step": step, "loss": 1.0, "attempt": 2} for step in range(11, 31)]
    series = Series.of_records([*lines, {"kind": "train", "step": "x"}, {"kind": "train", "step": 31, "loss": None}])
    assert (
        list(series.steps) == list(range(1, 31))
        and list(series.losses[9:11]) == [9.0, 1.0]
        and not len(series.eval_steps)
    )


# ---- on the starter itself -----------------------------------------------------------------------


def trained(
    space: Workspace, lines: list[dict[str, str]], data: dict[str, Any], **train: Any
) -> tuple[RunFolder, list[Diagnosis]]:
    file = space.cache / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    source = DatasetStore(space.datasets, PRESETS).import_file(file, "rows").id
    given = {
        "data": {"source": source, "max_length": 64, "train_on": "assistant"} | data,
        "adapter": {"r": 4},
        "train": train,
    }
    run = Runs(space).create(
        plan.resolve(Recipe.parse(given), "rows", has_card=False),
        "command",
        RunFacts.from_json({"advice": {"usual_rate": 1e-3}}),
    )
    spawn_worker(space, run).wait(300)
    status = run.status()
    assert status.state in (State.COMPLETED, State.FAILED), run.log_tail()
    return run, running.findings_of(run, run.recipe(), status, run.all_metrics())


@pytest.mark.full
def test_a_rate_far_too_hot_on_the_starter_is_found(make_workspace: Callable[[], Workspace]) -> None:
    sizes = {"max_steps": 18, "per_device_train_batch_size": 2, "eval_steps": 9, "save_steps": 18, "sample_seconds": 0}
    run, [finding] = trained(make_workspace(), rows(40), {}, learning_rate=0.05, **sizes)
    assert (finding.id, finding.fix, finding.action) == ("hot_rate", {"train.learning_rate": 1e-3}, None)
    assert running.summary(run, run.status())["findings"][0]["id"] == "hot_rate"


@pytest.mark.full
def test_ten_rows_read_many_times_on_the_starter_are_found_to_be_overfitted(
    make_workspace: Callable[[], Workspace],
) -> None:
    lines = [
        json.loads(line) for line in (PRESETS / "samples" / "pirate_answers.jsonl").read_text("utf-8").splitlines()[:20]
    ]
    sizes = {"num_train_epochs": 24, "per_device_train_batch_size": 5, "eval_steps": 8, "save_steps": 48}
    _, [finding] = trained(make_workspace(), lines, {"eval_fraction": 0.5}, learning_rate=2e-3, **sizes)
    assert finding.id == "overfitting" and finding.evidence.params["rows"] == 10
