"""Tokens a second that the sampler of a training by rewards and transformers' generate draw in turns, for 4 questions
of each task of `benchmarks.rewards` and 8 answers to each, which end where the model ends them or at the length.

    python -m benchmarks.sampling_pace MODEL_FOLDER [--pairs 4] [--length 256]
"""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from benchmarks import rewards
from core.engine.decoding.decoder import Decoder
from core.engine.decoding.sampler import Sampler, chances

QUESTIONS, COPIES = 4, 8
Prompts = list[list[int]]


def ours(model: PreTrainedModel, prompts: Prompts, pad: int, stop: int, length: int) -> int:
    """Return the number of tokens drawn, with those that end an answer."""
    sampler = Sampler(model, pad, frozenset({stop}), length)
    return sum(len(answer.ids) for answer in sampler.draw(prompts, COPIES, chances(QUESTIONS * COPIES, length, 0)))


def theirs(model: PreTrainedModel, prompts: Prompts, pad: int, stop: int, length: int) -> int:
    """Return the same of generate, as TRL calls it: tokens after the one that ends an answer do not count."""
    ids, mask = Decoder(model, pad).left_padded([prompt for prompt in prompts for _ in range(COPIES)])
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = model.generate(
            input_ids=ids, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            max_new_tokens=length, eos_token_id=stop, pad_token_id=pad,
        )  # fmt: skip
    answers = drawn[:, ids.shape[1] :].tolist()
    return sum(answer.index(stop) + 1 if stop in answer else len(answer) for answer in answers)


def main(model_folder: Annotated[Path, typer.Argument()], pairs: int = 4, length: int = 256) -> None:
    """Print, for each task, the tokens a second of both and the median of their ratio; a first pair warms up."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16).eval()
    for task in (rewards.sums, rewards.plurals, rewards.short):
        rows, ratios = task(), list[float]()
        for pair in range(pairs + 1):
            prompts = [
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": row["question"]}], add_generation_prompt=True, return_dict=False
                )
                for row in random.Random(pair).sample(rows, QUESTIONS)
            ]
            speeds = {}
            for side in (ours, theirs) if pair % 2 else (theirs, ours):
                began = time.perf_counter()
                tokens = side(model, prompts, tokenizer.pad_token_id, tokenizer.eos_token_id, length)
                speeds[side] = tokens / (time.perf_counter() - began)
            if pair:
                ratios.append(speeds[ours] / speeds[theirs])
                print(f"{task.__name__}: {speeds[ours]:.0f} and {speeds[theirs]:.0f} tokens/s", flush=True)
        print(f"{task.__name__}: median ratio {statistics.median(ratios):.2f}", flush=True)


if __name__ == "__main__":
    typer.run(main)
