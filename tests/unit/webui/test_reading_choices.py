"""What is asked in step 3 of a chat or a table, without a browser: offered, drawn, chosen; what arrives may be anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from core.data.reading.choices import Choices
from core.workspace.folder import Workspace
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
    return step.add([str(file)])


def test_a_table_of_which_nothing_is_known_is_added_with_columns_to_correct(step: DataStep, tmp_path: Path) -> None:
    """Seen: refused, though the page has a list for each column."""
    id, said = added(step, tmp_path, "a.csv", "a,<i>b,c\none two three,one two three four,one two three four five\n")
    assert id and "say below what each is for" in said
    part, drawn = step.reading, step.reading.draw(id)
    assert drawn[part.table]["visible"] and not drawn[part.chat]["visible"] and "&lt;i&gt;b" in drawn[part.rows]
    assert [(drawn[field]["label"], drawn[field]["value"]) for field in part.columns[:3]] == [
        ("a", "ignore"),
        ("<i>b", "question"),
        ("c", "answer"),
    ]
    assert not drawn[part.columns[3]]["visible"]
    assert added(step, tmp_path, "b.jsonl", '{"a": 1}\n')[0] is None  # no text to learn


def test_a_chat_shows_its_people_and_what_each_silence_gives(step: DataStep, tmp_path: Path) -> None:
    id, _ = added(step, tmp_path, "chat.txt", CHAT)
    part, drawn = step.reading, step.reading.draw(id)
    assert drawn[part.voice]["choices"] == [("<b>Maria — 3 messages", "<b>Maria"), ("Jo — 3 messages", "Jo")]
    assert drawn[part.gap]["value"] == 6 and ("12 h — conversations: 1", 12.0) in drawn[part.gap]["choices"]
    assert drawn[part.pseudonyms] is True and "so it is Jo" in drawn[part.about_chat]
    step.services.datasets.choose(id, Choices(gap_hours=5, pseudonyms=False))  # type: ignore[arg-type]
    drawn = part.draw(id)
    assert ("5 h — conversations: 2", 5.0) in drawn[part.gap]["choices"] and "Nothing is replaced" in drawn[part.about_chat]


@pytest.mark.parametrize("odd", [None, "", 7, [], {"x": 1}, -1.0, 1e300, "nobody"])
def test_whatever_arrives_from_a_page_is_a_choice_or_none(odd: Any, step: DataStep) -> None:
    part = step.reading
    chat = part._of_chat({part.voice: odd, part.gap: odd, part.pseudonyms: odd}, Choices(gap_hours=3))
    assert chat.gap_hours in (3, 7) and chat.pseudonyms is False and chat.voice in (None, "nobody")
    columns = part._of_columns({part.sheet_of: odd} | dict.fromkeys(part.columns, odd), Choices())
    assert columns.columns == {}
    assert part.draw(odd) == {part.chat: gr.update(visible=False), part.table: gr.update(visible=False)}
