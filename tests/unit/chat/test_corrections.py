"""Corrections and votes become rows of one set for each that answers: learned as they should be, and the worse answer
kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.api.datasets import dataset_store
from core.chat import corrections
from core.chat.comparison import ComparisonAnswer, PromptComparison, Verdict
from core.chat.prompts import Prompt
from core.commands import comparing
from core.errors import ChatError, DataError
from core.workspace.folder import Workspace
from tests.kit.chat import pair_of
from tests.kit.runs import trained

TURNS: list[dict[str, Any]] = [
    {"role": "system", "content": "Be a pirate."},
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "Me."},
    {"role": "user", "content": "What is rain?"},
]


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


def test_a_correction_is_a_row_and_a_pair_with_its_whole_context(space: Workspace) -> None:
    store = dataset_store(space)
    first = [corrections.row(TURNS, "<think>\nWet.\n</think>\n\nWater, arr!", "Water.")]
    info, added = corrections.keep(space, store, "run:a", "Corrections of Pirate", first)
    assert (info.name, added, info.good_rows) == ("Corrections of Pirate", 1, 1)
    again, added = corrections.keep(
        space, store, "run:a", "Another name", [*first, corrections.row(TURNS[1:2], "Me, arr!", "")]
    )
    assert (again.id, added, again.good_rows, again.version) == (info.id, 1, 2, 1)
    one, other = (example.as_dict() for _, example in dataset_store(space).rows(info.id))
    assert one["messages"] == [*TURNS, {"role": "assistant", "content": "Water, arr!", "reasoning": "Wet."}]
    assert one["rejected"] == [*TURNS, {"role": "assistant", "content": "Water."}] and "rejected" not in other
    corrections.keep(space, store, "run:a", "", [corrections.row(TURNS[1:2], "I.", "")])
    with store.editing(info.id) as (edits, _):
        edits.undo()
    assert store.get(info.id).good_rows == 2


def test_another_run_with_the_same_words_has_a_set_of_its_own_and_so_has_a_file_of_them(
    space: Workspace, tmp_path: Path
) -> None:
    store, rows = dataset_store(space), [corrections.row(TURNS, "Water, arr!", "Water.")]
    found = [
        corrections.keep(space, store, who, "Mine", rows)[0].id for who in ("run:a", "run:b", "base:starter", "run:a")
    ]
    (tmp_path / "same.jsonl").write_bytes(store.path(found[0]).read_bytes())
    assert len({*found, store.import_file(tmp_path / "same.jsonl").id}) == 4 and found[0] == found[3]


@pytest.mark.parametrize(
    ("turns", "better", "worse", "key"),
    [
        ([], "a", "b", "chat.no_question"),
        (TURNS, " ", "b", "corrections.empty"),
        (TURNS, "b ", "b", "corrections.same"),
    ],
)
def test_what_corrects_nothing_is_a_sentence(turns: Any, better: str, worse: str, key: str) -> None:
    with pytest.raises(ChatError) as caught:
        corrections.row(turns, better, worse)
    assert caught.value.message.key == key


def test_a_disk_that_is_full_keeps_no_half_of_a_row(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    store = dataset_store(space)
    info, _ = corrections.keep(space, store, "run:a", "Mine", [corrections.row(TURNS, "Water, arr!", "Water.")])

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("core.files.append_line", full)
    with pytest.raises(DataError):
        corrections.keep(space, store, "run:a", "Mine", [corrections.row(TURNS, "Wet, arr!", "Water.")])
    monkeypatch.undo()
    assert [example.messages[-1].content for _, example in dataset_store(space).rows(info.id)] == ["Water, arr!"]


def voted(space: Workspace) -> PromptComparison:
    """Two say tuned, one base; a tie; one answer twice; both bad; base alone."""
    prompts = [Prompt(turns=({"role": "user", "content": f"Question {number}?"},)) for number in range(5)]
    made = PromptComparison.create(space, prompts, pair_of(trained(space, "Pirate"), "Base", "Pirate"))
    for prompt in range(5):
        for contestant, text in enumerate(("Yes.", "Yes." if prompt == 2 else "Aye!")):
            made.add(
                ComparisonAnswer(
                    prompt=prompt, contestant=contestant, text=text, tokens=9, seconds=1.0, finish_reason="stop"
                )
            )

    def vote(prompt: int, voter: str, contestant: int) -> None:
        verdict: Verdict = "left" if made.sides(prompt, voter)[0] == contestant else "right"
        made.vote(prompt, verdict, voter)

    for prompt, voter, contestant in (
        (0, "a", 1),
        (0, "b", 1),
        (0, "c", 0),
        (1, "a", 1),
        (1, "b", 0),
        (2, "a", 1),
        (4, "a", 0),
    ):
        vote(prompt, voter, contestant)
    made.vote(3, "both_bad", "a")
    return made


def test_votes_become_pairs_where_one_answer_won_and_are_added_once(space: Workspace, capsys: Any) -> None:
    judged = voted(space)
    pairs = [(row["messages"][0]["content"], row["messages"][-1]["content"],
        row["rejected"][-1]["content"]) for row in corrections.rows_from_votes(judged)]  # fmt: skip
    assert pairs == [("Question 0?", "Aye!", "Yes."), ("Question 4?", "Yes.", "Aye!")]
    for added in (2, 0):
        comparing.pairs(judged.id, str(space.root), as_json=True)
        report = json.loads(capsys.readouterr().out)
        assert (report["added"], report["rows"]) == (added, 2)


def test_votes_of_which_none_decides_are_a_sentence(space: Workspace) -> None:
    with pytest.raises(ChatError, match="makes a pair"):
        corrections.keep(space, dataset_store(space), "run:a", "Mine", [])
    assert all(info.origin != "imported" for info in dataset_store(space).list())
