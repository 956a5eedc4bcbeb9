"""Pairs a second, memory and what is preferred afterwards: LoRA Garage's dpo against TRL's DPOTrainer.

    .venv/bin/python -m benchmarks.preference_throughput [--data PAIRS] [--rounds 3] [--steps 5]      # about a quarter of an hour on two cores

Both train the starter (bf16, LoRA r 8 on all linear layers, beta 0.1, one learning rate, AdamW, seed 42) for one epoch over the same pairs, 16 a step, in
processes of their own, by turns. TRL at its best on this machine: log-probabilities of the reference beforehand, its fused head, no checkpointing, fused AdamW.
Rates are of the steps after the first, alone and with each pair's share of the reference. Each tenth pair is kept apart; how many of them each adapter
prefers rightly is measured by our own engine. Prints one line a run, then a table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import child, machine, rows
from benchmarks.peers.environment import DEFAULT_CACHE, TRL, python_of
from benchmarks.peers.job import Job
from core.presets import PROJECT
from core.system import gpu
from core.values import wilson

PAIRS = PROJECT / "benchmarks" / "pairs" / "repair_cafe.jsonl"
A_STEP, AT_ONCE, WARM_UP = 16, 4, 1
MODULES = {"garage": "benchmarks.peers.garage", "trl": "benchmarks.peers.trl_dpo"}


def trl_python(cache: Path) -> str | Path:
    """This one, where it has that TRL (the tests need it), else one that is made."""
    try:
        return sys.executable if version("trl") == TRL.version else python_of(TRL, cache)
    except PackageNotFoundError:
        return python_of(TRL, cache)


def split(data: Path, folder: Path, most: int) -> tuple[Path, Path]:
    """Files of at most so many pairs to train, and each tenth."""
    lines = data.read_text("utf-8").splitlines()
    apart = lines[:: rows.HELD_OUT_EACH]
    train = [line for number, line in enumerate(lines) if number % rows.HELD_OUT_EACH][:most]
    found = folder / "train.jsonl", folder / "apart.jsonl"
    for path, kept in zip(found, (train, apart), strict=True):
        path.write_text("\n".join(kept) + "\n", "utf-8")
    return found


def rates(result: dict[str, Any]) -> tuple[float, float]:
    """Pairs a second of the timed steps alone, and with the reference that each pair needs once."""
    alone = child.rate(result, "supervised", WARM_UP)
    return alone, 1 / (1 / alone + result["reference_s"] / sum(result["supervised"]))


def table(results: dict[str, list[dict[str, Any]]], apart: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "| trainer | pairs/s, steps alone | with the reference | peak MiB | kept apart preferred rightly | margin |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in results.items():
        alone, whole = zip(*map(rates, found), strict=True)
        right, count = apart[name]["right"], apart[name]["pairs"]
        low, high = wilson(right, count)
        peak = [result["peak_mib"] for result in found]
        accuracy = f"{right} of {count} ({low:.0%} to {high:.0%})"
        lines.append(
            f"| {name} | {child.spread(alone, '.2f')} | {child.spread(whole, '.2f')} | {child.spread(peak)} | {accuracy} | {apart[name]['margin']:.3f} |"
        )
    of = {
        name: [(*rates(result), result["peak_mib"], child.rate(result, "supervised", WARM_UP, "busy")) for result in found]
        for name, found in results.items()
    }
    over = [child.ratio([one[i] for one in of["garage"]], [one[i] for one in of["trl"]]) for i in range(4)]
    said = f"garage over trl: steps {over[0]}, with the reference {over[1]}, peak memory {over[2]}, steps by the processor's seconds {over[3]}"
    return [*lines, "", said]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=PAIRS, help="JSONL of prompt, chosen and rejected, as texts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="of 16 pairs, one epoch in all")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--peers-cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--workspace", type=Path, help="a workspace that has, or gets, the starter model")
    chosen = parser.parse_args()
    model, python = rows.starter(chosen.workspace), trl_python(chosen.peers_cache)
    print(machine.line("torch", "transformers", "peft"), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        train, apart = split(chosen.data, folder, chosen.steps * A_STEP)
        base = Job(str(model), str(train), "", AT_ONCE, A_STEP // AT_ONCE, A_STEP, False, bool(gpu.probe().cards), objective="dpo")
        base = replace(base, learning_rate=chosen.learning_rate)
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in MODULES}
        for number in range(chosen.rounds):
            for name in list(MODULES)[:: 1 if number % 2 else -1]:
                place = folder / f"{name}-{number}"
                place.mkdir()
                job = replace(base, output=str(place / "adapter")).write(place / "job.json")
                result = child.run(MODULES[name], job, python=python if name == "trl" else sys.executable, log=place / "output.txt")
                results[name].append(result)
                alone, whole = rates(result)
                print(
                    f"round {number + 1}, {name}: {alone:.2f} pairs/s, {whole:.2f} with the reference, {result['peak_mib']:,.0f} MiB at most",
                    flush=True,
                )
        held = replace(base, rows=str(apart)).write(folder / "apart.json")
        kept = {name: child.run("benchmarks.peers.held_out_pairs", held, folder / f"{name}-0" / "adapter") for name in MODULES}
    print(
        f"\nmedian (range) of {chosen.rounds} rounds of {statistics.median(len(r['ends']) for r in results['garage']):.0f} steps\n"
    )
    print("\n".join(table(results, kept)))
    print(json.dumps({name: found[0]["versions"] for name, found in results.items()}))


if __name__ == "__main__":
    main()
