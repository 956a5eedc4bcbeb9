"""Three tasks on which the starter trains by rewards, with recipes: `sums`, whose judges look at form and content;
`plurals`, whose judges look at content; `short`, whose judges look at form alone, with beta 0 and the 0.1 of the plan.

    python -m benchmarks.rewards FOLDER [--seed 42]
    python launch.py train FOLDER/sums.yaml
    python launch.py evaluate sums --contestants base,tuned --judge json

The seed decides which rows are held out and what is drawn. `plurals` is evaluated by `--judge contains`, `short`
by `--judge length=8`.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Annotated, Any

import typer

REGULAR = (
    "cat", "dog", "tree", "house", "chair", "lamp", "garden", "river", "mountain", "teacher", "doctor", "bird",
    "apple", "spoon", "window", "door", "car", "train", "road", "field", "king", "queen", "song", "book", "letter",
    "flower", "shoe", "coat", "hat", "boat", "cloud", "star", "lion", "tiger", "horse", "cow", "egg", "nail", "ring",
    "wall",
)  # fmt: skip
OTHER = {
    "box": "boxes", "bus": "buses", "dish": "dishes", "church": "churches", "fox": "foxes", "glass": "glasses",
    "city": "cities", "baby": "babies", "lady": "ladies", "story": "stories", "country": "countries",
    "berry": "berries", "leaf": "leaves", "wolf": "wolves", "knife": "knives", "man": "men", "woman": "women",
    "child": "children", "foot": "feet", "mouse": "mice",
}  # fmt: skip
QUESTIONS = (
    "Why is the sky blue?", "What is a river?", "Who was Einstein?", "How do planes fly?", "What is salt?",
    "Why do cats purr?", "What is a volcano?", "What does a baker do?", "Why do leaves fall?", "What is money for?",
    "How does a clock work?", "What is music?", "Who was Cleopatra?", "What is a desert?", "Why do we sleep?",
    "What is glass made of?", "What is snow?", "Why do dogs bark?", "Who was Newton?", "What is a bridge?",
    "How do boats float?", "What is a poem?", "What does a doctor do?", "Why is grass green?",
)  # fmt: skip
Rows = list[dict[str, str]]


def sums() -> Rows:
    """Return the sums of two digits; the answer is JSON."""
    pairs = [(a, b) for a in range(1, 10) for b in range(1, 10)]
    return [
        {"question": f'Compute {a} + {b}. Reply as JSON: {{"answer": <number>}}', "answer": f'{{"answer": {a + b}}}'}
        for a, b in pairs
    ]


def plurals() -> Rows:
    """Return words whose plural is asked for."""
    return [
        {"question": f'What is the plural of the word "{word}"? Answer with one word.', "answer": plural}
        for word, plural in ({word: f"{word}s" for word in REGULAR} | OTHER).items()
    ]


def short() -> Rows:
    """Return questions that ask for few words. Their answers stand for any: no judge reads them."""
    return [{"question": f"{asked} Answer in at most 8 words.", "answer": "A short answer."} for asked in QUESTIONS]


def main(folder: Annotated[Path, typer.Argument()], seed: int = 42) -> None:
    """Write the datasets and their recipes."""
    form = {"kind": "regex", "pattern": r'^\{\s*"answer"\s*:\s*\d+\s*\}$', "weight": 0.5}
    few_words = [{"kind": "length", "most": 8, "weight": 0.5}, {"kind": "regex", "pattern": r"\.$", "weight": 0.5}]
    write(folder, "sums", sums(), seed, held_out=0.2, judges=[form, {"kind": "number", "weight": 0.5}])
    half = [{"kind": kind, "weight": 0.5} for kind in ("contains", "exact")]
    write(folder, "plurals", plurals(), seed, held_out=0.25, judges=half, max_completion_length=32)
    write(folder, "short", short(), seed, held_out=0.33, judges=few_words, beta=0.0)
    write(folder, "short_beta", short(), seed, held_out=0.33, judges=few_words, beta=0.1)


def write(folder: Path, name: str, rows: Rows, seed: int, held_out: float, **rewards: Any) -> None:
    """Write the rows of a dataset and the recipe that trains the starter on them. held_out: share of the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    random.Random(seed).shuffle(rows)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    recipe = {
        "name": f"{name} {seed}",
        "model": {"id": "starter"},
        "data": {"source": f"{name}.jsonl", "eval_fraction": held_out},
        "adapter": {"method": "lora", "r": 8, "lora_alpha": 16},
        "train": {"objective": "grpo", "seed": seed, "learning_rate": 4e-4, "max_steps": 56, "eval_steps": 14,
            "warmup_steps": 3, "per_device_train_batch_size": 4, "sample_seconds": 0},
        "rewards": {"num_generations": 8, "max_completion_length": 64} | rewards,
    }  # fmt: skip
    (folder / f"{name}.yaml").write_text(json.dumps(recipe, indent=1), "utf-8")


if __name__ == "__main__":
    typer.run(main)
