"""The Data page without a browser: what each press answers, on sets of a workspace of its own."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from core.workspace.folder import Workspace
from webui.kit import samples
from webui.kit.wording import Wording
from webui.pages import data, data_view
from webui.pages.data import DataPage
from webui.server.guard import LOOPBACK, Guard
from webui.server.set_file import SetFile, address
from webui.state.services import Services


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return Services.open(Workspace.open(tmp_path / "ws"))


@pytest.fixture
def page(services: Services) -> DataPage:
    made = DataPage(services, Wording("en"))
    with gr.Blocks() as blocks, gr.Tab() as tab:
        made.build()
        made.wire(blocks, tab, gr.Textbox("starter"))
    return made


Drawn = dict[Any, Any]


def added(services: Services, tmp_path: Path, rows: list[dict[str, Any]], name: str = "mine") -> str:
    (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return services.datasets.import_file(tmp_path / f"{name}.jsonl", name).id


def numbered_rows(number: int) -> list[dict[str, Any]]:
    return [
        {"question": f"What is number {i}?", "answer": f"It is the number {i}, said in words."}
        for i in range(1, number + 1)
    ]


def value_of(update: Any) -> str:
    return update["value"]


def rows(page: DataPage, id: str, begin: int = 0, count: int = 100, **asked: Any) -> dict[str, Any]:
    """What the script of the table is answered."""
    return page.table.rows({"set": id, "begin": begin, "count": count, **asked})


def numbers(page: DataPage, id: str, **asked: Any) -> list[int]:
    return [row["n"] for row in rows(page, id, **asked)["rows"]]


def opened(page: DataPage, id: str, number: int) -> Drawn:
    return page.open_row({"set": id, "number": number})


def delete(page: DataPage, id: str, number: int) -> Drawn:
    return page.row.deleted(opened(page, id, number)[page.row.opened])


def sentence(answer: dict[str, Any]) -> str:
    return answer.get("error") or answer["notice"]


def ask(page: DataPage, name: str, **given: Any) -> dict[str, Any]:
    """As gradio calls a function of the table for its script."""
    return getattr(page.table.table, name)(given)


def edit(page: DataPage, id: str, number: int, at: int, text: str, **given: Any) -> dict[str, Any]:
    """As a person edits a cell."""
    cell = ask(page, "cell", set=id, n=number)
    return ask(page, "write", **{"set": id, "n": number, "at": at, "text": text, "mark": cell["mark"], **given})


def test_rows_are_sent_by_their_place_and_never_all_of_them(services: Services, page: DataPage, tmp_path: Path) -> None:
    id = added(services, tmp_path, numbered_rows(450))
    part = rows(page, id, begin=400, count=100)
    assert part["total"] == 450 and [row["n"] for row in part["rows"]] == list(range(401, 451))
    assert len(rows(page, id, count=10_000)["rows"]) == 200
    assert rows(page, id, begin=-5, count=1)["rows"][0] == {
        "n": 1, "a": "What is number 1?", "b": "It is the number 1, said in words.", "why": "", "may": True,
    }  # fmt: skip
    assert rows(page, id, begin=450)["rows"] == []


def test_a_long_text_is_sent_whole_only_when_it_is_edited(services: Services, page: DataPage, tmp_path: Path) -> None:
    long = "word  " * 2000
    id = added(services, tmp_path, [{"question": "Long?", "answer": long}])
    shown = rows(page, id)["rows"][0]["b"]
    assert len(shown) == 300 and shown.endswith("…")
    assert ask(page, "cell", set=id, n=1)["cells"] == ("Long?", long)


def test_words_are_sought_in_all_rows_also_in_those_that_cannot_be_used(
    services: Services, page: DataPage, tmp_path: Path
) -> None:
    id = added(services, tmp_path, [*numbered_rows(12), {"question": "And this?", "answer": ""}])
    assert numbers(page, id) == [*range(1, 14)]
    assert numbers(page, id, words="NUMBER 7?") == [7]
    assert numbers(page, id, words=" and THIS ") == [13]
    assert numbers(page, id, words="no such") == []
    bad = rows(page, id, show="problems")
    assert bad["rows"] == [
        {
            "n": 13, "a": "And this?", "b": "", "may": True,
            "why": "the answer is empty: write one, or remove the row.",
        }
    ]  # fmt: skip
    assert "the answer is empty" in opened(page, id, 13)[page.row.title]


def test_a_search_answers_with_what_it_has_and_goes_on(
    services: Services, page: DataPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a million rows the first answer would else come after seconds."""
    monkeypatch.setattr(data_view, "LOOKED_AT", 100)
    id = added(services, tmp_path, numbered_rows(250))
    first = rows(page, id, words="number 24")
    assert [row["n"] for row in first["rows"]] == [24] and first["searching"]
    assert first["place"] == "1 found so far; 100 of 250 rows searched …"
    assert rows(page, id, words="number 24")["searching"]
    last = rows(page, id, words="number 24")
    assert [row["n"] for row in last["rows"]] == [24, *range(240, 250)]
    assert not last["searching"] and last["place"] == "11 of 250 rows"


def test_a_row_that_cannot_be_used_stands_at_its_place_among_the_others(
    services: Services, page: DataPage, tmp_path: Path
) -> None:
    flawed = [{"question": "Empty?", "answer": ""}]
    id = added(services, tmp_path, [*numbered_rows(2), *flawed, *numbered_rows(2), *flawed])
    assert numbers(page, id) == [1, 2, 3, 4, 5, 6]
    ask(page, "remove", set=id, numbers=[2])
    edit(page, id, 3, 1, "No longer.")
    assert numbers(page, id) == [1, 3, 4, 5, 6] and numbers(page, id, show="problems") == [6]
    edit(page, id, 6, 1, "Nor this.")
    assert rows(page, id, show="problems")["show"] == "all", "none is left"


@pytest.mark.parametrize(
    ("bad", "question"),
    [
        ({"question": "And this?", "answer": " "}, "And this?"),
        ({"question": "And this?", "answer": None}, "And this?"),
        ({"question": "", "answer": ""}, ""),
        ({"instruction": "Say this.", "input": "", "output": ""}, "Say this."),
        ({"conversations": [{"from": "human", "value": "And this?"}, {"from": "gpt", "value": ""}]}, "And this?"),
        (
            {
                "system": None,
                "messages": [{"role": "user", "content": "And this?"}, {"role": "assistant", "content": ""}],
            },
            "And this?",
        ),
        ({"question": "And this?", "answer": "No.", "label": False}, "And this?"),
    ],
)
def test_a_row_that_cannot_be_used_is_mended_in_its_fields_and_no_longer_listed(
    services: Services, page: DataPage, tmp_path: Path, bad: dict[str, Any], question: str
) -> None:
    """It was opened as a new row, in JSON, and saving added a second one."""
    given = numbered_rows(3)
    given.insert(1, bad)
    id = added(services, tmp_path, given)
    assert ask(page, "cell", set=id, n=2)["cells"][0] == question
    shown = opened(page, id, 2)
    assert "Row 2" in shown[page.row.title] and shown[page.row.first]["visible"]
    assert shown[page.row.first]["value"] == question and shown[page.row.delete]["visible"]
    saved = page.row.saved(shown[page.row.opened], "And this?", "This.")
    assert "Saved as version 1: “1 row rewritten”" in value_of(saved[page.notice])
    assert rows(page, id, show="problems")["show"] == "all" and numbers(page, id) == [1, 2, 3, 4]
    assert services.datasets.rows(id)[1][1].messages[-1].content == "This."


def test_rows_that_cannot_be_used_are_counted_beside_what_else_was_found(
    services: Services, page: DataPage, tmp_path: Path
) -> None:
    """ "No problems were found" stood beside two of them."""
    id = added(services, tmp_path, [*numbered_rows(3), {"question": "And this?", "answer": ""}])

    def told() -> tuple[str, list[tuple[str, str, str]]]:
        looked = page.mending.problems_and_filters(id)
        return looked[page.mending.problems], looked[page.mending.filters]["filters"]

    assert "1 row is not used for training" in told()[0] and ("problems", "Cannot be used", "1") in told()[1]
    delete(page, id, 4)
    assert told() == ('<p class="lg-quiet">No problems were found in the rows.</p>', [("all", "All rows", "3")])
    ask(page, "travel", set=id, back=True)
    assert "1 row is not used" in told()[0]


def test_a_row_is_rewritten_added_and_deleted_and_each_is_a_version(
    services: Services, page: DataPage, tmp_path: Path
) -> None:
    id = added(services, tmp_path, numbered_rows(3))
    shown = opened(page, id, 2)
    assert shown[page.row.first]["value"] == "What is number 2?"
    page.row.saved(shown[page.row.opened], "Who?", "Me.")
    assert services.datasets.rows(id)[1][1].as_dict()["messages"][1]["content"] == "Me."
    page.row.saved(opened(page, id, 0)[page.row.opened], "And?", "So.")
    delete(page, id, 1)
    part = rows(page, id)
    assert [row["n"] for row in part["rows"]] == [2, 3, 5] and part["undo"] == "1 row removed"
    assert "version 3: 1 row removed</" in page.draw(id)[page.head]
    page.row.saved(opened(page, id, 0)[page.row.opened], "More?", "More.")
    assert "4 rows" in samples.choice(services.datasets.get(id), Wording("en"))[0], (
        "seen in step 3: the rows of the file"
    )
    assert sentence(ask(page, "travel", set=id, back=True)).startswith("Undone: “1 row added”")
    ask(page, "travel", set=id, back=True)
    assert numbers(page, id) == [1, 2, 3, 5] and rows(page, id)["redo"]
    ask(page, "travel", set=id, back=False)
    assert numbers(page, id) == [2, 3, 5]


def test_a_cell_is_edited_where_it_stands(services: Services, page: DataPage, tmp_path: Path) -> None:
    id = added(services, tmp_path, numbered_rows(3))
    assert sentence(edit(page, id, 2, 0, "Who <b>is</b> it?")).startswith("Saved as version 1: “1 row rewritten”")
    edit(page, id, 2, 1, "Me.")
    assert rows(page, id)["rows"][1] | {"why": ""} == {
        "n": 2, "a": "Who <b>is</b> it?", "b": "Me.", "why": "", "may": True
    }  # fmt: skip
    assert "is an empty assistant answer" in sentence(edit(page, id, 1, 1, "  "))
    assert "cannot be edited in the table" in sentence(edit(page, id, 1, 2, "x"))
    assert services.datasets.get(id).version == 2


def test_of_a_row_of_several_turns_the_last_question_and_its_answer_are_edited(
    services: Services, page: DataPage, tmp_path: Path
) -> None:
    """A correction late in a conversation stood there with the first question of it."""
    turns = [("system", "Be brief."), ("user", "First?"), ("assistant", "One."), ("user", "Second?")]
    messages = [{"role": role, "content": content} for role, content in turns]
    good, worse = ([*messages, {"role": "assistant", "content": answer}] for answer in ("Two.", "No idea."))
    id = added(services, tmp_path, [{"messages": good, "rejected": worse}])
    assert rows(page, id)["rows"][0] == {"n": 1, "a": "Second?", "b": "Two.", "why": "", "may": True}
    assert "error" not in edit(page, id, 1, 0, "And then?") and "error" not in edit(page, id, 1, 1, "Three.")
    row = services.datasets.rows(id)[0][1]
    assert [message.content for message in row.messages] == ["Be brief.", "First?", "One.", "And then?", "Three."]
    assert [message.content for message in row.rejected[-2:]] == ["And then?", "No idea."], "to the same question"


def test_a_row_that_the_table_cannot_edit_is_opened(services: Services, page: DataPage, tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "time", "arguments": {}}}
    turns = [
        {"role": "user", "content": "What time is it?"}, {"role": "assistant", "content": "", "tool_calls": [call]},
    ]  # fmt: skip
    id = added(services, tmp_path, [{"messages": turns}, {"text": "A text that is long enough to be learned from."}])
    first = rows(page, id)["rows"][0]
    assert (first["a"], first["may"]) == ("What time is it?", False) and ask(page, "cell", set=id, n=1)["cells"] is None
    assert opened(page, id, 1)[page.row.opened]["kind"] == "json"


def test_several_rows_are_deleted_at_once(services: Services, page: DataPage, tmp_path: Path) -> None:
    id = added(services, tmp_path, numbered_rows(30))
    assert sentence(ask(page, "remove", set=id, numbers=[2, 4, 6])).startswith("Saved as version 1: “3 rows removed”")
    stamp = rows(page, id)["stamp"]
    selection = {"set": id, "all": True, "words": "number 1", "numbers": [10, 11]}
    ask(page, "remove", **selection, stamp=stamp)  # of 1, 10, 11, ... 19 all but two
    assert numbers(page, id) == [3, 5, 7, 8, 9, 10, 11, *range(20, 31)]
    assert "earlier version" in sentence(ask(page, "remove", **selection, stamp=stamp)), "others would be meant by now"
    assert "No rows would be left" in sentence(
        ask(page, "remove", set=id, all=True, numbers=[], stamp=rows(page, id)["stamp"])
    )
    ask(page, "travel", set=id, back=True)
    ask(page, "travel", set=id, back=True)
    assert numbers(page, id) == [*range(1, 31)]


def test_a_set_that_is_deleted_while_its_rows_are_read_is_a_sentence(
    services: Services, page: DataPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(asked: Any) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr(page.table.views, "get", gone)
    assert "no longer there" in ask(page, "rows", set=added(services, tmp_path, numbered_rows(2)))["error"]


def test_what_a_browser_should_not_send_is_a_sentence(services: Services, page: DataPage, tmp_path: Path) -> None:
    id = added(services, tmp_path, numbered_rows(3))
    for name in ("rows", "cell", "write", "remove", "travel"):
        for odd in (None, [], {}, {"set": 7}, {"set": "../x"}, {"set": id, "n": "x", "numbers": "y", "at": []}):
            answer = getattr(page.table.table, name)(odd)
            assert "error" in answer or name == "rows", (name, odd)
    assert services.datasets.get(id).version == 0
    sample = "sample:pirate_answers"
    assert all("error" in ask(page, name, set=sample, numbers=[1]) for name in ("remove", "travel"))
    assert "error" in edit(page, sample, 1, 1, "x")


def test_sets_are_joined_and_parted_into_new_ones_and_what_cannot_be_is_said(
    services: Services, page: DataPage, tmp_path: Path
) -> None:
    id, other = added(services, tmp_path, numbered_rows(8)), added(services, tmp_path, numbered_rows(4), "other")
    drawn = page.draw(id)
    assert (
        drawn[page.parting.column]["visible"]
        and (("other", other) in drawn[page.parting.others]["choices"])
        and id not in dict(drawn[page.parting.others]["choices"]).values()
    )

    def of(updates: Drawn) -> tuple[str, Any]:
        return value_of(updates[page.notice]), updates.get(page.sets, {}).get("value")

    notice, chosen = of(page.parting.joined(id, [other]))
    assert "“mine + other”, 12 rows" in notice and len(services.datasets.rows(chosen)) == 12
    notice, chosen = of(page.parting.parted(id, 25, "percent", 1))
    assert "6 rows" in notice and "2 rows" in notice and len(services.datasets.rows(chosen)) == 6
    assert "5 rows" in of(page.parting.parted(id, 5, "rows", 1))[0]
    assert "leaves one of the two datasets empty" in of(page.parting.parted(id, None, "rows", None))[0]
    assert "Choose above which" in of(page.parting.joined(id, []))[0]
    assert len(services.datasets.rows(id)) == 8


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"text": "A text that is long enough to be learned from."}, "text"),
        ({"prompt": "Once", "completion": " upon a time"}, "completion"),
        ({"messages": [{"role": r, "content": f"said by {r}"} for r in ("system", "user", "assistant")]}, "chat"),
        (
            {"messages": [{"role": r, "content": f"said by {r}"} for r in ("user", "assistant", "user", "assistant")]},
            "json",
        ),
    ],
)
def test_a_row_that_is_saved_unchanged_says_what_it_said(
    services: Services, page: DataPage, tmp_path: Path, row: dict[str, Any], kind: str
) -> None:
    id = added(services, tmp_path, [row])
    shown = opened(page, id, 1)
    was = services.datasets.rows(id)[0][1]
    assert shown[page.row.opened]["kind"] == kind
    page.row.saved(shown[page.row.opened], shown[page.row.first]["value"], shown[page.row.second]["value"])
    assert services.datasets.get(id).version == 1 and services.datasets.rows(id)[0][1] == was


def test_bad_input_is_a_sentence_and_changes_nothing(services: Services, page: DataPage, tmp_path: Path) -> None:
    id = added(services, tmp_path, numbered_rows(2))
    row = opened(page, id, 1)[page.row.opened]
    assert "cannot be used" in value_of(page.row.saved(row, "Who?", "")[page.notice])
    new = opened(page, id, 0)[page.row.opened]
    assert "is not JSON" in value_of(page.row.saved(new | {"kind": "json"}, "", "{")[page.notice])
    assert "no changes to undo" in sentence(ask(page, "travel", set=id, back=True))
    assert services.datasets.get(id).version == 0


def test_what_another_page_did_meanwhile_is_told_and_kept(services: Services, page: DataPage, tmp_path: Path) -> None:
    id = added(services, tmp_path, numbered_rows(3))
    mine, other = (opened(page, id, 2)[page.row.opened] for _ in range(2))
    before = ask(page, "cell", set=id, n=2)["mark"]
    page.row.saved(other, "Theirs?", "Theirs.")
    updates = page.row.saved(mine, "Mine?", "Mine.")
    assert "changed elsewhere" in value_of(updates[page.notice]) and updates[page.row.first]["value"] == "Theirs?"
    assert "changed elsewhere" in sentence(edit(page, id, 2, 1, "Mine.", mark=before))
    assert services.datasets.get(id).version == 1
    page.row.deleted(updates[page.row.opened])
    assert "deleted elsewhere" in value_of(page.row.saved(updates[page.row.opened], "Mine?", "Mine.")[page.notice])
    assert "There is no row 2" in value_of(opened(page, id, 2)[page.notice])
    services.datasets.delete(id)
    assert "no longer there" in page.draw(id)[page.head] and "error" in ask(page, "rows", set=id)
    assert value_of(page.row.saved(updates[page.row.opened], "Mine?", "Mine.")[page.notice])
    assert page.mending.problems_and_filters(id)[page.mending.filters] is None


def test_a_row_that_is_opened_shows_what_the_model_reads(services: Services, page: DataPage, tmp_path: Path) -> None:
    id = added(services, tmp_path, [*numbered_rows(2), {"question": "And this?", "answer": ""}])
    assert "once the model is on this PC" in value_of(page.row.as_read({"set": id, "number": 2}, "starter"))
    assert value_of(page.row.as_read({"set": id, "number": 3}, "starter")) == "", "it is not learned from"
    for odd in (None, {"set": id, "number": 0}, {"set": 3, "number": "x"}):
        assert "value" not in page.row.as_read(odd, "starter")
    assert opened(page, id, 1)[page.row.tokens]["visible"] and not opened(page, id, 0)[page.row.tokens]["visible"]


def mend_with(page: DataPage, id: str, kind: str, action: str, argument: str = "", value: str = "") -> str:
    return value_of(page.mending.mend([kind, action, argument, id, value]))


def offered(page: DataPage, id: str) -> list[list[str]]:
    """The repairs that the page has a button for."""
    markup = page.mending.problems_and_filters(id)[page.mending.problems]
    return [json.loads(html.unescape(mend)) for mend in re.findall(r'data-mend="([^"]*)"', markup)]


def test_what_is_found_is_mended_in_every_row_by_its_button(services: Services, page: DataPage, tmp_path: Path) -> None:
    id = added(services, tmp_path, [*numbered_rows(5), *numbered_rows(3)])
    assert ["repeated", "remove", "", id] in offered(page, id)
    assert "Remove these rows (3)" in page.mending.problems_and_filters(id)[page.mending.problems]
    assert "“3 rows removed”" in mend_with(page, id, "repeated", "remove")
    assert len(services.datasets.rows(id)) == 5
    assert ["repeated", "remove", "", id] not in offered(page, id)  # counted anew
    assert "can be fixed" in mend_with(page, id, "repeated", "remove")  # by a page that still shows the button
    for odd in (None, [], [None] * 5, ["repeated"], [[]] * 5):
        assert "earlier version" in value_of(page.mending.mend(odd))


def test_what_a_row_says_stays_text_beside_its_problem(services: Services, page: DataPage, tmp_path: Path) -> None:
    rows = [{"question": f"Who, {i}?", "answer": f'Dear [<img src=x>], {{{{name}}}} "of" {i}.'} for i in range(4)]
    markup = page.mending.problems_and_filters(added(services, tmp_path, rows))[page.mending.problems]
    assert "{{name}}" in markup and "<img" not in markup


def test_a_sample_is_read_only_until_it_is_copied(services: Services, page: DataPage) -> None:
    sample = "sample:pirate_answers"
    drawn = page.draw(sample)
    assert drawn[page.copy]["visible"] and not drawn[page.delete]["visible"] and "Add a copy" in drawn[page.head]
    assert not drawn[page.table.table]["may_edit"] and not opened(page, sample, 1)[page.row.save]["visible"]
    assert offered(page, sample) == []
    copy = page.copied(sample)[page.sets]["value"]
    drawn = page.draw(copy)
    assert drawn[page.table.table]["may_edit"] and drawn[page.delete]["visible"] and not drawn[page.copy]["visible"]
    assert len(services.datasets.rows(copy)) == len(services.datasets.rows(sample))


def drop(page: DataPage, *files: Path) -> Drawn:
    return page._fill({page.file: [str(file) for file in files]})[1]


def test_the_problems_of_a_small_set_come_with_it_and_move_no_rows(
    services: Services, page: DataPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They came above the rows a moment later, and a click met another row."""
    id = added(services, tmp_path, [*numbered_rows(5), *numbered_rows(2)])
    assert "repeat an earlier row" in page.draw(id)[page.mending.problems]
    monkeypatch.setattr(data, "FOUND_AT_ONCE", 6)
    assert page.mending.problems not in page.draw(id), "of a large one they take a while"


def test_a_file_that_is_dropped_becomes_a_set_and_is_opened(services: Services, page: DataPage, tmp_path: Path) -> None:
    """Datasets were added in Train alone."""
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in numbered_rows(4)), "utf-8")
    updates = drop(page, tmp_path / "faq.jsonl")
    id = updates[page.sets]["value"]
    assert "“faq” was added" in value_of(updates[page.notice]) and len(services.datasets.rows(id)) == 4
    assert updates[page.sets]["choices"][0][1] == id
    (tmp_path / "odd.csv").write_text("x,y\nshort,a far longer text than the other\nb,and another text\n", "utf-8")
    updates = drop(page, tmp_path / "odd.csv")
    odd = updates[page.sets]["value"]
    assert services.datasets.report(odd).undecided
    shown = page.mending.problems_and_filters(odd)[page.mending.problems]
    assert "how it is to be read" in shown and "No problems" not in shown
    (tmp_path / "empty.jsonl").write_text("", "utf-8")
    updates = drop(page, tmp_path / "empty.jsonl")
    assert "lg-bad" in value_of(updates[page.notice]) and page.sets not in updates
    (tmp_path / "recipe.yaml").write_text("train: {num_train_epochs: 1}\n", "utf-8")
    assert "is a recipe" in value_of(drop(page, tmp_path / "recipe.yaml")[page.notice])
    assert len([info for info in services.datasets.list() if info.origin == "imported"]) == 2
    assert list(tmp_path.glob("*.*")) == [], "gradio's copies"


def test_a_set_is_deleted_here_and_another_is_opened(services: Services, page: DataPage, tmp_path: Path) -> None:
    """It was deleted under Settings."""
    id, other = added(services, tmp_path, numbered_rows(2)), added(services, tmp_path, numbered_rows(3), "other")
    updates = page.deleted(other)
    assert "was deleted" in value_of(updates[page.notice]) and updates[page.sets]["value"] == id
    assert not services.datasets.knows(other)
    assert page.sets not in page.deleted(None), "the person thought better of it"
    assert "lg-bad" in value_of(page.deleted("sample:pirate_answers")[page.notice])
    assert services.datasets.knows("sample:pirate_answers")


def test_the_page_opens_with_the_newest_set_and_leaves_a_choice_alone(
    services: Services, page: DataPage, tmp_path: Path
) -> None:
    assert page.entered(None)["value"].startswith("sample:")
    id = added(services, tmp_path, numbered_rows(2))
    assert page.entered(None)["value"] == id and "value" not in page.entered("sample:pirate_answers")
    row = opened(page, id, 1)[page.row.opened]
    assert page.row.column not in page.draw(id, row)
    assert not page.draw("sample:pirate_answers", row)[page.row.column]["visible"], "a row of the set before"


def test_a_set_comes_as_jsonl_as_it_is_now_and_an_unknown_one_is_refused(
    services: Services, page: DataPage, tmp_path: Path
) -> None:
    id = added(services, tmp_path, numbered_rows(450))
    delete(page, id, 1)
    layers = [
        Middleware(Guard, hosts=(*LOOPBACK, "testserver")),
        Middleware(SetFile, sets=services.datasets, workspace=services.workspace),
    ]
    client = TestClient(Starlette(middleware=layers))
    answer = client.get(address(id, "en"))
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines == [example.as_dict() for _, example in services.datasets.rows(id)] and len(lines) == 449
    assert 'filename="mine.jsonl"' in answer.headers["content-disposition"]
    assert client.get(address("../secret", "zh")).status_code == 404
    assert client.get(address(id, "en"), headers={"origin": "http://evil.example"}).status_code == 403


def test_a_button_removes_rows_that_another_of_the_same_kind_would_fill(
    services: Services, page: DataPage, tmp_path: Path
) -> None:
    rows = [{"question": f"Who, {i}?", "answer": f"I am {{{{name}}}} of {i}."} for i in range(4)]
    id = added(services, tmp_path, [*rows, *numbered_rows(30)])
    assert ["placeholders", "remove", "", id] in offered(page, id)
    assert ["placeholders", "fill", "{{name}}", id] in offered(page, id)
    mend_with(page, id, "placeholders", "remove", value="Kim")
    assert "Kim" not in str([example.as_dict() for _, example in services.datasets.rows(id)])
    assert len(services.datasets.rows(id)) == 30
    other = added(services, tmp_path, [*rows, *numbered_rows(31)], "other")
    mend_with(page, other, "placeholders", "fill", "{{name}}", "Kim")
    assert services.datasets.rows(other)[0][1].messages[-1].content == "I am Kim of 0."


def test_a_kind_of_finding_shows_its_rows_until_none_has_it(services: Services, page: DataPage, tmp_path: Path) -> None:
    given = numbered_rows(30)
    id = added(services, tmp_path, [*given, *given[:25], {"question": "", "answer": "nothing asked"}])
    assert ("repeated", "Duplicates", "25") in page.mending.problems_and_filters(id)[page.mending.filters]["filters"]
    assert numbers(page, id, show="repeated") == [*range(31, 56)]
    assert numbers(page, id, show="repeated", begin=20) == [*range(51, 56)]
    assert numbers(page, id, show="repeated", words="NUMBER 7?") == [37]
    mend_with(page, id, "repeated", "remove")
    mended = rows(page, id, show="repeated")
    assert mended["total"] == 31 and mended["show"] == "all"
    for odd in ([], 7, "near", None, {"a": 1}):
        assert rows(page, id, show=odd)["show"] == "all"
