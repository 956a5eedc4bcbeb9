"""One command adds a model to the catalogue, or reads one anew: from a hub, from a folder, and nothing else of the file
changes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.messages import YAML_LOADER
from core.models import known
from core.presets import load
from tests.kit.hub import FakeHub
from tests.kit.shapes import LLAMA, QWEN_30B
from tests.unit.models.test_weight_headers import SMALL, llama, safetensors
from tools import entry_text
from tools.catalogue_entry import CATALOGUE, main

NEW, OLD = "owner/Nova-8B", "meta-llama/Llama-3.1-8B-Instruct"
CONFIG = LLAMA | {
    "max_position_embeddings": 131072,
    "head_dim": 128,
    "rope_scaling": {"factor": 8.0},
    "eos_token_id": 2,
}
COUNT = sum(math.prod(size) for _, size in llama(CONFIG).values())
WHY = ["--en", "Why not.", "--zh", "为什么不呢。"]
TEMPLATE = "{% if tools %}{% endif %}{% if enable_thinking %}{% endif %}"


def row(repo: str, **more: Any) -> dict[str, Any]:
    return {
        "id": repo, "createdAt": "2026-09-05T10:00:00.000Z", "gated": False, "tags": [],
        "cardData": {"license": "apache-2.0", "language": ["en", "ja", "multilingual"]},
        "safetensors": {"parameters": {"BF16": COUNT}, "total": COUNT},
    } | more  # fmt: skip


def repo(config: dict[str, Any] | None = None, **more: bytes) -> dict[str, bytes]:
    config = config or CONFIG
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": safetensors(llama(CONFIG))}
    return files | {"tokenizer_config.json": json.dumps({"chat_template": TEMPLATE}).encode()} | more


@pytest.fixture(autouse=True)
def in_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_GARAGE_LANG", "en")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub({NEW: repo(), OLD: repo()}) as server:
        server.rows = [row(NEW), row(OLD, gated="manual", cardData={"license": "llama3.1", "language": ["en", "de"]})]
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)  # as HF_ENDPOINT does before the start
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        )
        yield server


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    file = tmp_path / "models.yaml"
    file.write_bytes(CATALOGUE.read_bytes())
    return file


def test_the_catalogue_is_as_the_command_writes_it() -> None:
    """So that a refreshed entry changes what it says and not how it looks."""
    text, entries = entry_text.entries(CATALOGUE)
    assert len(entries) == len(known.known_models())
    for entry in entries.values():
        assert entry_text.read(entry_text.text_of(entry)) == entry
        assert entry_text.text_of(entry) in text and entry_text.put(text, entry) == text


def test_a_model_of_the_hub_is_added_behind_the_last_one(
    hub: FakeHub, catalogue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = catalogue.read_text("utf-8")
    assert main([NEW, "--write", "--catalogue", str(catalogue), *WHY]) == 0
    after, output = catalogue.read_text("utf-8"), capsys.readouterr()
    assert output.out in after and after.replace(output.out, "") == before, "its text and nothing else"
    assert "after the last entry" in output.err and "Check what was guessed" in output.err
    content = yaml.load(after, YAML_LOADER)
    assert content["typical"] == load("models")["typical"] and content["models"][-1] == entry_text.read(output.out)
    model = known.model_of(entry_text.read(output.out), load("models")["spoken"])
    assert (model.id, model.family, model.billions, model.in_files, model.beside) == (
        "nova-8b",
        "Nova",
        8.03,
        COUNT,
        None,
    )
    assert (model.released, model.licence, model.commercial, model.gated) == ("2026-09", "Apache-2.0", "allowed", False)
    assert (model.languages, model.thinking, model.tools) == (("en", "ja"), "optional", True)
    assert model.note == {"en": WHY[1], "zh": WHY[3]} and model.shape.num_hidden_layers == 32 and not model.shape.held


def test_a_model_that_is_there_is_read_anew_and_what_people_decided_stays(hub: FakeHub, catalogue: Path) -> None:
    text = catalogue.read_text("utf-8")
    (place,) = [entry for entry in entry_text._ENTRY.finditer(text) if f"hub: {OLD}\n" in entry[0]]
    wrong = (
        place[0]
        .replace("num_hidden_layers: 32", "num_hidden_layers: 31")
        .replace("  gated", "  # asked in May\n  gated")
    )
    catalogue.write_text(text.replace(place[0], wrong), "utf-8")
    assert main([OLD, "--write", "--catalogue", str(catalogue)]) == 0
    after = catalogue.read_text("utf-8")
    assert after.startswith(text[: place.start()]) and after.endswith(text[place.end() :]), (
        "all others byte for byte, and the order"
    )
    assert "  # asked in May\n" in after
    old, new = entry_text.read(place[0]), entry_text.entries(catalogue)[1][OLD]
    changed = {key for key in old if old[key] != new[key]}
    assert changed == {"languages", "source"} and new["gated"] and "headers of the weights" in new["source"]


def test_without_write_nothing_is_written(hub: FakeHub, catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = catalogue.read_bytes()
    assert main([NEW, "--catalogue", str(catalogue), *WHY]) == 0
    assert catalogue.read_bytes() == before and capsys.readouterr().out.startswith(
        "- id: nova-8b\n  hub: owner/Nova-8B\n"
    )


def test_a_folder_is_read_like_the_hub(tmp_path: Path, catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SMALL | {"max_position_embeddings": 512}), "utf-8")
    tensors = llama(SMALL)
    bare = 2 * sum(math.prod(size) for _, size in tensors.values())
    (folder / "model.safetensors").write_bytes(safetensors(tensors) + bytes(bare))
    assert (
        main([str(folder), "--catalogue", str(catalogue), *WHY]) == 1 and "--hub OWNER/NAME" in capsys.readouterr().err
    )
    assert main([str(folder), "--hub", "owner/mine", "--catalogue", str(catalogue), *WHY]) == 1, (
        "nobody tells its month and licence"
    )
    errors = capsys.readouterr().err
    assert "released" in errors and "licence" in errors
    known_text = catalogue.read_text("utf-8")
    entry = entry_text.read(entry_text._ENTRY.findall(known_text)[0]) | {
        "id": "mine",
        "hub": "owner/mine",
        "title": "mine",
    }
    catalogue.write_text(entry_text.put(known_text, entry), "utf-8")
    assert main([str(folder), "--hub", "owner/mine", "--catalogue", str(catalogue), "--write"]) == 0
    mine = entry_text.entries(catalogue)[1]["owner/mine"]
    assert mine["shape"]["hidden_size"] == 64 and mine["in_files"] == bare // 2 and "local copy" in mine["source"]


def test_a_model_that_does_not_follow_from_its_widths_takes_its_config(
    hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    experts = CONFIG | {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "layer_types": ["full_attention"] * 32,
        "dtype": "bfloat16",
    }
    hub.repos[NEW] = repo(experts)
    assert main([NEW, *WHY]) == 0
    output = capsys.readouterr()
    entry = entry_text.read(output.out)
    assert "shape" not in entry and entry["held"]["params"] == COUNT and "test --full" in output.err
    assert (
        entry["config"]["num_local_experts"] == 4
        and not {"dtype", "eos_token_id", "rope_scaling"} & entry["config"].keys()
    )


def test_a_head_that_files_hold_again_and_a_tower_are_told(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    tied = CONFIG | {"tie_word_embeddings": True}
    hub.repos[NEW] = repo(tied)
    assert main([NEW, *WHY]) == 0
    assert entry_text.read(capsys.readouterr().out)["beside"] == "head"
    hub.repos[NEW], hub.rows[0] = repo(), row(NEW, safetensors={"parameters": {}, "total": COUNT + 400_000_000})
    assert main([NEW, *WHY]) == 0
    assert entry_text.read(capsys.readouterr().out)["beside"] == "towers"


TEMPLATES = [
    (b"{{ enable_thinking }}", "optional", False),
    (b"<think>{% for tool in tools %}", "always", True),
    (b"plain", "never", False),
    (None, None, None),
]


@pytest.mark.parametrize(("template", "thinking", "tools"), TEMPLATES)
def test_thinking_and_tools_are_guessed_from_the_template(
    template: bytes | None, thinking: str | None, tools: bool | None, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a template they are unknown, and absent: it was taken for one that never thinks."""
    del hub.repos[NEW]["tokenizer_config.json"]
    hub.repos[NEW] |= {"chat_template.jinja": template} if template else {}
    assert main([NEW, *WHY]) == 0
    entry = entry_text.read(capsys.readouterr().out)
    assert (entry.get("thinking"), entry.get("tools"), entry.get("flags")) == (
        thinking,
        tools,
        template and "its chat template",
    )


def spoil(hub: FakeHub, how: str) -> list[str]:
    if how == "quantised":
        hub.repos[NEW] = repo(CONFIG | {"quantization_config": {"quant_method": "gptq"}})
    elif how == "files of another model":
        hub.repos[NEW] = repo(CONFIG | {"num_hidden_layers": 30})
    elif how == "experts without headers":
        hub.repos[NEW] = {"config.json": json.dumps(QWEN_30B | {"max_position_embeddings": 4096}).encode()}
    elif how == "a count that cannot be":
        hub.rows[0] = row(NEW, safetensors={"parameters": {}, "total": 3 * COUNT})
    elif how == "no date":
        del hub.rows[0]["createdAt"]
    elif how == "gated":
        hub.gated = True
    elif how in ("503", "429"):
        hub.status = int(how)
    elif how == "a sign-in page":
        hub.body = b"<html>"
    elif how == "a list":
        hub.body = b"[1]"
    return {
        "no sentence": [NEW], "one language": [NEW, *WHY[:2]], "not there": ["owner/none", *WHY], "no id": ["../x",
            *WHY],
    }.get(how, [NEW, *WHY])  # fmt: skip


REFUSALS = {
    "quantised": "is quantized (gptq)", "files of another model": "num_hidden_layers",
    "experts without headers": "Download it",
    "a count that cannot be": "do not agree", "no date": "released", "gated": "accept the licence", "503": "status 503",
    "429": "limiting requests",
    "a sign-in page": "not as a model hub does", "a list": "not as a model hub does", "no sentence": "--en and --zh",
    "one language": "both languages", "not there": "owner/none", "no id": "../x",
}  # fmt: skip


@pytest.mark.parametrize("how", REFUSALS)
def test_what_cannot_be_an_entry_is_one_sentence_and_nothing_is_written(
    how: str, hub: FakeHub, catalogue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = catalogue.read_bytes()
    arguments = spoil(hub, how)
    assert main([*arguments, "--write", "--catalogue", str(catalogue)]) == 1
    output = capsys.readouterr()
    assert not output.out and output.err.strip() and "{" not in output.err and "Traceback" not in output.err
    assert REFUSALS[how] in output.err
    assert catalogue.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"models: 5", b"- a", b"models: [{id: x}]", b"\xff\xfe", b"a: ["])
def test_a_file_that_is_no_catalogue_is_left_alone(content: bytes, hub: FakeHub, catalogue: Path) -> None:
    catalogue.write_bytes(content)
    assert main([NEW, "--write", "--catalogue", str(catalogue), *WHY]) == 1 and catalogue.read_bytes() == content
    assert main([NEW, "--write", "--catalogue", str(catalogue.with_name("none.yaml")), *WHY]) == 1
