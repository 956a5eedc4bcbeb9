"""What stands in a GGUF file and beside it for programs that render the chat template themselves: Ollama, LM Studio,
llama.cpp."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.export.ollama import modelfile
from core.export.ollama.modelfile import OURS, file_template
from core.export.ollama.program import least_version
from tests.kit.templates import CONVERSATIONS, NAMES, template


@pytest.mark.parametrize("name", NAMES)
def test_the_template_in_the_file_writes_what_the_training_template_writes(name: str) -> None:
    trained = template(name)
    in_file = replace(trained, source=file_template(trained))
    assert "generation %}" not in in_file.source
    plain = [CONVERSATIONS[kind][0][:-1] for kind in ("plain", "turns")]  # up to the last question
    assert [in_file.render(talk, True) for talk in plain] == [trained.render(talk, True) for talk in plain]


def test_it_is_too_unlike_any_other_for_ollama_to_take_one_of_its_own() -> None:
    """Seen: the starter's was taken for ChatML, and its system prompt was lost."""
    assert len(OURS) >= 100


def test_a_run_that_was_trained_without_thinking_does_not_think_where_a_program_asks_for_it() -> None:
    """llama-server says enable_thinking to every template, and Ollama wherever it sees the tags of thinking."""
    talk = CONVERSATIONS["plain"][0][:-1]
    trained, thinking = template("qwen3").with_thinking(False), template("qwen3")
    in_file = replace(trained, source=file_template(trained))
    assert in_file.render(talk, True, thinks=True) == trained.render(talk, True) != thinking.render(talk, True)
    as_it_was = replace(thinking, source=file_template(thinking))
    assert as_it_was.render(talk, True, thinks=False) == thinking.render(talk, True, thinks=False)


def test_a_modelfile_has_line_feeds_alone_and_no_name_breaks_out_of_it() -> None:
    hostile = 'Mein "Pirat" 海盗 🏴‍☠️\nFROM evil\r\nSYSTEM x'
    words = modelfile.render("tuned-q4_k_m.gguf", ["<|im_end|>", 'a"b', "", "two\nlines"], hostile, "0.30.0")
    lines = words.splitlines()
    assert "\r" not in words and [line for line in lines if line.startswith(("FROM", "SYSTEM "))] == [
        "FROM ./tuned-q4_k_m.gguf"
    ]
    assert [line for line in lines if line.startswith("PARAMETER stop")] == [
        'PARAMETER stop "<|im_end|>"',
        'PARAMETER stop """a"b"""',
    ]
    assert "TEMPLATE" not in words and "REQUIRES 0.30.0" in lines


def test_the_ollama_that_is_required_renders_the_file_s_template_and_knows_the_family() -> None:
    assert (least_version("llama"), least_version("lfm3_text")) == ("0.30.0", "0.40.12")


def test_families_that_ollama_renders_itself_are_said() -> None:
    assert [note.key for note in modelfile.notes("gemma4_text")] == ["export.ollama_own_template"]
    assert modelfile.notes("llama") == ()
