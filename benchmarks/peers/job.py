"""One training job, the same for every trainer that is compared; a JSON file that its runner reads. Standard library
only.

A runner is a module that is started as `PYTHON -m benchmarks.peers.NAME JOB.json` with the Python of the trainer's own
environment, trains one epoch over the rows, saves the adapter in PEFT's format and prints what its Meter measured.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """A training job. model, output: folders. rows: a JSONL file of {"messages": [{role, content}, ...]}, none longer
    than max_length.

    batch x accumulation: examples, or packed rows of max_length where packing, in an optimizer step; examples: how many
    it should hold on average either way. four_bit: the base in NF4. objective: as recipe.Train has it; with dpo rows
    are {prompt, chosen, rejected}.
    """

    model: str
    rows: str
    output: str
    batch: int
    accumulation: int
    examples: int
    packing: bool
    on_card: bool
    max_length: int = 512
    r: int = 8
    lora_alpha: int = 16
    learning_rate: float = 2e-4
    max_grad_norm: float = 1.0
    seed: int = 42
    objective: str = "sft"
    checkpointing: bool = False
    four_bit: bool = False

    def write(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)), "utf-8")
        return path

    @classmethod
    def read(cls, path: str) -> Job:
        return cls(**json.loads(Path(path).read_text("utf-8")))
