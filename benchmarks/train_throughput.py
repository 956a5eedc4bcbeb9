"""Supervised tokens a second, memory and what is learned: LoRA Garage against TRL and LLaMA-Factory.

    python launch.py test --collect-only -q      # once: makes the environment
    .venv/bin/python -m benchmarks.train_throughput --data FILE [--rounds 5] [--steps 5] [--only NAME ...]
    .venv/bin/python -m benchmarks.train_throughput --data CHATS --max-length 2048 --examples 4 --steps 3           #
    long chats
    .venv/bin/python -m benchmarks.train_throughput --data FILE --random qwen3-0.6b --four-bit --only garage trl    #
    another shape, QLoRA

Everyone trains the starter (bf16, LoRA r 8 on all linear layers, alpha 16, one learning rate without warm-up or decay,
AdamW, seed 42) for one epoch over the same rows, none longer than max_length, in a process and an environment of its
own, one after the other, in an order that turns with each round. A step holds so many examples on average: 4 at once
where rows are padded; packed rows come in whole numbers, and the supervised tokens a step are printed. Rates are of the
steps after the first. Peers run as they are; in the rows named "with our environment" glibc is told to keep what they
free, and oneDNN to keep fewer products, as our own process has it. Each tenth row is kept apart; the loss on them is
measured by our own engine on each trainer's saved adapter. Peers are installed from PyPI below --peers-cache the first
time. Prints one line a run, then a table.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import child, machine, rows
from benchmarks.peers.environment import DEFAULT_CACHE, LLAMA_FACTORY, TRL, Peer, python_of
from benchmarks.peers.job import Job
from core.system import gpu
from core.system.processes import LARGEST_IN_HEAP, MAX_KEPT

WARM_UP = 1  # steps that are not timed: the first one warms caches up


@dataclass(frozen=True)
class Contestant:
    """A trainer with settings. peer: None for LoRA Garage. at_once: rows in a micro-batch. how: its settings in the
    table's legend. more: additions to its environment."""

    title: str
    peer: Peer | None
    packing: bool
    how: str
    at_once: int = 4
    more: Mapping[str, str] = field(default_factory=lambda: child.AS_SHIPPED)


# What keep_freed_memory says to glibc in our own process, as its environment; the rest is in child.environment.
KEEPING = {"MALLOC_MMAP_THRESHOLD_": str(LARGEST_IN_HEAP), "MALLOC_TRIM_THRESHOLD_": str(MAX_KEPT)}
CONTESTANTS = {
    "garage": Contestant("LoRA Garage", None, True, "as the app trains on a PC like this; no checkpointing"),
    "garage_lean": Contestant(
        "LoRA Garage, one row at once", None, True, "one packed row of max_length at once; no checkpointing", at_once=1
    ),
    "trl": Contestant(
        f"TRL {TRL.version} at its best",
        TRL,
        True,
        "SFTTrainer: packing bfd, assistant_only_loss with a marked template, its loss in chunks without full logits, "
        "bf16 base, no checkpointing, adamw_torch_fused; one packed row at once, which was a fifth faster than three",
        at_once=1,
    ),
    "llamafactory": Contestant(
        f"LLaMA-Factory {LLAMA_FACTORY.version} as shipped",
        LLAMA_FACTORY,
        False,
        "llamafactory-cli train: template smollm2, bf16, padded rows 4 x 4, checkpointing on (its default)",
    ),
    "llamafactory_packed": Contestant(
        f"LLaMA-Factory {LLAMA_FACTORY.version} with packing",
        LLAMA_FACTORY,
        True,
        "the same with packing and neat_packing, one packed row at once",
        at_once=1,
    ),
}
CONTESTANTS |= {
    f"{name}_keeping": replace(
        CONTESTANTS[name], title=f"{CONTESTANTS[name].title}, with our environment", more=KEEPING
    )
    for name in ("trl", "llamafactory")
}


def job_of(contestant: Contestant, base: Job, mean_tokens: float) -> Job:
    """Return base with its batch laid out: its examples, of mean_tokens each, padded or packed."""
    if not contestant.packing:
        return replace(base, batch=contestant.at_once, accumulation=base.examples // contestant.at_once, packing=False)
    packed_rows = base.examples * mean_tokens / base.max_length
    accumulation = math.ceil(packed_rows / contestant.at_once)
    return replace(base, batch=max(1, round(packed_rows / accumulation)), accumulation=accumulation, packing=True)


def measure(name: str, job: Job, folder: Path, peers_cache: Path) -> dict[str, Any]:
    contestant = CONTESTANTS[name]
    job = replace(job, output=str(folder / "adapter"))
    path, log = job.write(folder / "job.json"), folder / "output.txt"
    if contestant.peer is None:
        return child.run("benchmarks.peers.garage", path, log=log)
    return child.run(
        contestant.peer.module, path, python=python_of(contestant.peer, peers_cache), log=log, more=contestant.more
    )


def table(results: dict[str, list[dict[str, Any]]], losses: dict[str, float]) -> list[str]:
    rates = {name: [child.rate(result, "supervised", WARM_UP) for result in found] for name, found in results.items()}
    lines = [
        "| trainer | supervised tokens/s | garage over it | of all computed | tokens a step | peak MiB | eval loss |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in results.items():
        over = child.ratio(rates["garage"], rates[name]) if "garage" in rates else "-"
        useful = sum(found[0]["supervised"]) / sum(found[0]["computed"])
        a_step = statistics.median(found[0]["supervised"][:-1])
        peak = statistics.median(result["peak_mib"] for result in found)
        lines.append(
            f"| {CONTESTANTS[name].title} | {child.spread(rates[name])} | {over} | {useful:.0%} | {a_step:,.0f} "
            f"| {peak:,.0f} | {losses[name]:.4f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a data file of any format that the app reads")
    parser.add_argument("--rows", type=int, default=300, help="of its first rows")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="one epoch in all")
    parser.add_argument("--examples", type=int, default=16, help="in a step, on average; a multiple of 4")
    parser.add_argument("--max-length", type=int, default=Job.max_length)
    parser.add_argument(
        "--random", metavar="MODEL", help="of the catalogue, with weights at random, instead of the starter"
    )
    parser.add_argument("--layers", type=int, help="of it, instead of all")
    parser.add_argument("--four-bit", action="store_true", help="QLoRA: the base in NF4")
    parser.add_argument("--only", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--learning-rate", type=float, default=Job.learning_rate)
    parser.add_argument("--peers-cache", type=Path, default=DEFAULT_CACHE, help=f"default {DEFAULT_CACHE}")
    parser.add_argument("--workspace", type=Path, help="a workspace that has, or gets, the starter model")
    chosen = parser.parse_args()
    model = rows.starter(chosen.workspace)
    found, too_long = rows.read(chosen.data, model, chosen.rows, chosen.max_length)
    train, held_out = found.split()
    train = train.part(range(min(chosen.steps * chosen.examples, len(train.examples))))
    on_card = bool(gpu.probe().cards)
    for contestant in (CONTESTANTS[name] for name in chosen.only):
        if contestant.peer:
            python_of(contestant.peer, chosen.peers_cache)
    print(machine.line("torch", "transformers", "peft"), flush=True)
    print(
        f"{len(train.examples)} rows to train ({train.tokens:,} tokens, {train.supervised:,} supervised), "
        f"{len(held_out.examples)} held out, {too_long} longer than {chosen.max_length} tokens left out\n",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if chosen.random:
            model = rows.random_base(chosen.random, model, folder / "base", chosen.layers)
        base = Job(str(model), str(train.write(folder / "rows.jsonl")), "", 1, 1, chosen.examples, False, on_card)
        base = replace(base, learning_rate=chosen.learning_rate, max_length=chosen.max_length, four_bit=chosen.four_bit)
        mean_tokens = train.tokens / len(train.examples)
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen.only}
        for number in range(chosen.rounds):
            turn = number % len(chosen.only)
            for name in chosen.only[turn:] + chosen.only[:turn]:
                place = folder / f"{name}-{number}"
                place.mkdir()
                result = measure(name, job_of(CONTESTANTS[name], base, mean_tokens), place, chosen.peers_cache)
                results[name].append(result)
                rate = child.rate(result, "supervised", WARM_UP)
                print(
                    f"round {number + 1}, {name}: {rate:,.0f} supervised tokens/s ({sum(result['supervised']):,} in "
                    f"{len(result['ends'])} steps), {result['loaded_mib']:,.0f} MiB loaded, {result['peak_mib']:,.0f} "
                    f"at most",
                    flush=True,
                )
        held = replace(base, rows=str(held_out.write(folder / "held_out.jsonl"))).write(folder / "held_out.json")
        base_loss = child.run("benchmarks.peers.held_out", held)["eval_loss"]
        losses = {
            name: child.run("benchmarks.peers.held_out", held, folder / f"{name}-0" / "adapter")["eval_loss"]
            for name in chosen.only
        }
    print(f"\nmedian (range) of {chosen.rounds} rounds; eval loss of the base {base_loss:.4f}\n")
    print("\n".join(table(results, losses)) + "\n")
    for name in chosen.only:
        laid_out = (
            results[name][0].get("layout")
            or f"{(job := job_of(CONTESTANTS[name], base, mean_tokens)).batch} x {job.accumulation}"
        )
        print(
            f"{CONTESTANTS[name].title}: {CONTESTANTS[name].how}; {laid_out} rows a step; "
            f"{', '.join(results[name][0]['versions'])}"
        )


if __name__ == "__main__":
    main()
