"""The TEMPLATE for Ollama: what Go's own text/template makes of it is what the training template writes.

Go is asked in `--full` (where it is installed); what it wrote is kept as hashes in tests/data/ollama_templates.json,
and the gate holds our own rendering of the same templates to them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import pytest

from core.data.template import PLAIN, ChatTemplate
from core.export.ollama import deriving, modelfile
from core.export.ollama.deriving import Derived, conversations, derive, without_tools
from core.export.ollama.go_template import Asked
from core.messages import msg
from core.presets import PROJECT
from tests.kit.templates import NAMES, source, template

KEPT = PROJECT / "tests" / "data" / "ollama_templates.json"
DOCS = PROJECT / "docs" / "export.md"
IN_THE_GATE = {
    "qwen3",
    "qwen2_5",
    "qwen3_8",
    "glm4moe",
    "llama3",
    "gemma3",
    "lfm2_2_5",
    "deepseek_r1_distill",
    "phi3",
    "smolvlm",
}
MORE = {
    "plain": ChatTemplate(PLAIN, {"eos_token": "</s>"}),
    "llama2": ChatTemplate(
        "{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n"
        "' %}"
        "{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}{% for m in "
        "rest %}"
        "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + (system if loop.first else '') + m['content'] + ' "
        "[/INST]' }}"
        "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}",
        {"bos_token": "<s>", "eos_token": "</s>"},
    ),
    "braces, no system": ChatTemplate(
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "{{ '<s>{{' + m['role'] + '}}\n' + m['content'] + '</s>\n' }}{% endfor %}{% if add_generation_prompt %}<s>{% "
        "endif %}"
    ),
}


@cache
def of(name: str) -> tuple[ChatTemplate, Derived]:
    chat = MORE.get(name) or template(name)
    return chat, derive(chat)


def asked(derived: Derived) -> list[tuple[Asked, bool | None]]:
    """All conversations that a derived template has to render, with and without thinking."""
    modes = (None, True, False) if derived.thinking else (None,)
    return [
        (Asked(turns, tools, mode), mode)
        for turns, tools in conversations(derived.thinking, derived.tools)
        for mode in modes
    ]


def digest(texts: list[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


@pytest.mark.parametrize(
    "name", [*MORE, *(pytest.param(n, marks=() if n in IN_THE_GATE else pytest.mark.full) for n in NAMES)]
)
def test_what_go_made_of_a_derived_template_is_what_the_training_template_writes(name: str) -> None:
    (chat, derived), kept = of(name), json.loads(KEPT.read_text("utf-8"))[name]
    assert (derived.thinking, derived.tools) == (kept["thinking"], kept["tools"])
    if derived.template is None:
        assert kept["source"] is None and derived.notes[0].key == "export.no_template"
        return
    assert digest([derived.template]) == kept["source"], "run the comparison with Go: --full"
    texts = [without_tools(derived.tree.render(one), one.tools) for one, _ in asked(derived)]
    assert digest(texts) == kept["texts"], "our own rendering is Go's"
    for text, (one, mode) in zip(texts, asked(derived), strict=True):
        expected = chat.render(one.turns, add_generation_prompt=True, tools=list(one.tools) or None, thinks=mode)
        assert text == without_tools(expected, one.tools)
    assert len(texts) >= 6


@pytest.mark.full
@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed (Debian: apt-get install golang-go)")
def test_go_renders_every_derived_template_as_the_training_template_does(tmp_path: Path) -> None:
    """Writes tests/data/ollama_templates.json, which the test above compares."""
    found = {name: of(name)[1] for name in [*MORE, *NAMES]}
    there = {name: derived for name, derived in found.items() if derived.template is not None}
    tasks = [
        {"template": derived.template, "asked": [as_ollama(one) for one, _ in asked(derived)]}
        for derived in there.values()
    ]
    go = ["go", "run", str(PROJECT / "tests" / "kit" / "go" / "render.go")]
    environment = os.environ | {"GOCACHE": str(tmp_path), "GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
    done = subprocess.run(
        go, input=json.dumps(tasks), capture_output=True, text=True, encoding="utf-8", env=environment, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    texts = dict(zip(there, json.loads(done.stdout), strict=True))
    for name, derived in there.items():
        texts[name] = [
            without_tools(text, one.tools) for text, (one, _) in zip(texts[name], asked(derived), strict=True)
        ]
        for text, (one, mode) in zip(texts[name], asked(derived), strict=True):
            expected = of(name)[0].render(
                one.turns, add_generation_prompt=True, tools=list(one.tools) or None, thinks=mode
            )
            assert text == without_tools(expected, one.tools), name
    kept = {
        name: {
            "thinking": derived.thinking,
            "tools": derived.tools,
            "source": derived.template and digest([derived.template]),
            "texts": digest(texts[name]) if name in texts else None,
        }
        for name, derived in found.items()
    }
    KEPT.write_text(json.dumps(kept, indent=1) + "\n", "utf-8", newline="\n")


def as_ollama(one: Asked) -> dict[str, Any]:
    """A request as Ollama hands it to a template."""

    def message(turn: Any) -> dict[str, Any]:
        calls = [{"Function": {"Name": c["name"], "Arguments": c["arguments"]}} for c in turn.get("tool_calls", ())]
        return {
            "Role": turn["role"],
            "Content": turn["content"],
            "Thinking": turn.get("reasoning", ""),
            "ToolCalls": calls,
        }

    return {
        "System": one.system,
        "Messages": [message(t) for t in one.turns],
        "Tools": list(one.tools),
        "Think": one.think,
    }


def test_the_table_tells_what_is_derived() -> None:
    kept, said = json.loads(KEPT.read_text("utf-8")), {}
    rows = re.findall(
        r"^\| (derived|left to Ollama) \| (yes|no) \| (yes|no) \| ([\w, ]+) \|$", DOCS.read_text("utf-8"), re.MULTILINE
    )
    for how, thinking, tools, names in rows:
        said |= dict.fromkeys(names.split(", "), (how == "derived", thinking == "yes", tools == "yes"))
    assert said == {name: (bool(kept[name]["source"]), kept[name]["thinking"], kept[name]["tools"]) for name in NAMES}


def test_ollama_finds_in_a_derived_template_what_it_looks_for() -> None:
    """It takes the tags of thinking from what stands beside .Thinking, that of a call from the first text within `if
    .ToolCalls`, and knows by `eq .Role "tool"` that results come back."""
    qwen3 = of("qwen3")[1].template
    assert "}}<think>\n{{ .Thinking }}\n</think>\n\n{{ end }}" in qwen3
    assert '{{ if .ToolCalls }}{{ if .Content }}\n<tool_call>\n{"name": "' in qwen3 and 'eq .Role "tool"' in qwen3
    assert "{{ if or .Think (not .IsThinkSet) }}" in qwen3, "asked as it was trained where nobody says"
    trained_without = derive(template("qwen3").asking(False))
    assert not trained_without.thinking and ".Think" not in trained_without.template, (
        "Ollama itself asks with thinking where it can"
    )
    assert "</think>\n\n" in trained_without.template


@pytest.mark.parametrize(
    ("jinja", "reason"),
    [
        ("{{ strftime_now('%d') }}{% for m in messages %}{{ m['content'] }}{% endfor %}", "export.template_has_date"),
        ("{% for m in messages %}{{ loop.index ~ m['content'] }}{% endfor %}", "export.template_varies"),
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", "export.template_varies"),
        ("{% for m in messages %}{{ '\"\"\"' + m['content'] }}{% endfor %}", "export.template_quotes"),
        ("{{ raise_exception('no') }}", "export.template_refuses"),
    ],
)
def test_a_template_that_go_cannot_follow_is_left_out_with_a_reason(jinja: str, reason: str) -> None:
    derived = derive(ChatTemplate(jinja))
    assert derived.template is None and derived.notes == (msg("export.no_template", reason=msg(reason)),)
    words = modelfile.write("a.gguf", derived, ["</s>"], "Run")
    assert "TEMPLATE" not in words and "REQUIRES 0.30.0" in words, (
        "an older one would take the nearest template it knows"
    )


def test_one_that_takes_long_or_nests_without_end_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    nested = ChatTemplate("{% for m in messages %}{{ m['content'] }}{% endfor %}" + "{{ '{\"a\":[' * 20000 }}")
    assert derive(nested).template is not None, "no JSON of a tool is looked for where there are none"
    with_tools = ChatTemplate("{{ '{\"a\":[' * 3000 }}" + source("qwen2_5"), {"eos_token": "<eos>"})
    assert not derive(with_tools).tools or derive(with_tools).template
    monkeypatch.setattr(deriving, "MOST_S", -1.0)
    assert derive(template("llama3")).notes == (msg("export.no_template", reason=msg("export.template_slow")),)


def test_a_modelfile_has_line_feeds_alone_and_no_name_breaks_out_of_it() -> None:
    derived = of("qwen2_5")[1]
    hostile = 'Mein "Pirat" 海盗 🏴‍☠️\nFROM evil\r\nSYSTEM x'
    words = modelfile.write("tuned-q4_k_m.gguf", derived, ["<|im_end|>", 'a"b', "", "two\nlines"], hostile)
    lines = words.splitlines()
    assert "\r" not in words and [line for line in lines if line.startswith(("FROM", "SYSTEM "))] == [
        "FROM ./tuned-q4_k_m.gguf"
    ]
    assert [line for line in lines if line.startswith("PARAMETER stop")] == [
        'PARAMETER stop "<|im_end|>"',
        'PARAMETER stop """a"b"""',
    ]
    assert 'TEMPLATE """' in words and words.count('"""') == 4


def test_what_begins_a_text_stands_there_once() -> None:
    """llama.cpp puts it before a prompt by itself where the file says so."""
    once = derive(template("gemma3"), bos="<bos>").template
    assert "<bos>" in of("gemma3")[1].template and "<bos>" not in once and "{{ else }}<start_of_turn>user" in once


@pytest.mark.parametrize(
    ("said", "kind", "split", "begins"),
    [(True, "gpt2", "qwen2", True), (False, "llama", "default", False), (None, "llama", "", True), (None, "gpt2",
        "qwen2", False), (None, "gpt2", "llama-bpe", True)],
)  # fmt: skip
def test_whether_a_file_begins_a_text_by_itself_is_read_from_it(
    tmp_path: Path, said: bool | None, kind: str, split: str, begins: bool
) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_tokenizer_model(kind)
    if split:
        writer.add_tokenizer_pre(split)
    if said is not None:
        writer.add_add_bos_token(said)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert modelfile.begins(tmp_path / "a.gguf") is begins


def test_families_that_ollama_renders_itself_are_said() -> None:
    derived = of("plain")[1]
    assert [note.key for note in modelfile.notes(derived, "gemma4_text")] == ["export.ollama_own_template"]
    assert modelfile.notes(derived, "llama") == ()
    assert source("gemma4"), "the templates are there"
