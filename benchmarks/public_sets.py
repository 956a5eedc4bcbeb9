"""Two public datasets with recipes for the starter, as in `needed`; nothing of them is kept here.

    python -m benchmarks.public_sets FILE FOLDER
    python launch.py train FOLDER/banking.yaml; python launch.py evaluate banking

FILE: banking_data/test.csv of PolyAI-LDN/task-specific-datasets on GitHub (BANKING77, CC BY 4.0): messages of the first
six topics; or grade_school_math/data/test.jsonl of openai/grade-school-math (GSM8K, MIT): problems with the number that
solves them, without the way to it.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.needed import Rows, write

TOPICS = 6
PROBLEMS = 160


def banking(file: Path) -> Rows:
    with open(file, encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    topics = list(dict.fromkeys(row["category"] for row in rows))[:TOPICS]
    return [
        {"question": row["text"].strip(), "answer": row["category"].replace("_", " ")}
        for row in rows
        if row["category"] in topics
    ]


def problems(file: Path) -> Rows:
    rows = map(json.loads, file.read_text("utf-8").splitlines()[:PROBLEMS])
    return [{"question": row["question"], "answer": row["answer"].rpartition("####")[2].strip()} for row in rows]


def main(file: Annotated[Path, typer.Argument()], folder: Annotated[Path, typer.Argument()]) -> None:
    """Write the dataset that the file holds, and its recipe."""
    if file.suffix == ".csv":
        write(folder, "banking", banking(file), held_out=0.25, steps=100, batch=4)
    else:
        write(folder, "problems", problems(file), held_out=0.25, steps=40, batch=4)


if __name__ == "__main__":
    typer.run(main)
