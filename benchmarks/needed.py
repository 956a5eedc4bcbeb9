"""Two datasets and recipes for the starter: messages that a prompt with similar rows sorts, and house codes that only
training teaches.

    python -m benchmarks.needed FOLDER [--seed 7]
    python launch.py train FOLDER/messages.yaml; python launch.py evaluate messages
    python launch.py train FOLDER/codes.yaml; python launch.py evaluate codes

A ticket's code depends on its device alone. Its name, town and order are each shared with one ticket, mostly of another
code, so the rows that are nearest by BM25 mislead.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Annotated

import typer

ITEMS = [
    "toaster", "radio", "lamp", "blanket", "kettle", "chair", "printer", "mirror", "suitcase", "clock", "oven",
    "heater",
]  # fmt: skip
FORMS = {
    "delivery": (
        "When will my {} arrive?",
        "My {} has not been delivered yet.",
        "The courier left the {} at the wrong door.",
        "Where is the parcel with my {}?",
        "Please send the {} to my new address.",
        "The tracking of my {} has not changed for days.",
        "Can I pick up the {} at a shop?",
    ),
    "payment": (
        "I was billed twice for the {}.",
        "I need an invoice for the {}.",
        "Please refund the {} that I cancelled.",
        "The discount for the {} was not applied.",
        "My card was refused when I paid for the {}.",
        "Can I pay for the {} in rates?",
        "The price of the {} on the bill is wrong.",
    ),
    "defect": (
        "The {} does not switch on.",
        "The {} makes a loud noise.",
        "The {} smells burnt.",
        "A part of the {} broke off.",
        "The {} arrived with a crack.",
        "The {} stops after a minute.",
        "The {} leaks.",
    ),
}
DEVICES = ["lamp", "fan", "kettle", "drill", "radio", "clock", "heater", "mixer"]
CODES = dict(zip(DEVICES, ["K2", "M7", "R4", "T9"] * 2, strict=True))
BEGINS_OF_NAMES = (
    "Ber", "Dor", "Fal", "Gan", "Hol", "Jan", "Kel", "Lin", "Mor", "Nor", "Pel", "Ros", "Sal", "Tor", "Vog", "Wil",
)  # fmt: skip
BEGINS_OF_TOWNS = (
    "Alt", "Birk", "Dorn", "Eich", "Fels", "Grun", "Hain", "Kirch", "Lauf", "Moos", "Neu", "Ost", "Roth", "Stein",
    "Wald", "Zell",
)  # fmt: skip
NAMES = [begin + end for begin in BEGINS_OF_NAMES for end in ("ke", "mann", "sen", "ner", "ting", "dorf")]
TOWNS = [begin + end for begin in BEGINS_OF_TOWNS for end in ("au", "burg", "feld", "heim", "stadt", "tal")]
TICKETS = 160
MAX_SAME = 13  # of the 80 pairs of tickets that share a word: so many may have the same code
Rows = list[dict[str, str]]


def messages(chance: random.Random) -> Rows:
    rows = [
        {"question": form.format(item), "answer": label}
        for label, forms in FORMS.items()
        for form in forms
        for item in ITEMS
    ]
    chance.shuffle(rows)
    return rows


def codes(chance: random.Random) -> Rows:
    devices = [DEVICES[number % len(DEVICES)] for number in range(TICKETS)]
    chance.shuffle(devices)
    orders = [str(1000 + 37 * number) for number in range(96)]
    names, towns, orders = (_shared(words, devices, chance) for words in (NAMES, TOWNS, orders))
    return [
        {"question": f"Ticket of {name}, {town}, order {order}: the {device} fails.", "answer": CODES[device]}
        for name, town, order, device in zip(names, towns, orders, devices, strict=True)
    ]


def _shared(words: list[str], devices: list[str], chance: random.Random) -> list[str]:
    """A word for each ticket; each word in two tickets, of which few pairs have the same code."""
    order, same = list(range(TICKETS)), TICKETS
    while same > MAX_SAME:
        order = list(range(TICKETS))
        chance.shuffle(order)
        pairs = list(zip(order[::2], order[1::2], strict=True))
        same = sum(CODES[devices[first]] == CODES[devices[second]] for first, second in pairs)
    shuffled, given = list(words), [""] * TICKETS
    chance.shuffle(shuffled)
    for (first, second), word in zip(pairs, shuffled, strict=False):
        given[first] = given[second] = word
    return given


def main(folder: Annotated[Path, typer.Argument()], seed: int = 7) -> None:
    """Write both datasets and their recipes."""
    chance = random.Random(seed)
    write(folder, "messages", messages(chance), held_out=0.31, steps=24, batch=4)
    write(folder, "codes", codes(chance), held_out=0.25, steps=200, batch=8)


def write(folder: Path, name: str, rows: Rows, held_out: float, steps: int, batch: int) -> None:
    """Write the rows of a dataset and the recipe that trains the starter on them. held_out: share of the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    recipe = {
        "name": name,
        "model": {"id": "starter"},
        "data": {"source": f"{name}.jsonl", "eval_fraction": held_out},
        "adapter": {"method": "lora", "r": 8, "lora_alpha": 16},
        "train": {"learning_rate": 1e-3, "max_steps": steps, "eval_steps": steps, "warmup_steps": 3,
            "per_device_train_batch_size": batch, "sample_seconds": 0},
    }  # fmt: skip
    (folder / f"{name}.yaml").write_text(json.dumps(recipe, indent=1), "utf-8")


if __name__ == "__main__":
    typer.run(main)
