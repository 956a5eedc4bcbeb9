"""What is asked in the data step of a chat or a table, without a browser: offered, drawn, chosen; what arrives may be
anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from core.data.reading.choices import Choices
from core.errors import DataError
from core.workspace.folder import Workspace
from tests.kit.office import xlsx
from webui.form.data import DataStep
from webui.kit.wording import Wording
from webui.state.services import Services

CHAT = "".join(f"12/03/2025, {hour}:00 - {who}: said at {hour}\n" for hour in (9, 10, 20) for who in ("<b>Maria", "Jo"))


@pytest.fixture
def step(tmp_path: Path) -> DataStep:
    made = DataStep(Services.open(Workspace.open(tmp_path / "ws")), Wording("en"))
    with gr.Blocks():
        made.build()
    return made


def added(step: DataStep, tmp_path: Path, name: str, text: str) -> tuple[str | None, str]:
    file = tmp_path / name
    file.write_text(text, "utf-8")
    return step.adding.add([str(file)])


def test_of_a_table_that_can_be_read_in_several_ways_one_is_chosen_by_a_press(step: DataStep, tmp_path: Path) -> None:
    """Seen: the longest column was taken for the answer, and trained."""
    id, message = added(step, tmp_path, "a.csv", "a,<i>b,c\none two three,one two three four,one two three four five\n")
    assert id and not message
    part, drawn = step.reading, step.reading.draw(id)
    assert drawn[part.table]["visible"] and not drawn[part.chat]["visible"] and "&lt;i&gt;b" in drawn[part.rows]
    cards = drawn[part.readings]
    assert cards.count("data-roles") == 4 and "Answer: &lt;i&gt;b" in cards and "one two three four five" in cards
    assert "Which column is the answer?" in cards and step.services.datasets.report(id).undecided
    roles = {"a": "question", "c": "answer"}
    chosen = part._reading_choices({part.picked: {"roles": roles, "at": 1}}, step.services.datasets.choices(id))
    step.services.datasets.choose(id, chosen)
    drawn = part.draw(id)
    assert drawn[part.readings] == "" and not step.services.datasets.report(id).undecided
    assert [drawn[field]["value"] for field in part.columns[:3]] == ["question", "ignore", "answer"]
    assert not drawn[part.columns[3]]["visible"]
    assert added(step, tmp_path, "b.jsonl", '{"a": 1}\n')[0] is None  # no text to learn
    for odd in (None, 7, {"roles": 3}, {"roles": {"a": "person"}}):
        assert part._reading_choices({part.picked: odd}, chosen) == chosen


def test_a_chat_shows_its_people_and_what_each_silence_gives(step: DataStep, tmp_path: Path) -> None:
    id, _ = added(step, tmp_path, "chat.txt", CHAT)
    part, drawn = step.reading, step.reading.draw(id)
    assert drawn[part.voice]["choices"] == [("<b>Maria — 3 messages", "<b>Maria"), ("Jo — 3 messages", "Jo")]
    assert drawn[part.gap]["value"] == 6 and ("12 h — conversations: 1", 12.0) in drawn[part.gap]["choices"]
    assert drawn[part.pseudonyms] is True and "so it is Jo" in drawn[part.about_chat]
    step.services.datasets.choose(id, Choices(gap_hours=5, pseudonyms=False))  # type: ignore[arg-type]
    drawn = part.draw(id)
    assert ("5 h — conversations: 2", 5.0) in drawn[part.gap]["choices"] and "Nothing is replaced" in drawn[
        part.about_chat
    ]


def test_a_workbooks_sheet_is_chosen_where_there_are_several(step: DataStep, tmp_path: Path) -> None:
    """Seen: only by a command. A sheet of which nothing is known comes with columns to correct."""
    file, part = tmp_path / "book.xlsx", step.reading
    named = [["Frage", "Antwort"], ["Wer bist du?", "Ich bin es, wie immer."]]
    unknown = [["x1", "x2"], ["one two three", "one two three four five"]]
    file.write_bytes(xlsx({"<b>Eins": named, "Zwei": unknown}))
    id, _ = step.adding.add([str(file)])
    assert id is not None
    drawn = part.draw(id)
    assert (drawn[part.file.sheet]["choices"], drawn[part.file.sheet]["value"]) == (["<b>Eins", "Zwei"], "<b>Eins")
    assert not drawn[part.file.encoding]["visible"]
    assert step.services.datasets.resolved_choices(id).sheet == "<b>Eins", "a run says which, whatever is chosen later"
    step.services.datasets.choose(
        id, part.file.sheet_choices({part.file.sheet: "Zwei"}, step.services.datasets.choices(id))
    )
    drawn = part.draw(id)
    assert drawn[part.file.sheet]["value"] == "Zwei"
    assert [drawn[field]["value"] for field in part.columns[:2]] == ["question", "answer"]
    with pytest.raises(DataError, match="no sheet"):
        step.services.datasets.choose(id, Choices(sheet="Drei"))


def test_whether_the_first_row_is_one_of_names_is_asked_where_it_is_in_doubt(step: DataStep, tmp_path: Path) -> None:
    part, store = step.reading, step.services.datasets
    id, _ = added(
        step, tmp_path, "a.csv", "What is rain?,Water that falls from clouds.\nWhat is snow?,Frozen water that falls.\n"
    )
    drawn = part.draw(id)
    assert (
        drawn[part.file.header] == gr.update(visible=True, value="no") and drawn[part.columns[0]]["label"] == "column 1"
    )
    assert (store.report(id).rows, store.resolved_choices(id).header) == (2, False), "a run says how it was read"
    step.services.datasets.choose(id, part.file.header_choices({part.file.header: "yes"}, store.choices(id)))
    assert part.draw(id)[part.file.header]["value"] == "yes" and store.report(id).rows == 1
    id, _ = added(step, tmp_path, "b.csv", "question,answer\nWhat is rain?,Water that falls.\n")
    assert not part.draw(id)[part.file.header]["visible"]


def test_an_encoding_is_chosen_where_it_was_guessed(step: DataStep, tmp_path: Path) -> None:
    text = "question,answer\n" + "".join(f"Kuş {i} nerede yaşar?,Güneşli bahçede ağaçta yaşar.\n" for i in range(9))
    file, part = tmp_path / "sorular.csv", step.reading
    file.write_bytes(text.encode("cp1254"))
    id, _ = step.adding.add([str(file)])
    assert id is not None
    drawn, first = part.draw(id), step.services.datasets.report(id).encoding
    assert drawn[part.file.encoding] == gr.update(visible=True, value=first) and not drawn[part.file.sheet]["visible"]
    other = "cp1252" if first == "cp1254" else "cp1254"
    step.services.datasets.choose(id, part.file.encoding_choices({part.file.encoding: other}, Choices()))
    assert part.draw(id)[part.file.encoding]["value"] == other
    assert part.file.encoding_choices({part.file.encoding: "rot13"}, Choices()) == Choices()


@pytest.mark.parametrize("odd", [None, "", 7, [], {"x": 1}, -1.0, 1e300, "nobody"])
def test_whatever_arrives_from_a_page_is_a_choice_or_none(odd: Any, step: DataStep) -> None:
    part = step.reading
    chat = part._chat_choices({part.voice: odd, part.gap: odd, part.pseudonyms: odd}, Choices(gap_hours=3))
    assert chat.gap_hours in (3, 7) and chat.pseudonyms is False and chat.voice in (None, "nobody")
    columns = part._column_choices({part.column_names: odd} | dict.fromkeys(part.columns, odd), Choices())
    assert columns.columns == {}
    hidden = {part.chat, part.table, *part.file.parts}
    assert part.draw(odd) == dict.fromkeys(hidden, gr.update(visible=False))


def test_a_table_that_is_deleted_and_added_anew_shows_its_new_rows(step: DataStep, tmp_path: Path) -> None:
    """It has the id of the old one, whose rows and names of columns stood there until the app started again."""
    id, _ = added(step, tmp_path, "table.csv", "first,second\none two three,four five six\n")
    assert id and [set(row.values) for row in step.reading.first_rows(id, Choices())] == [{"first", "second"}]
    step.services.datasets.delete(id)
    again, _ = added(step, tmp_path, "table.csv", "question,answer\nseven eight,nine ten eleven\n")
    assert again == id and [set(row.values) for row in step.reading.first_rows(id, Choices())] == [
        {"question", "answer"}
    ]
