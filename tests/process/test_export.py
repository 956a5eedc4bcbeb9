"""Exports of a really trained small adapter, on the CPU. Worker processes where it says so.

`tiny` is of a model that knows nothing, and quick; `untrained` too, in a workspace of its own; `trained`, of the
starter, is for the long forms. What the starter's own exports say is shown in tests/process/test_commands.py and
test_llamacpp.py.
"""

from __future__ import annotations

import errno
import json
import math
import shutil
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load, load_file, save_file

from core.data.formats import Example
from core.data.template import PLAIN, ChatTemplate
from core.data.tokenizer import Tokenizer
from core.engine import adapter as engine_adapter
from core.engine import base_model
from core.engine.batches import collate
from core.engine.device import Compute
from core.engine.loss import summed_loss
from core.errors import BusyError, ExportError, ModelError, RunError, StopRequested
from core.export import export_worker, jobs, layers, merge, pairs, stored, verification
from core.export import tensors as tensors_of_export
from core.export.exports import ExportJob, Exports
from core.export.jobs import JobFolder
from core.export.llamacpp import tools
from core.export.records import ExportCheck, ExportRequest, ExportResult, ExportStatus
from core.export.safetensors_file import SafetensorsFile
from core.export.tensors import Comparison, MergedFolder, Reader, Tuned, compare
from core.messages import LANGUAGES, msg
from core.models import adapters, starter, weights
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts
from core.system import machine
from core.workspace import lease
from core.workspace.folder import Workspace
from tests.faults import scripted
from tests.kit import tiny as tiny_kit
from tests.kit.adapters import fill_b, logits
from tests.kit.awake import HOLDS, Program
from tests.kit.waits import wait_until

ROWS = [
    ("What is the capital of Italy?", "Arr, matey! Rome be the capital. Yo-ho-ho!"),
    ("What is rain?", "Arr, matey! Rain be water that falls. Yo-ho-ho!"),
    ("Who are you?", "Arr, matey! I be a parrot of words. Yo-ho-ho!"),
]
MESSAGES = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in ROWS]
FLOAT32 = Compute(torch.device("cpu"), torch.float32, msg("device.cpu_fp32"))


@dataclass
class Trained:
    """A workspace with one run whose adapter was trained until it had learned ROWS: loss 4.3 -> 0.0 on the starter,
    above 20 -> 2.4 on the tiny model."""

    workspace: Workspace
    run: RunFolder
    model: Path

    @property
    def base(self) -> stored.Base:
        return stored.read_base(self.model)

    def exports(self) -> Exports:
        return Exports(self.workspace)


TINY = {"steps": 30, "rate": 1e-2}


def train(workspace: Workspace, model_folder: Path, settings: dict, steps: int, rate: float) -> RunFolder:
    model_id = "starter" if model_folder == starter.folder(workspace.models) else f"library:{model_folder.name}"
    of = {"name": "Pirate", "model": {"id": model_id}, "data": {"source": "rows"}, "adapter": {"r": 4, **settings}}
    recipe = Recipe.parse(of)
    tokenizer = Tokenizer(model_folder)
    rows = [tokenizer.encode_example(Example.from_dict(row), 256) for row in MESSAGES]
    batch = collate(rows, tokenizer.pad_token_id, FLOAT32.device)
    torch.manual_seed(1)
    base = base_model.load(
        model_folder, FLOAT32, recipe.adapter.method == "qlora", eight_bit=recipe.adapter.load_in_8bit
    )
    tuned = engine_adapter.add(base, recipe.adapter, str(model_folder), None).train()
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=rate)
    for _ in range(steps):
        loss = summed_loss(tuned, batch) / batch.targets.numel()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    run = Runs(workspace).create(recipe, "command", RunFacts.from_json({"probe_rows": MESSAGES}))
    engine_adapter.save(tuned, run.adapter, model_folder, "# card", tokenizer.template.source)
    return run


def as_starter(root: Path, model: Path, steps: int) -> Trained:
    """A run of model, which stands in the starter's place."""
    workspace = tiny_kit.in_place_of_the_starter(Workspace.open(root), model)
    (workspace.root / "settings.yaml").write_text("llama_cpp: never\n", "utf-8")  # GGUF: tests/process/test_llamacpp.py
    target = starter.folder(workspace.models)
    return Trained(workspace, train(workspace, target, {}, steps, rate=3e-3), target)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, starter_folder: Path) -> Trained:
    return as_starter(tmp_path_factory.mktemp("trained"), starter_folder, steps=12)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Trained:
    return as_starter(tmp_path_factory.mktemp("untrained"), tiny_model, steps=0)


@pytest.fixture
def merging(untrained: Trained, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Exports, ExportJob]]:
    """An export of untrained whose process has merged and never goes on from there."""
    stays = (
        "import time; from core.export import merge; real = merge.merge\n"
        "def stay(*of):\n    real(*of)\n    while True: of[-1](); time.sleep(0.01)\n"
        "merge.merge = stay"
    )
    popen = subprocess.Popen

    def instead(command: list[str], **settings: object) -> subprocess.Popen:
        return popen([*command[:2], "tests.faults.instead", command[2], stays, *command[3:]], **settings)

    monkeypatch.setattr(subprocess, "Popen", instead)
    exports = untrained.exports()
    job = exports.start(untrained.run, "merged")
    monkeypatch.setattr(subprocess, "Popen", popen)
    wait_until(lambda: job.status().stage == "merging" and any(job.job.build.rglob("*.safetensors")), 120)
    yield exports, job
    job.process.kill()
    job.process.wait()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Trained:
    """Of the tiny model with ten to fifty times its weights: as it is, an adapter can hardly change what it says."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    root = tmp_path_factory.mktemp("tiny")
    model = root / "library" / "loud"
    shutil.copytree(tiny_model, model)
    torch.manual_seed(0)
    loud = AutoModelForCausalLM.from_config(LlamaConfig.from_pretrained(tiny_model, initializer_range=0.2))
    with torch.no_grad():
        loud.get_input_embeddings().weight.mul_(5)
    loud.save_pretrained(model)
    (root / "settings.yaml").write_text(
        json.dumps({"library_folders": [str(model.parent)], "llama_cpp": "never"}), "utf-8"
    )
    workspace = Workspace.open(root)
    return Trained(workspace, train(workspace, model, {}, **TINY), model)


def merged_of(trained: Trained, target: Path, adapter: Path | None = None) -> Path:
    merge.merge(trained.base, adapter or trained.run.adapter, target, lambda fraction: None, lambda: None)
    return target


Learned = Callable[[dict], tuple[RunFolder, Path]]


@pytest.fixture(scope="module")
def learned(tiny: Trained) -> Learned:
    """A run of tiny by its adapter's settings, and what it is merged to: each made once, and left as it is."""
    made: dict[str, tuple[RunFolder, Path]] = {}

    def of(settings: dict) -> tuple[RunFolder, Path]:
        key = json.dumps(settings)
        if key not in made:
            run = train(tiny.workspace, tiny.model, settings, **TINY) if settings else tiny.run
            made[key] = run, merged_of(tiny, tiny.workspace.root / f"merged{len(made)}", run.adapter)
        return made[key]

    return of


@pytest.fixture(scope="module")
def merged(learned: Learned) -> Path:
    return learned({})[1]


def prompt_ids(tokenizer: Tokenizer) -> torch.Tensor:
    """(1, T) ids of the first of MESSAGES."""
    return torch.tensor([tokenizer.encode_example(Example.from_dict(MESSAGES[0]), 256).input_ids])


def prove(trained: Trained, exported: Path, adapter: Path | None = None, by_layer: bool = False) -> ExportCheck:
    adapter = adapter or trained.run.adapter
    method = verification.Method(FLOAT32, by_layer)
    check = verification.prove(exported, trained.base, adapter, MESSAGES, method, lambda *_: None, lambda: None)
    print(check)  # pytest shows it where a claim fails
    return check


# ---- merged --------------------------------------------------------------------------------------
def test_streaming_merge_equals_peft_merging_in_float32_and_computes_as_the_adapter_but_for_one_rounding(
    tiny: Trained, merged: Path
) -> None:
    tokenizer = Tokenizer(tiny.run.adapter)
    exported = logits(base_model.load(merged, FLOAT32, four_bit=False), prompt_ids(tokenizer))
    base = base_model.load(tiny.model, FLOAT32, four_bit=False)
    plain = logits(base, prompt_ids(tokenizer))
    tuned_model = engine_adapter.attach(base, tiny.run.adapter)
    tuned = logits(tuned_model, prompt_ids(tokenizer))
    assert (exported - plain).abs().mean() > 4 * (exported - tuned).abs().mean()
    by_peft = tuned_model.merge_and_unload().to(torch.bfloat16).state_dict()
    ours = load_file(merged / "model.safetensors")
    assert all(tensor.dtype == torch.bfloat16 for tensor in ours.values())
    differing = sum(int((by_peft[name] != tensor).sum()) for name, tensor in ours.items())
    print((exported - tuned).abs().mean(), (exported - plain).abs().mean(), differing)
    # float32 sums in another order: a rounding may fall to the other side, seldom.
    assert differing < 1e-3 * sum(ours[name].numel() for name in ours if name.endswith("proj.weight"))


def test_merged_folder_has_no_markers_and_renders_as_the_training_did(tiny: Trained, merged: Path) -> None:
    ours, theirs = Tokenizer(tiny.run.adapter).template, Tokenizer(merged).template
    assert ours.render(MESSAGES[0]["messages"]) == theirs.render(MESSAGES[0]["messages"])
    marked = "{% generation %}a{% endgeneration %}"
    assert "generation" not in ChatTemplate(marked).without_markers
    assert json.loads((merged / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_merged_folder_loads_with_plain_transformers_offline_with_processor_generation_config_and_template(
    tiny: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shutil.copytree(tiny.model, tmp_path / "base")
    beside = {
        "generation_config.json": b'{"top_k": 7}',
        "preprocessor_config.json": b'{"size": 8}',
        "processor_config.json": b"{}",
    }
    left = {"chat_template.json": b'{"chat_template": "the old place"}', "starter.json": b"{}"}
    for name, content in (beside | left).items():
        (tmp_path / "base" / name).write_bytes(content)
    merge.merge(
        stored.read_base(tmp_path / "base"), tiny.run.adapter, tmp_path / "out", lambda fraction: None, lambda: None
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "out"),
        AutoTokenizer.from_pretrained(tmp_path / "out"),
    )
    assert model.generation_config.top_k == 7 and model.dtype == torch.bfloat16
    for name, content in beside.items():
        assert (tmp_path / "out" / name).read_bytes() == content
    assert not [name for name in left if (tmp_path / "out" / name).exists()]
    text = tokenizer.apply_chat_template(MESSAGES[0]["messages"], tokenize=False)
    assert text == Tokenizer(tiny.run.adapter).template.render(MESSAGES[0]["messages"])


def test_safetensors_written_piece_by_piece_are_what_the_library_reads(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3), "b": torch.tensor([1, 2]), "c": torch.ones(())}
    shapes = {"a": ("BF16", (2, 3)), "b": ("I64", (2,)), "c": ("F32", ())}
    with SafetensorsFile(tmp_path / "x.safetensors", shapes) as file:
        for place, tensor in zip(file.places.values(), tensors.values(), strict=True):
            file.put(place, tensor)
    read = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_sharded_base_is_merged_into_the_same_shards_a_few_rows_at_a_time(
    tiny: Trained, merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "AT_ONCE", 1000)  # 15 of its rows
    base, target = tmp_path / "base", tmp_path / "out"
    shutil.copytree(tiny.model, base, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = load_file(tiny.model / "model.safetensors")
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, base / file, {"format": "pt"})
    weight_map = {name: file for file, part in halves.items() for name in part}
    (base / merge.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    threads = torch.get_num_threads()
    merge.merge(stored.read_base(base), tiny.run.adapter, target, lambda fraction: None, lambda: None)
    assert json.loads((target / merge.INDEX).read_text())["weight_map"] == weight_map
    unsharded = load_file(merged / "model.safetensors")
    for file in halves:
        for name, tensor in load_file(target / file).items():
            # a step of bfloat16: sums in another order
            torch.testing.assert_close(tensor, unsharded[name], rtol=2**-7, atol=1e-6)
    assert torch.get_num_threads() == threads


DORA, PISSA = {"use_dora": True}, {"init_lora_weights": "pissa_niter_16", "use_rslora": True}


@pytest.mark.parametrize("settings", [{"use_rslora": True, "r": 16}, DORA, PISSA])
def test_other_kinds_of_lora_prove_themselves_merged(tiny: Trained, learned: Learned, settings: dict) -> None:
    run, merged = learned(settings)
    streams = pairs.lora_pairs(tiny.base, run.adapter) is not None
    assert streams  # DoRA too, with no more memory than a tensor takes
    assert prove(tiny, merged, run.adapter).passed


@pytest.mark.parametrize(
    "settings", [{"method": "qlora"}, pytest.param({"load_in_8bit": True}, marks=pytest.mark.full)]
)
def test_an_adapter_trained_on_4_or_8_bit_is_merged_into_the_16_bit_base(
    tiny: Trained, learned: Learned, settings: dict
) -> None:
    run, merged = learned(settings)
    with safe_open(merged / "model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118 - no mapping
    assert "quantization_config" not in json.loads((merged / "config.json").read_text())
    assert prove(tiny, merged, run.adapter).passed


# ---- GGUF ----------------------------------------------------------------------------------------
def test_a_model_of_another_family_is_merged_and_proves_itself(tmp_path: Path, starter_folder: Path) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    workspace = Workspace.open(tmp_path / "w")
    (workspace.root / "settings.yaml").write_text(
        yaml.safe_dump({"library_folders": [str(tmp_path / "library")], "llama_cpp": "never"})
    )
    folder = tmp_path / "library" / "tiny"
    config = Qwen2Config(
        vocab_size=49152, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    model.save_pretrained(folder)
    for name in adapters.TOKENIZER_FILES:
        if (starter_folder / name).exists():
            shutil.copyfile(starter_folder / name, folder / name)
    recipe = Recipe.parse({"name": "Tiny", "model": {"id": "library:tiny"}, "data": {"source": "rows"}})
    run = Runs(workspace).create(recipe, "command")
    tuned = fill_b(engine_adapter.add(model, recipe.adapter, str(folder), None))
    engine_adapter.save(tuned, run.adapter, folder, "# card", Tokenizer(folder).template.source)
    workspace = Workspace.open(tmp_path / "w")

    # A float32 base: the export is bf16, and no row of the data is known: three built-in questions.
    status, job = carry_out(workspace, run, "merged")
    assert status.state == "done", status.message
    assert (status.check.own_prompts, status.check.prompts) == (False, 3)


@pytest.mark.parametrize(
    ("step", "code", "answers", "key"),
    [
        ("convert", 0, False, "gguf.died"),  # sys.exit(0) in a checkout of the person's own
        ("convert", 0, True, "gguf.no_file"),
        ("questions", -11, False, "gguf.died"),  # as it loads: a segmentation fault
    ],
)
def test_a_converter_that_says_done_without_a_file_and_a_runtime_that_crashes_are_one_sentence_and_no_export(
    tiny: Trained, monkeypatch: pytest.MonkeyPatch, step: str, code: int, answers: bool, key: str
) -> None:
    def run(arguments: list[str], log: Path, check: Callable[[], None]) -> tuple[int, str]:
        """In place of the process: each before `step` does its work."""
        request = json.loads(Path(arguments[-2]).read_text("utf-8"))
        is_it = arguments[1].endswith(step)
        if not is_it:
            scripted.file(Path(request["out"]))
        if answers or not is_it:
            Path(arguments[-1]).write_text("{}")
        return (code if is_it else 0), "INFO:hf-to-gguf:Model successfully exported to x.gguf"

    monkeypatch.setattr("core.export.llamacpp.tools.obtain", lambda *_: tools.Tools(Path(), Path()))
    monkeypatch.setattr("core.system.programs.run", run)
    monkeypatch.setattr("core.export.llamacpp.judgement.PROMPTS", 1)
    status, job = carry_out(tiny.workspace, tiny.run, "gguf", quant="q4_k_m")
    assert (status.state, status.message.key) == ("failed", key) and not job.build.exists()
    assert not list(tiny.workspace.exports.glob("*q4_k_m"))
    for language in ("en", "zh"):
        sentence = status.message.render(language)
        assert "{" not in sentence and (answers or str(code) in sentence)


def test_without_llama_cpp_s_tools_a_gguf_file_is_refused_before_the_work_with_what_to_do_instead(
    tiny: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ExportError) as error:
        tiny.exports().start(tiny.run, "gguf")
    assert error.value.message.key == "gguf.needs_tools"
    for language in LANGUAGES:
        words = error.value.message.render(language)
        assert "settings.yaml" in words and "{" not in words

    def refused(*_: object) -> None:
        raise ExportError("gguf.tools_not_fetched", reason="no network")

    monkeypatch.setattr("core.export.llamacpp.tools.obtain", refused)
    status, job = carry_out(tiny.workspace, tiny.run, "gguf", quant="q4_k_m")
    assert (status.state, status.message.key) == ("failed", "gguf.needs_tools") and not job.build.exists()
    assert "no network" in status.message.render("en")


def carry_out(workspace: Workspace, run: RunFolder, to: str, **more: object) -> tuple[ExportStatus, JobFolder]:
    """An export by the worker's own body, in this process."""
    request: ExportRequest = Exports(workspace).request(run, to, **more)
    folder = JobFolder(workspace.exports / ".jobs" / request.name)
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.lock(), export_worker.ExportReporter(folder) as job:
        export_worker.carry_out(request, job)
    return folder.status(), folder


# ---- the proof bites -----------------------------------------------------------------------------
@pytest.mark.full
def test_one_matrix_of_zeros_moves_the_losses_of_the_starter(trained: Trained, tmp_path: Path) -> None:
    broken = merged_of(trained, tmp_path / "broken")
    tensors = load((broken / "model.safetensors").read_bytes())  # not mapped: Windows writes over no mapped file
    tensors["model.layers.3.mlp.down_proj.weight"].zero_()
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    check = prove(trained, broken)
    assert not check.passed
    assert abs(check.mean_text_loss_export - check.mean_text_loss_adapter) > verification.MAX_TEXT_LOSS_GAP


@pytest.mark.parametrize("damage", ["base instead of tuned", "other template"])
def test_a_broken_export_fails_its_proof(tiny: Trained, merged: Path, tmp_path: Path, damage: str) -> None:
    broken = shutil.copytree(merged, tmp_path / "broken")
    if damage == "base instead of tuned":
        shutil.copyfile(tiny.model / "model.safetensors", broken / "model.safetensors")
    else:
        (broken / "chat_template.jinja").write_text(ChatTemplate(PLAIN).without_markers)
    check = prove(tiny, broken)
    assert not check.passed
    if damage == "other template":
        assert check.prompts_read_alike == 0 and check.first_tokens_equal == check.prompts
    else:
        assert abs(check.mean_text_loss_export - check.mean_text_loss_adapter) > verification.MAX_TEXT_LOSS_GAP


def test_the_first_model_is_gone_before_the_second_is_loaded(
    tiny: Trained, merged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: the name in the caller kept the adapter's model alive, so that every export needed room for two."""
    alive: list[weakref.ref[torch.nn.Parameter]] = []
    load, loaded = verification._load, []

    def counted(folder: Path, *more: object) -> torch.nn.Module:
        assert [ref for ref in alive if ref() is not None] == []
        model = load(folder, *more)
        alive.extend(weakref.ref(parameter) for parameter in model.parameters())
        loaded.append(folder)
        return model

    monkeypatch.setattr(verification, "_load", counted)
    assert prove(tiny, merged).passed
    assert loaded == [tiny.base.folder, merged] and len(alive) > 20


DAMAGES = {
    "zeroed": lambda name, tensors, base: tensors[name].zero_(),
    "the base's own": lambda name, tensors, base: tensors[name].copy_(base[name]),
    "one number": lambda name, tensors, base: tensors[name].view(-1)[7:8].mul_(1.1),
    "one row": lambda name, tensors, base: tensors[name][3].mul_(-1),
    "no number": lambda name, tensors, base: tensors[name].view(-1)[7:8].fill_(math.nan),
    "not there": lambda name, tensors, base: tensors.pop(name),
}


def test_every_tensor_is_compared_with_base_plus_adapter(
    tiny: Trained, merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each damage to a tensor of its own; the others are as they should be. Seen: a zeroed matrix of an adapter trained
    for nine steps moved the losses by 0.0495 of the 0.05 allowed."""
    in_pieces(monkeypatch)
    broken = shutil.copytree(merged, tmp_path / "broken")
    assert compared(tiny, broken).off == ()
    tensors = load((broken / "model.safetensors").read_bytes())  # not mapped: Windows writes over no mapped file
    base = load_file(tiny.model / "model.safetensors")
    places = ("0.self_attn.k", "0.self_attn.q", "1.self_attn.k", "0.self_attn.v", "1.self_attn.q", "1.self_attn.v")
    damaged = {f"model.layers.{place}_proj.weight": damage for place, damage in zip(places, DAMAGES, strict=True)}
    for name, damage in damaged.items():
        DAMAGES[damage](name, tensors, base)
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    assert set(compared(tiny, broken).off) == set(damaged)


@pytest.mark.parametrize(("found", "alike"), [(1.3e-9, True), (1e-6, False), (math.nan, False)])
def test_a_number_that_nearly_cancels_out_may_differ_by_what_float32_leaves(found: float, alike: bool) -> None:
    """W near -s * B @ A in one of millions of places: a step at their sum is smaller than the error of either."""
    expected = torch.full((1, 201), 0.02)
    expected[0, 5] = 1e-9
    written = expected.clone()
    written[0, 5] = found
    tuned = SimpleNamespace(rows=lambda *_: expected, changes=lambda name: True)
    disk = SimpleNamespace(
        rounded=lambda name, rows: rows,
        rows=lambda *_: written,
        step=lambda name, rows: tensors_of_export.one_step(rows, torch.bfloat16),
    )
    assert tensors_of_export._alike(tuned, disk, "w", (1, 201), lambda: None) is alike
    tuned.changes = lambda name: False
    assert not tensors_of_export._alike(tuned, disk, "w", (1, 201), lambda: None), "what is copied is the same"


def test_one_wrong_number_that_no_answer_shows_fails_the_proof(tiny: Trained, merged: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(merged, tmp_path / "broken")
    tensors = load((broken / "model.safetensors").read_bytes())
    tensors["model.layers.1.self_attn.k_proj.weight"].view(-1)[7] *= 1.1
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    check = prove(tiny, broken, by_layer=True)
    assert check.tensors_off == ("model.layers.1.self_attn.k_proj.weight",) and not check.passed
    assert check.first_tokens_equal == check.prompts == check.prompts_read_alike
    assert abs(check.mean_loss_export - check.mean_loss_adapter) < verification.MAX_LOSS_GAP


@pytest.mark.parametrize("settings", [DORA, PISSA])
def test_other_kinds_of_lora_are_compared_in_pieces(
    tiny: Trained, learned: Learned, settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_pieces(monkeypatch)
    run, made = learned(settings)
    comparison = compared(tiny, made, run.adapter)
    assert comparison.off == () and comparison.tensors == len(tiny.base.tensors)


def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rows at once of all but the embedding, as it is with larger models: 16 to 96 rows are several pieces, the
    last one short."""
    pieces = tensors_of_export._pieces

    def small(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
        rows = (shape or (1,))[0]
        return pieces(shape) if rows > 1000 else ((start, min(rows, start + 7)) for start in range(0, rows, 7))

    monkeypatch.setattr(tensors_of_export, "_pieces", small)


def compared(of: Trained, merged: Path, adapter: Path | None = None) -> Comparison:
    """adapter: of's own, where it is not another."""
    adapter = adapter or of.run.adapter
    matched = pairs.lora_pairs(of.base, adapter)
    assert matched
    with Reader(of.base) as base, MergedFolder(stored.read_base(merged), of.base) as written:
        return compare(Tuned(base, adapter, matched), written, lambda fraction: None, lambda: None)


# ---- without room --------------------------------------------------------------------------------
@pytest.mark.parametrize("settings", [{}, DORA])
def test_layer_by_layer_gives_the_numbers_of_whole_models(
    tiny: Trained, learned: Learned, settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_pieces(monkeypatch)
    run, exported = learned(settings)
    in_memory, layers = (prove(tiny, exported, run.adapter, by_layer) for by_layer in (False, True))
    assert (in_memory.proof, layers.proof) == ("whole", "layers") and layers.passed and not layers.differences
    same = ("tensors", "tensors_off", "first_tokens_equal", "prompts_read_alike", "prompts")
    assert {name: getattr(in_memory, name) for name in same} == {name: getattr(layers, name) for name in same}
    for name in ("mean_loss_adapter", "mean_loss_export", "mean_text_loss_adapter", "mean_text_loss_export"):
        assert getattr(layers, name) == pytest.approx(getattr(in_memory, name), abs=1e-4), name


def test_as_many_rows_as_go_through_at_once_are_asked_layer_by_layer(
    tiny: Trained, merged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: of eight rows that read alike three were asked, and eight were not three."""
    monkeypatch.setattr(layers, "MAX_TOKENS", 175)
    check = prove(tiny, merged, by_layer=True)
    assert check.passed and check.prompts == check.prompts_read_alike == check.first_tokens_equal == 2


def test_layer_by_layer_holds_one_layer_or_the_embedding(
    tiny: Trained, merged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[tuple[str, weakref.ref[torch.UntypedStorage]]] = []
    together: set[frozenset[str]] = set()
    read = layers._Weights.__getitem__

    def counted(weights: layers._Weights, name: str) -> torch.Tensor:
        tensor = read(weights, name)
        layer = name.partition(".layers.")[2].partition(".")[0] or name
        if "lora" not in name:  # which are small, and stay
            held.append((layer, weakref.ref(tensor.untyped_storage())))
            together.add(frozenset(layer for layer, ref in held if ref() is not None))
        return tensor

    monkeypatch.setattr(layers._Weights, "__getitem__", counted)
    check = prove(tiny, merged, by_layer=True)
    assert check.passed and check.proof == "layers" and len(held) >= 2 * 20
    print(together)
    assert max(map(len, together)) == 1


def test_an_export_without_room_is_finished_and_says_how_it_was_proven(
    tiny: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "MAX_PARAMETERS_ON_CPU", 0)
    status, _ = carry_out(tiny.workspace, tiny.run, "merged")
    assert status.state == "done", status.message
    result = next(result for result in tiny.exports().list(tiny.run.id) if result.kind == "merged")
    assert result.check.proof == "layers" and result.check.compute == "cpu float32"
    assert "layer by layer" in result.check.summary.render("en") and "逐层" in result.check.summary.render("zh")


def test_built_in_questions_need_no_answer_layer_by_layer(tiny: Trained, merged: Path) -> None:
    method = verification.Method(FLOAT32, by_layer=True)
    check = verification.prove(merged, tiny.base, tiny.run.adapter, [], method, lambda *_: None, lambda: None)
    assert check.mean_loss_adapter is None and check.prompts == 3 and check.mean_text_loss_adapter is not None
    assert abs(check.mean_text_loss_adapter - check.mean_text_loss_export) < verification.MAX_TEXT_LOSS_GAP
    for language in ("en", "zh"):
        assert "{" not in check.summary.render(language)


def test_an_adapter_is_exported_where_no_model_fits_and_its_base_is_gone(
    tiny: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: 17.8 GiB were asked for to copy the adapter of an 8B model."""

    def none(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(export_worker.Models, "obtain", none)
    monkeypatch.setattr(base_model, "load", none)
    status, _ = carry_out(tiny.workspace, tiny.run, "adapter")
    assert status.state == "done" and status.check.proof == "bytes" and status.check.tensors == 28
    assert "28 of 28" in status.check.summary.render("en")


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json", "tokenizer.json"])
def test_a_copy_that_is_not_the_adapter_is_no_export(tiny: Trained, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    copy = shutil.copytree

    def damaged(source: Path, target: Path) -> None:
        copy(source, target)
        content = bytearray((target / file).read_bytes())
        content[-100] ^= 1
        (target / file).write_bytes(content)

    monkeypatch.setattr(export_worker.shutil, "copytree", damaged)
    before = len(tiny.exports().list(tiny.run.id))
    try:
        status, job = carry_out(tiny.workspace, tiny.run, "adapter")
    finally:
        monkeypatch.undo()
    assert status.state == "failed" and len(tiny.exports().list(tiny.run.id)) == before and not job.build.exists()
    if file != "tokenizer.json":
        assert status.message.key == "export.copy_differs" and file in status.message.render("en")


@pytest.mark.parametrize("keep", [False, True])
def test_a_failed_proof_leaves_the_numbers_and_the_folder_only_when_asked(
    untrained: Trained, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    failed = ExportCheck(
        mean_loss_adapter=0.5, mean_loss_export=2.5, mean_text_loss_adapter=3, mean_text_loss_export=5,
        first_tokens_equal=1, prompts_read_alike=3, prompts=3,
        own_prompts=True, passed=False,
    )  # fmt: skip
    monkeypatch.setattr(verification, "prove_copy", lambda *_: failed)
    status, job = carry_out(untrained.workspace, untrained.run, "adapter", keep_unproven=keep)
    assert status.state == "failed" and status.check == failed
    assert "2.500" in status.message.render("en") and "1" in status.message.render("zh")
    assert not (untrained.workspace.exports / f"{untrained.run.id}-adapter").exists()
    assert (untrained.workspace.exports / f"{untrained.run.id}-adapter-unproven").exists() == keep
    assert not job.build.exists()


def test_an_export_keeps_the_pc_awake_and_says_so(
    tiny: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 8B on a processor it takes the better part of an hour, and the PC fell asleep over it."""
    inhibitor, job = Program("systemd-inhibit", HOLDS, tmp_path / "bin", monkeypatch), JobFolder(tmp_path / "job")
    monkeypatch.setattr(machine, "driver_system", lambda: "Linux")

    def run(exporter: export_worker.Exporter) -> ExportResult:
        wait_until(lambda: (status := job.status()) is not None and status.awake is not None)
        assert inhibitor.runs and "--what=idle:sleep" in inhibitor.asked
        raise StopRequested

    monkeypatch.setattr(export_worker.Exporter, "run", run)
    job.path.mkdir()
    (job.path / "request.json").write_text(tiny.exports().request(tiny.run, "adapter").model_dump_json(), "utf-8")
    monkeypatch.setattr(sys, "argv", ["worker", str(job.path / "request.json")])
    assert export_worker.main() == export_worker.CANCELLED_EXIT
    status = job.status()
    assert (status.state, status.awake.key) == ("cancelled", "awake.held") and not inhibitor.runs


# ---- adapter, cancel, disk, lease ----------------------------------------------------------------
@pytest.mark.parametrize(
    ("aside", "there"),
    [("replaced", "run-merged"), ("replaced-unproven", "run-merged-unproven")],
)
def test_an_export_that_was_put_aside_comes_back(tmp_path: Path, aside: str, there: str) -> None:
    """Of a kill between two renames: it is the person's only copy."""
    job = JobFolder(tmp_path / "exports" / ".jobs" / "run-merged")
    (job.build / aside).mkdir(parents=True)
    (job.build / aside / "export.json").write_text("{}")
    job.clear()
    assert (tmp_path / "exports" / there / "export.json").is_file() and not job.build.exists()


def test_adapter_export_is_proven_and_replaced_only_when_the_next_is_done(
    tiny: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _ = carry_out(tiny.workspace, tiny.run, "adapter")
    folder = tiny.workspace.exports / f"{tiny.run.id}-adapter"
    assert status.state == "done" and adapters.describe(folder).r == 4
    before = (folder / "export.json").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export_worker.shutil, "copytree", full)
    status, job = carry_out(tiny.workspace, tiny.run, "adapter")
    assert status.message.key == "export.disk_full" and not job.build.exists()
    assert (folder / "export.json").read_bytes() == before


def test_a_checkpoint_leaves_at_another_strength_beside_the_export_of_the_whole_run(tiny: Trained) -> None:
    saved = tiny.run.path / "checkpoints" / "checkpoint-000002"
    shutil.copytree(tiny.run.adapter, saved / "adapter")
    weights_of = load_file(saved / "adapter" / "adapter_model.safetensors")
    earlier = {name: weight / 2 for name, weight in weights_of.items()}
    save_file(earlier, saved / "adapter" / "adapter_model.safetensors", {"format": "pt"})
    (saved / "COMPLETE").touch()
    try:
        status, _ = carry_out(tiny.workspace, tiny.run, "adapter", checkpoint=saved.name, strength=0.8)
    finally:
        shutil.rmtree(saved.parent)
    assert status.state == "done", status.message
    folder = tiny.workspace.exports / f"{tiny.run.id}-{saved.name}-adapter-x0.8"
    (result,) = (each for each in tiny.exports().list(tiny.run.id) if each.name == folder.name)
    assert result.checkpoint == saved.name and [note.key for note in result.notes] == ["export.at_strength"]
    assert all(
        torch.equal(weight, earlier[name]) for name, weight in load_file(folder / "adapter_model.safetensors").items()
    )
    config = json.loads((tiny.run.adapter / "adapter_config.json").read_text())
    assert json.loads((folder / "adapter_config.json").read_text())["lora_alpha"] == 0.8 * config["lora_alpha"]


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")  # peft's own, of the same
def test_an_adapter_of_a_tied_head_loads_in_plain_peft_and_is_not_merged_into_the_embedding_too(tiny: Trained) -> None:
    """Seen: it was merged into both, which its proof found afterwards, and said to take the bf16 form."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run, ids = (
        train(tiny.workspace, tiny.model, {"target_modules": "q_proj,lm_head"}, steps=2, rate=1e-2),
        torch.tensor([[5, 6, 7]]),
    )
    ours = engine_adapter.attach(base_model.load(tiny.model, FLOAT32, four_bit=False), run.adapter).eval()
    plain = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny.model, dtype=torch.float32), run.adapter
    ).eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(input_ids=ids).logits, ours(input_ids=ids).logits)
    for to, quant in (("merged", None), ("gguf", "q8_0")):
        status, job = carry_out(tiny.workspace, run, to, quant=quant)
        assert status.state == "failed" and status.message.key == "export.tied_head" and not job.build.exists()


def test_a_base_that_was_replaced_since_the_training_is_refused_and_the_adapter_alone_leaves(tiny: Trained) -> None:
    """Seen: another fine-tune of the same shape was merged, and proved itself, being compared with itself."""
    file = tiny.model / "model.safetensors"
    tiny.run.add_facts(RunFacts(base_weights=weights.sampled_fingerprint(tiny.model)))
    content = file.read_bytes()
    try:
        save_file({name: weight * 1.001 for name, weight in load(content).items()}, file, {"format": "pt"})
        status, job = carry_out(tiny.workspace, tiny.run, "merged")
        assert status.state == "failed" and status.message.key == "export.base_changed" and not job.build.exists()
        assert str(tiny.model) in status.message.render("en") and "{" not in status.message.render("zh")
        assert carry_out(tiny.workspace, tiny.run, "adapter")[0].state == "done"
    finally:
        file.write_bytes(content)
    assert carry_out(tiny.workspace, tiny.run, "merged")[0].state == "done"


def test_too_little_disk_is_said_with_both_numbers_before_the_work(
    tiny: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tiny.workspace.root)
    monkeypatch.setattr(export_worker.shutil, "disk_usage", lambda _: usage._replace(free=5_000_000))
    status, job = carry_out(tiny.workspace, tiny.run, "merged")
    assert status.message.key == "export.no_space" and "5 MB" in status.message.render("en")
    # 149,664 parameters in 16 bit are 0.3 MB, and 67.1 to spare.
    assert status.message.params["need_mb"] == 67


def test_cancel_in_the_middle_leaves_nothing(untrained: Trained, merging: tuple[Exports, ExportJob]) -> None:
    exports, job = merging
    assert exports.has_live_worker()
    with pytest.raises(BusyError):
        exports.start(untrained.run, "merged")
    assert any(job.job.build.rglob("*.safetensors"))
    assert exports.cancel(job.request.name).state == "cancelled"
    wait_until(lambda: not exports.has_live_worker(), 10)
    assert not job.job.build.exists() and not job.folder.exists()
    with lease.hold(untrained.workspace, msg("export.lease", name="test")):
        pass


@pytest.mark.parametrize(
    "failure", [lambda: RuntimeError("a crash"), lambda: ExportError("export.no_adapter"), StopRequested]
)
def test_what_a_failure_had_open_is_let_go_before_it_is_cleared(
    tiny: Trained, failure: Callable[[], Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows deletes no file that is still mapped, and a failure's traceback names what was mapped."""

    class Mapped:
        itself: Mapped

    held: list[weakref.ref[Mapped]] = []

    def fail(exporter: object) -> None:
        mapped = Mapped()
        mapped.itself = mapped  # as transformers' models do
        held.append(weakref.ref(mapped))
        raise failure()

    monkeypatch.setattr(export_worker.Exporter, "run", fail)
    clear, alive = JobFolder.clear, []
    monkeypatch.setattr(JobFolder, "clear", lambda folder: (alive.append(bool(held and held[0]())), clear(folder)))
    status, _ = carry_out(tiny.workspace, tiny.run, "adapter")
    assert status.message is not None and not status.active
    assert status.message.key in ("export.crashed", "export.no_adapter", "export.cancelled")
    assert len(alive) > 1 and not any(alive)


@pytest.mark.parametrize(("state", "stays"), [("cancelled", False), ("failed", False), ("starting", True)])
def test_the_next_start_clears_what_a_worker_could_not_delete(tmp_path: Path, state: str, stays: bool) -> None:
    workspace = Workspace.open(tmp_path / "ws")
    job = JobFolder(workspace.exports / ".jobs" / "run-gguf-q8_0")
    job.build.mkdir(parents=True)
    (job.build / "model.gguf").write_bytes(b"GGUF")
    job.write(ExportStatus(state=state, since=time.time()))
    (workspace.exports / ".jobs" / ".DS_Store").write_bytes(b"of a Mac")
    Exports(workspace)
    assert (job.build / "model.gguf").exists() is stays


def test_a_killed_worker_is_told_from_one_at_work(merging: tuple[Exports, ExportJob]) -> None:
    exports, job = merging
    assert job.status().state == "running"
    job.process.kill()
    job.process.wait()
    # a child of it that is just being started still holds its lock
    wait_until(lambda: job.status().message == msg("export.went_away"))
    assert exports._job(job.request.name).status().state == "failed"


def test_a_worker_that_takes_minutes_to_start_is_at_work_and_one_whose_disk_was_full_to_its_last_byte_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a PC where twenty programs were at work the export "ended without a word" after a minute, and went on."""
    job = JobFolder(tmp_path)
    job.write(ExportStatus(since=time.time() - 2 * jobs.START_S))
    for code, key in ((None, None), (1, "export.went_away")):
        status = job.status(SimpleNamespace(poll=lambda code=code: code))
        assert status and (status.message.key if status.message else None) == key and status.active == (key is None)
    monkeypatch.setattr("core.files.free_when_full", lambda folder: 0)
    status = job.status()
    assert status and status.message and status.message.key == "export.went_away_full"


def test_while_somebody_else_holds_the_device_the_owner_is_named(
    tiny: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_worker, "LEASE_WAIT_S", 0.1)
    with lease.hold(tiny.workspace, msg("export.lease", name="Parrot")):
        status, _ = carry_out(tiny.workspace, tiny.run, "adapter")
    assert status.state == "failed" and status.busy and "Parrot" in status.message.render("en")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("zip", None, None), ExportError),
        (("gguf", "q4_0", None), ExportError),
        (("merged", "q8_0", None), ExportError),
        (("adapter", None, "checkpoint-000099"), RunError),
    ],
)
def test_what_cannot_be_asked_for_is_one_sentence(tiny: Trained, arguments: tuple, error: type) -> None:
    with pytest.raises(error) as caught:
        tiny.exports().start(tiny.run, *arguments)
    assert not str(caught.value).startswith(("export.", "run.")) and "{" not in str(caught.value)


def test_a_run_without_an_adapter_has_nothing_to_take_home(tiny: Trained) -> None:
    run = Runs(tiny.workspace).create(Recipe.parse({"name": "Empty", "data": {"source": "rows"}}), "command")
    with pytest.raises((ExportError, ModelError), match="Empty"):
        tiny.exports().start(run, "merged")
