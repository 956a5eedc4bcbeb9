"""The kinds of judges and their options, as they are written in files."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, TypeAdapter

from core.values import Strict


class ExactJudge(Strict):
    """The answer is the expected text. Case, width, spaces, and punctuation at the ends are ignored."""

    kind: Literal["exact"] = "exact"


class OneOfJudge(Strict):
    """The answer is the expected text or one of `answers`, compared as by the exact judge."""

    kind: Literal["one_of"] = "one_of"
    answers: tuple[str, ...] = ()


class ContainsJudge(Strict):
    """The answer has, as whole words: one of any_of, all of all_of, none of none_of.

    Without any_of and all_of it has the expected text; with `common`, every word of the expected text that is not in
    `common`, in any order.
    """

    kind: Literal["contains"] = "contains"
    any_of: tuple[str, ...] = ()
    all_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()
    common: tuple[str, ...] = ()


class NumberJudge(Strict):
    """The answer's last number is the expected one, with its unit. Differences up to tolerance, or up to relative times
    the expected number, are ignored.

    decimal: the decimal separator of the data; "" where unknown: "1.962" is then 1.962 or 1962.
    """

    kind: Literal["number"] = "number"
    tolerance: float = Field(0.0, ge=0, allow_inf_nan=False)
    relative: float = Field(0.0, ge=0, le=1)
    decimal: Literal["", ".", ","] = ""


class RegexJudge(Strict):
    """The pattern is found somewhere in the answer; `.` matches newlines too."""

    kind: Literal["regex"] = "regex"
    pattern: str = Field(min_length=1, max_length=1000)
    case_sensitive: bool = False


class JsonJudge(Strict):
    """The answer is JSON with the expected fields and values; fields: only these of the top level are compared.

    Without an expected answer it is JSON that has all of `fields`. json_schema: text that it has to match as well.
    """

    kind: Literal["json"] = "json"
    fields: tuple[str, ...] = ()
    json_schema: str = Field("", max_length=20_000)


class LabelJudge(Strict):
    """The answer names the expected label, and no other one of the list."""

    kind: Literal["label"] = "label"
    labels: tuple[str, ...] = Field(min_length=1)


class ChoiceJudge(Strict):
    """The answer chooses the expected option, by its letter."""

    kind: Literal["choice"] = "choice"
    letters: str = Field("ABCD", pattern="^[A-Z]+$")


class LanguageJudge(Strict):
    """The answer is in a language; "": that of the expected answer. Codes are those of core/language."""

    kind: Literal["language"] = "language"
    language: str = ""


class LengthJudge(Strict):
    """The answer has at least `least` and at most `most` words, in Chinese and Japanese characters, or characters."""

    kind: Literal["length"] = "length"
    least: int = Field(0, ge=0)
    most: int | None = Field(None, ge=1)
    unit: Literal["words", "characters"] = "words"


class SimilarityJudge(Strict):
    """The answer resembles the expected one: chrF, 0 to 1, of at least `right`, or at least `partly`."""

    kind: Literal["similarity"] = "similarity"
    right: float = Field(0.7, gt=0, le=1)
    partly: float = Field(0.45, gt=0, le=1)


class PersonJudge(Strict):
    """A person says whether the answer is right (core/chat/evaluation/votes). No rule decides instead."""

    kind: Literal["person"] = "person"


class ModelJudge(Strict):
    """A model behind a server says whether the answer means the expected one (core/chat/evaluation/model_judge).

    url: of OpenAI's chat completions, up to /v1. The key is in no file.
    """

    kind: Literal["model"] = "model"
    url: str = Field(min_length=1, max_length=1000)
    model: str = Field(min_length=1, max_length=200)


JudgeSpec = Annotated[
    ExactJudge
    | OneOfJudge
    | ContainsJudge
    | NumberJudge
    | RegexJudge
    | JsonJudge
    | LabelJudge
    | ChoiceJudge
    | LanguageJudge
    | LengthJudge
    | SimilarityJudge
    | PersonJudge
    | ModelJudge,
    Field(discriminator="kind"),
]
KINDS: tuple[str, ...] = tuple(each.model_fields["kind"].default for each in get_args(get_args(JudgeSpec)[0]))
JUDGE_SPEC: TypeAdapter[JudgeSpec] = TypeAdapter(JudgeSpec)  # validates and serializes one that stands alone
