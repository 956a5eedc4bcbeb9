"""Measures the longest text that each trainer can be trained on with the same memory: LoRA Garage, TRL and
LLaMA-Factory.

    python launch.py test --collect-only -q      # once: makes the environment
    .venv/bin/python -m benchmarks.longest_text --data FILE [--lengths 1024 2048 4096 8192] [--mib 1500 2000 3000]
    [--only NAME ...]

One chat of the given length, made of the data's own messages one after the other, trained on twice: two steps of one
row, nothing packed. Each measurement is a process of its own; the figure is its resident memory at its peak (on a card
the allocator's). So memory decides, and speed is not measured. Settings otherwise as in benchmarks.train_throughput;
with checkpointing every layer is computed again. The length that fits a given memory is read from the straight line
between two measured lengths; beyond the longest nothing is claimed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import child, machine, rows
from benchmarks.peers.environment import DEFAULT_CACHE, LLAMA_FACTORY, TRL, python_of
from benchmarks.peers.job import Job
from core.data.conversation import ChatMessage
from core.data.formats import Example
from core.data.tokenizer import Tokenizer
from core.system import gpu

LENGTHS = (1024, 2048, 4096, 8192)
# name: title, peer (None: LoRA Garage), checkpointing. LLaMA-Factory is as shipped, which checkpoints.
CONTESTANTS = {
    "garage": ("LoRA Garage", None, False),
    "garage_checkpointing": ("LoRA Garage, checkpointing", None, True),
    "trl": (f"TRL {TRL.version}", TRL, False),
    "trl_checkpointing": (f"TRL {TRL.version}, checkpointing", TRL, True),
    "llamafactory": (f"LLaMA-Factory {LLAMA_FACTORY.version} as shipped (checkpointing)", LLAMA_FACTORY, True),
}


def chat(examples: Sequence[Example], tokenizer: Tokenizer, longest: int) -> tuple[Example, int, int]:
    """Return as many of the examples' questions and answers as longest tokens hold: its tokens, and the learned ones.

    Raises ValueError if the examples do not fill nine tenths of it.
    """
    messages: tuple[ChatMessage, ...] = ()
    turn: tuple[ChatMessage, ...] = ()
    for message in (message for example in examples for message in example.messages if message.role != "system"):
        turn += (message,)
        if message.role == "assistant":
            if len(tokenizer.encode_full(Example(messages=messages + turn)).input_ids) <= longest:
                messages += turn
            turn = ()
    if not messages:
        raise ValueError(f"no answer of the data with its question has at most {longest:,} tokens")
    whole = Example(messages=messages)
    encoded = tokenizer.encode_full(whole)
    if len(encoded.input_ids) < 0.9 * longest:
        raise ValueError(
            f"{len(examples)} rows give {len(encoded.input_ids):,} tokens, and {longest:,} are needed: give more --rows"
        )
    return whole, len(encoded.input_ids), sum(encoded.learned)


def fitting(mib: float, measured: Sequence[tuple[int, float]]) -> str:
    """Return the tokens that take mib, between the (tokens, peak MiB) measured, shortest first."""
    if mib < measured[0][1]:
        return f"less than {measured[0][0]:,}"
    for (short, low), (long, high) in zip(measured, measured[1:], strict=False):
        if low <= mib < high:
            return f"{short + (long - short) * (mib - low) / (high - low):,.0f}"
    return f"{measured[-1][0]:,} and more"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="a data file of chats, of any format that the app reads"
    )
    parser.add_argument("--rows", type=int, default=300, help="of its first rows")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--mib", type=int, nargs="+", default=(1500, 2000, 3000), help="memory to fit, MiB")
    parser.add_argument("--only", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--peers-cache", type=Path, default=DEFAULT_CACHE, help=f"default {DEFAULT_CACHE}")
    parser.add_argument("--workspace", type=Path, help="a workspace that has, or gets, the starter model")
    chosen = parser.parse_args()
    model = rows.starter(chosen.workspace)
    found, _ = rows.read(chosen.data, model, chosen.rows, None)
    examples = [example for example in found.examples if example.messages]
    for needed in {peer for _, peer, _ in (CONTESTANTS[name] for name in chosen.only) if peer}:
        python_of(needed, chosen.peers_cache)
    print(machine.line("torch", "transformers", "peft"), flush=True)
    peaks: dict[str, list[tuple[int, float]]] = {name: [] for name in chosen.only}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for longest in sorted(chosen.lengths):
            whole, tokens, learned = chat(examples, Tokenizer(model), longest)
            line = json.dumps(whole.as_dict(), ensure_ascii=False) + "\n"
            (folder / "rows.jsonl").write_text(line * 2, "utf-8")
            print(f"{tokens:,} tokens, {learned:,} learned", flush=True)
            base = Job(str(model), str(folder / "rows.jsonl"), "", 1, 1, 1, False, bool(gpu.probe().cards))
            for name in chosen.only:
                _, peer, checkpointing = CONTESTANTS[name]
                place = str(folder / f"{name}-{longest}")
                job = replace(base, output=place, max_length=longest, checkpointing=checkpointing).write(
                    folder / "job.json"
                )
                module = peer.module if peer else "benchmarks.peers.garage"
                python = python_of(peer, chosen.peers_cache) if peer else sys.executable
                result = child.run(module, job, python=python, more=child.AS_SHIPPED if peer else None)
                if len(result["computed"]) != 2 or any(
                    abs(found - tokens) > tokens / 100 for found in result["computed"]
                ):
                    raise RuntimeError(f"{name} computed {result['computed']} tokens instead of twice {tokens:,}")
                peaks[name].append((tokens, result["peak_mib"]))
                print(f"  {name}: {result['peak_mib']:,.0f} MiB, {result['loaded_mib']:,.0f} of it loaded", flush=True)
    heads = [f"{tokens:,} tokens, MiB" for tokens, _ in peaks[chosen.only[0]]] + [
        f"fits {mib:,} MiB" for mib in chosen.mib
    ]
    print("\n| trainer | " + " | ".join(heads) + " |\n|" + "---|" * (len(heads) + 1))
    for name, measured in peaks.items():
        cells = [f"{mib:,.0f}" for _, mib in measured] + [fitting(mib, measured) for mib in chosen.mib]
        print(f"| {CONTESTANTS[name][0]} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
