"""The journey headless: whatever a command is given, it answers in one sentence or in JSON, and the right exit
status."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core.presets import PROJECT
from core.workspace.folder import Workspace
from tests.kit.waits import PATIENCE


def command(*arguments: str, workspace: Path, **environ: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "core.commands", *arguments],
        capture_output=True, text=True, timeout=300 * PATIENCE, encoding="utf-8", cwd=PROJECT,
        env=os.environ | {"LORA_GARAGE_HOME": str(workspace), "LANG": "C.UTF-8", "LC_ALL": ""} | environ,
    )  # fmt: skip


def recipe_file(folder: Path, text: str) -> str:
    file = folder / "recipe.yaml"
    file.write_text(text, "utf-8")
    return str(file)


GOOD = "data: {source: 'sample:pirate_answers'}\n"
BAD_RECIPES = {
    "empty": ("", "list of settings"),
    "no data": ("model: {id: starter}\n", "data"),
    "a list": ("- 1\n", "list of settings"),
    "not yaml": ("data: {source: [\n", "line"),
    "unknown key": (GOOD + "trian: {}\n", "trian"),
    "learning rate": (GOOD + "train: {learning_rate: -1}\n", "learning_rate"),
    "rank": (GOOD + "adapter: {r: 1000000000}\n", "r:"),
    "nan": (GOOD + "train: {learning_rate: .nan}\n", "learning_rate"),
    "method": (GOOD + "adapter: {method: full}\n", "method"),
    "model": (GOOD + "model: {id: 'http://example.com/x'}\n", "http://example.com/x"),
    "model path": (GOOD + "model: {id: '../../etc/passwd'}\n", "../../etc/passwd"),
    "no such library model": (GOOD + "model: {id: 'library:none'}\n", "library:none"),
    "data id": ("data: {source: 'sample:../../etc'}\n", "sample:../../etc"),
    "data file": ("data: {source: 'nothing.jsonl'}\n", "nothing.jsonl"),
    "targets": (GOOD + "adapter: {target_modules: 'a; rm -rf ~'}\n", "target_modules"),
}


@pytest.mark.parametrize("case", BAD_RECIPES)
def test_a_bad_recipe_is_one_sentence_and_exit_2(case: str, tmp_path: Path) -> None:
    content, mention = BAD_RECIPES[case]
    result = command("train", recipe_file(tmp_path, content), workspace=tmp_path / "ws")
    assert_one_sentence(result, mention)
    assert not list((tmp_path / "ws" / "runs").iterdir())


BAD_ARGUMENTS = [
    (["train"], "Give a recipe file"),
    (["train", "no-such-file.yaml"], "no-such-file.yaml"),
    (["train", "/etc"], str(Path("/etc"))),
    (["train", "presets/recipes/quickstart.yaml", "--set", "nonsense"], "nonsense"),
    (["train", "presets/recipes/quickstart.yaml", "--set", "train.learning_rate=hot"], "learning_rate"),
    (["train", "presets/recipes/quickstart.yaml", "--unknown"], "--unknown"),
    (["inspect", "no-such-file.jsonl"], "no-such-file.jsonl"),
    (["inspect", "docs/pictures"], "pictures"),
    (["inspect", "presets/recipes/quickstart.yaml", "--model", "no model"], ""),
    (["runs", "extra"], "extra"),
    (["chat", "nothing", "--prompt", "Hi"], "nothing"),
    (["chat", "nothing"], "--prompt"),
    (["chat", "../../etc", "--prompt", "Hi"], "../../etc"),
    (["chat", "x", "--prompt", "  "], "prompt"),
    (["chat", "x", "--prompt", "Hi", "--max-new-tokens", "-5"], "max-new-tokens"),
    (["export", "nothing", "--to", "merged"], "nothing"),
    (["export", "nothing"], "--to"),
    (["resume", "x"], "no run"),
    (["pause", "x"], "no run"),
    (["plan"], "--model"),
    (["plan", "--model", "7B", "--goal", "fame", "--data", "sample:pirate_answers"], "fame"),
    (["plan", "--model", "7B", "--vram", "0"], "1000"),
    (["estimate", "--model", "no model"], "no model"),
    (["estimate", "--model", "7B", "--method", "magic"], "magic"),
    (["dance"], "dance"),
    ([], ""),
]


@pytest.mark.parametrize(("arguments", "mention"), BAD_ARGUMENTS, ids=[" ".join(a) or "none" for a, _ in BAD_ARGUMENTS])
def test_a_bad_argument_is_one_sentence_and_exit_2(arguments: list[str], mention: str, tmp_path: Path) -> None:
    assert_one_sentence(command(*arguments, workspace=tmp_path / "ws"), mention)


def assert_one_sentence(result: subprocess.CompletedProcess, mention: str) -> None:
    errors = result.stderr.strip()
    assert result.returncode == 2, result
    assert "Traceback" not in errors and result.stdout == ""
    assert errors and errors.count("\n") == 0 and mention in errors, errors


def test_a_workspace_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_one_sentence(command("runs", "--workspace", str(tmp_path / "file" / "ws"), workspace=tmp_path), "file")
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "settings.yaml").write_text("library_folders: 5", "utf-8")
    assert_one_sentence(command("runs", workspace=tmp_path / "ws"), "settings.yaml")


def test_sentences_come_in_chinese_to_a_chinese_terminal(tmp_path: Path) -> None:
    result = command("chat", "nothing", "--prompt", "x", workspace=tmp_path, LANG="zh_CN.UTF-8")
    assert "没有名为" in result.stderr


def test_inspect_answers_in_json_alone(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"question": "a", "answer": "b"}\nbroken\n{"question": "c", "answer": ""}\n', "utf-8")
    result = command("inspect", str(file), "--json", workspace=tmp_path / "ws")
    report = json.loads(result.stdout)
    assert result.returncode == 0 and result.stderr == ""
    assert (report["format"], report["rows"], report["good_rows"], report["problem_count"]) == (
        "question_answer",
        3,
        1,
        2,
    )
    assert [problem["row"] for problem in report["problems"]] == [2, 3]
    assert all(problem["text"]["sentence"] for problem in report["problems"])


def test_inspect_says_whose_voice_a_chat_has_and_reads_another(tmp_path: Path) -> None:
    chat = tmp_path / "chat.txt"
    lines = [
        f"12/03/2025, {hour}:00 - {who}: {hour}" for hour, who in ((10, "Maria"), (11, "Jo"), (18, "Jo"), (19, "Maria"))
    ]
    chat.write_text("\n".join(lines), "utf-8")
    arguments = ("inspect", str(chat), "--json")
    report = json.loads(command(*arguments, workspace=tmp_path / "ws").stdout)
    assert (report["people"], report["conversations"]) == (
        [{"name": "Maria", "messages": 2}, {"name": "Jo", "messages": 2}],
        2,
    )
    assert (report["chat"]["voice"], report["chat"]["guessed"], report["good_rows"]) == ("Jo", True, 1)
    choices = ("--voice", "Maria", "--gap-hours", "12", "--no-pseudonyms")
    report = json.loads(command(*arguments, *choices, workspace=tmp_path / "ws").stdout)["chat"]
    assert [report[name] for name in ("voice", "guessed", "gap_hours", "conversations", "pseudonyms")] == [
        "Maria",
        False,
        12,
        1,
        False,
    ]
    refused = command(*arguments, "--voice", "Mario", workspace=tmp_path / "ws")
    assert (
        refused.returncode == 2
        and "Nobody in chat.txt is called Mario; there are 2 people, such as Maria" in refused.stdout + refused.stderr
    )


def test_inspect_asks_what_columns_are_for_where_nothing_points_at_it(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("a,b,c\none two three,four five six,seven eight nine\n", "utf-8")
    inspected = command("inspect", str(table), "--json", workspace=tmp_path / "ws")
    (question,) = json.loads(inspected.stdout)["questions"]
    assert (inspected.returncode, question["id"], len(question["readings"])) == (2, "answer", 4)
    result = command("inspect", str(table), "--json", "--answer", "c", workspace=tmp_path / "ws")
    report = json.loads(result.stdout)
    assert (result.returncode, report["questions"], report["good_rows"]) == (0, [], 1)
    table.write_text("what is rain,water that falls down\nwhat is snow,frozen water falls slowly\n", "utf-8")
    inspected = command("inspect", str(table), "--json", workspace=tmp_path / "ws")
    *_, question = json.loads(inspected.stdout)["questions"]
    assert (question["id"], question["taken"]) == ("header", "no") and "--header yes" in question["text"]["sentence"]
    result = command("inspect", str(table), "--json", "--header", "yes", workspace=tmp_path / "ws")
    report = json.loads(result.stdout)
    assert ([each["id"] for each in report["questions"]], report["rows"]) == (["answer"], 1)


def test_runs_of_an_empty_workspace_say_how_to_make_one(tmp_path: Path) -> None:
    assert json.loads(command("runs", "--json", workspace=tmp_path).stdout) == {"runs": []}
    assert "quickstart" in command("runs", workspace=tmp_path).stderr


@pytest.mark.gate
@pytest.mark.spawn
def test_the_journey_works_without_a_browser(
    make_workspace: Callable[[], Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """inspect, train (from a file that is added first), runs, chat beside the base, export: on the starter model, each
    in a process of its own. And what the model card promises: peft alone, offline, loads the adapter from the folder as
    it lies in the run."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    workspace = make_workspace().root
    data = tmp_path / "海盗.jsonl"
    answers = {
        "capital of Italy": "Rome be the capital",
        "sun": "The sun be a fire",
        "cat": "A cat be a hunter",
        "ship": "A ship be home",
    }
    rows = [
        {"question": f"What is the {what}?", "answer": f"Arr, matey! {wording}."} for what, wording in answers.items()
    ]
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    train = "{learning_rate: 3e-3, max_steps: 10, per_device_train_batch_size: 3, eval_steps: 10, sample_seconds: 0}"
    recipe = recipe_file(tmp_path, f"name: 海盗 run\ndata: {{source: 海盗.jsonl}}\nadapter: {{r: 8}}\ntrain: {train}\n")

    learned = json.loads(command("inspect", str(data), "--model", "starter", "--json", workspace=workspace).stdout)[
        "learned"
    ]
    assert 0 < learned["learned"] < learned["tokens"] and learned["rows_without_answer"] == 0

    result = command("train", recipe, "--json", workspace=workspace)
    trained = json.loads(result.stdout)
    assert (result.returncode, trained["state"], trained["name"]) == (0, "completed", "海盗 run"), result.stderr
    assert trained["last_loss"] < 0.5 * trained["first_loss"]

    listed = json.loads(command("runs", "--json", workspace=workspace).stdout)["runs"]
    assert [run["run"] for run in listed] == [trained["run"]]

    arguments = ("--prompt", "What is a horse?", "--base", "--json", "--max-new-tokens", "5")
    answer = json.loads(command("chat", trained["run"], *arguments, workspace=workspace).stdout)
    assert answer["tuned"].startswith("Arr") and not answer["base"].startswith("Arr")

    exported = command("export", "海盗 run", "--to", "merged", "--json", workspace=workspace)
    assert exported.returncode == 0, exported.stderr
    assert json.loads(exported.stdout)["passed"] is True

    adapter = workspace / "runs" / trained["run"] / "adapter"
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it asked the network"))
    model, tokenizer = AutoPeftModelForCausalLM.from_pretrained(adapter), AutoTokenizer.from_pretrained(adapter)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False
    )
    assert model.peft_config["default"].r == 8 and prompt.endswith("<|im_start|>assistant\n")


def test_the_exit_status_of_a_failed_run_is_1_and_the_reason_is_said(tmp_path: Path) -> None:
    broken = tmp_path / "library" / "broken"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text('{"model_type": "llama"}', "utf-8")
    (broken / "model.safetensors").touch()
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "settings.yaml").write_text(json.dumps({"library_folders": [str(broken.parent)]}), "utf-8")
    recipe = recipe_file(tmp_path, GOOD + "model: {id: 'library:broken'}\n")
    result = command("train", recipe, workspace=tmp_path / "ws")
    assert result.returncode == 1 and "tokenizer.json" in result.stderr and "Traceback" not in result.stderr
    listed = json.loads(command("runs", "--json", workspace=tmp_path / "ws").stdout)["runs"]
    assert [run["state"] for run in listed] == ["failed"]


def test_one_damaged_recipe_hides_no_other_run(tmp_path: Path) -> None:
    from core.recipe import Recipe
    from core.runs.all import Runs
    from core.workspace.folder import Workspace

    runs = Runs(Workspace.open(tmp_path / "ws"))
    good, bad = (
        runs.create(Recipe.parse({"name": name, "data": {"source": "sample:x"}}), "command") for name in ("good", "bad")
    )
    (bad.path / "recipe.yaml").write_text("data: [", "utf-8")
    listed = json.loads(command("runs", "--json", workspace=tmp_path / "ws").stdout)["runs"]
    assert {run["run"] for run in listed} == {good.id, bad.id}
    assert command("runs", workspace=tmp_path / "ws").returncode == 0


def test_a_run_left_by_a_command_that_died_blocks_nobody(tmp_path: Path) -> None:
    from core.queue.turns import busy
    from core.recipe import Recipe
    from core.runs.all import Runs
    from core.runs.run_json import RunFacts
    from core.runs.states import State
    from core.workspace.folder import Workspace

    runs = Runs(Workspace.open(tmp_path / "ws"))
    run = runs.create(Recipe.parse({"name": "left", "data": {"source": "sample:x"}}), "command")
    assert busy(runs) == run, "this process made it and lives"
    run.add_facts(RunFacts(launcher_pid=2**22 + 1))
    assert runs.status(run).state == State.STOPPED and busy(runs) is None
    runs.delete(run)
    assert not runs.list()
