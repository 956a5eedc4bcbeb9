"""The rows and the model that a benchmark trains on; the rows come from any data file that the app reads. No torch."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.data.formats import Example
from core.data.labels import Encoded
from core.data.tokenizer import Tokenizer, conversation
from core.models.library import Models
from core.workspace.folder import Workspace
from tests.kit.read_examples import examples_of

HELD_OUT_EACH = 10  # each tenth row is kept apart


@dataclass(frozen=True)
class Rows:
    """Examples with their tokens, in the order of the file."""

    examples: Sequence[Example]
    encoded: Sequence[Encoded]

    @property
    def supervised(self) -> int:
        return sum(row.learned_count for row in self.encoded)

    @property
    def tokens(self) -> int:
        return sum(len(row.input_ids) for row in self.encoded)

    def part(self, indices: Sequence[int]) -> Rows:
        return Rows([self.examples[i] for i in indices], [self.encoded[i] for i in indices])

    def split(self) -> tuple[Rows, Rows]:
        """Return the rows to train on and each tenth, held out."""
        apart = range(0, len(self.examples), HELD_OUT_EACH)
        return self.part([i for i in range(len(self.examples)) if i % HELD_OUT_EACH]), self.part(apart)

    def write(self, path: Path) -> Path:
        """Write conversations, one a line: a form that every trainer reads the same way."""
        lines = [json.dumps({"messages": list(conversation(example))}, ensure_ascii=False) for example in self.examples]
        path.write_text("\n".join(lines) + "\n", "utf-8")
        return path


def random_base(name: str, known: Path, folder: Path, layers: int | None) -> Path:
    """Create a base of that catalogue shape with random weights and known's tokenizer, in a process of its own: torch
    stays out of this one."""
    asked = [name, str(known), str(folder), *([str(layers)] if layers else [])]
    subprocess.run([sys.executable, "-m", "benchmarks.random_base", *asked], check=True)
    return folder


def read(data: Path, model: Path, most: int, max_length: int | None) -> tuple[Rows, int]:
    """Return the first rows of a file, without those longer than max_length (None: all are kept), and how many were too
    long.

    Trainers treat long rows differently (cut, split, drop): none is given any.
    """
    tokenizer = Tokenizer(model)
    examples = [example for _, example in itertools.islice(examples_of(data), most)]
    encoded = [tokenizer.encode_full(example) for example in examples]
    kept = [i for i, row in enumerate(encoded) if max_length is None or len(row.input_ids) <= max_length]
    rows = Rows([examples[i] for i in kept], [Encoded(encoded[i].input_ids, encoded[i].learned) for i in kept])
    return rows, len(examples) - len(kept)


def starter(workspace: Path | None) -> Path:
    """Return the starter model's folder in a workspace (default: the app's own), fetched if it is missing."""
    return Models(Workspace.open(workspace)).obtain("starter", None, lambda stage, progress: None, lambda: None)
