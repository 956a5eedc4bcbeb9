"""Paired statistics against scipy, chrF against sacrebleu, and the sentence that they come to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from core.judges.paired import Paired, compare, conclusion, mcnemar
from core.judges.similarity import chrf
from core.messages import LANGUAGES


def table(both: int, first: int, second: int, neither: int) -> tuple[list[float], list[float]]:
    """The scores of two contestants, by who has how many questions right."""
    return ([1.0] * (both + first) + [0.0] * (second + neither),
            [1.0] * both + [0.0] * first + [1.0] * second + [0.0] * neither)  # fmt: skip


@pytest.mark.parametrize(
    ("wins", "losses", "p"),  # scipy 1.17.1: binomtest(wins, wins + losses, 0.5).pvalue
    [
        (0, 0, 1.0),
        (5, 0, 0.0625),
        (6, 0, 0.03125),
        (7, 2, 0.1796875),
        (12, 4, 0.076812744140625),
        (31, 3, 7.660128176212311e-07),
        (1, 1, 1.0),
        (40, 25, 0.08168153394154003),
    ],
)
def test_mcnemar_is_that_of_scipy(wins: int, losses: int, p: float) -> None:
    assert mcnemar(wins, losses) == pytest.approx(p, rel=1e-12) == mcnemar(losses, wins)


GRADED = ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.2, 0.3, 0.1, 0.9], [0.5, 0.4, 0.6, 0.5, 0.5, 0.8, 0.7, 0.3, 0.6, 0.95])


@pytest.mark.parametrize(
    ("scores", "difference", "low", "high"),  # scipy 1.17.1: bootstrap(..., 100_000, method="percentile")
    [
        (table(8, 2, 20, 10), 0.45, 0.275, 0.625),
        (GRADED, 0.225, 0.115, 0.34),
        (table(45, 5, 6, 4), 1 / 60, -0.1, 0.117),
    ],
)
def test_the_interval_is_that_of_scipy(
    scores: tuple[list[float], list[float]], difference: float, low: float, high: float
) -> None:
    pair = compare(*scores)
    assert pair.difference == pytest.approx(difference)
    assert (pair.low, pair.high) == pytest.approx((low, high), abs=0.01)
    other = compare(*scores[::-1])
    assert (other.difference, other.low, other.high) == pytest.approx((-difference, -high, -low), abs=0.01)
    assert compare(*scores) == pair, "it is seeded"


@pytest.mark.parametrize(("text", "expected", "percent"), [  # sacrebleu 2.6.0: CHRF().sentence_score(text, [expected])
    ("The cat sat on the mat.", "The cat sat on the mat.", 100.0),
    ("The Kettlewisp was built by Tam Dorrel.", "The Kettlewisp was built by Odra Pellin.", 68.36559810075204),
    ("Es wiegt 31 Kilo.", "Die Maschine wiegt 31 Kilogramm.", 38.433990802032596),
    ("它重31公斤。", "这台机器重三十一公斤。", 12.195152659741899),
    ("cat", "cats", 68.86227544910179),
    ("a", "The answer is a.", 9.433962264150944),
    ("abc", "xyz", 0.0),
    ("", "abc", 0.0),
])  # fmt: skip
def test_chrf_is_that_of_sacrebleu(text: str, expected: str, percent: float) -> None:
    assert 100 * chrf(text, expected) == pytest.approx(percent, rel=1e-9)


@pytest.mark.parametrize(
    ("rivals", "tuned", "key"),
    [
        ({"base": [0.0] * 40, "prompt": [1.0] * 20 + [0.0] * 20}, [1.0] * 35 + [0.0] * 5, "brings"),
        ({"base": [0.0] * 100, "examples": [1.0] * 97 + [0.0] * 3}, [1.0] * 98 + [0.0] * 2, "as_well_examples"),
        ({"base": [1.0] * 100}, [1.0] * 100, "as_well_base"),
        ({"base": [1.0] * 12}, [1.0] * 12, "alike_base"),  # a thirteenth could be the first that differs
        ({"base": [0.0] * 4}, [1.0] * 4, "undecided"),
        ({"prompt": [0.0] * 5 + [1.0] * 10}, [1.0] * 15, "undecided"),  # p = 0.0625
        ({"prompt": [1.0] * 35 + [0.0] * 5}, [1.0] * 20 + [0.0] * 20, "worse"),
        ({"prompt": [1.0, 0.0] * 60 + [1.0] * 5}, [0.0, 1.0] * 60 + [1.0] * 5, "too_close"),
        ({"base": [0.0] * 30, "prompt": [0.0] * 30}, [0.0] * 28 + [1.0] * 2, "none_right"),
    ],
)
def test_one_sentence_says_what_it_comes_to(rivals: dict[str, Sequence[float]], tuned: list[float], key: str) -> None:
    sentence = conclusion(rivals, tuned)  # type: ignore[arg-type]
    assert sentence.key == f"judges.{key}"
    assert all("{" not in sentence.render(language) for language in LANGUAGES)


def test_the_sentence_names_the_best_rival_and_the_interval() -> None:
    sentence = conclusion({"base": [0.0] * 40, "prompt": [1.0] * 20 + [0.0] * 20}, [1.0] * 35 + [0.0] * 5)
    pair = compare([1.0] * 20 + [0.0] * 20, [1.0] * 35 + [0.0] * 5)
    low, high = round(100 * pair.low), round(100 * pair.high)
    interval = f"(95 % interval: {low} to {high})."
    brings = "Fine-tuning brings 38 percentage points over the base model with the best prompt"
    assert str(sentence) == f"{brings} {interval}"
    assert 20 <= low < 38 < high <= 55


def test_further_questions_that_come_out_alike_do_decide() -> None:
    """The promise of the sentence: repeat the questions until there are as many, and it is decided."""
    generator, kept = np.random.default_rng(1), 0
    for _ in range(60):
        count = int(generator.integers(8, 60))
        first, second = (generator.random(count) < generator.random() for _ in range(2))
        pair = compare(first.astype(float), second.astype(float))
        if not pair.further:
            continue
        more = np.resize(np.arange(count), count * -(-(count + pair.further) // count))
        later = compare(first[more].astype(float), second[more].astype(float))
        kept += 1
        assert later.is_better or later.is_worse or later.brings_nothing, (pair, later)
    assert kept > 5


def test_an_interval_covers_the_truth_about_as_often_as_it_claims() -> None:
    """30 questions, of which the second has 30 points more right: 95 % of 200 intervals, and one may be unlucky."""
    generator = np.random.default_rng(0)
    pairs: list[Paired] = []
    for _ in range(200):
        first, second = (generator.random(30) < share for share in (0.4, 0.7))
        pairs.append(compare(first.astype(float), second.astype(float)))
    assert sum(pair.low <= 0.3 <= pair.high for pair in pairs) >= 180


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [1.0, 0.0])])
def test_unequal_rows_are_no_pair(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="expected as many"):
        compare(first, second)


@pytest.mark.parametrize("seed", range(10))
def test_the_sentence_is_right_where_a_prompt_suffices_and_where_only_training_helps(seed: int) -> None:
    """Contestants that are right with a known chance: 97 and 98 %; 30, 45 and 90 %."""
    generator = np.random.default_rng(seed)

    def answers(chance: float, count: int) -> list[float]:
        return (generator.random(count) < chance).astype(float).tolist()

    few = conclusion({"base": answers(0.3, 40), "prompt": answers(0.97, 40)}, answers(0.98, 40)).key
    assert few in ("judges.as_well_prompt", "judges.alike_prompt"), (
        "40 questions may leave it open, never say the wrong"
    )
    many = conclusion({"base": answers(0.3, 600), "prompt": answers(0.97, 600)}, answers(0.98, 600)).key
    assert many == "judges.as_well_prompt"
    assert conclusion({"base": answers(0.3, 40), "prompt": answers(0.45, 40)}, answers(0.9, 40)).key == "judges.brings"
