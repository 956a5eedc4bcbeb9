"""Stand-ins for training by rewards: a tokenizer whose words are numbers, and judges in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from core.judges.weighted import WeightedJudge
from core.runs.judging import Judged
from core.runs.judging_worker import scored
from core.training.rewards.drawing import Drawing

STOP = (3, 4, 5, 6, 7, 8)
# an answer is better the fewer of its words are above 49
JUDGES = [{"kind": "contains", "none_of": [str(number) for number in range(50, 97)], "any_of": ["10", "20", "30"]},
          {"kind": "length", "most": 5, "weight": 0.5}]  # fmt: skip


class Numbers:
    """A tokenizer that writes each token as its number."""

    stop_ids = frozenset(STOP)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return " ".join(["say", *(str(token) for token in ids if token not in STOP)])  # an empty answer is always wrong


class JudgingHere:
    def __init__(self, judges: Sequence[WeightedJudge]):
        self.judges = judges
        self.pairs: list[tuple[str, str]] = []

    def judge(self, pairs: Sequence[tuple[str, str]], check: Callable[[], None]) -> Judged:
        self.pairs += pairs
        results = [scored(each.judge, pairs) for each in self.judges]
        problems = {each.name: why for each, (_, why) in zip(self.judges, results, strict=True) if why}
        return Judged([scores for scores, _ in results], problems)


def drawing_with(judges: Sequence[dict[str, Any]]) -> Callable[..., Drawing]:
    from core.judges import weighted

    return partial(Drawing, tokenizer=Numbers(), judging=JudgingHere(weighted.read(judges)))  # type: ignore[arg-type]
