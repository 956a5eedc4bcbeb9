"""Adapters that PEFT itself wrote, brought in as runs: they answer as with PEFT and are trained further; whatever does
not fit is refused in words, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from huggingface_hub import constants
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from core.engine import adapter, base_model
from core.errors import ModelError, RunError
from core.recipe import Data
from core.runs import foreign, further
from core.workspace.folder import Workspace
from tests.kit.adapters import fill_b
from tests.kit.hub import FakeHub
from tests.kit.trainer import FP32
from tests.process.test_further import open_space, recipe, trained

WEIGHTS = "adapter_model.safetensors"
PLAIN = {"r": 4, "lora_alpha": 16, "use_rslora": True, "target_modules": ["q_proj", "v_proj"]}
PATTERN = {
    "r": 4, "lora_alpha": 8, "rank_pattern": {"down_proj": 2}, "use_dora": True, "target_modules": r".*\.(q|down)_proj",
}  # fmt: skip


def by_peft(model: Path, folder: Path, settings: dict[str, object]) -> Path:
    tuned = get_peft_model(base_model.load(model, FP32, four_bit=False), LoraConfig(task_type="CAUSAL_LM", **settings))
    fill_b(tuned, std=0.1).save_pretrained(folder)
    return folder


@pytest.fixture
def space(tmp_path: Path, tiny_model: Path) -> Workspace:
    return open_space(tmp_path / "space", tiny_model)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    return by_peft(tiny_model, tmp_path_factory.mktemp("peft") / "pirate", PLAIN)


@pytest.mark.parametrize("settings", [PLAIN, PATTERN])
def test_it_computes_what_peft_computes(
    space: Workspace, tiny_model: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    folder = by_peft(tiny_model, tmp_path / "theirs", settings)
    run = foreign.from_folder(space, folder)
    ids = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(base_model.load(tiny_model, FP32, four_bit=False), folder)(ids).logits
        ours = adapter.attach(base_model.load(tiny_model, FP32, four_bit=False), run.adapter)(ids).logits
    torch.testing.assert_close(ours, theirs)
    assert run.recipe().adapter.r == 4 and run.recipe().model.id == "library:tiny" and not run.all_metrics()


def test_it_is_trained_further_from_its_weights(space: Workspace, plain: Path) -> None:
    run = foreign.from_folder(space, plain)
    wanted = further.recipe_to_continue(recipe(steps=2).model_copy(update={"adapter": run.recipe().adapter}), run)
    child = trained(space, wanted, run)
    assert (further.start_of(child) / WEIGHTS).read_bytes() == (plain / WEIGHTS).read_bytes()
    assert further.check(child).data == Data(source="sample:pirate_answers", eval_fraction=0.2)


def test_what_training_here_lacks_is_named(space: Workspace, tiny_model: Path, tmp_path: Path) -> None:
    run = foreign.from_folder(space, by_peft(tiny_model, tmp_path / "pattern", PATTERN))
    with pytest.raises(RunError, match="rank_pattern"):
        further.check(run)


def config(folder: Path, **values: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | values), "utf-8")


def widen(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    key = next(key for key in tensors if key.endswith("lora_A.weight"))
    save_file(tensors | {key: torch.zeros(4, 77)}, folder / WEIGHTS)


def halve(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors.pop(next(key for key in tensors if key.endswith("lora_A.weight")))
    save_file(tensors, folder / WEIGHTS)


def as_link(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "else")
    (folder / WEIGHTS).symlink_to(folder / "else")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "foreign.no_folder"),
    "no config": (lambda folder: (folder / "adapter_config.json").unlink(), "adapter.no_config"),
    "broken": (lambda folder: (folder / "adapter_config.json").write_text("{"), "adapter.no_config"),
    "too large": (lambda folder: config(folder, auto_mapping="x" * (1 << 20)), "foreign.too_large"),
    "pickle": (lambda folder: (folder / WEIGHTS).rename(folder / "adapter_model.bin"), "adapter.no_weights"),
    "cut": (lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9]), "adapter_damaged"),
    "link": (as_link, "foreign.link"),
    "kind": (lambda folder: config(folder, peft_type="IA3"), "adapter.not_lora"),
    "task": (lambda folder: config(folder, task_type="SEQ_CLS"), "foreign.settings"),
    "setting": (lambda folder: config(folder, layer_replication=[[0, 2]]), "foreign.settings"),
    "changes base": (lambda folder: config(folder, init_lora_weights="pissa"), "foreign.settings"),
    "endless pattern": (lambda folder: config(folder, rank_pattern={"(a+)+$": 2}), "foreign.settings"),
    "other base": (lambda folder: config(folder, base_model_name_or_path="owner/absent"), "foreign.base_missing"),
    "unknown base": (lambda folder: config(folder, base_model_name_or_path="/there/x"), "foreign.base_unknown"),
    "shape": (widen, "foreign.misfit"),
    "half": (halve, "foreign.misfit"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_brought_in_is_refused_and_leaves_nothing(
    space: Workspace, plain: Path, tmp_path: Path, name: str
) -> None:
    spoil, key = BAD[name]
    folder = Path(shutil.copytree(plain, tmp_path / "pirate"))
    spoil(folder)
    with pytest.raises(ModelError) as refusal:
        foreign.from_folder(space, folder)
    assert refusal.value.message.key.endswith(key) and not list(space.runs.iterdir())
    assert refusal.value.message.render("en")


def test_the_same_twice_and_a_cancelled_copy_leave_one_run(
    space: Workspace, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("core.runs.foreign.shutil.copyfile", interrupted)
        with pytest.raises(KeyboardInterrupt):
            foreign.from_folder(space, plain)
    assert not list(space.runs.iterdir())
    foreign.from_folder(space, plain)
    with pytest.raises(ModelError, match="before"):
        foreign.from_folder(space, plain)


def test_one_on_the_hub_comes_without_its_other_files(
    space: Workspace, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {file.name: file.read_bytes() for file in plain.iterdir()} | {"evil.py": b"x", "adapter_model.bin": b"x"}
    with FakeHub({"owner/pirate": held, "owner/none": {"README.md": b"x"}}) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        run = foreign.from_hub(space, "owner/pirate", None, "", lambda progress: None, lambda: None)
        assert {each.split()[1].rpartition("/")[2] for each in hub.file_requests()} == {"adapter_config.json", WEIGHTS}
        with pytest.raises(ModelError, match=r"adapter_config\.json"):
            foreign.from_hub(space, "owner/none", None, "", lambda progress: None, lambda: None)
    assert run.facts().brought_from == "owner/pirate" and (run.adapter / WEIGHTS).stat().st_size
    assert not list((space.root / "downloads").glob("*"))


def in_gguf(folder: Path, file: Path, **other: Any) -> Path:
    """Write what llama.cpp's convert_lora_to_gguf.py (b10605) writes of an adapter of the tiny model: its names, and of
    q's and k's rows, heads of 8, the two halves in turn. other: values of the metadata in place of its own, and
    tensors beside them."""
    config, tensors = json.loads((folder / "adapter_config.json").read_text("utf-8")), load_file(folder / WEIGHTS)
    values = {
        "architecture": "llama", "general.type": "adapter", "adapter.type": "lora",
        "adapter.lora.alpha": float(config["lora_alpha"]),
    } | {key: value for key, value in other.items() if not isinstance(value, torch.Tensor)}  # fmt: skip
    writer = gguf.GGUFWriter(file, values.pop("architecture"))
    for key, value in values.items():
        kind = gguf.GGUFValueType.get_type(value)
        writer.add_key_value(key, value, kind, gguf.GGUFValueType.INT32 if isinstance(value, list) else None)
    named = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "down_proj": "ffn_down"}
    for key, tensor in tensors.items():
        _, _, _, _, layer, _, module, factor, _ = key.split(".")
        if factor == "lora_B" and module in ("q_proj", "k_proj"):
            tensor = tensor.reshape(-1, 8, tensor.shape[1])[:, [0, 4, 1, 5, 2, 6, 3, 7]].reshape(tensor.shape)
        writer.add_tensor(f"blk.{layer}.{named[module]}.weight.{factor.lower()}", tensor.numpy())
    for key, value in other.items():
        if isinstance(value, torch.Tensor):
            writer.add_tensor(key, value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


OF_LLAMA = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "k_proj", "v_proj", "down_proj"]}


@pytest.mark.parametrize("ranks", [{}, {"down_proj": 2}])
def test_one_in_gguf_format_computes_what_its_peft_folder_computes(
    space: Workspace, tiny_model: Path, tmp_path: Path, ranks: dict[str, int]
) -> None:
    folder = by_peft(tiny_model, tmp_path / "theirs", OF_LLAMA | {"rank_pattern": ranks})
    run = foreign.from_folder(space, in_gguf(folder, tmp_path / "pirate.gguf"), "library:tiny")
    ids = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(base_model.load(tiny_model, FP32, four_bit=False), folder)(ids).logits
        ours = adapter.attach(base_model.load(tiny_model, FP32, four_bit=False), run.adapter)(ids).logits
    torch.testing.assert_close(ours, theirs)
    assert (run.name, run.recipe().adapter.r, run.recipe().adapter.lora_alpha) == ("pirate", 4, 6)
    assert run.facts().not_further == (["rank_pattern"] if ranks else [])


BASE_URL = {"general.base_model.0.repo_url": "https://huggingface.co/owner/absent"}
BAD_GGUF: dict[str, tuple[dict[str, Any], str]] = {
    "no base": ({"base": ""}, "gguf_base"),
    "base on the hub": ({"base": ""} | BASE_URL, "base_missing"),
    "a folder as its base": (
        {"base": "", "general.base_model.0.repo_url": "https://huggingface.co/a/b/c"},
        "gguf_base",
    ),
    "a model": ({"general.type": "model"}, "gguf_kind"),
    "control vector": ({"adapter.type": "control_vector"}, "gguf_kind"),
    "activated": ({"adapter.alora.invocation_tokens": [1, 2]}, "gguf_kind"),
    "other family": ({"architecture": "qwen2"}, "gguf_other"),
    "other layer": ({"blk.7.attn_q.weight.lora_a": torch.zeros(4, 32)}, "misfit"),
    "embedding": ({"token_embd.weight.lora_a": torch.zeros(4, 32)}, "misfit"),
    "shape": ({"blk.0.attn_output.weight.lora_a": torch.zeros(4, 7)}, "misfit"),
    "long": ({"adapter.list": list(range(300_000))}, "gguf_damaged"),
}


@pytest.mark.parametrize("name", BAD_GGUF)
def test_one_in_gguf_format_that_fits_nothing_is_refused(
    space: Workspace, tiny_model: Path, tmp_path: Path, name: str
) -> None:
    values, key = BAD_GGUF[name]
    base = values.get("base", "library:tiny")
    folder = by_peft(tiny_model, tmp_path / "theirs", OF_LLAMA)
    file = in_gguf(folder, tmp_path / "pirate.gguf", **{key: one for key, one in values.items() if key != "base"})
    with pytest.raises(ModelError) as refusal:
        foreign.from_folder(space, file, base)
    assert refusal.value.message.key == f"foreign.{key}" and refusal.value.message.render("en")
    assert not list(space.runs.iterdir())


def test_a_cut_gguf_file_is_refused_and_a_folder_with_one_is_that_file(
    space: Workspace, tiny_model: Path, tmp_path: Path
) -> None:
    file = in_gguf(by_peft(tiny_model, tmp_path / "theirs", OF_LLAMA), tmp_path / "gguf.gguf")
    (tmp_path / "kept").mkdir()
    whole = file.read_bytes()
    for size in (0, 3, 20, 90, 400, len(whole) // 2, len(whole) - 1):
        (tmp_path / "kept" / "pirate.gguf").write_bytes(whole[:size])
        with pytest.raises(ModelError, match="is damaged"):
            foreign.from_folder(space, tmp_path / "kept", "library:tiny")
    file.rename(tmp_path / "kept" / "pirate.gguf")
    assert foreign.from_folder(space, tmp_path / "kept", "library:tiny").name == "pirate"
    shutil.copyfile(tmp_path / "kept" / "pirate.gguf", tmp_path / "kept" / "second.gguf")
    with pytest.raises(ModelError, match=r"several GGUF files: pirate\.gguf"):
        foreign.from_folder(space, tmp_path / "kept", "library:tiny")
