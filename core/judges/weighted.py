"""Judges whose weighted scores are the reward of an answer (core.reward_settings)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError

from core.errors import RecipeError
from core.judges.specs import (
    JUDGE_SPEC,
    ContainsJudge,
    JudgeSpec,
    LanguageJudge,
    LengthJudge,
    ModelJudge,
    PersonJudge,
    RegexJudge,
)
from core.values import Strict

FORM_BETA = 0.1  # kept a run whose judges wanted short answers from writing single words; larger ones slow learning


class WeightedJudge(Strict):
    """name: of its metrics, such as number, or number_2 for the second of a kind."""

    name: str
    judge: JudgeSpec
    weight: float = Field(gt=0, le=100, allow_inf_nan=False)

    @property
    def reads_content(self) -> bool:
        """Return True if the judge compares an answer with the row's own; False if it looks at form alone (a pattern, a
        length, a language, fixed phrases), which a model learns to satisfy without saying anything."""
        if isinstance(self.judge, ContainsJudge):
            return not (self.judge.any_of or self.judge.all_of)
        return not isinstance(self.judge, RegexJudge | LengthJudge | LanguageJudge)


def read(given: Sequence[Mapping[str, Any]]) -> tuple[WeightedJudge, ...]:
    """Return a recipe's judges, with weight 1 unless given. Raises RecipeError for an unknown kind, a wrong option, or
    a judge that is no rule (a person, a model)."""
    judges = list[WeightedJudge]()
    for number, each in enumerate(given, 1):
        options = {name: value for name, value in each.items() if name != "weight"}
        try:
            judge = JUDGE_SPEC.validate_python(options)
            count = sum(other.judge.kind == judge.kind for other in judges)
            name = f"{judge.kind}_{count + 1}" if count else judge.kind
            judges.append(WeightedJudge(name=name, judge=judge, weight=each.get("weight", 1.0)))
        except ValidationError as error:
            first = error.errors()[0]
            reason = ".".join(map(str, first["loc"])) + ": " + first["msg"]
            raise RecipeError("rewards.bad_judge", number=number, reason=reason) from error
        if isinstance(judge, PersonJudge | ModelJudge):
            raise RecipeError("rewards.no_rule", number=number, kind=judge.kind)
    return tuple(judges)


def usual_beta(judges: Sequence[WeightedJudge]) -> float:
    """Return the beta for these judges: FORM_BETA if all look at form alone, which a model can satisfy without saying
    anything; else 0."""
    return FORM_BETA if judges and not any(judge.reads_content for judge in judges) else 0.0
