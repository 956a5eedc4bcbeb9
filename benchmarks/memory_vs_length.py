"""Memory of a step above the loaded model, by length: our loss against all logits at once.

    .venv/bin/python -m benchmarks.memory_vs_length --data FILE [--lengths 256 512 1024 2048 4096] [--rounds 5]

One row of exactly so many tokens out of the given data, as often as its answers are learned there; LoRA r 8 on all
linear layers, two steps, each measurement in a process of its own (resident memory at its peak, less that of the loaded
model; on a card the allocator's). full: PEFT's layers and transformers' own loss, logits of every position. ours: the
app's step.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks import child, machine, rows
from benchmarks.peers.job import Job
from core.system import gpu

LENGTHS = (256, 512, 1024, 2048, 4096)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a data file of any format that the app reads")
    parser.add_argument("--rows", type=int, default=300, help="of its first rows")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workspace", type=Path, help="a workspace that has, or gets, the starter model")
    chosen = parser.parse_args()
    model = rows.starter(chosen.workspace)
    found, _ = rows.read(chosen.data, model, chosen.rows, Job.max_length)
    print(machine.line("torch", "transformers", "peft"), flush=True)
    print(f"\nMiB above the loaded model, medians of {chosen.rounds} processes each\n")
    print("| tokens | checkpointing | full loss | ours | ours / full |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        file = found.write(Path(scratch) / "rows.jsonl")
        for checkpointing in ("on", "off"):
            for length in chosen.lengths:
                job = Job(str(model), str(file), "", 1, 1, 1, True, bool(gpu.probe().cards), max_length=length)
                path = job.write(Path(scratch) / "job.json")
                growth: dict[str, list[float]] = {"full": [], "ours": []}
                for _ in range(chosen.rounds):
                    for way, values in growth.items():
                        result = child.run("benchmarks.memory_vs_length", path, way, checkpointing)
                        values.append(result["peak_mib"] - result["loaded_mib"])
                full, ours = (statistics.median(growth[way]) for way in ("full", "ours"))
                print((f"| {length:,} | {checkpointing} | {full:,.0f} | {ours:,.0f} | "
                       f"{child.ratio(growth['ours'], growth['full'])} |"),
                      flush=True)  # fmt: skip


def one(job: Job, way: str, checkpointing: bool) -> None:
    """Make one measurement in this process."""
    import torch

    from benchmarks import engine
    from benchmarks.peers.meter import Meter
    from core.data.labels import Encoded
    from core.engine.batches import collate

    with engine.opened(job, checkpointing) as opened:
        ids = [token for row in opened.rows for token in row.input_ids]
        learned = [is_learned for row in opened.rows for is_learned in row.learned]
        row = Encoded(ids[: job.max_length], learned[: job.max_length])
        tuned, device = opened.tuned.train(), opened.compute.device
        meter = Meter(job.on_card)
        opened.rows[:] = [row]
        # also where it is not used: it runs the model once, as a warm-up for both
        trainer = opened.trainer(max_steps=2)
        if way == "ours":
            meter.loaded()
            trainer.run()
        else:
            tuned.get_base_model().set_attn_implementation("sdpa")
            if checkpointing:
                tuned.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
                tuned.enable_input_require_grads()
            batch = collate([row], 0, device)
            labels = torch.full((batch.input_ids.numel(),), -100, device=device)
            labels[batch.index + 1] = batch.targets
            parameters = [p for p in tuned.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(parameters, lr=job.learning_rate, fused=True)
            meter.loaded()
            for _ in range(2):
                tuned(input_ids=batch.input_ids, labels=labels[None], use_cache=False).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        meter.report()


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].endswith(".json"):
        one(Job.read(sys.argv[1]), sys.argv[2], sys.argv[3] == "on")
    else:
        main()
