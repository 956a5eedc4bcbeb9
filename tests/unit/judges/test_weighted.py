"""The judges of a training by rewards, as a recipe lists them."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import RecipeError
from core.judges import weighted
from core.messages import LANGUAGES

SERVER = {"kind": "model", "url": "http://localhost:1234/v1", "model": "any"}


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"kind": "person"}, "no_rule"),
        (SERVER, "no_rule"),
        ({"kind": "taste"}, "bad_judge"),
        ({"kind": "number", "unit": "m"}, "bad_judge"),
        ({"kind": "number", "weight": 0}, "bad_judge"),
    ],
)
def test_a_judge_that_cannot_judge_every_drawn_answer_is_refused_in_the_recipe(given: dict[str, Any], key: str) -> None:
    """A model behind a server was refused only once the base had been loaded, as a judge of broken rows."""
    with pytest.raises(RecipeError) as caught:
        weighted.read([{"kind": "exact"}, given])
    message = caught.value.message
    assert message.key == f"rewards.{key}" and message.params["number"] == 2
    assert all("{number}" not in message.render(language) for language in LANGUAGES)


def test_judges_of_one_kind_have_names_of_their_own_and_form_alone_is_known() -> None:
    form, content, named = weighted.read(
        [{"kind": "length", "most": 5}, {"kind": "contains"}, {"kind": "contains", "any_of": ["yes"], "weight": 0.5}]
    )
    assert [judge.name for judge in (form, content, named)] == ["length", "contains", "contains_2"]
    assert [judge.weight for judge in (form, content, named)] == [1.0, 1.0, 0.5]
    assert [judge.reads_content for judge in (form, content, named)] == [False, True, False]
