"""The Data page without a browser: what each press answers, on sets of a workspace of its own."""

from __future__ import annotations

import json
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
from webui.pages.data import A_PAGE, DataPage
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
        made.wire(blocks, tab)
    return made


Drawn = dict[Any, Any]


def added(services: Services, tmp_path: Path, rows: list[dict[str, Any]], name: str = "mine") -> str:
    (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return services.datasets.import_file(tmp_path / f"{name}.jsonl", name).id


def asked(number: int) -> list[dict[str, Any]]:
    return [
        {"question": f"What is number {i}?", "answer": f"It is the number {i}, said in words."}
        for i in range(1, number + 1)
    ]


def numbers(page: DataPage, drawn: Drawn) -> list[str]:
    return [value for _, value in drawn[page.rows]["choices"]]


def said(update: Any) -> str:
    return update["value"]


def draw(page: DataPage, id: str, begins: list[int] | None = None, words: str = "", show: Any = "all") -> Drawn:
    """What the page is given, by the component that its wires give it to."""
    outputs = next(event.outputs for event in events(page) if event.fn == page.draw)
    return dict(zip(outputs, page.draw(id, begins or [0], words, show), strict=True))


def events(page: DataPage) -> list[Any]:
    blocks = page.table
    while blocks.parent:
        blocks = blocks.parent
    return [*blocks.fns.values()]


def looked(page: DataPage, id: str) -> Drawn:
    """What was found in a set, by component."""
    return dict(zip(page.mending.outputs, page.mending.look(id), strict=True))


def mended(page: DataPage, number: int, id: str, offered: Any, value: str = "") -> str:
    """What a press of that button answers, where the page shows what was offered."""
    press = (page.mending.buttons[number]._id, "click")
    return said(next(event.fn for event in events(page) if press in event.targets)(id, offered, value))


def at_row(page: DataPage, told: list[Any]) -> Drawn:
    """What an event of the row gives the page, by component."""
    return dict(zip([page.notice, *page.row.outputs], told, strict=True))


def test_a_page_of_rows_follows_the_other_and_leads_back(services: Services, page: DataPage, tmp_path: Path) -> None:
    id = added(services, tmp_path, asked(45))
    first = draw(page, id)
    assert numbers(page, first) == [str(i) for i in range(1, A_PAGE + 1)] and not first[page.before]["visible"]
    begins = page.further(first[page.begins], first[page.next_begin])
    begins = page.further(begins, draw(page, id, begins)[page.next_begin])
    last = draw(page, id, begins)
    assert numbers(page, last) == ["41", "42", "43", "44", "45"] and not last[page.next]["visible"]
    assert numbers(page, draw(page, id, page.back(begins)))[0] == "21"
    for number in range(41, 46):
        page.row.deleted(at_row(page, page.open_row(id, str(number)))[page.row.opened])
    assert numbers(page, draw(page, id, begins))[0] == "21"  # the last page has gone


def test_words_are_sought_and_rows_that_cannot_be_learned_from_are_shown_with_the_reason(
    services: Services, page: DataPage, tmp_path: Path
) -> None:
    id = added(services, tmp_path, [*asked(12), {"question": "And this?", "answer": ""}])
    assert numbers(page, draw(page, id, words="NUMBER 7?")) == ["7"]
    bad = draw(page, id, show="problems")
    assert (
        numbers(page, bad) == ["13"]
        and bad[page.rows]["choices"][0][0] == "Row 13\nthe answer is empty: write one, or remove the row.\nAnd this?"
    )
    assert "the answer is empty" in at_row(page, page.open_row(id, "13"))[page.row.title]


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
    rows = asked(3)
    rows.insert(1, bad)
    id = added(services, tmp_path, rows)
    opened = at_row(page, page.open_row(id, "2"))
    assert (
        "Row 2" in opened[page.row.title]
        and opened[page.row.first]["visible"]
        and opened[page.row.first]["value"] == question
    )
    assert opened[page.row.delete]["visible"], "it can be deleted"
    assert "Saved as version 1: “1 row rewritten”" in said(
        page.row.saved(opened[page.row.opened], "And this?", "This.")[0]
    )
    after = draw(page, id, show="problems")
    assert after[page.mending.show] == "all" and numbers(page, after) == ["1", "2", "3", "4"]
    assert services.datasets.rows(id)[1][1].messages[-1].content == "This."


def test_rows_that_cannot_be_used_are_counted_beside_what_else_was_found(
    services: Services, page: DataPage, tmp_path: Path
) -> None:
    """ "No problems were found" stood beside two of them."""
    id = added(services, tmp_path, [*asked(3), {"question": "And this?", "answer": ""}])

    def told() -> tuple[str, list[str]]:
        found = looked(page, id)
        return found[page.mending.said], [label for label, _ in found[page.mending.show]["choices"]]

    assert "1 row is not used for training" in told()[0] and "Cannot be used (1)" in told()[1]
    page.row.deleted(at_row(page, page.open_row(id, "4"))[page.row.opened])
    assert told() == ('<p class="lg-quiet">No problems were found in the rows.</p>', ["All rows"])
    page.mending.undo(id)
    assert "1 row is not used" in told()[0]


def test_a_row_is_rewritten_added_and_deleted_and_each_is_a_version(
    services: Services, page: DataPage, tmp_path: Path
) -> None:
    id = added(services, tmp_path, asked(3))
    opened = at_row(page, page.open_row(id, "2"))
    assert opened[page.row.first]["value"] == "What is number 2?"
    page.row.saved(opened[page.row.opened], "Who?", "Me.")
    assert services.datasets.rows(id)[1][1].as_dict()["messages"][1]["content"] == "Me."
    page.row.saved(at_row(page, page.new_row(id))[page.row.opened], "And?", "So.")
    page.row.deleted(at_row(page, page.open_row(id, "1"))[page.row.opened])
    drawn = draw(page, id)
    assert (
        numbers(page, drawn) == ["2", "3", "5"]
        and "3: 1 row removed</" in drawn[page.head]
        and drawn[page.undo]["interactive"]
    )
    page.row.saved(at_row(page, page.new_row(id))[page.row.opened], "More?", "More.")
    assert "4 rows" in samples.choice(services.datasets.get(id), Wording("en"))[0], (
        "seen in step 3: the rows of the file"
    )
    page.mending.undo(id)
    page.mending.undo(id)
    assert numbers(page, draw(page, id)) == ["1", "2", "3", "5"] and draw(page, id)[page.redo]["interactive"]
    page.mending.redo(id)
    assert numbers(page, draw(page, id)) == ["2", "3", "5"]


def test_sets_are_joined_and_parted_into_new_ones_and_what_cannot_be_is_said(
    services: Services, page: DataPage, tmp_path: Path
) -> None:
    id, other = added(services, tmp_path, asked(8)), added(services, tmp_path, asked(4), "other")
    drawn = draw(page, id)
    assert (
        drawn[page.parting.column]["visible"]
        and (("other", other) in drawn[page.parting.others]["choices"])
        and id not in dict(drawn[page.parting.others]["choices"]).values()
    )
    notice, chosen, _ = page.parting.joined(id, [other])
    assert "“mine + other”, 12 rows" in said(notice) and len(services.datasets.rows(chosen["value"])) == 12
    notice, chosen, _ = page.parting.parted(id, 25, "percent", 1)
    assert "6 rows" in said(notice) and "2 rows" in said(notice) and len(services.datasets.rows(chosen["value"])) == 6
    assert "5 rows" in said(page.parting.parted(id, 5, "rows", 1)[0])
    assert "leaves one of the two datasets empty" in said(page.parting.parted(id, None, "rows", None)[0])
    assert "Choose above which" in said(page.parting.joined(id, [])[0])
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
    opened = at_row(page, page.open_row(id, "1"))
    was = services.datasets.rows(id)[0][1]
    assert opened[page.row.opened]["kind"] == kind
    page.row.saved(opened[page.row.opened], opened[page.row.first]["value"], opened[page.row.second]["value"])
    assert services.datasets.get(id).version == 1 and services.datasets.rows(id)[0][1] == was


def test_a_row_of_several_turns_is_listed_with_the_question_that_its_answer_is_to(
    services: Services, page: DataPage, tmp_path: Path
) -> None:
    """A correction late in a conversation stood there with the first question of it."""
    said_by = [
        ("system", "Be brief."),
        ("user", "First?"),
        ("assistant", "One."),
        ("user", "Second?"),
        ("assistant", "Two."),
    ]
    id = added(services, tmp_path, [{"messages": [{"role": role, "content": content} for role, content in said_by]}])
    assert draw(page, id)[page.rows]["choices"] == [("1 · Second?\nTwo.", "1")]


def test_bad_input_is_a_sentence_and_changes_nothing(services: Services, page: DataPage, tmp_path: Path) -> None:
    id = added(services, tmp_path, asked(2))
    opened = at_row(page, page.open_row(id, "1"))[page.row.opened]
    assert "cannot be used" in said(page.row.saved(opened, "Who?", "")[0])
    assert "is not JSON" in said(
        page.row.saved(at_row(page, page.new_row(id))[page.row.opened] | {"kind": "json"}, "", "{")[0]
    )
    assert "no changes to undo" in said(page.mending.undo(id))
    assert services.datasets.get(id).version == 0


def test_what_another_page_did_meanwhile_is_told_and_kept(services: Services, page: DataPage, tmp_path: Path) -> None:
    id = added(services, tmp_path, asked(3))
    mine, other = (at_row(page, page.open_row(id, "2"))[page.row.opened] for _ in range(2))
    page.row.saved(other, "Theirs?", "Theirs.")
    told = at_row(page, page.row.saved(mine, "Mine?", "Mine."))
    assert "changed elsewhere" in said(told[page.notice]) and told[page.row.first]["value"] == "Theirs?"
    assert services.datasets.get(id).version == 1
    page.row.deleted(told[page.row.opened])
    assert "deleted elsewhere" in said(page.row.saved(told[page.row.opened], "Mine?", "Mine.")[0])
    assert "There is no row 2" in said(at_row(page, page.open_row(id, "2"))[page.notice])
    services.datasets.delete(id)
    assert "no longer there" in draw(page, id)[page.head]
    assert (
        said(page.row.saved(told[page.row.opened], "Mine?", "Mine.")[0])
        and looked(page, id)[page.mending.offered] == []
    )


def test_what_is_found_is_mended_in_every_row_by_its_button(services: Services, page: DataPage, tmp_path: Path) -> None:
    id = added(services, tmp_path, [*asked(5), *asked(3)])
    first = looked(page, id)
    offered = first[page.mending.offered]
    assert offered[0] == ["repeated", "remove", "", id] and "(3)" in first[page.mending.buttons[0]]["value"]
    assert "“3 rows removed”" in mended(page, 0, id, offered)
    assert len(services.datasets.rows(id)) == 5
    assert offered[0] not in looked(page, id)[page.mending.offered]  # counted anew
    assert "can be fixed" in mended(page, 0, id, offered)  # by a page that still shows the button
    for odd in (offered, [], None, [None] * 6, [[]] * 6):
        assert "earlier version" in mended(page, 5, id, odd)
    other = added(services, tmp_path, [*asked(5), *asked(4)])
    assert "earlier version" in mended(page, 0, other, offered) and len(services.datasets.rows(other)) == 9


def test_a_sample_is_read_only_until_it_is_copied(services: Services, page: DataPage) -> None:
    drawn = draw(page, "sample:pirate_answers")
    assert drawn[page.copy]["visible"] and not drawn[page.tools]["visible"] and "Add a copy" in drawn[page.head]
    assert not at_row(page, page.open_row("sample:pirate_answers", "1"))[page.row.save]["visible"]
    assert looked(page, "sample:pirate_answers")[page.mending.offered] == []
    copy = page.copied("sample:pirate_answers")[1]["value"]
    assert draw(page, copy)[page.tools]["visible"]
    assert len(services.datasets.rows(copy)) == len(services.datasets.rows("sample:pirate_answers"))


def test_a_set_comes_as_jsonl_as_it_is_now_and_an_unknown_one_is_refused(
    services: Services, page: DataPage, tmp_path: Path
) -> None:
    id = added(services, tmp_path, asked(450))
    page.row.deleted(at_row(page, page.open_row(id, "1"))[page.row.opened])
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
    id = added(services, tmp_path, [*rows, *asked(30)])
    offered = looked(page, id)[page.mending.offered]
    number = offered.index(["placeholders", "remove", "", id])
    assert number > 0
    mended(page, number, id, offered, "Kim")
    assert "Kim" not in str([example.as_dict() for _, example in services.datasets.rows(id)])
    assert len(services.datasets.rows(id)) == 30


def test_a_kind_of_finding_shows_its_rows_until_none_has_it(services: Services, page: DataPage, tmp_path: Path) -> None:
    rows = asked(30)
    id = added(services, tmp_path, [*rows, *rows[:25], {"question": "", "answer": "nothing asked"}])
    assert looked(page, id)[page.mending.show]["choices"][2] == ("Duplicates (25)", "repeated")
    first = draw(page, id, show="repeated")
    assert numbers(page, first) == [str(i) for i in range(31, 51)] and "value" not in first[page.mending.show], (
        "the choice is left as it is"
    )
    assert numbers(page, draw(page, id, [0, first[page.next_begin]], show="repeated")) == [
        str(i) for i in range(51, 56)
    ]
    assert numbers(page, draw(page, id, words="NUMBER 7?", show="repeated")) == ["37"]
    mended(page, 0, id, [["repeated", "remove", "", id]])
    after = draw(page, id, show="repeated")
    assert len(numbers(page, after)) == 20 and after[page.mending.show] == "all"
    for odd in ([], 7, "near", None, {"a": 1}):
        assert draw(page, id, show=odd)[page.mending.show] == "all"
