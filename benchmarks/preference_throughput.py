"""Pairs a second, memory and what is preferred afterwards: LoRA Garage's dpo against TRL's DPOTrainer.

    .venv/bin/python -m benchmarks.preference_throughput [--data PAIRS] [--rounds 3] [--steps 5]      # about a quarter
    of an hour on two cores
    .venv/bin/python -m benchmarks.preference_throughput --random qwen3-0.6b --layers 8 --tokens 512 --a-step 2 --steps
    2     # long pairs, weights at random

Both train the starter (bf16, LoRA r 8 on all linear layers, beta 0.1, one learning rate, AdamW, seed 42) for one epoch
over the same pairs, 16 a step, in processes of their own, by turns. TRL at its best on this machine: log-probabilities
of the reference beforehand, its fused head, fused AdamW. How many pairs each computes at once, and whether with
checkpointing, decides speed and memory and is chosen for each. Rates are of the steps after the first, alone and with
each pair's share of the reference. Memory is that of the process: before the first step (libraries, base, adapter,
rows), and its peak from there on, with us the reference's too. Each tenth pair is kept apart; how many of them each
adapter prefers rightly is measured by our own engine, unless weights are at random. Prints one line a run, then a
table.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from benchmarks import child, machine, rows
from benchmarks.peers.environment import DEFAULT_CACHE, TRL, python_of
from benchmarks.peers.job import Job
from core.presets import PROJECT
from core.system import gpu
from core.values import wilson

PAIRS = PROJECT / "benchmarks" / "pairs" / "repair_cafe.jsonl"
WARM_UP = 1
MODULES = {"garage": "benchmarks.peers.garage", "trl": "benchmarks.peers.trl_dpo"}


def trl_python(cache: Path) -> str | Path:
    """Return this Python if it has that TRL (the tests need it), else that of a new environment."""
    try:
        return sys.executable if version("trl") == TRL.version else python_of(TRL, cache)
    except PackageNotFoundError:
        return python_of(TRL, cache)


def long_pairs(data: Path, model: Path, tokens: int, file: Path) -> Path:
    """Write pairs whose answers, with prompt and template, have three quarters of so many tokens to all of them:
    answers of data one after the other."""
    words, chance = Tokenizer.from_file(str(model / "tokenizer.json")), random.Random(42)
    pairs = [json.loads(line) for line in data.read_text("utf-8").splitlines()]

    def joined(side: str, room: int) -> str:
        text = ""
        while room > len(words.encode(longer := f"{text} {chance.choice(pairs)[side]}".strip()).ids):
            text = longer
        return text

    long = []
    for pair in pairs:
        least = tokens - 60 - len(words.encode(pair["prompt"]).ids)
        answers = {side: joined(side, chance.randint(least * 3 // 4, least)) for side in ("chosen", "rejected")}
        long.append(json.dumps({"prompt": pair["prompt"], **answers}, ensure_ascii=False))
    file.write_text("\n".join(long) + "\n", "utf-8")
    return file


def split(data: Path, folder: Path, most: int) -> tuple[Path, Path]:
    """Write files of at most so many pairs to train, and each tenth."""
    lines = data.read_text("utf-8").splitlines()
    apart = lines[:: rows.HELD_OUT_EACH]
    train = [line for number, line in enumerate(lines) if number % rows.HELD_OUT_EACH][:most]
    found = folder / "train.jsonl", folder / "apart.jsonl"
    for path, kept in zip(found, (train, apart), strict=True):
        path.write_text("\n".join(kept) + "\n", "utf-8")
    return found


def rates(result: dict[str, Any]) -> tuple[float, float]:
    """Return pairs per second of the timed steps alone, and with the reference that each pair needs once."""
    alone = child.rate(result, "supervised", WARM_UP)
    return alone, 1 / (1 / alone + result["reference_s"] / sum(result["supervised"]))


def table(
    results: dict[str, list[dict[str, Any]]], apart: dict[str, dict[str, Any]], said: dict[str, str]
) -> list[str]:
    """Return the table. said: how each computes."""
    lines = [
        (
            "| trainer | pairs/s, steps alone | with the reference | MiB before the first step | peak MiB | above | "
            "kept "
            "apart preferred rightly | margin |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in results.items():
        alone, whole = zip(*map(rates, found), strict=True)
        memory = [
            [result["loaded_mib"] for result in found],
            [result["peak_mib"] for result in found],
            [above(result) for result in found],
        ]
        cells = [child.spread(alone, ".2f"), child.spread(whole, ".2f"), *map(child.spread, memory)]
        cells += right(apart[name]) if name in apart else ["", ""]
        lines.append(f"| {name}, {said[name]} | {' | '.join(cells)} |")
    of = {
        name: [
            (*rates(one), one["peak_mib"], above(one), child.rate(one, "supervised", WARM_UP, "busy")) for one in found
        ]
        for name, found in results.items()
    }
    over = [child.ratio([one[i] for one in of["garage"]], [one[i] for one in of["trl"]]) for i in range(5)]
    whats = (
        "steps",
        "with the reference",
        "peak memory",
        "peak above what there was before",
        "steps by the processor's seconds",
    )
    return [
        *lines,
        "",
        "garage over trl: " + ", ".join(f"{what} {ratio}" for what, ratio in zip(whats, over, strict=True)),
    ]


def above(result: dict[str, Any]) -> float:
    return result["peak_mib"] - result["loaded_mib"]


def right(found: dict[str, Any]) -> list[str]:
    low, high = wilson(found["right"], found["pairs"])
    return [f"{found['right']} of {found['pairs']} ({low:.0%} to {high:.0%})", f"{found['margin']:.3f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=PAIRS, help="JSONL of prompt, chosen and rejected, as texts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="one epoch in all")
    parser.add_argument("--a-step", type=int, default=16, help="pairs")
    parser.add_argument(
        "--garage-at-once", type=int, default=1, help="pairs of full length that a packed row has room for"
    )
    parser.add_argument("--trl-at-once", type=int, default=1, help="pairs, padded")
    parser.add_argument("--checkpointing", nargs="*", choices=MODULES, default=[], help="who computes layers again")
    parser.add_argument("--max-length", type=int, default=192, help="tokens that hold the longest example of data")
    parser.add_argument(
        "--random", metavar="MODEL", help="of the catalogue, with weights at random, instead of the starter"
    )
    parser.add_argument("--layers", type=int, help="of it, instead of all")
    parser.add_argument(
        "--tokens", type=int, help="make examples of at most that many tokens out of the answers of data"
    )
    parser.add_argument(
        "--trl-in-our-environment", action="store_true", help="keeps as few compiled products as our own process"
    )
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--peers-cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--workspace", type=Path, help="a workspace that has, or gets, the starter model")
    chosen = parser.parse_args()
    model, python = rows.starter(chosen.workspace), trl_python(chosen.peers_cache)
    as_it_is = {} if chosen.trl_in_our_environment else child.AS_SHIPPED
    at_once = {"garage": chosen.garage_at_once, "trl": chosen.trl_at_once}
    said = {
        name: f"{count} x {chosen.a_step // count}{', checkpointing' * (name in chosen.checkpointing)}"
        for name, count in at_once.items()
    }
    print(machine.line("torch", "transformers", "peft"), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = long_pairs(chosen.data, model, chosen.tokens, folder / "long.jsonl") if chosen.tokens else chosen.data
        train, apart = split(data, folder, chosen.steps * chosen.a_step)
        if chosen.random:
            model = rows.random_base(chosen.random, model, folder / "base", chosen.layers)
        base = Job(str(model), str(train), "", 1, 1, chosen.a_step, False, bool(gpu.probe().cards), objective="dpo")
        base = replace(base, learning_rate=chosen.learning_rate, max_length=chosen.tokens or chosen.max_length)
        jobs = {
            name: replace(
                base, batch=count, accumulation=chosen.a_step // count, checkpointing=name in chosen.checkpointing
            )
            for name, count in at_once.items()
        }
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in MODULES}
        for number in range(chosen.rounds):
            for name in list(MODULES)[:: 1 if number % 2 else -1]:
                place = folder / f"{name}-{number}"
                place.mkdir()
                job = replace(jobs[name], output=str(place / "adapter")).write(place / "job.json")
                interpreter, more = (python, as_it_is) if name == "trl" else (sys.executable, {})
                result = child.run(MODULES[name], job, python=interpreter, log=place / "output.txt", more=more)
                results[name].append(result)
                alone, whole = rates(result)
                memory = f"{result['loaded_mib']:,.0f} MiB before the first step, {result['peak_mib']:,.0f} at most"
                print(
                    (
                        f"round {number + 1}, {name}: {alone:.2f} pairs/s, {whole:.2f} with the reference, {memory}, "
                        f"busy "
                        f"{result['busy']}"
                    ),
                    flush=True,
                )
        held = replace(base, rows=str(apart)).write(folder / "apart.json")
        asked = {} if chosen.random else MODULES
        kept = {
            name: child.run("benchmarks.peers.held_out_pairs", held, folder / f"{name}-0" / "adapter") for name in asked
        }
    print(
        f"\nmedian (range) of {chosen.rounds} rounds of "
        f"{statistics.median(len(r['ends']) for r in results['garage']):.0f} steps\n"
    )
    print("\n".join(table(results, kept, said)))
    print(json.dumps({name: found[0]["versions"] for name, found in results.items()}))


if __name__ == "__main__":
    main()
