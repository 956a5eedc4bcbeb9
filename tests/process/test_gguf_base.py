"""A GGUF file as a base: turned back into a folder, and compared with real llama.cpp. Tiny models; the starter's own
file, and that of a tuned one, were tried by hand (docs/families.md). Where llama.cpp's tools cannot be fetched, these
are skipped with pip's reason."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from transformers import AutoConfig, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from core.errors import ExportError, ModelError
from core.export.llamacpp import base, child, pre_tokenizers, unpack
from core.export.llamacpp.child import Refused
from core.export.llamacpp.tools import Tools
from core.models.library import Models
from core.workspace.folder import Workspace
from tests.kit import families
from tests.kit.files import tools_of_cache

LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, **unpack.LLAMA3}
# What came of the others at bf16, 2026-11-28 (--full): refused by transformers' reader or by the comparison, each with
# its sentence.
COME_BACK = ("lfm2", "llama", "mixtral")


@pytest.fixture
def unpacked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which has torch already; llama.cpp keeps one of its own."""
    ask = child.ask

    def here(module: str, request: dict[str, Any], *rest: Any) -> dict[str, Any]:
        if module != unpack.__name__:
            return ask(module, request, *rest)
        try:
            return unpack.work(request)
        except Refused as refused:
            raise ExportError(f"gguf.{refused.answer['refused']}", **refused.answer["found"]) from refused

    monkeypatch.setattr(child, "ask", here)


def workspace_at(folder: Path) -> Workspace:
    """In a folder whose letters no code page of Windows has together."""
    root = folder / "Zürich – 中"
    root.mkdir()
    tools_of_cache(root)
    return Workspace.open(root)


def as_gguf(folder: Path, tools: Tools, work: Path, kind: str = "bf16") -> Path:
    """folder by llama.cpp's own converter."""
    out = work / f"{folder.name}.gguf"
    request = {"converter": str(tools.converter), "runtime": str(tools.runtime), "model": str(folder), "out": str(out),
        "kind": kind,
               "name": folder.name, "stop": "", "pre": pre_tokenizers.name_of(folder)}  # fmt: skip
    child.ask("core.export.llamacpp.convert", request, work, work / "log", lambda: None, out.name)
    return out


def scaled_llama(folder: Path, starter: Path) -> Path:
    """With positions as Llama 3.2 has them, heads of 64 so that all three kinds of waves are among them."""
    found = families.make("llama", folder, starter)
    config = json.loads((found / "config.json").read_text("utf-8"))
    (found / "config.json").write_text(
        json.dumps(config | {"rope_parameters": LLAMA3, "max_position_embeddings": 131072}), "utf-8"
    )
    return found


@pytest.mark.spawn
def test_a_model_with_scaled_positions_comes_back_as_it_was_and_its_file_is_parsed_once(
    tools: Tools, starter_folder: Path, tmp_path: Path, unpacked_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers parses it for configuration, weights and tokenizer each; a vocabulary takes seconds."""
    made = scaled_llama(tmp_path / "scaled", starter_folder)
    file = as_gguf(made, tools, tmp_path)
    parsed, reader = list[str](), gguf.GGUFReader
    monkeypatch.setattr(gguf, "GGUFReader", lambda path: parsed.append(path) or reader(path))
    space = workspace_at(tmp_path)
    stages: list[str] = []
    found = base.import_file(space, file, "Back again", lambda stage, _: stages.append(stage))
    assert found.id == "library:Back again" and found.divergence < 1e-5 and found.has_template
    assert len(parsed) == 1
    config = AutoConfig.from_pretrained(found.folder)
    assert {key: config.rope_parameters[key] for key in LLAMA3} == LLAMA3
    before, after = families.weights(made), families.weights(found.folder)
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items()) and len(after) > 10
    assert stages == ["unpacking_gguf", "asking_llamacpp"]
    assert found.id in Models(space).choices() and not list(space.from_gguf.glob(".*.part"))
    warned = base.rounding_note(space, found.id)
    assert warned and file.name in warned.render("en") and base.rounding_note(space, "starter") is None
    with pytest.raises(ExportError, match="already"):
        base.import_file(space, file, "Back again")


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_the_factors_of_positions_are_those_of_transformers(factor: float) -> None:
    settings = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": factor, **unpack.LLAMA3}
    config = LlamaConfig(hidden_size=256, num_attention_heads=2, head_dim=128, rope_parameters=settings)
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = [500000.0 ** (-2 * i / 128) for i in range(64)]
    ours = [frequency / unpack.llama3_factor(1 / frequency, factor) for frequency in plain]
    assert all(math.isclose(a, float(b), rel_tol=1e-5) for a, b in zip(ours, expected, strict=True))
    assert len({round(p / o, 3) for p, o in zip(plain, ours, strict=True)}) > 3  # plain, smooth and scaled ones


def written(file: Path, architecture: str = "llama", **more: object) -> Path:
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    for key, value in more.items():
        writer.add_string(key.replace("__", "."), value) if isinstance(value, str) else writer.add_uint32(
            key.replace("__", "."), value
        )
    writer.add_tensor("token_embd.weight", torch.zeros(4, 8).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_what_cannot_come_back_is_refused_with_its_reason(tmp_path: Path) -> None:
    def refused(file: Path) -> dict:
        with pytest.raises(Refused) as error:
            unpack.work(
                {"file": str(file), "out": str(tmp_path / "out"), "logs": str(tmp_path / "logs"), "exact": True}
            )
        return error.value.answer

    part = refused(written(tmp_path / "a-00001-of-00002.gguf", split__count=2))
    assert part["refused"] == "base_split"
    other = refused(written(tmp_path / "b.gguf", "clip"))
    assert other["refused"] == "base_unreadable" and other["found"]["architecture"] == "clip"
    scaled = refused(written(tmp_path / "c.gguf", llama__rope__scaling__type="yarn"))
    assert scaled == {"refused": "base_positions", "found": {"kind": "yarn"}}


def test_what_is_wrong_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = Workspace.open(tmp_path / "w")
    with pytest.raises(ExportError, match="no file"):
        base.import_file(space, tmp_path / "none.gguf", None)
    (tmp_path / "text.gguf").write_text("not a model")
    with pytest.raises(ModelError):
        base.import_file(space, tmp_path / "text.gguf", None)
    file = written(tmp_path / "模型 1.gguf", llama__vocab_size=4)
    for name in ("../out", "ends with a dot.", " begins", "a" * 200, "Nul", ""):
        with pytest.raises(ExportError, match="cannot be used as a model name"):
            base.import_file(space, file, name or " ")
    monkeypatch.setattr(base.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10**6})())
    with pytest.raises(ExportError, match="of memory"):
        base.import_file(space, file, None)
    assert not [path for path in space.from_gguf.iterdir() if not path.name.endswith(".lock")]


@pytest.mark.full
@pytest.mark.parametrize("name", sorted({families.FAMILIES[n].kind: n for n in families.FAMILIES}.values()))
def test_which_families_come_back(
    name: str, tools: Tools, starter_folder: Path, tmp_path: Path, unpacked_here: None
) -> None:
    """Proven alike, or refused: nothing between."""
    space = workspace_at(tmp_path)
    try:
        file = as_gguf(families.make(name, tmp_path / name, starter_folder), tools, tmp_path)
    except ExportError as error:
        pytest.skip(f"llama.cpp makes no file of it: {error.message.key}")
    try:
        found = base.import_file(space, file, name)
    except (ExportError, ModelError) as error:
        print(f"LINE {name}: {error}")
        assert name not in COME_BACK and not (space.from_gguf / name).exists()
        return
    print(f"LINE {name}: {found.divergence:.1g}")
    assert name in COME_BACK
