"""Claims about core.hub.search, against a hub of our own on 127.0.0.1."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from core.errors import ModelError
from core.hub import peek
from core.hub.search import search
from core.presets import PROJECT
from tests.kit.hub import FakeHub
from tests.unit.hub.conftest import SECRET

# As https://huggingface.co/api/models?search=...&expand=... answers (huggingface_hub 2.4's ModelInfo names the same
# fields).
ROWS = [
    {
        "id": "owner/qwen3-4b", "likes": 900, "downloads": 5_000_000, "gated": False, "library_name": "transformers",
        "pipeline_tag": "text-generation", "tags": ["safetensors", "qwen3", "license:apache-2.0", "en"],
        "lastModified": "2026-07-26T03:46:27.000Z", "safetensors": {"parameters": {"BF16": 4_022_468_096},
            "total": 4_022_468_096},
        "cardData": {"license": "apache-2.0", "language": ["en", "zh"]},
    },
    {"id": "owner/qwen3-4b-GGUF", "downloads": 9_000_000, "tags": ["gguf", "license:apache-2.0"], "gguf": {"total": 1}},
    {"id": "owner/qwen3-4b-lora", "downloads": 10, "library_name": "peft",
        "tags": ["base_model:adapter:owner/qwen3-4b"]},
    {"id": "owner/qwen3-image", "downloads": 9, "library_name": "diffusers", "pipeline_tag": "text-to-image",
        "tags": []},
    {"id": "meta/qwen3-gated", "downloads": 8, "gated": "manual", "tags": [], "cardData": {"license": "other",
        "license_name": "lic"}},
    {"id": "gpt2", "downloads": 7, "tags": []},
]  # fmt: skip


@pytest.fixture
def hub():
    with FakeHub({}) as server:
        server.rows = ROWS
        yield server


def refusal(server: FakeHub | str, words: str = "qwen3") -> ModelError:
    with pytest.raises(ModelError) as caught:
        search(words, endpoint=server if isinstance(server, str) else server.url)
    assert "{" not in str(caught.value) and "{" not in caught.value.message.render("zh")
    return caught.value


def test_what_the_hub_tells_of_a_model_is_a_row_in_one_request(hub):
    rows = search(" qwen3   4b ", endpoint=hub.url)
    assert [row.id for row in rows] == ["owner/qwen3-4b-GGUF", "owner/qwen3-4b", "owner/qwen3-4b-lora"]
    assert len(hub.requests) == 1
    model = rows[1]
    assert (model.params, model.likes, model.downloads, model.gated) == (4_022_468_096, 900, 5_000_000, False)
    assert (model.license, model.languages, model.modified) == ("apache-2.0", ("en", "zh"), "2026-07-26")
    assert model.why_not is None


def test_what_can_be_no_base_says_why_and_what_is_gated_says_so(hub):
    rows_by_id = {row.id: row for row in search("qwen3", endpoint=hub.url)}
    why = {name: row.why_not.key for name, row in rows_by_id.items() if row.why_not}
    assert why == {
        "owner/qwen3-4b-GGUF": "hub_search.only_gguf",
        "owner/qwen3-4b-lora": "hub_search.adapter_of",
        "owner/qwen3-image": "hub_search.images",
    }
    assert rows_by_id["meta/qwen3-gated"].gated and rows_by_id["meta/qwen3-gated"].license == "lic"


@pytest.mark.parametrize(
    ("told", "base"),
    [
        ({"tags": ["gguf", "base_model:Qwen/Qwen3-4B", "base_model:quantized:Qwen/Qwen3-4B"]}, "Qwen/Qwen3-4B"),
        ({"tags": ["gguf"], "cardData": {"base_model": "Qwen/Qwen3-4B"}}, "Qwen/Qwen3-4B"),
        ({"tags": ["gguf"], "cardData": {"base_model": ["a/one", "a/two"]}}, None),  # a merge
        ({"tags": ["gguf", "base_model:owner/x-GGUF", "base_model:../etc"]}, None),
        ({"tags": ["gguf"]}, None),
    ],
)
def test_what_a_gguf_repository_was_made_from_is_told(hub, told: dict, base: str | None):
    hub.rows = [{"id": "owner/x-GGUF", **told}]
    (row,) = search("x", endpoint=hub.url)
    assert row.why_not is not None and row.made_from == base
    assert row.why_not.key == ("hub_search.only_gguf_of" if base else "hub_search.only_gguf")


def test_what_a_row_does_not_say_is_unknown(hub):
    hub.rows = [{"id": "owner/bare"}]
    (row,) = search("bare", endpoint=hub.url)
    assert (row.params, row.likes, row.license, row.languages, row.modified) == (None, None, None, (), None)


def test_a_name_that_no_recipe_could_hold_is_left_out(hub):
    assert search("gpt2", endpoint=hub.url) == []


@pytest.mark.parametrize(
    ("status", "headers", "key"),
    [
        (429, {}, "hub_search.rate_limit"),
        (429, {"Retry-After": "120"}, "hub_search.rate_limit_until"),
        (429, {"ratelimit": '"api";r=0;t=55'}, "hub_search.rate_limit_until"),
        (500, {}, "hub_search.server_trouble"),
        (403, {}, "hub_search.refused"),
    ],
)
def test_a_status_becomes_a_sentence(hub, status, headers, key):
    hub.status, hub.headers = status, headers
    error = refusal(hub)
    assert error.message.key == key and "qwen3" in str(error)
    assert error.message.params.get("seconds") == {"Retry-After": 120, "ratelimit": 55}.get(next(iter(headers), ""))


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b'{"error": "no"}', b'["a"]', b'[{"likes": 3}]', b""])
def test_a_page_that_is_no_hub_is_said(hub, body):
    hub.body = body
    assert refusal(hub).message.key == "hub_search.not_a_hub"


def test_a_hub_that_does_not_answer_is_left(hub, monkeypatch):
    monkeypatch.setattr(peek, "PEEK_S", 0.2)
    hub.silent = True
    assert refusal(hub).message.key == "hub_search.slow"


def test_no_network_and_offline_mode_are_said_without_a_request(hub, monkeypatch):
    assert refusal("http://127.0.0.1:9").message.key == "hub_search.no_network"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert refusal(hub).message.key == "hub_search.offline_mode" and hub.requests == []


def test_a_stale_token_does_not_keep_from_searching(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    hub.bad_tokens = True
    assert search("qwen3", endpoint=hub.url)
    hub.status = 401
    error = refusal(hub)
    assert error.message.key == "hub_search.bad_token" and SECRET not in str(error) + json.dumps(error.message.params)


@pytest.mark.parametrize("page", ["", "/tree/main?x=1", "?library=gguf", "#files"])
def test_a_pasted_address_of_a_page_finds_its_model(hub, page):
    rows = search(f" https://huggingface.co/owner/qwen3-4b-lora{page} ", endpoint=hub.url)
    assert [row.id for row in rows] == ["owner/qwen3-4b-lora"]


@pytest.mark.parametrize("words", ["", "   ", "a" * 101, "a\x00b"])
def test_what_are_no_words_is_refused_without_a_request(hub, words):
    assert refusal(hub, words).message.key == "hub_search.bad_words" and hub.requests == []


def test_a_process_asks_the_hub_for_nothing_else_and_leaves_nothing_in_the_home_of_its_cache(hub, tmp_path):
    """Seen: huggingface_hub's question for a list of agents' harnesses, whose answer, a list of another kind, ended
    every question after it."""
    hub.body = b"[]"
    code = "import huggingface_hub; from core.hub.search import search; print(search('qwen3'))"
    telling = ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "DISABLE_TELEMETRY")
    environment = {name: value for name, value in os.environ.items() if name not in telling}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "PYTHONPATH": str(PROJECT)}
    process = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert process.stdout == "[]\n", process.stderr
    assert hub.requests == ["GET /api/models"] and not any(tmp_path.iterdir())
