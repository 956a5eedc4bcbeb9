"""Peaks of the real caching allocator on the null card, for tests/card/sweep.py: a base is loaded
(core/engine/base_model), gets an adapter and makes steps (core/engine/step) as in a run, without numbers, so that
weights never touch RAM.

    python -m tests.card.card python -m tests.card.measured     one task, as JSON, a line of stdin; one answer a line of
                                                                stdout

Weights come from a sparse safetensors file that names them and holds none: what transformers would copy from it is
allocated where it goes. Without numbers no test of a function of ours against the model's own can pass, so they are
taken to have passed (`trust`).
"""

from __future__ import annotations

import gc
import json
import math
import random
import struct
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from core.data.labels import Encoded
from core.engine import adapter, attention, base_model, device, loss
from core.engine.families import parts
from core.engine.step import LongestBatch, Rows, Step
from core.engine.variants import elementwise, varlen
from core.memory.layers import WIDEST_HEAD
from core.recipe import Adapter, Data, Recipe, Train
from core.trial import dry_run

MORE = 4  # layers
LARGEST_FILE = 2 << 30  # the system refuses to map one that is larger than its RAM
SHORT = Encoded([5] * 64, [True] * 64)


def trust() -> None:
    """Take the tests that compare numbers on the card to have passed, as they do on a card that computes."""
    from transformers import core_model_loading

    same = elementwise._are_same
    elementwise._are_same = lambda own, ours, given: given[0].is_cuda or same(own, ours, given)
    varlen.proven = lambda kernel, device, dtype, heads, width, window: kernel if width <= WIDEST_HEAD else None
    loss._matches_model = lambda model, head: True

    attend, isolated = attention.packed_sdpa, list[bool]()

    def noting(*states: Any, **given: Any) -> Any:
        isolated.append(bool(given.get("lengths")))
        return attend(*states, **given)

    def holds(model: Any, own: Any) -> bool:
        """Whether every layer is attention that is told where examples end: convolutions and scans cross the border."""
        isolated.clear()
        attention._hidden(model, attention._probe(model), (attention.FIRST, attention.SECOND))
        layers = model.config.get_text_config().num_hidden_layers
        return len(isolated) == layers and all(isolated)

    attention.packed_sdpa = noting
    attention.holds = holds

    def unread(tensor: Any, device: Any = None, dtype: Any = None) -> torch.Tensor:
        return torch.empty(tensor.get_shape(), dtype=dtype or torch.bfloat16, device=device or "cpu")

    core_model_loading._materialize_copy = unread


def write_base(folder: Path, config: Any) -> None:
    """config.json, and files with the names and sizes of all weights in bf16, but without a byte of them."""
    with torch.device("meta"):
        built = parts.auto_class(config).from_config(config, dtype=torch.bfloat16)
    built.tie_weights()
    tied, place, files = set(getattr(built, "all_tied_weights_keys", None) or ()), {}, list[dict[str, Any]]()
    for name, tensor in built.state_dict().items():
        if name in tied:
            continue
        begin = files[-1][""] if files else LARGEST_FILE
        if begin >= LARGEST_FILE:
            files.append({"": 0})
            begin = 0
        files[-1][""] = end = begin + 2 * tensor.numel()
        files[-1][name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [begin, end]}
        place[name] = f"model-{len(files):05d}.safetensors"
    for number, head in enumerate(files, 1):
        size, text = head.pop(""), json.dumps(head).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / f"model-{number:05d}.safetensors", "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + size)
    index = {"metadata": {}, "weight_map": place}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    config.save_pretrained(folder)


class Base:
    """A base of `depth` layers (None: all) on the card with its adapter; `loaded`: bytes allocated at the peak of its
    loading."""

    def __init__(self, values: Mapping[str, Any], depth: int | None, recipe: Recipe):
        config = dry_run._config(values)
        config = dry_run._cut(config, depth) if depth else config
        compute = device.choose()
        torch.cuda.reset_peak_memory_stats()
        with tempfile.TemporaryDirectory() as folder:
            write_base(Path(folder), config)
            base = base_model.load(
                Path(folder), compute, recipe.adapter.method == "qlora", False, recipe.adapter.load_in_8bit
            )
        self.loaded = torch.cuda.max_memory_reserved()
        self.compute, self.tuned = compute, adapter.add(base, recipe.adapter, "measured", None)

    def step(self, recipe: Recipe) -> Step:
        step = Step.from_recipe(self.tuned, recipe, self.compute, 0)
        step.begin(0)
        self.make(step, [[SHORT]])  # creates the optimizer's state
        return step

    @staticmethod
    def make(step: Step, parts: Sequence[Rows]) -> None:
        step.compute(parts, 1e-4)
        step.apply(is_good=True)
        step.note_finished()

    def end(self, step: Step) -> None:
        step.release()
        if step.retreat.checkpointing:
            self.tuned.gradient_checkpointing_disable()
            self.tuned.disable_input_require_grads()
        self.tuned.zero_grad(set_to_none=True)


def rows_of(lengths: Sequence[int]) -> list[Encoded]:
    return [Encoded([5] * length, [True] * length) for length in lengths]


def emptied() -> None:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def recipe_of(method: str, packing: bool, checkpointing: bool, length: int, batch: int, **adapter: Any) -> Recipe:
    train = Train(optim="adamw_8bit", gradient_checkpointing=checkpointing, per_device_train_batch_size=batch)
    return Recipe(
        data=Data(source="rows", max_length=length, packing=packing),
        adapter=Adapter(method=method, **adapter),
        train=train,
    )


def depths_of(values: Mapping[str, Any], is_whole: bool) -> tuple[int, ...]:
    """The numbers of layers to run: all, or two that differ by at least MORE of what repeats itself."""
    config = dry_run._config(values)
    layers = config.get_text_config().num_hidden_layers
    few = dry_run._depths(dry_run._layer_kinds(config, layers))
    if is_whole or len(few) == 1:
        return (layers,)
    first, more = few[0], few[1] - few[0]
    second = first + more * math.ceil(MORE / more)
    return (first, second) if first + second < layers else (layers,)


def sweep(
    config: Mapping[str, Any], is_whole: bool, method: str, cases: Sequence[Sequence[Any]]
) -> Iterator[dict[str, Any]]:
    """Peaks of a step of two equal micro-batches; with is_whole by a whole step, otherwise by its second micro-batch,
    which adds to gradients that are there. cases: packing, checkpointing, lengths of the rows of a micro-batch."""
    layers = dry_run._config(config).get_text_config().num_hidden_layers
    for depth in depths_of(config, is_whole):
        for point in at_depth(config, depth, method, cases, is_whole):
            yield point | {"depth": depth, "layers": layers}
        gc.collect()
        emptied()


def at_depth(
    config: Mapping[str, Any], depth: int, method: str, cases: Sequence[Sequence[Any]], is_whole: bool
) -> Iterator[dict[str, Any]]:
    base = Base(config, depth, recipe_of(method, True, True, 512, 1))
    emptied()
    yield {"loading": base.loaded, "base": torch.cuda.memory_allocated(), "reserved": torch.cuda.memory_reserved()}
    step, before = None, None
    for packing, checkpointing, lengths in cases:
        if before != (packing, checkpointing):
            if step:
                base.end(step)
                gc.collect()
            step, before = (
                base.step(recipe_of(method, packing, checkpointing, sum(lengths), 1)),
                (packing, checkpointing),
            )
            is_packed, fused = step.packed, [step.fused.count, step.fused.total]
        emptied()
        rows = rows_of(lengths)
        if is_whole:
            base.make(step, [rows, rows])
        else:
            step.rehearse(LongestBatch(tuple(rows), sum(lengths), sum(lengths), several=True))
        stats = torch.cuda.memory_stats()
        yield {
            "packing": packing, "checkpointing": checkpointing, "lengths": lengths, "packed": is_packed, "fused": fused,
            "requested": stats["requested_bytes.all.peak"], "allocated": torch.cuda.max_memory_allocated(),
            "reserved": torch.cuda.max_memory_reserved(), "retries": stats["num_alloc_retries"],
        }  # fmt: skip


def plan(config: Mapping[str, Any], recipe: Mapping[str, Any], lengths: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Whether a plan's base, and then its step of two equal micro-batches, get the memory that they ask for on this
    card."""
    parsed, at, base, step = Recipe.model_validate(recipe), "loading", None, None
    emptied()
    try:
        base = Base(config, None, parsed)
        emptied()
        at, step = "step", base.step(parsed)
        emptied()
        rows = tuple(rows_of(lengths))
        step.rehearse(LongestBatch(rows, step.tokens(rows), sum(lengths), several=True))
        at = ""
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)
    peaks = {"allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
    yield {"fits": not at, "at": at, "packed": step is not None and step.packed, **peaks}
    del base, step
    gc.collect()
    emptied()
    yield {"left": torch.cuda.memory_allocated()}


def ragged(
    config: Mapping[str, Any], depth: int, longest: int, held: int, steps: int, seed: int, every: int
) -> Iterator[dict[str, Any]]:
    """Steps of QLoRA with checkpointing on rows of every length up to `longest` tokens, as many as fit into one packed
    row. held: bytes that the layers left out would take. Yields what is reserved and allocated at the peak of each
    `every` steps."""
    chance = random.Random(seed)
    emptied()
    recipe = recipe_of("qlora", True, True, longest, 1)
    base = Base(config, depth, recipe)
    ballast = torch.empty(held, dtype=torch.uint8, device=base.compute.device)
    step = base.step(recipe)
    emptied()
    failed = 0
    for number in range(1, steps + 1):
        lengths = [chance.randint(16, longest)]
        while (left := longest - sum(lengths)) > 16 and chance.random() < 0.7:
            lengths.append(chance.randint(16, left))
        try:
            base.make(step, [rows_of(lengths)])
        except torch.OutOfMemoryError as error:
            traceback.clear_frames(error.__traceback__)
            failed += 1
            step.discard_unfinished()
        if number % every == 0:
            stats = torch.cuda.memory_stats()
            yield {
                "step": number, "failed": failed, "retries": stats["num_alloc_retries"],
                "held": torch.cuda.memory_allocated(),
                "allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved(),
            }  # fmt: skip
            torch.cuda.reset_peak_memory_stats()
    del ballast


TASKS = {"sweep": sweep, "plan": plan, "ragged": ragged}


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    trust()
    for line in sys.stdin:
        task = json.loads(line)
        try:
            for answer in TASKS[task.pop("task")](**task):
                print(json.dumps(answer), flush=True)
            print(json.dumps({"end": True}), flush=True)
        except Exception as error:  # noqa: BLE001 - in the code of a hundred families: the driver writes it down
            print(json.dumps({"end": True, "why": f"{type(error).__name__}: {error}"[:500]}), flush=True)
            if "-v" in sys.argv:
                raise
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    device.read_bitsandbytes()
    gc.freeze()  # what the imports made need not be looked through at each collection
    main()
