"""How much memory an export takes, stage by stage, beside the size of its model.

    .venv/bin/python -m benchmarks.export_memory [--gb 1.2] [--words 49152] [--workspace DIR]

A random llama of that many GB in 16 bit with the starter's tokenizer and a random adapter is made, merged, converted,
quantized and compared with llama.cpp as an export does it, by layer as a large one is. Told is the private memory of
this process and all that it started together, at most in each stage, looked at a hundred times a second: beyond what
the process held before, so without Python's libraries in this one and with them in the others. Files that are mapped
for reading are not in it: the system takes those pages back where memory is short.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import torch
from transformers import LlamaConfig

from benchmarks import machine
from core.engine import device
from core.export import merge, stored, verification
from core.export.llamacpp import make, tools
from core.export.safetensors_file import SafetensorsFile
from core.models import starter
from core.models.adapters import TOKENIZER_FILES
from core.workspace.folder import Workspace

HIDDEN, INNER, RANK = 2048, 8192, 16
MODULES = {"self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (HIDDEN, HIDDEN), "self_attn.v_proj": (HIDDEN,
    HIDDEN),
           "self_attn.o_proj": (HIDDEN, HIDDEN), "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN),
           "mlp.down_proj": (HIDDEN, INNER)}  # fmt: skip
A_LAYER = sum(out * into for out, into in MODULES.values())
LONG = {
    "messages": [
        {"role": "user", "content": "Tell me all."},
        {"role": "assistant", "content": "All of it, once more. " * 120},
    ]
}


def make_model(folder: Path, known: Path, parameters: int, words: int) -> tuple[Path, Path]:
    """Write a base and an adapter for it, piece by piece."""
    base, adapter = folder / "base", folder / "adapter"
    for made in (base, adapter):
        made.mkdir()
        for name in TOKENIZER_FILES:
            if (known / name).exists():
                shutil.copyfile(known / name, made / name)
    layers = max(1, (parameters - words * HIDDEN) // A_LAYER)
    LlamaConfig(
        vocab_size=words, hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=layers, num_attention_heads=16,
        num_key_value_heads=16, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(base)  # fmt: skip
    matrices = {f"model.layers.{i}.{name}": shape for i in range(layers) for name, shape in MODULES.items()}
    norms = [
        f"model.layers.{i}.{name}" for i in range(layers) for name in ("input_layernorm", "post_attention_layernorm")
    ]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (words, HIDDEN),
        **{f"{name}.weight": shape for name, shape in matrices.items()},
    }
    shapes |= {f"{name}.weight": (HIDDEN,) for name in (*norms, "model.norm")}
    factors = {f"base_model.model.{name}.lora_A.weight": (RANK, into) for name, (_, into) in matrices.items()}
    factors |= {f"base_model.model.{name}.lora_B.weight": (out, RANK) for name, (out, _) in matrices.items()}
    written("BF16", shapes, base / "model.safetensors")
    written("F32", factors, adapter / "adapter_model.safetensors")
    said = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": [n.rpartition(".")[2] for n in MODULES],
        "task_type": "CAUSAL_LM",
    }
    (adapter / "adapter_config.json").write_text(json.dumps(said), "utf-8")
    return base, adapter


def written(kind: str, shapes: Mapping[str, tuple[int, ...]], file: Path) -> None:
    def numbers() -> Iterator[torch.Tensor]:
        for shape in shapes.values():
            yield (
                torch.randn(shape).mul_(0.02).to(stored.FLOATS[kind])
                if len(shape) > 1
                else torch.ones(shape, dtype=stored.FLOATS[kind])
            )

    with SafetensorsFile(file, {name: (kind, shape) for name, shape in shapes.items()}) as opened:
        for place, tensor in zip(opened.places.values(), numbers(), strict=True):
            opened.put(place, tensor)


class Watch:
    """Records the largest private memory of this process and its children together in each stage, in bytes."""

    def __init__(self) -> None:
        self.most: dict[str, int] = {}
        self._of = self._stage = ""
        self._over, self._me = threading.Event(), psutil.Process()
        self._before, self._words = private(self._me), self._me.cmdline()
        threading.Thread(target=self._look, daemon=True).start()

    def stage(self, stage: str, fraction: float | None = None) -> None:
        if stage != self._of:
            self._of, again = stage, sum(name.startswith(stage) for name in self.most)
            self._stage = f"{stage}, {again + 1}." if again else stage

    def end(self) -> None:
        self._over.set()

    def _look(self) -> None:
        while not self._over.wait(0.01):
            stage = self._stage
            now = private(self._me) - self._before + sum(map(self._of_child, self._me.children(recursive=True)))
            self.most[stage] = max(now, self.most.get(stage, 0))

    def _of_child(self, process: psutil.Process) -> int:
        """Return a child's private memory; 0 for one that is just being started: its memory is still ours."""
        try:
            return private(process) if process.cmdline() != self._words else 0
        except psutil.Error:  # it has just ended
            return 0


def private(process: psutil.Process) -> int:
    found = process.memory_info()
    return int(getattr(found, "private", found.rss - getattr(found, "shared", 0)))


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--gb", type=float, default=1.2)
    asked.add_argument("--words", type=int, default=49152)
    asked.add_argument("--workspace", default=None)
    options = asked.parse_args()
    workspace = Workspace.open(options.workspace)
    found = tools.obtain(workspace)
    known = starter.ensure(workspace.models, lambda *_: None, lambda: None)
    print(machine.line("torch", "transformers"))
    with tempfile.TemporaryDirectory(dir=workspace.cache) as name:
        folder = Path(name)
        base_folder, adapter = make_model(folder, known, int(options.gb * 1e9 / 2), options.words)
        base, watch = stored.read_base(base_folder), Watch()
        order = make.MakeOrder(
            tools=found, quant="q4_k_m", name="random", base=base, adapter=adapter, merged=folder / "merged",
            target=folder / "out.gguf",
            work=folder / "work", log=folder / "log", rows=[LONG],
            method=verification.Method(device.on_cpu(), by_layer=True),
            stage=watch.stage, check=lambda: None,
        )  # fmt: skip
        watch.stage("merging")
        merge.merge(base, adapter, order.merged, lambda fraction: None, lambda: None)
        check, _ = make.make(order)
        watch.end()
        watch.most.pop("", None)
        largest = max(base.tensors.values(), key=lambda tensor: tensor.shape[0] * tensor.shape[-1])
        size = (base_folder / "model.safetensors").stat().st_size
        print(
            f"{size / 1e6:,.0f} MB in 16 bit, the largest tensor {2 * largest.shape[0] * largest.shape[-1] / 1e6:,.0f} "
            f"MB; {check.prompts} texts"
        )
        for stage, most in watch.most.items():
            print(f"{stage:22} {most / 1e6:7,.0f} MB, {most / size:.2f} of the model")
    return 0


if __name__ == "__main__":
    sys.exit(main())
