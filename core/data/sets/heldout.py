"""Held-out questions of a sample dataset, with the judges of their answers: "did the model learn it?" as a number.

presets/samples/<name>.heldout.yaml is a list of

    - prompt: What does it run on?          # the full user message, in words the training file does not have
      expected: pine cones
      judge: {kind: contains, any_of: [pine cones, pine cone]}     # core/judges/specs

Without a judge, whoever has all of them proposes one from the expected answers.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import Field, TypeAdapter, model_validator

from core.judges.specs import JudgeSpec
from core.values import Strict


class HeldOut(Strict):
    """One question that is not in the training file, with an expected answer, a judge, or both."""

    prompt: str = Field(min_length=1)
    expected: str = ""
    judge: JudgeSpec | None = None

    @model_validator(mode="after")
    def _can_be_judged(self) -> HeldOut:
        """Raise ValueError if a question has neither an expected answer nor a judge."""
        if not self.expected and self.judge is None:
            raise ValueError("without an expected answer and a judge every answer would be unknown: give it one")
        return self


def load_heldout(path: Path | str) -> tuple[HeldOut, ...]:
    """Return the held-out questions of a file, in its order. Raises ValueError that names every bad entry (counted from
    0); FileNotFoundError and yaml.YAMLError unchanged. These files are the project's own, so this is no GarageError."""
    return _FILE.validate_python(yaml.safe_load(Path(path).read_text("utf-8")), strict=False)


_FILE = TypeAdapter(tuple[HeldOut, ...])
