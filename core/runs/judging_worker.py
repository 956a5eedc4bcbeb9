"""Judges answers in a process of its own: `python -m core.runs.judging_worker`. No torch.

Reads {"judges": [...]} once, then {"request": n, "pairs": [[expected, answer], ...], "first": i}; writes for each judge
from the i-th on {"request": n, "judge": i, "scores": [0 to 1, or null], "why": message or null}: null for an answer
that it cannot judge, why: the first reason.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Sequence

from core.errors import JudgeError
from core.files import JsonObject
from core.judges.judge import judge
from core.judges.specs import JUDGE_SPEC, JudgeSpec
from core.messages import Message, msg
from core.system.lines import ToParent


def main() -> None:
    """Answer the parent's requests until the parent ends, which ends this process at once.

    A line with judges replaces the judges; a request with pairs is answered by a line with the scores of each judge,
    from number `first` on.
    """
    parent, lines = ToParent(), queue.SimpleQueue[JsonObject]()
    parent.listen(lines.put, lambda: os._exit(0))  # also while a judge hangs
    judges: list[JudgeSpec] = []
    while True:
        line = lines.get()
        if "judges" in line:
            judges = [JUDGE_SPEC.validate_python(each) for each in line["judges"]]
            continue
        for number, spec in list(enumerate(judges))[line["first"] :]:
            scores, why = scored(spec, line["pairs"])
            parent.send(
                request=line["request"], judge=number, scores=scores, why=why.model_dump(mode="json") if why else None
            )


def scored(spec: JudgeSpec, pairs: Sequence[tuple[str, str]]) -> tuple[list[float | None], Message | None]:
    """Return the score of each answer, None where the judge cannot judge, and the first reason for that. pairs:
    (expected, answer)."""
    scores, why = list[float | None](), None
    for expected, answer in pairs:
        try:
            scores.append(judge(spec, expected, answer).score)
        except JudgeError as error:
            scores.append(None)
            why = why or error.message
        except Exception as error:  # noqa: BLE001 - a defect of one judge must not end a training of hours
            scores.append(None)
            why = why or msg("rewards.judge_failed", reason=f"{type(error).__name__}: {error}"[:200])
    return scores, why


if __name__ == "__main__":
    main()
