"""A comparison as files: answers and verdicts are kept as they come, nobody knows who stands where, and the figures are
honest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from core.api import contestants
from core.api.datasets import dataset_store
from core.chat import contest
from core.chat.answer import Done, Piece, Sampling
from core.chat.comparison import PromptComparison, Score, same_beginning
from core.chat.prompts import MAX_BYTES, Prompt, prompts_of, prompts_of_file, record_of
from core.commands import comparing
from core.errors import ChatError, GarageError
from core.recipe import NO_DATA, Recipe
from core.runs.all import Runs
from core.runs.run_json import Parent, RunFacts
from core.values import wilson
from core.workspace.folder import Workspace
from tests.kit.chat import Chat, pair_of
from tests.kit.runs import trained

PROMPTS = [
    Prompt(turns=({"role": "user", "content": f"Question {number}?"},), expected="base 1.0") for number in range(3)
]


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


@pytest.fixture
def both(space: Workspace) -> PromptComparison:
    return PromptComparison.create(space, PROMPTS, pair_of(trained(space, "Pirate"), "Base", "Pirate"))


def test_base_and_run_are_asked_at_once_and_every_strength_of_one_load(space: Workspace) -> None:
    run = trained(space, "Pirate")
    base, tuned = pair_of(run, "Base", "Pirate")
    half = tuned.model_copy(update={"label": "half", "strength": 0.5})
    made, chat = PromptComparison.create(space, PROMPTS, [tuned, base, half]), Chat()
    assert list(contest.answer_missing(chat, space, made))[-1] == (9, 9)
    assert len(chat.loads) == 1 and chat.asked == [(True, True, 1.0)] * 3 + [(False, True, 0.5)] * 3
    assert chat.together == [3, 3]
    assert [made.answers()[0, place].text for place in range(3)] == ["tuned 1.0", "base 1.0", "tuned 0.5"]


def test_what_was_answered_before_the_worker_was_killed_is_not_asked_again(
    space: Workspace, both: PromptComparison
) -> None:
    with pytest.raises(ChatError):
        list(contest.answer_missing(Chat(questions=2), space, both))
    with open(both.path / "answers.jsonl", "ab") as file:
        file.write(b'{"prompt": 2, "contestant": 0, "te')  # and a crash in the middle of a line
    again, chat = PromptComparison.open(space, both.id), Chat()
    assert list(contest.answer_missing(chat, space, again)) == [(4, 6), (5, 6), (6, 6)]
    assert len(chat.asked) == 1 and not again.missing()
    assert list(contest.answer_missing(chat, space, again)) == [(6, 6)] and len(chat.loads) == 1


def test_eight_questions_are_asked_together_and_an_answer_is_kept_as_it_ends(space: Workspace) -> None:
    prompts = [Prompt(turns=({"role": "user", "content": str(number)},)) for number in range(20)]
    made, chat = (
        PromptComparison.create(space, prompts, pair_of(trained(space, "Pirate"), "Base", "Pirate")),
        Chat(questions=11),
    )
    with pytest.raises(ChatError):
        list(contest.answer_missing(chat, space, made))
    assert chat.together == [8, 8] and {prompt for prompt, _ in made.answers()} == set(range(11))
    chat = Chat()
    assert list(contest.answer_missing(chat, space, made))[-1] == (40, 40) and chat.together == [5, 4]
    assert {answer.seconds for (prompt, _), answer in made.answers().items() if prompt > 15} == {0.125}, (
        "half a second, of four"
    )


def test_who_stands_where_stays_for_a_voter_and_is_chance_between_prompts(space: Workspace) -> None:
    prompts = [Prompt(turns=({"role": "user", "content": str(number)},)) for number in range(200)]
    made = PromptComparison.create(space, prompts, pair_of(trained(space, "Pirate"), "Base", "Pirate"))
    sides = [made.sides(number, "me") for number in range(200)]
    assert sides == [PromptComparison.open(space, made.id).sides(number, "me") for number in range(200)]
    assert 60 < sides.count((0, 1)) < 140 and sides != [made.sides(number, "you") for number in range(200)]


def test_votes_of_two_people_are_counted_and_the_newest_of_each_stands(both: PromptComparison) -> None:
    def side_of(contestant: int, prompt: int, voter: str) -> str:
        return "left" if both.sides(prompt, voter)[0] == contestant else "right"

    both.vote(0, side_of(0, 0, "me"), "me")
    both.vote(0, side_of(1, 0, "me"), "me")  # changed her mind
    both.vote(0, side_of(1, 0, "you"), "you")
    both.vote(1, "equal", "me")
    both.vote(2, "both_bad", "me")
    (both.path / "votes.jsonl").open("ab").write(
        b'{"prompt": 9, "left": 0, "right": 1, "verdict": "left"}\n[1]\nnonsense\n'
    )
    score = both.score()
    assert (score.wins, score.equal, score.both_bad, score.decided) == ((0, 2), 1, 1, 2)
    assert both.next_for("me") is None and both.next_for("you") == 1
    assert score.left_wins == sum(vote.verdict == "left" for vote in both.votes())


def test_wilsons_interval_is_as_scipys_and_says_how_many_votes_are_missing() -> None:
    low, high = wilson(8, 10)  # as scipy 1.17.1's binomtest(8, 10).proportion_ci(method="wilson")
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert not Score((2, 8)).is_clear and Score((2, 8)).missing == 1 and Score((2, 9)).is_clear
    assert Score((9, 2)).is_clear and Score((9, 2)).missing is None
    assert Score((3, 3)).missing is None and Score().interval is None and Score().missing is None


def test_questions_come_from_rows_that_were_never_learned_the_same_each_time(space: Workspace) -> None:
    run, store = trained(space, "Pirate"), dataset_store(space)
    prompts = prompts_of(run, store, 6)
    assert (
        prompts == prompts_of(run, store, 6)
        and [prompt.source for prompt in prompts] == ["kept_apart"] * 3 + ["neutral"] * 2
    )
    assert all(prompt.expected for prompt in prompts[:3]) and all(
        prompt.turns[-1]["role"] == "user" for prompt in prompts
    )
    assert len(prompts_of(run, store, 1)) == 1


def test_an_adapter_that_was_not_trained_here_is_asked_neutral_questions_or_those_of_the_other(
    space: Workspace,
) -> None:
    """Seen: “There is no dataset and no file “-””."""
    recipe = Recipe.parse({"name": "Foreign", "data": {"source": NO_DATA}})
    foreign, pirate = Runs(space).create(recipe, "test"), trained(space, "Pirate")
    assert [one.source for one in prompts_of(foreign, dataset_store(space), 6)] == ["neutral"] * 2
    named = pair_of(foreign, "Base", "Foreign") + pair_of(pirate, "Base", "Pirate")
    assert comparing._prompts_of_first(space, named, 6) == prompts_of(pirate, dataset_store(space), 6)


def test_prompts_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffOne?\n\nTwo?\n", "utf-8")
    (tmp_path / "b.jsonl").write_text('"One?"\n{"question": "Two?", "answer": "2"}\n', "utf-8")
    (tmp_path / "c.json").write_text('[{"prompt": "One?", "expected": "1"}]', "utf-8")
    found = [
        [(one.question, one.expected) for one in prompts_of_file(tmp_path / name)]
        for name in ("a.txt", "b.jsonl", "c.json")
    ]
    assert found == [[("One?", None), ("Two?", None)], [("One?", None), ("Two?", "2")], [("One?", "1")]]
    turns = [{"role": "user", "content": "Said?"}, {"role": "assistant", "content": "Said."}]  # as chat sets have both
    (tmp_path / "d.jsonl").write_text(json.dumps({"prompt": "Asked?", "messages": turns}), "utf-8")
    assert [one.question for one in prompts_of_file(tmp_path / "d.jsonl")] == ["Asked?"]


def test_prompts_that_were_written_are_read_as_they_were(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "A\nline \u2028 more?"},
        {"role": "assistant", "content": ""},
    ]
    given = [
        Prompt(turns=(turns[1],)),
        Prompt(turns=(*turns, turns[1]), expected=""),
        Prompt(turns=(turns[1],), source="own", expected="雨"),
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record_of(one)) + "\n" for one in given), "utf-8")
    assert prompts_of_file(tmp_path / "a.jsonl") == [one.model_copy(update={"source": "file"}) for one in given]


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("a.jsonl", b"{", "no_json"), ("a.json", b'{"prompt": "x"}', "no_list"), ("a.jsonl", b'{"text": "x"}',
            "no_prompt"), ("a.jsonl", b"3", "no_prompt"),
        ("a.jsonl", b'{"messages": [{"role": "assistant", "content": "x"}]}', "no_prompt"), ("a.jsonl",
            b'{"messages": {"0": 1}}', "no_prompt"),
        ("a.jsonl", b'{"messages": [{"role": "user", "content": " "}]}', "no_prompt"), ("a.txt",
            b"x" * (MAX_BYTES + 1), "too_large"),
        ("a.txt", b"\xff\xfe\x00", "not_utf8"), ("a.json", b"[" * 100_000, "no_json"), ("missing.txt", None,
            "cannot_read"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_prompts_is_a_sentence(tmp_path: Path, name: str, content: bytes | None, key: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ChatError) as refused:
        prompts_of_file(tmp_path / name)
    assert refused.value.message.key == f"compare.{key}"


@pytest.mark.parametrize("id", ["", ".", "..", "../runs", "no-such", "a/b", "a\0b", "x" * 5000])
def test_an_id_that_is_none_leaves_the_folder_alone(space: Workspace, both: PromptComparison, id: str) -> None:
    with pytest.raises(ChatError) as refused:
        PromptComparison.open(space, id)
    assert refused.value.message.key == "compare.unknown"
    (both.path.parent / "empty").mkdir()
    assert [one.id for one in PromptComparison.all_of(space)] == [both.id]


def test_nothing_to_ask_too_much_and_one_contestant_twice_are_refused(space: Workspace) -> None:
    pair = pair_of(trained(space, "Pirate"), "Base", "Pirate")
    for prompts, named, key in (
        ([], pair, "no_prompts"),
        (PROMPTS * 400, pair, "too_many"),
        (PROMPTS, (pair[0],) * 2, "twice"),
    ):
        with pytest.raises(ChatError) as refused:
            PromptComparison.create(space, prompts, named)
        assert refused.value.message.key == f"compare.{key}"


def test_the_command_names_contestants_and_shows_their_answers(
    space: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(space, "Pirate")
    chat = Chat()
    monkeypatch.setattr(contestants, "ChatClient", lambda space: chat)
    (tmp_path / "asked.jsonl").write_text(
        "".join(json.dumps({"prompt": p.question, "expected": p.expected}) + "\n" for p in PROMPTS), "utf-8"
    )
    named = ["base", "Pirate", "Pirate@0.5"]
    comparing.compare(named, prompts=tmp_path / "asked.jsonl", max_new_tokens=8, workspace=tmp_path, as_json=True)
    report = json.loads(capsys.readouterr().out)
    assert [(one["label"], one["tokens_per_second"]) for one in report["contestants"]] == [
        ("base", 18.0),
        ("Pirate", 18.0),
        ("Pirate@0.5", 18.0),
    ]
    assert (
        report["prompts"][0]["answers"] == ["base 1.0", "tuned 1.0", "tuned 0.5"]
        and report["prompts"][0]["same_beginning"] == 0
    )
    for words in ([], ["base"], ["nobody"], ["Pirate@3"], ["Pirate@checkpoint-7"]):
        with pytest.raises(GarageError):
            contestants.named_contestants(space, words)


def test_where_texts_begin_to_differ() -> None:
    assert [same_beginning(texts) for texts in ([], ["abc"], ["abc", "abd"], ["a", ""], ["海盗", "海豚"])] == [
        0,
        3,
        2,
        0,
        1,
    ]


def test_a_question_that_a_model_has_no_room_for_is_left_out_and_the_others_are_judged(
    space: Workspace, both: PromptComparison
) -> None:
    """It stopped the duel at each Start."""

    class Small(Chat):
        @contextmanager
        def ask_together(self, questions: Any, sampling: Sampling, strength: float) -> Iterator[Iterator[Piece | Done]]:
            if any(base[-1]["content"] == "Question 1?" for base, _ in questions):
                raise ChatError("chat.too_long_for_card", tokens=9000, max_new_tokens=256, context_limit=4096)
            with super().ask_together(questions, sampling, strength) as told:
                yield told

    assert list(contest.answer_missing(Small(), space, both))[-1] == (4, 4) and not both.missing()
    assert list(both.left_out()) == [1] and "9000" in str(both.left_out()[1]).replace(",", "")
    both.vote(0, "equal", "me")
    assert both.next_for("me") == 2 and list(contest.answer_missing(Small(), space, both)) == [(4, 4)]
    [row] = [row for row in comparing.comparison_json(both)["prompts"] if "left_out" in row]
    assert row["prompt"] == "Question 1?" and row["answers"] == [None, None]


def test_two_quantisations_of_a_base_are_loaded_by_turn(space: Workspace) -> None:
    run, chat = trained(space, "Pirate"), Chat()
    words = ["base@4bit", "base@16bit", "Pirate@0.5@4bit", "base:starter@16bit"]
    made = PromptComparison.create(space, PROMPTS, contestants.named_contestants(space, words))
    assert list(contest.answer_missing(chat, space, made))[-1] == (12, 12)
    assert [(load.run, load.four_bit) for load in chat.loads] == [(run.id, True), (run.id, False), (None, False)]
    assert chat.asked == [(True, True, 0.5)] * 3 + [(True, False, 1.0)] * 6  # the base in 4 bit beside the run in 4 bit
    alone = contestants.named_contestants(space, ["base:starter@4bit", "base:starter@16bit"])
    assert [one.run for one in alone] == ["", ""] and list(contest.answer_missing(Chat(), space,
        PromptComparison.create(space, PROMPTS, alone)))[-1] == (6, 6)  # fmt: skip
    for words, key in (
        (["base:starter"], "no_run"),
        (["base@0.5", "Pirate"], "base_how"),
        (["base:starter@x"], "base_how"),
    ):
        with pytest.raises(GarageError) as refused:
            comparing.compare(words, workspace=space.root, prompts=None)
        assert refused.value.message.key == f"compare.{key}"


def test_a_further_run_its_parent_and_the_base_under_both(space: Workspace) -> None:
    parent, child, chat = trained(space, "Pirate"), trained(space, "Pirate further"), Chat()
    child.add_facts(RunFacts(parent=Parent(run=parent.id, name=parent.name, step=60)))
    made = PromptComparison.create(
        space, PROMPTS, contestants.named_contestants(space, ["base", "Pirate", "Pirate further"])
    )
    assert list(contest.answer_missing(chat, space, made))[-1] == (9, 9)
    assert [load.run for load in chat.loads] == [parent.id, child.id] and not any(load.four_bit for load in chat.loads)
    assert chat.loads[1].adapter == child.adapter, "its own adapter holds the parent's: on the bare base"


class Failing(Chat):
    """One run fails, at loading or at its answers, by this error."""

    def __init__(self, run: str, error: GarageError, at_load: bool):
        super().__init__()
        self.run, self.error, self.at_load = run, error, at_load

    def wait_ready(self, timeout_s: float) -> Any:
        if self.at_load and self.target.run == self.run:
            raise self.error
        return super().wait_ready(timeout_s)

    @contextmanager
    def ask_together(self, questions: Any, sampling: Sampling, strength: float) -> Iterator[Iterator[Piece | Done]]:
        if self.target.run == self.run:
            raise self.error
        with super().ask_together(questions, sampling, strength) as told:
            yield told


@pytest.mark.parametrize("what", ["nan logits", "an adapter of another base"])
def test_one_that_cannot_answer_is_a_sentence_and_the_others_answer(space: Workspace, what: str) -> None:
    """It ended the comparison where it stood, before those behind it were asked, at each start again."""
    parent, spoilt, other = (trained(space, name) for name in ("Pirate", "Spoilt", "Other"))
    at_load = what == "an adapter of another base"
    why = ChatError("adapter.other_base", folder="adapter", found="a", model="b",
        first="c") if at_load else ChatError("chat.not_finite")  # fmt: skip
    made = PromptComparison.create(space, PROMPTS, contestants.named_contestants(space, ["Pirate", "Spoilt", "Other"]))
    for _ in range(2):
        with pytest.raises(ChatError) as refused:
            list(contest.answer_missing(Failing(spoilt.id, why, at_load), space, made))
        assert refused.value.message.key == why.message.key
        assert {place for _, place in made.answers()} == {0, 2} and made.missing() == [(0, 1), (1, 1), (2, 1)]
    assert parent.id != other.id and list(contest.answer_missing(Chat(), space, made))[-1] == (9, 9), (
        "mended, it goes on"
    )


def test_an_evaluation_whose_run_was_deleted_keeps_its_answers_and_is_judged(
    space: Workspace, both: PromptComparison
) -> None:
    """Its answers could not even be shown again by --resume."""
    with pytest.raises(ChatError):
        list(contest.answer_missing(Chat(questions=2), space, both))
    Runs(space).delete(Runs(space).get(both.lineup.contestants[1].run))
    with pytest.raises(ChatError) as refused:
        list(contest.answer_missing(Chat(), space, both))
    assert refused.value.message.key == "compare.gone" and "Base" in str(refused.value) and len(both.answers()) == 4
    for place in (0, 1):
        both.add(both.answers()[0, place].model_copy(update={"prompt": 2}))
    assert list(contest.answer_missing(Chat(), space, both)) == [(6, 6)], "nothing is missing, so nobody is looked for"
    both.vote(0, "left", "me")
    assert both.score().decided == 1


def test_prompts_of_another_template_are_left_out_with_its_words(space: Workspace, both: PromptComparison) -> None:
    """One that a template refuses (a system prompt, roles that do not take turns) ended the comparison."""

    class Strict(Chat):
        @contextmanager
        def ask_together(self, questions: Any, sampling: Sampling, strength: float) -> Iterator[Iterator[Piece | Done]]:
            if any(tuned[-1]["content"] == "Question 1?" for _, tuned in questions):
                raise ChatError("template.cannot_render", reason="roles must alternate")
            with super().ask_together(questions, sampling, strength) as told:
                yield told

    assert list(contest.answer_missing(Strict(), space, both))[-1] == (4, 4)
    assert "roles must alternate" in str(both.left_out()[1])


def test_10_000_prompts_are_refused_before_anything_is_made(space: Workspace, tmp_path: Path) -> None:
    trained(space, "Pirate")
    (tmp_path / "many.txt").write_text("".join(f"Question {number}?\n" for number in range(10_000)), "utf-8")
    with pytest.raises(ChatError) as refused:
        comparing.compare(["base", "Pirate"], prompts=tmp_path / "many.txt", workspace=tmp_path)
    assert (
        refused.value.message.key == "compare.too_many"
        and "1000" in str(refused.value)
        and not list(PromptComparison.all_of(space))
    )
