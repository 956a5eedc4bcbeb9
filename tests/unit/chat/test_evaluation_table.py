"""`evaluate` without a model: the judged table, the sentence that follows from it, and the exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.api import contestants
from core.api.datasets import dataset_store
from core.api.evaluating import EvaluatedAnswers
from core.chat import contest
from core.chat.comparison import ComparisonAnswer, PromptComparison, votes_on_run
from core.chat.evaluation import of_run, sets, system_prompt, votes
from core.chat.evaluation.evaluation import SetEvaluation
from core.chat.evaluation.learned_rows import LearnedRows
from core.chat.evaluation.table import Table, judge_for, judge_of_kind
from core.chat.prompts import Prompt
from core.commands.__main__ import main
from core.judges.paired import conclusion
from core.judges.propose import propose
from core.judges.specs import ContainsJudge, ExactJudge, JsonJudge, LabelJudge, NumberJudge, PersonJudge, RegexJudge
from core.runs.all import Runs
from core.runs.cards import benchmarked
from core.runs.cards import evaluated as kept_results
from core.workspace.folder import Workspace
from tests.kit.chat import Chat, pair_of
from tests.kit.runs import trained

Reply = Callable[[str, list[Any]], str]
QUESTIONS = [f"Question {n}?" for n in range(80)]


def prompt_of(question: str, expected: str | None = "yes", **more: Any) -> Prompt:
    return Prompt(turns=({"role": "user", "content": question},), expected=expected, **more)


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    trained(space := Workspace.open(tmp_path), "Pirate")
    return space


def evaluated(
    space: Workspace,
    reply: Reply,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *options: str,
    chat: Chat | None = None,
) -> tuple[int, Any]:
    """The command's exit status and JSON, on 80 questions whose answer is yes."""
    monkeypatch.setattr(contestants, "ChatClient", lambda space: chat or Chat(reply=reply))
    file = space.root / "asked.jsonl"
    file.write_text("".join(json.dumps({"prompt": one, "expected": "yes"}) + "\n" for one in QUESTIONS), "utf-8")
    arguments = ["Pirate", "--file", str(file), "--judge", "exact", "--prompt", "Say yes.", "--json"]
    status = main(["evaluate", *arguments, "--workspace", str(space.root), *options])
    out = capsys.readouterr().out
    return status, json.loads(out) if out else None


def number_of(turns: list[Any]) -> int:
    return QUESTIONS.index(turns[-1]["content"])


def has_prompt(turns: list[Any]) -> bool:
    return turns[0]["role"] == "system"


def only_tuned(column: str, turns: list[Any]) -> str:
    return "yes" if column == "tuned" else "no"


def with_a_prompt(column: str, turns: list[Any]) -> str:
    return "yes" if column == "tuned" or has_prompt(turns) else "no"


def half_as_often(column: str, turns: list[Any]) -> str:
    """The base with a prompt has the even ones right, the fine-tuned model four fifths."""
    right = number_of(turns) % 5 if column == "tuned" else has_prompt(turns) and not number_of(turns) % 2
    return "yes" if right else "no"


@pytest.mark.parametrize(
    ("reply", "key", "rival"),
    [
        (only_tuned, "judges.brings", "base"),
        (with_a_prompt, "judges.as_well_prompt", "prompt"),
        (half_as_often, "judges.brings", "prompt"),
        (lambda column, turns: only_tuned("base" if column == "tuned" else "tuned", turns), "judges.worse", "base"),
        (lambda column, turns: "no", "judges.none_right", "base"),
    ],
)
def test_the_sentence_is_what_paired_statistics_say_of_the_best_without_training(
    space: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reply: Reply, key: str,
    rival: str,
) -> None:  # fmt: skip
    status, result = evaluated(space, reply, monkeypatch, capsys)
    scores = {
        one["label"]: [float(row["answers"][place]["outcome"] == "right") for row in result["rows"]]
        for place, one in enumerate(result["contestants"])
    }
    best = {"base": "base", "prompt": "base+prompt"}[rival]
    sentence = conclusion({rival: scores[best]}, scores["tuned"])  # type: ignore[dict-item]
    assert status == 0 and result["conclusion"]["key"] == key == sentence.key
    assert result["conclusion"]["params"] == sentence.params
    assert [one["label"] for one in result["contestants"]] == list(of_run.OF_RUN)


def test_the_table_of_an_evaluation_that_was_killed_is_the_same_table(
    space: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = Chat(questions=150, reply=half_as_often)
    assert evaluated(space, half_as_often, monkeypatch, capsys, chat=killed)[0] == 2
    again = Chat(reply=half_as_often)
    _, resumed = evaluated(space, half_as_often, monkeypatch, capsys, chat=again)
    # of each question three batches: base and tuned, both with the prompt, and the base with examples
    assert len(killed.asked) + len(again.asked) == 240
    unbroken = Workspace.open(space.root / "unbroken")
    trained(unbroken, "Pirate")
    _, whole = evaluated(unbroken, half_as_often, monkeypatch, capsys)
    assert resumed["rows"] == whole["rows"] and resumed["conclusion"] == whole["conclusion"]


def test_a_set_that_evaluated_a_run_is_one_of_its_base(
    space: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sets.save(space, sets.create("mine", [prompt_of("One?")], ExactJudge()))
    monkeypatch.setattr(contestants, "ChatClient", lambda space: Chat(reply=only_tuned))
    command = ["evaluate", "Pirate", "--set", "mine", "--contestants", "base,tuned", "--workspace", str(space.root)]
    assert main(command) == 0 and sets.open_set(space, "mine").base == Runs(space).find("Pirate").recipe().model.id


def test_a_smaller_share_than_demanded_is_exit_1(
    space: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for least, status in (("0.9", 1), ("0.8", 0)):  # four fifths are right
        assert evaluated(space, half_as_often, monkeypatch, capsys, "--fail-below", least)[0] == status


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Name a run"), (["Pirate", "--base", "starter"], "Name a run"), (["nobody"], "nobody"),
        (["Pirate", "--set", "none"], "no test set"), (["Pirate", "--judge", "fair"], "“fair” is no judge"),
        (["Pirate", "--contestants", "base+luck"], "no run “base+luck”"),
        (["Pirate", "--contestants", "base+prompt+luck"], "is no contestant"),
        (["Pirate", "--file", "gone.jsonl"], "gone.jsonl"),
        (["--base", "starter"], "Name a run"), (["--base", "starter", "--data", "sample:none"], "sample:none"),
        (["--base", "starter", "--data", "sample:shop_messages", "--contestants", "tuned"], "is no contestant"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_a_sentence(
    space: Workspace, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert main(["evaluate", *arguments, "--workspace", str(space.root)]) == 2
    errors = capsys.readouterr().err
    assert sentence in errors and "Traceback" not in errors and not list(SetEvaluation.all_of(space))


def test_before_training_it_says_what_is_left_to_gain(
    space: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the twenty questions of the sample, five have the label praise."""
    monkeypatch.setattr(contestants, "ChatClient", lambda space: Chat(reply=lambda column, turns: "praise"))
    arguments = ["--base", "starter", "--data", "sample:shop_messages", "--json", "--workspace", str(space.root)]
    assert main(["evaluate", *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["conclusion"]["key"] == "evaluation.left" and result["judge"]["kind"] == "label"
    assert (result["conclusion"]["params"]["right"], result["conclusion"]["params"]["left"]) == (5, 75)
    assert [one["examples"] for one in result["contestants"]] == [0, 0, 5]
    assert "praise" in result["contestants"][1]["system"] and result["settings"]["enable_thinking"] is False


def test_with_everything_right_before_training_little_is_left(
    space: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {one.question: str(one.expected) for one in sets.of_sample("sample:shop_messages").prompts}
    monkeypatch.setattr(
        contestants, "ChatClient", lambda space: Chat(reply=lambda _, turns: answers[turns[-1]["content"]])
    )
    main(["evaluate", "--base", "starter", "--data", "sample:shop_messages", "--workspace", str(space.root)])
    out = capsys.readouterr().out
    assert "little is left to gain" in out and "* does not count" in out
    assert "+                 +                 +                 Why was I billed" in out.splitlines()[1]


def table_of(space: Workspace, test_set: sets.TestSet, reply: Reply, learned: LearnedRows | None = None) -> Table:
    evaluation = SetEvaluation.prepare(space, test_set, pair_of(Runs(space).find("Pirate"), "base", "tuned"), learned)
    [*_] = contest.answer_missing(Chat(reply=reply), space, evaluation)
    return Table(evaluation, judge_for(test_set, learned))


def test_what_was_trained_on_and_what_cannot_be_judged_does_not_count_and_is_said(space: Workspace) -> None:
    learned = LearnedRows.of_run(Runs(space).find("Pirate"), dataset_store(space), Runs(space))
    broken, rule = (
        prompt_of("Broken?", judge=RegexJudge(pattern="(")),
        prompt_of("Rule?", None, judge=RegexJudge(pattern="^y")),
    )
    prompts = [prompt_of("New?"), prompt_of(learned.pairs[0][0]), prompt_of("Without an answer?", None), broken, rule]
    table = table_of(space, sets.create("mixed", prompts, ExactJudge()), only_tuned, learned)
    assert table.counted == [0, 4] and table.share(1).right == 2 and table.share(0).right == 0
    assert [note.key for note in table.notes()] == [
        "evaluation.trained_on", "evaluation.nothing_expected", "evaluation.not_judged",
    ]  # fmt: skip
    assert "no regular expression" in str(table.notes()[2]), "a judge that fails is a sentence"


def test_what_an_earlier_run_had_right_is_named_and_other_settings_are_not_compared(space: Workspace) -> None:
    made = sets.create("mine", [prompt_of(question) for question in QUESTIONS], ExactJudge())
    before = table_of(space, made, only_tuned)
    (Runs(space).find("Pirate").adapter / "chat_template.jinja").write_text("other", "utf-8")
    after = table_of(space, made, half_as_often)
    lost_ones = [number for number in range(80) if number % 5 == 0]
    assert after.lost(before) == (lost_ones, None)
    before.evaluation.path.rename(before.evaluation.path.with_name("2026-01-01_000000_earlier"))
    assert EvaluatedAnswers(after).as_json()["lost"] == lost_ones, "it looked for evaluations in a folder without any"
    longer = sets.create("mine", [*made.prompts, prompt_of("Long?", "y" * 900)], ExactJudge())
    lost, why = table_of(space, longer, only_tuned).lost(before)
    assert lost == [] and why is not None and why.key == "evaluation.other_settings"


def test_a_persons_votes_judge_and_measure_the_other_judges(space: Workspace) -> None:
    test_set = sets.create(
        "legs",
        [prompt_of("One?"), prompt_of("Two?"), prompt_of("Three?"), prompt_of("Which?", None, judge=PersonJudge())],
        ExactJudge(),
    )
    table = table_of(space, test_set, lambda column, turns: "yes" if column == "tuned" else "Well, yes.")
    assert not table.agreements() and len(table.counted) == 3
    assert any("Nobody has judged" in str(note) for note in table.notes())
    for number, prompt in enumerate(test_set.prompts):
        for answer, outcome in (("yes", "right"), ("Well, yes.", "right" if number == 0 else "wrong")):
            votes.vote(space, prompt.turns, answer, outcome)
    table = Table(table.evaluation, ExactJudge())
    assert len(table.counted) == 4 and [table.verdicts[3, place].outcome for place in (0, 1)] == ["wrong", "right"]
    # by hand: 5 of 6 alike; by chance 3/6 x 4/6 + 3/6 x 2/6 = 1/2, so (5/6 - 1/2) / (1 - 1/2)
    agreed = table.agreements()["exact"]
    assert (agreed.count, agreed.share) == (6, 5 / 6) and agreed.kappa == pytest.approx(2 / 3)
    assert any("83 % of 6 answers (Cohen's kappa 0.67)" in str(note) for note in table.notes())
    assert set(table.agreements()) == {"exact"}


def test_known_benchmarks_of_the_run_stand_below_the_table(space: Workspace) -> None:
    table = table_of(space, sets.create("one", [prompt_of("One?")], ExactJudge()), only_tuned)
    assert not table.notes()
    measured = {"base": {"piqa": {"acc,none": 0.5}}, "tuned": {"piqa": {"acc,none": 0.25}}}
    benchmarked.write(Runs(space).find("Pirate"), benchmarked.benchmark_results(measured))
    assert list(map(str, table.notes())) == ["“piqa” (acc): base model 0.5000, fine-tuned 0.2500."]
    checkpoint = table.contestants[1].model_copy(update={"checkpoint": "checkpoint-000020"})
    lineup = table.evaluation.lineup.model_copy(update={"contestants": (table.contestants[0], checkpoint)})
    assert not Table(SetEvaluation(table.evaluation.path, lineup), ExactJudge()).notes(), "another adapter"


def test_answers_that_ended_at_the_limit_are_said(space: Workspace) -> None:
    table = table_of(space, sets.create("a", [prompt_of("One?")]), only_tuned)
    cut = table.answers[0, 0].model_copy(update={"finish_reason": "length"})
    table.evaluation.add(cut)
    [note] = Table(table.evaluation, ExactJudge()).notes()
    assert note.key == "evaluation.cut" and note.params["label"] == "base"


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (["red", "blue"] * 10, "red, blue"), (['{"a": 1, "b": {"c": "x"}}'] * 20, "a, b.c"),
        ([f"{n} kg" for n in range(20)], "0 kg"), ([f"town {n}" for n in "abcdefghijklmnopqrst"], "few words"),
        ([f"Arr, the number {'x' * n} be a fine one, matey, and a long one!" for n in range(20)], "- Arr, the number"),
        (["A", "B", "C", "D"] * 5, "letter"),
    ],
)  # fmt: skip
def test_a_proposed_prompt_has_what_the_data_shows(answers: list[str], words: str) -> None:
    pairs = [("Which of these is it, and why is that so?", answer) for answer in answers]
    assert words in system_prompt.proposed(pairs, propose(answers))
    assert system_prompt.proposed([], ExactJudge()) == ""
    assert "number" not in system_prompt.proposed([("Who?", "Arr, it be Odra Pellin, matey!")], NumberJudge())


def test_a_proposed_prompt_is_in_the_language_of_the_data() -> None:
    chinese = [("这个包裹什么时候能送到我家？请尽快告诉我。", "物流"), ("东西坏了，怎么办？我要退款。", "售后")] * 10
    assert "只回答" in system_prompt.proposed(chinese, propose([answer for _, answer in chinese]))


def test_the_judge_is_that_of_the_set_then_the_labels_of_the_training_rows() -> None:
    learned = LearnedRows(tuple((f"q{n}", "red" if n % 2 else "blue") for n in range(40)), frozenset(), ())
    few = sets.create("few", [prompt_of("a", "red"), prompt_of("b", "blue")])
    assert judge_for(few, learned) == LabelJudge(labels=("blue", "red")) and judge_for(few, None) == ContainsJudge()
    assert judge_for(few.model_copy(update={"judge": ExactJudge()}), learned) == ExactJudge()
    assert judge_of_kind("label", ["b", "a", "b"]) == LabelJudge(labels=("a", "b"))
    assert judge_of_kind("regex", [], " ^a ") == RegexJudge(pattern="^a")


def test_a_schema_in_the_questions_becomes_the_judges() -> None:
    schema = '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}'
    rows = [
        prompt_of(f"{text} Reply in JSON: {schema}", None) for text in ("Paris is in France.", "Oslo is in Norway.")
    ]
    assert judge_for(sets.create("cities", rows), None) == JsonJudge(json_schema=schema)
    known = [row.model_copy(update={"expected": '{"city": "Paris"}'}) for row in rows]
    assert judge_for(sets.create("cities", known), None) == JsonJudge(json_schema=schema)
    other = prompt_of("Reply in JSON: " + schema.replace("string", "object"), '{"city": {}}')
    assert judge_for(sets.create("cities", [*known, other]), None) == JsonJudge()
    unknown = [prompt_of(f"{n} " + schema.replace('"required"', '"if"'), "{}") for n in range(2)]
    assert judge_for(sets.create("cities", unknown), None) == JsonJudge(), "a schema that cannot be checked"


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_only_the_runs_own_adapter_speaks_for_the_run(space: Workspace, strength: float) -> None:
    """Evaluated at another strength, a run had that result on its model card, as its adapter's."""
    run = Runs(space).find("Pirate")
    base, tuned = pair_of(run, "base", "tuned")
    contestants = [base, tuned.model_copy(update={"strength": strength})]
    evaluation = SetEvaluation.create(space, [prompt_of(one) for one in QUESTIONS], contestants)
    for number in range(len(QUESTIONS)):
        for place, text in enumerate(("no", "yes")):
            evaluation.add(ComparisonAnswer(
                prompt=number, contestant=place, text=text, tokens=1, seconds=0.1, finish_reason="stop"
            ))  # fmt: skip
    of_run.keep_result(run, Table(evaluation, ExactJudge()))
    assert (kept_results.read(run) is None) == (strength != 1)
    blind_test = PromptComparison.create(space, [prompt_of(QUESTIONS[0])], contestants)
    blind_test.vote(0, "left", "me")
    assert (votes_on_run(space, run.id) is None) == (strength != 1)


def test_only_questions_that_the_run_kept_out_of_training_speak_for_the_run(
    space: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command kept the result on any questions: runs stood in one table, each by other ones."""
    run = Runs(space).find("Pirate")
    assert evaluated(space, only_tuned, monkeypatch, capsys)[0] == 0 and kept_results.read(run) is None
    sets.save(space, sets.create("mine", [prompt_of(one) for one in QUESTIONS]))
    for options in (["--set", "mine"], []):
        assert main(["evaluate", "Pirate", *options, "--workspace", str(space.root)]) == 0
        assert (kept_results.read(run) is None) == bool(options)
