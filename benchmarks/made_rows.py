"""An invented manual, the rows that `make` keeps of a good writer's, and two recipes for the starter: trained on those
rows, or on the manual as raw text.

    python -m benchmarks.made_rows FOLDER
    python launch.py train FOLDER/rows.yaml; python launch.py evaluate made-rows --file FOLDER/learned.jsonl
    python launch.py train FOLDER/raw.yaml; python launch.py evaluate made-raw --file FOLDER/learned.jsonl

The writer is a script that knows the manual's facts. learned.jsonl asks for the facts of the passages for training in a
wording that no row has, apart.jsonl for those of the passages that are set apart, which nobody has seen.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from core.chat.making.passage_rows import write_passage
from core.chat.making.passages import Block, passages_of
from core.chat.making.rows import MakingOrder
from core.chat.making.writers import Conversations
from core.data.conversation import Turn
from core.files import JsonObject

PARTS = [
    "lever", "drum", "tray", "lid", "fan", "hopper", "chute", "dial", "filter", "handle", "hinge", "sieve", "spout",
    "gasket", "base", "paddle", "bearing", "window", "spring", "cover", "funnel", "grate", "shaft", "bowl",
]  # fmt: skip
MATERIALS = ["brass", "oak", "copper", "glass", "steel", "rubber", "ceramic", "cork", "nylon", "bronze", "felt", "tin"]
WORDINGS = (
    "What is the {} of the Brassel made of?",
    "Which material is the Brassel's {}?",
    "Tell me the material of the {} in a Brassel.",
    "The Brassel has a {}. What is it made of?",
)
UNSEEN = "Name the material that the {} of a Brassel is made of."
FACT = re.compile(r"The (\w+) of the Brassel is made of (\w+)\.")
TEXT = (
    "# The {0}\n\nThe {0} of the Brassel is made of {1}. Look at it before each roast, and wipe it with a dry cloth "
    "when the roaster has cooled down. A worn {0} is replaced by the dealer, who needs the number on the plate below. "
    "Nobody should open the roaster while it is hot, and it must never stand in water."
)


class GoodWriter:
    """A scripted model that writes every fact in four wordings and answers from the passage."""

    name = "scripted"

    def answers(
        self, conversations: Conversations, max_tokens: int, attempt: int = 0, schema: JsonObject | None = None
    ) -> list[str]:
        return [self._rows(str(turns[-1]["content"])) if schema else self._answer(turns) for turns in conversations]

    @staticmethod
    def _rows(passage: str) -> str:
        rows = [
            {"questions": [form.format(part) for form in WORDINGS], "answer": f"It is made of {material}.",
             "quote": f"The {part} of the Brassel is made of {material}"}
            for part, material in FACT.findall(passage)
        ]  # fmt: skip
        return json.dumps({"rows": rows})

    @staticmethod
    def _answer(turns: Sequence[Turn]) -> str:
        materials = dict(FACT.findall(str(turns[0]["content"])))
        part = next((part for part in materials if part in str(turns[-1]["content"])), None)
        return f"It is made of {materials[part]}." if part else "I do not know."


def main(
    folder: Annotated[Path, typer.Argument(help="Where the files are written.")], seed: int = 7, steps: int = 120
) -> None:
    chance = random.Random(seed)
    facts = {part: chance.choice(MATERIALS) for part in PARTS}
    texts = [TEXT.format(part, material) for part, material in facts.items()]
    blocks = (Block(text, row, "manual.md", "\n\n" if row > 1 else None) for row, text in enumerate(texts, 1))
    order = MakingOrder(
        title="made-rows", documents=(("manual", 0),), writer="scripted", count=8, wordings=4, seed=seed
    )
    rows, questions = list[JsonObject](), {"learned": list[JsonObject](), "apart": list[JsonObject]()}
    for passage in passages_of(blocks, seed):
        result = write_passage(order, passage, GoodWriter())
        assert not result.dropped, result.dropped
        for row in result.rows:
            [step] = row.draft.steps
            rows += [
                {"question": question, "answer": step.answer, "split": "validation" if passage.validation else "train"}
                for question in (step.question, *row.draft.wordings)
            ]
            [(part, material)] = FACT.findall(f"{step.quote}.")
            asked = {"prompt": UNSEEN.format(part), "expected": material, "judge": {"kind": "contains"}}
            questions["apart" if passage.validation else "learned"].append(asked)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manual.md").write_text("\n\n".join(texts), "utf-8", newline="\n")
    for name, lines in {"rows": rows, **questions}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8", newline="\n")
    for name, source in (("rows", "rows.jsonl"), ("raw", "manual.md")):
        recipe = {
            "version": 1, "name": f"made-{name}", "model": {"id": "starter"}, "data": {"source": str(folder / source)},
            "adapter": {"method": "lora", "r": 16, "lora_alpha": 32},
            "train": {"learning_rate": 8e-4, "max_steps": steps, "per_device_train_batch_size": 4},
        }  # fmt: skip
        (folder / f"{name}.yaml").write_text(json.dumps(recipe, indent=1), "utf-8", newline="\n")
    print(f"{len(rows)} rows of {len(facts)} facts, {len(questions['apart'])} of them set apart")


if __name__ == "__main__":
    typer.run(main)
