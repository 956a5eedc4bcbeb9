"""Compares our step with its floor: forward and input-gradient backward of the frozen base alone, over the same rows.

    .venv/bin/python -m benchmarks.step_limit --data FILE [--rounds 7] [--steps 2] [--profile] [--json]

The floor has no adapter and no optimizer, and computes no padding. It is measured twice: with transformers' own
attention and mask, in packed rows of max_length (its padding, some per cent, is computed and printed), and with our
attention in our rows.

Below both are the matrix products alone: those of our own step, attention's and the adapter's among them, forward and
backward, repeated with the same tensors in the same order and nothing between them. Their outputs are discarded. Every
contestant takes the same steps one after the other, in an order that rotates with each round; the ratio is the floor's
time to our step's in the same round: 1.0 would be an adapter, a loss and an optimizer that cost nothing.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks import child, engine, machine, rows
from benchmarks.peers.job import Job
from benchmarks.peers.meter import RESULT, wait_for_card
from core.data.labels import Encoded
from core.data.row_order import packed
from core.engine import attention, base_model
from core.engine.batches import Batch, collate_packed
from core.engine.loss import Head, summed_loss
from core.system import gpu

EXAMPLES, AT_ONCE = 16, 4
Step = Callable[[int], None]
# Products that torch's counter of multiplications does not know.
PRODUCTS = ("aten::addmm_", "aten::baddbmm_", "aten::_scaled_dot_product_flash_attention_for_cpu",
            "aten::_scaled_dot_product_flash_attention_for_cpu_backward")  # fmt: skip


def frozen(base: Any) -> Any:
    """Copy base alone, with gradients down to its embeddings."""
    model = copy.deepcopy(base).train()
    model.get_input_embeddings().register_forward_hook(lambda module, args, output: output.requires_grad_())
    return model


def filled_up(examples: Sequence[Encoded], max_length: int, device: torch.device) -> Batch:
    """Return packed rows of max_length side by side, as transformers isolates them: by positions that begin anew."""
    bins = packed(range(len(examples)), [len(row.input_ids) for row in examples], max_length)
    parts = [collate_packed([examples[i] for i in chosen], device) for chosen in bins]
    width = max(part.tokens for part in parts)
    ids, positions = (torch.zeros(len(parts), width, dtype=torch.int64, device=device) for _ in range(2))
    index = []
    for row, part in enumerate(parts):
        assert part.position_ids is not None  # packed
        ids[row, : part.tokens], positions[row, : part.tokens] = part.input_ids[0], part.position_ids[0]
        index.append(part.index + row * width)
    targets = torch.cat([part.targets for part in parts])
    return _Rows(ids, torch.cat(index), targets, sum(part.tokens for part in parts), position_ids=positions)


class Products(TorchDispatchMode):
    """Records each matrix product, attention's too, with its inputs, while it is entered, to repeat them. All stay in
    memory."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Callable[[], Any]] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation._overloadpacket in flop_registry or operation._schema.name in PRODUCTS:
            self.asked.append(partial(operation, *args, **(kwargs or {})))
        return operation(*args, **(kwargs or {}))

    @torch.no_grad()
    def again(self) -> None:
        for product in self.asked:
            product()


class _Rows(Batch):
    def inputs(self) -> dict[str, Any]:
        return {"input_ids": self.input_ids, "position_ids": self.position_ids, "use_cache": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a data file of any format that the app reads")
    parser.add_argument("--rows", type=int, default=300, help="of its first rows")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="of 16 examples, in a round")
    parser.add_argument("--profile", action="store_true", help="print where our step spends its time, and nothing else")
    parser.add_argument(
        "--json", action="store_true", help="also the ratios of each round as one line, for benchmarks.regress"
    )
    parser.add_argument("--workspace", type=Path, help="a workspace that has, or gets, the starter model")
    chosen = parser.parse_args()
    model = rows.starter(chosen.workspace)
    found, _ = rows.read(chosen.data, model, chosen.rows, Job.max_length)
    train = found.part(range(min(chosen.steps * EXAMPLES, len(found.examples))))
    with tempfile.TemporaryDirectory() as scratch:
        job = Job(str(model), str(train.write(Path(scratch) / "rows.jsonl")), "", AT_ONCE, EXAMPLES // AT_ONCE,
            EXAMPLES, True,
                  bool(gpu.probe().cards))  # fmt: skip
        with engine.opened(job) as opened:
            print(machine.line("torch", "transformers", "peft") + f", {torch.get_num_threads()} threads")
            ratios = measure(opened, job, chosen.rounds, chosen.profile)
    if chosen.json:
        print(RESULT + json.dumps(ratios))


def measure(opened: engine.Engine, job: Job, rounds: int, profile: bool) -> dict[str, list[float]]:
    """Return the time of each contestant over our step's, round by round; nothing if only the profile is requested."""
    trainer = opened.trainer()
    plan = [[[opened.rows[i] for i in micro] for micro in step] for step in trainer.schedule.steps()]
    device = trainer.step.device
    bare = base_model.load(opened.model_folder, opened.compute, four_bit=False)
    head = Head.from_model(bare)
    theirs, ours = frozen(bare), frozen(bare)
    if not attention.enable(ours):
        raise SystemExit("this model cannot be packed")
    trainer.step.fuse()

    def step(number: int) -> None:
        trainer._step(number + 1, list(trainer.schedule.steps())[number])

    def floor(model: Any, collated: Sequence[Sequence[Batch]]) -> Step:
        def run(number: int) -> None:
            model.train()
            for batch in collated[number]:
                (summed_loss(model, batch, head) / 1000).backward()

        return run

    in_our_rows = [[collate_packed(micro, device) for micro in step] for step in plan]
    in_their_rows = [[filled_up(micro, job.max_length, device) for micro in step] for step in plan]
    contestants: dict[str, Step] = {
        "our step": step,
        "the floor, transformers' attention": floor(theirs, in_their_rows),
        "the floor, our attention": floor(ours, in_our_rows),
    }
    for run in contestants.values():
        run(0)
    if profile:
        print(table_of(step))
        return {}
    products = [Products() for _ in plan]
    for number, kept in enumerate(products):
        with kept:
            step(number)
    contestants["the matrix products alone"] = lambda number: products[number].again()
    supervised = sum(batch.targets.numel() for batches in in_our_rows for batch in batches)
    tokens = sum(batch.tokens for batches in in_our_rows for batch in batches)
    computed = sum(batch.input_ids.numel() for batches in in_their_rows for batch in batches)
    print(
        f"{len(plan)} steps, {tokens:,} tokens, {supervised:,} supervised; transformers' rows hold "
        f"{computed / tokens - 1:.1%} padding\n"
    )
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        names = list(contestants)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            started = time.perf_counter()
            for i in range(len(plan)):
                contestants[name](i)
            wait_for_card(job.on_card)
            times[name].append(time.perf_counter() - started)
    print(f"| median (range) of {rounds} rounds | supervised tokens/s | time over our step's |\n|---|---|---|")
    for name, seconds in times.items():
        rates = [supervised / value for value in seconds]
        print(f"| {name} | {child.spread(rates)} | {child.ratio(seconds, times['our step'])} |")
    return {name: [a / b for a, b in zip(seconds, times["our step"], strict=True)] for name, seconds in times.items()}


def table_of(step: Step) -> str:
    from torch.profiler import profile

    with profile() as found:
        step(0)
    return found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=60)


if __name__ == "__main__":
    main()
