"""Conversations as files: found by their words, and nothing half
written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.chat.conversations import Branch, Conversations, lines
from core.errors import ChatError
from core.workspace.folder import Workspace


def branch(*said: str) -> Branch:
    turns = tuple({"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(said))
    return Branch(base=turns, tuned=turns)


@pytest.fixture
def kept(tmp_path: Path) -> Conversations:
    return Conversations(Workspace.open(tmp_path))


def test_a_conversation_is_named_by_its_question_found_by_its_words_and_exported(
    kept: Conversations, tmp_path: Path
) -> None:
    rain = kept.begin("run:a", "Pirate", branch("What is rain?", "Water, arr!"))
    other = kept.begin("run:a", "Pirate", branch("你好", "Ahoy"))
    kept.save(other.with_branch(branch("你好", "Ahoy", "And?")))
    (tmp_path / "conversations" / "broken.json").write_text("{", "utf-8")
    assert rain.name == "What is rain?" and [one.id for one in kept.find()] == [other.id, rain.id]
    assert [one.id for one in kept.find("  WATER ")] == [rain.id] and kept.find("nothing of it") == []
    assert kept.rename(rain.id, " Wet  things ").name == "Wet things" and kept.find("wet")[0].id == rain.id
    records = [json.loads(line) for line in lines(kept.find())]
    assert records == [{"messages": list(rain.branch.tuned)}], "one that ends with a question is no row"
    kept.delete(rain.id)
    assert [one.id for one in kept.find()] == [other.id]


@pytest.mark.parametrize("id", [None, "", "..", "../../x", "a/b", {"a": 1}, "no-such", "x" * 500])
def test_what_is_no_conversation_is_a_sentence(kept: Conversations, id: Any) -> None:
    for act in (kept.get, kept.delete, lambda id: kept.rename(id, "x")):
        with pytest.raises(ChatError, match="no longer exists"):
            act(id)


def test_a_full_disk_is_a_sentence_and_the_file_stays_as_it_was(
    kept: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = kept.begin("run:a", "Pirate", branch("Rain?", "Water."))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("core.files.rename", full)
    with pytest.raises(ChatError, match="No space left"):
        kept.save(one.with_branch(branch("Rain?", "Water.", "Sure?")))
    assert kept.get(one.id) == one
