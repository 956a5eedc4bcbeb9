"""An evaluation as files: test sets, what was trained on, the nearest rows, and answers that are kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from threading import Thread

import pytest

from core.api.datasets import dataset_store
from core.chat import contest
from core.chat.comparison import Contestant, PromptComparison
from core.chat.contest import turns_for
from core.chat.evaluation import evaluation, sets, votes
from core.chat.evaluation.evaluation import SetEvaluation
from core.chat.evaluation.learned_rows import LearnedRows
from core.chat.evaluation.nearest import nearest
from core.chat.evaluation.of_run import parents_of
from core.chat.prompts import Prompt
from core.errors import ChatError, DataError
from core.judges.propose import propose
from core.judges.specs import ContainsJudge, JsonJudge, PersonJudge
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.run_json import Combination, RunFacts, WeightedAdapter
from core.workspace.folder import Workspace
from tests.kit.chat import Chat, pair_of
from tests.kit.runs import trained


def prompt_of(question: str, expected: str | None = "yes", **more: object) -> Prompt:
    return Prompt(turns=({"role": "user", "content": question},), expected=expected, **more)


def file_of(space: Workspace, name: str) -> Path:
    return space.root / sets.FOLDER / f"{name}.jsonl"


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


def test_a_set_is_read_as_it_was_written_and_its_file_is_its_export(space: Workspace, tmp_path: Path) -> None:
    turns = ({"role": "system", "content": "Kurz."}, {"role": "user", "content": "Wo\u2028 ist\nes?"})
    made = sets.create(
        "Fragen, 问题",
        [
            prompt_of("One?", tags=("hard", "日期")),
            Prompt(turns=turns, expected="", source="own"),
            prompt_of("雨?", None),
            prompt_of("Which?", None, judge=JsonJudge(fields=("a",))),
        ],
        ContainsJudge(),
    )
    sets.save(space, made)
    file = file_of(space, made.name)
    assert sets.open_set(space, made.name) == sets.open_set(space, "Fragen, 问题") == made == sets.read_file(file)
    assert list(sets.all_sets(space)) == [made] and file.parent == tmp_path / "evaluation" / "sets"
    file.unlink()
    with pytest.raises(ChatError, match="no test set"):
        sets.open_set(space, made.name)


def test_the_fingerprint_changes_with_a_question_an_answer_and_the_judge() -> None:
    different = [
        sets.create("a", [prompt_of("One?")]),
        sets.create("a", [prompt_of("One!")]),
        sets.create("a", [prompt_of("One?", "no")]),
        sets.create("a", [prompt_of("One?")], ContainsJudge()),
    ]
    assert len({one.fingerprint for one in different}) == 4
    assert sets.create("b", [prompt_of("One?", tags=("t",))]).fingerprint == different[0].fingerprint


def test_titles_that_have_no_ascii_letters_are_different_files(space: Workspace) -> None:
    for title in ("合同", "诗歌", "../../runs", "CON"):
        sets.save(space, sets.create(title, [prompt_of(title)]))
    assert sorted(one.title for one in sets.all_sets(space)) == sorted(["合同", "诗歌", "../../runs", "CON"])
    assert {file.parent.name for file in space.root.rglob("*.jsonl")} == {"sets"}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "needs questions with answers"), (b'{"test_set": "x", "judge": null}\n', "has no question"),
        (b'{"prompt": "a"}\n\n{"prompt": ', "line 3 is not valid JSON"), (b"\xff\xfe", "not UTF-8"),
        (b'{"prompt": "a"}\n{"text": "b"}', "entry 2 has no prompt"), (b'{"prompt": "%d"}\n', "1,001 questions"),
        (b'{"prompt": "a"}\n{"prompt": "b", "judge": {"kind": "fair"}}', "line 2 names a judge that does not exist"),
        (b'{"test_set": "x", "judge": {"kind": "regex"}}\n{"prompt": "a"}', "line 1 names a judge that does not exist"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_test_set_is_a_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    """The line of broken JSON was said to be line 1 wherever it stood."""
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"".join(content % n for n in range(1001)) if b"%d" in content else content)
    with pytest.raises(ChatError) as refused:
        sets.read_file(file)
    assert sentence in str(refused.value)


def test_a_broken_set_does_not_hide_the_others(space: Workspace) -> None:
    sets.save(space, sets.create("good", [prompt_of("One?")]))
    (file_of(space, "good").parent / "broken.jsonl").write_text("{", "utf-8")
    assert [one.title for one in sets.all_sets(space)] == ["good"]


# ---- failures, and sets that change ----------------------------------------------------------------------------------
def test_a_bad_answer_is_a_test_by_one_press_and_a_corrected_one_has_the_judge_of_its_answer(space: Workspace) -> None:
    turns = [{"role": "user", "content": "How many legs?"}]
    sets.add_failure(space, "Qwen/Qwen3-0.6B", turns, "Nine.", tags=["legs"])
    sets.add_failure(space, "Qwen/Qwen3-0.6B", [{"role": "user", "content": "How heavy?"}], "3 kg", "31 kg")
    sets.add_failure(space, "starter", turns, judge=JsonJudge(fields=("legs",)))
    made = sets.open_set(space, "failures-qwen3-0-6b")
    assert [(one.question, one.judge and one.judge.kind, one.tags, one.source) for one in made.prompts] == [
        ("How many legs?", "person", ("legs",), "failure"), ("How heavy?", "number", (), "failure"),
    ]  # fmt: skip
    assert made.base == "Qwen/Qwen3-0.6B" and made.version == 2 and made == sets.read_file(file_of(space, made.name))
    assert sets.open_set(space, "failures-starter").prompts[0].judge == JsonJudge(fields=("legs",))
    assert votes.read(space.root)[votes.key_of(turns, "<think>Hm</think>Nine.")] == "wrong"
    with pytest.raises(ChatError, match="has no prompt"):
        sets.add_failure(space, "starter", [{"role": "assistant", "content": "Nine."}])


def test_a_second_bad_answer_to_a_question_leaves_what_is_expected(space: Workspace) -> None:
    turns = [{"role": "user", "content": "How heavy?"}]
    sets.add_failure(space, "starter", turns, "3 kg", "31 kg", tags=["weight"])
    made = sets.add_failure(space, "starter", turns, "4 kg", tags=["again"])
    [prompt] = made.prompts
    assert prompt.expected == "31 kg" and prompt.judge == propose(["31 kg"]) and prompt.tags == ("weight", "again")
    assert [one.outcome for one in map(votes.PersonVote.model_validate_json, votes_of(space))] == ["wrong", "wrong"]


def test_an_expected_answer_of_blanks_is_none(space: Workspace) -> None:
    [prompt] = sets.add_failure(space, "starter", [{"role": "user", "content": "Who?"}], "Me.", " \n").prompts
    assert prompt.expected is None and prompt.judge == PersonJudge()


def votes_of(space: Workspace) -> list[str]:
    return (space.root / votes.FILE).read_text("utf-8").splitlines()


def test_models_of_one_name_by_two_owners_have_their_own_failures(space: Workspace) -> None:
    for owner in ("one", "two", "two"):
        sets.add_failure(space, f"{owner}/Model", [{"role": "user", "content": f"Of {owner}?"}], "no")
    assert {one.base: [p.question for p in one.prompts] for one in sets.all_sets(space)} == {
        "one/Model": ["Of one?"], "two/Model": ["Of two?"],
    }  # fmt: skip


def test_a_set_that_cannot_be_read_is_not_written_over(space: Workspace) -> None:
    path = file_of(space, sets.add_failure(space, "starter", [{"role": "user", "content": "Who?"}]).name)
    path.write_text("{", "utf-8")
    with pytest.raises(ChatError, match="not valid JSON"):
        sets.add_failure(space, "starter", [{"role": "user", "content": "Where?"}])
    assert path.read_text("utf-8") == "{"


def test_failures_of_two_pages_at_once_are_both_kept(space: Workspace) -> None:
    threads = [
        Thread(target=sets.add_failure, args=(space, "starter", [{"role": "user", "content": f"{n}?"}], "no"))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.question for one in sets.open_set(space, "failures-starter").prompts} == {f"{n}?" for n in range(8)}


def test_a_set_has_a_next_version_only_when_its_questions_differ(space: Workspace) -> None:
    first = sets.save(space, sets.create("a", [prompt_of("One?"), prompt_of("Two?")]))
    assert (
        first.version
        == sets.save(space, sets.create("a", [prompt_of("One?", tags=("t",)), prompt_of("Two?")])).version
        == 1
    )
    assert sets.add(space, "a", [prompt_of("Two?", "no"), prompt_of("Three?")]).version == 2
    assert [one.expected for one in sets.open_set(space, "a").prompts] == ["yes", "no", "yes"]
    assert sets.remove_questions(space, "a", [1]) == sets.open_set(space, "a")
    assert sets.open_set(space, "a").version == 3


def test_a_set_is_of_the_base_of_the_first_run_that_it_evaluates(space: Workspace) -> None:
    before = sets.save(space, sets.create("a", [prompt_of("One?")]))
    for base in ("starter", "other"):
        sets.give_base(space, "a", base)
    after = sets.open_set(space, "a")
    assert (after.base, after.version, after.prompts) == ("starter", 1, before.prompts)


def test_a_set_is_deleted_and_so_is_one_without_questions(space: Workspace) -> None:
    for title in ("a", "b"):
        sets.save(space, sets.create(title, [prompt_of(title)]))
    assert [one.title for one in sets.all_sets(space)] == ["a", "b"]
    sets.remove(space, "b")
    assert sets.remove_questions(space, "a", [0]) is None and not list(sets.all_sets(space))
    with pytest.raises(ChatError, match="no test set"):
        sets.remove(space, "b")


# ---- what was trained on ---------------------------------------------------------------------------------------------
def test_a_runs_held_out_rows_are_no_trained_ones_and_trained_ones_are_marked(space: Workspace) -> None:
    run, store = trained(space, "Pirate"), dataset_store(space)
    learned = LearnedRows.of_run(run, store, Runs(space))
    assert learned.held_out and not any(map(learned.has, learned.held_out))
    question, _ = learned.pairs[0]
    marked = learned.marked([prompt_of(f" {question.upper()} "), prompt_of("Never seen?"), *learned.held_out])
    assert [one.source for one in marked[:2]] == ["trained", "file"]
    assert {one.source for one in marked[2:]} == {"kept_apart"}
    assert len(learned.held_out) + len(learned.pairs) == len(store.rows("sample:pirate_answers"))


def test_a_combined_run_is_judged_beside_its_parents_on_rows_that_none_of_them_learned(space: Workspace) -> None:
    """Parents were looked for by name, of which two runs may have the same; and rows of a deleted one are unknown."""
    parents, run, store = [trained(space, "Pirate") for _ in range(2)], trained(space, "Both"), dataset_store(space)
    taken = [WeightedAdapter(folder=str(parent.adapter), name=parent.name) for parent in parents]
    run.add_facts(RunFacts(combined=Combination(adapters=taken)))
    runs = Runs(space)
    assert [(one.run, one.checkpoint) for one in parents_of(run, runs)] == [(one.id, None) for one in parents]
    assert LearnedRows.of_run(run, store, runs).held_out == LearnedRows.of_run(parents[0], store, runs).held_out
    shutil.rmtree(parents[1].path)
    (run.path / "recipe.yaml").write_text("model: {id: starter}\ndata: {source: '-'}\n", "utf-8")
    assert [one.run for one in parents_of(run, runs)] == [parents[0].id]
    with pytest.raises(DataError):
        LearnedRows.of_run(run, store, runs)


def write_rows(tmp_path: Path, rows: list[dict[str, object]]) -> str:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return dataset_store(Workspace.open(tmp_path)).import_file(tmp_path / "rows.jsonl", "rows").id


def test_a_held_out_row_that_repeats_a_trained_one_is_no_test(tmp_path: Path) -> None:
    """With `deduplicate` off such a row is on both sides of the split."""
    id = write_rows(tmp_path, [{"question": f"What is {n // 2}?", "answer": "a" * (n + 1)} for n in range(60)])
    recipe = Recipe.parse({"data": {"source": id, "eval_fraction": 0.3, "deduplicate": False}})
    learned = LearnedRows.of_recipe(recipe, dataset_store(Workspace.open(tmp_path)))
    trained_on = {question for question, _ in learned.pairs}
    assert learned.held_out and not trained_on & {one.question for one in learned.held_out}
    assert len(learned.held_out) < 18, "some of the 18 validation rows repeat a trained question"


def test_the_first_held_out_rows_of_a_sorted_file_have_every_answer(tmp_path: Path) -> None:
    """The first 80 held-out rows are the questions of an evaluation: all of one label, in a file sorted by it."""
    id = write_rows(tmp_path, [{"question": f"What is {n}?", "answer": "ab"[n // 200]} for n in range(400)])
    recipe = Recipe.parse({"data": {"source": id, "eval_fraction": 0.4}})
    store = dataset_store(Workspace.open(tmp_path))
    first = LearnedRows.of_recipe(recipe, store).held_out[:20]
    assert {one.expected for one in first} == {"a", "b"} and first == LearnedRows.of_recipe(recipe, store).held_out[:20]


def test_a_question_under_another_system_prompt_is_another_question(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "system", "content": f"Text {n}"}, {"role": "user", "content": "Summarize."},
        {"role": "assistant", "content": f"Summary {n}"}]} for n in range(30)]  # fmt: skip
    recipe = Recipe.parse({"data": {"source": write_rows(tmp_path, rows), "eval_fraction": 0.2}})
    learned = LearnedRows.of_recipe(recipe, dataset_store(Workspace.open(tmp_path)))
    assert len(learned.held_out) == 6
    assert learned.has(prompt_of("summarize")), "without a system prompt it was seen under any"


# ---- nearest rows ----------------------------------------------------------------------------------------------------
def test_bm25_is_as_the_formula() -> None:
    """The definition (Robertson and Zaragoza 2009), written out; mean length 5."""
    documents = ["the cat sat", "the dog sat on the mat by the door", "nothing of it"]
    assert nearest(["the cat"], documents, 3) == [[0, 1, 2]], "`cat` is rarer than `the`"
    # 3 x 2.5 / (3 + 1.5 x (0.25 + 0.75 x 9/5)) = 1.39; 2.5 / (1 + 1.5 x (0.25 + 0.75 x 3/5)) = 1.22
    assert nearest(["the"], documents, 1) == [[1]]
    longer = [documents[0], documents[1] + " of a house that is old", documents[2]]
    # with 15 words and a mean of 7: 3 x 2.5 / (3 + 1.5 x (0.25 + 0.75 x 15/7)) = 1.30; 2.5 / (1 + 1.5 x 0.571) = 1.35
    assert nearest(["the"], longer, 1) == [[0]]


def test_words_of_any_script_and_case_are_found_and_ties_keep_the_order() -> None:
    documents = ["合同什么时候到期", "Über STRASSE", "nothing", "nothing", "3.5 kg"]
    assert nearest(["合同", "über straße", "something", "3.5"], documents, 2) == [[0, 1], [1, 0], [0, 1], [4, 0]]
    assert nearest(["a"], [], 3) == [[]] and nearest([], documents, 3) == []


def test_examples_are_short_rows_of_the_training_data_and_never_the_question_itself() -> None:
    pairs = (("red apple", "fruit"), ("red car " + "x" * 5000, "thing"), ("green apple", "fruit"), ("car", "thing"))
    learned = LearnedRows(pairs, frozenset(), ())
    [one] = evaluation.with_examples([prompt_of("red apple")], learned, 2)
    assert one.examples == (("green apple", "fruit"), ("car", "thing"))
    assert evaluation.with_examples([prompt_of("red apple")], learned, 0)[0].examples == ()


# ---- contestants -----------------------------------------------------------------------------------------------------
def test_a_system_prompt_and_examples_precede_the_question() -> None:
    turns = ({"role": "system", "content": "Be short."}, {"role": "user", "content": "Third?"})
    prompt = Prompt(turns=turns, examples=(("Near?", "1"), ("Far?", "2"), ("Farther?", "3")))
    one = Contestant(label="x", run="r", column="base", system="You are a clerk.", examples=2)
    assert [(turn["role"], turn["content"]) for turn in turns_for(one, prompt)] == [
        ("system", "You are a clerk.\n\nBe short."), ("user", "Far?"), ("assistant", "2"), ("user", "Near?"),
        ("assistant", "1"), ("user", "Third?"),
    ]  # fmt: skip
    assert turns_for(Contestant(label="x", run="r"), prompt) == list(turns)


def contestants(space: Workspace) -> list[Contestant]:
    base, tuned = pair_of(Runs(space).find("Pirate"), "base", "Pirate")
    return [base, tuned, base.model_copy(update={"label": "base+prompt", "system": "Talk like a pirate."})]


QUESTIONS = sets.create("questions", [prompt_of(f"Question {n}?", "yes") for n in range(10)])


def test_an_evaluation_that_was_killed_goes_on_and_asks_nothing_twice(space: Workspace) -> None:
    trained(space, "Pirate")
    first = SetEvaluation.prepare(space, QUESTIONS, contestants(space))
    with pytest.raises(ChatError):
        list(contest.answer_missing(Chat(questions=12), space, first))
    chat = Chat()
    again = SetEvaluation.prepare(space, QUESTIONS, contestants(space))
    assert again.id == first.id and list(contest.answer_missing(chat, space, again))[-1] == (30, 30)
    assert 12 + len(chat.asked) == 20 and not again.missing(), "ten pairs, and ten questions to the base with a prompt"


def test_a_further_contestant_costs_only_its_own_answers(space: Workspace) -> None:
    trained(space, "Pirate")
    [*_] = contest.answer_missing(Chat(), space, SetEvaluation.prepare(space, QUESTIONS, contestants(space)[:2]))
    more = sets.create("more", [*QUESTIONS.prompts, prompt_of("Question 10?")])
    second, chat = SetEvaluation.prepare(space, more, contestants(space)), Chat()
    assert len(second.missing()) == 13
    [*_] = contest.answer_missing(chat, space, second)
    assert sorted(chat.asked) == [(True, False, 1.0)] * 11 + [(True, True, 1.0)]


def test_two_contestants_with_the_same_weights_and_turns_both_take_an_answer_over(space: Workspace) -> None:
    """Seen: a base with examples, for questions that have none, was asked again what the base had answered."""
    trained(space, "Pirate")
    base, tuned, _ = contestants(space)
    [*_] = contest.answer_missing(Chat(), space, SetEvaluation.prepare(space, QUESTIONS, [base, tuned]))
    both = [base, base.model_copy(update={"label": "base+examples", "examples": 2})]
    assert not SetEvaluation.prepare(space, QUESTIONS, both).missing()


def test_answers_of_other_weights_or_settings_are_not_taken_over(space: Workspace) -> None:
    run = trained(space, "Pirate")
    [*_] = contest.answer_missing(Chat(), space, SetEvaluation.prepare(space, QUESTIONS, contestants(space)))
    longer = sets.create("questions", [*QUESTIONS.prompts[:-1], prompt_of("Question 9?", "y" * 900)])
    assert len(SetEvaluation.prepare(space, longer, contestants(space)).missing()) == 30, "another length of an answer"
    thinking = SetEvaluation.prepare(space, QUESTIONS, contestants(space), enable_thinking=False)
    assert len(thinking.missing()) == 30
    with open(run.adapter / "adapter_model.safetensors", "ab") as file:
        file.write(b"trained further")
    after = SetEvaluation.prepare(space, QUESTIONS, contestants(space))
    assert {place for _, place in after.missing()} == {1} and len(after.missing()) == 10, "the tuned one's alone"


def test_an_answer_may_be_twice_as_long_as_those_of_the_data() -> None:
    """The pirate sample's patterns have no expected answer: its answers were cut at 32 tokens, before their end."""
    learned = LearnedRows((*((f"q{n}", "a" * 200) for n in range(99)), ("q", "a" * 5000)), frozenset(), ())
    assert evaluation.answer_tokens([prompt_of("One?", None)], learned) == 116, (
        "2 x 200 / 4 + 16; one long row is no measure"
    )
    assert evaluation.answer_tokens([prompt_of("One?", "y" * 400)], learned) == 216
    assert evaluation.answer_tokens([prompt_of("One?", "y")], None) == 32
    assert evaluation.answer_tokens([prompt_of("One?", None)], None) == 256


def test_evaluations_are_no_blind_tests(space: Workspace) -> None:
    """The blind A/B test lists comparisons of a pair, and would go on with one of these."""
    trained(space, "Pirate")
    made = SetEvaluation.prepare(space, QUESTIONS, contestants(space)[:2])
    assert not list(PromptComparison.all_of(space)) and [one.id for one in SetEvaluation.all_of(space)] == [made.id]
