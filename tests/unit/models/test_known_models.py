"""The catalogue of models: billions, parameters in files and shape of each entry agree, and a wrong edit of any is
seen."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from core.advice import catalogue
from core.hub import cached
from core.memory import budget
from core.models import families
from core.models.known import KnownModel, known_models
from core.models.shapes.shape import ModelShape
from tools.entry_checks import disagreements

FOUND = known_models()
BY_ID = {model.id: model for model in FOUND}


def test_billions_files_and_shape_of_every_model_agree() -> None:
    """As each model's page, the hub's count of its files, and its config.json tell; what is allowed:
    tools/entry_checks.py."""
    assert {model.id: found for model in FOUND if (found := disagreements(model))} == {}
    assert sum(model.in_files is None for model in FOUND) <= 2, "LFM3 and Nemotron Mini, of which no table tells"


SHAPE_EDITS: dict[str, Any] = {
    "num_hidden_layers": lambda shape: shape.num_hidden_layers + 1,
    "vocab_size": lambda shape: shape.vocab_size + 16384,
    "intermediate_size": lambda shape: shape.intermediate_size + 1024,
    "num_key_value_heads": lambda shape: shape.num_attention_heads if shape.num_key_value_heads < 8 else 1,
    "tie_word_embeddings": lambda shape: not shape.tie_word_embeddings,
}


@pytest.mark.parametrize("name", SHAPE_EDITS)
def test_a_wrong_number_in_a_shape_is_seen(name: str) -> None:
    checked = missed = 0
    for model in FOUND:
        if model.shape.held or model.beside == "towers" or model.in_files is None:
            continue  # counted by their class (tests/model/test_catalogue.py), or with room for towers
        shape = model.shape.model_copy(update={name: SHAPE_EDITS[name](model.shape)})
        if shape.params == model.shape.params:
            continue
        checked, missed = checked + 1, missed + (not disagreements(model.model_copy(update={"shape": shape})))
    assert checked > 100 and missed == 0


def test_a_wrong_count_of_any_model_is_seen() -> None:
    for model in FOUND:
        for factor in (0.9, 1.1):
            wrong: dict[str, Any] = {"billions": model.billions * factor}
            assert disagreements(model.model_copy(update=wrong)), model.id
        if model.in_files is not None:
            assert disagreements(model.model_copy(update={"in_files": round(model.in_files * 0.5)})), model.id
            assert disagreements(model.model_copy(update={"in_files": round(model.in_files * 2 + 2e9)})), model.id
            swapped = {"head": None, "towers": None, None: "head"}[model.beside]
            assert disagreements(model.model_copy(update={"beside": swapped})), model.id
    assert disagreements(BY_ID["qwen3-8b"].model_copy(update={"title": "Qwen3-80B"}))


def test_every_model_has_its_source_and_none_is_from_memory() -> None:
    for model in FOUND:
        assert len(model.source) > 10 and "memory" not in model.source, model.id


def test_every_model_says_in_both_languages_why_one_would_take_it() -> None:
    for language in ("en", "zh"):
        assert len({model.note[language] for model in FOUND}) == len(FOUND), (
            "each stands alone where a search leaves few"
        )
    for model in FOUND:
        assert set(model.note) == {"en", "zh"} and all(model.note.values()), model.id
        assert re.findall(r"\d+(?= GB)", model.note["en"]) == re.findall(r"\d+(?= GB)", model.note["zh"]), model.id
        assert re.search(r"[\u4e00-\u9fff]", model.note["zh"]) and not re.search(
            r"[\u4e00-\u9fff]", model.note["en"]
        ), model.id


def test_what_a_note_says_of_a_card_is_what_the_arithmetic_says() -> None:
    mentions = [(model, int(gb)) for model in FOUND for gb in re.findall(r"(\d+)(?: GB| to \d+ GB)", model.note["en"])]
    assert len(mentions) > 40
    for model, gb in mentions:
        fits = [catalogue.fit(model.shape, budget.planned(gb, "Linux"), method).verdict for method in ("lora", "qlora")]
        assert {"fits", "tight"} & set(fits), (model.id, gb)


def test_the_catalogue_reaches_from_a_processor_to_large_cards_without_a_gap() -> None:
    assert len(FOUND) >= 130 and FOUND[0].id == "starter"
    sizes = sorted(model.billions for model in FOUND)
    assert sizes[0] < 0.2 and sizes[-1] > 70 and max(b / a for a, b in pairwise(sizes)) < 2.3, (
        "no gap that a person would notice"
    )
    assert len({model.hub for model in FOUND}) == len(BY_ID) == len(FOUND)
    assert all(cached.REPO_ID.fullmatch(model.hub) for model in FOUND[1:])
    assert all(model.licence and model.shape.max_position_embeddings for model in FOUND)
    doubts = {doubt.key for model in FOUND if model.config for doubt in model.shape.low_confidence}
    assert doubts == {"shape.hybrid", "shape.per_layer_embeddings", "shape.experts", "shape.latent_attention"}
    assert not any(model.shape.low_confidence for model in FOUND if not model.config)


def test_every_model_is_of_a_family_that_can_be_trained_here() -> None:
    """One that the page would refuse once it is chosen has no place in a list to choose from."""
    assert {m.hub: why for m in FOUND if (why := families.refusal(m.hub, m.config or m.shape.config()))} == {}
    assert families.refusal("x/y", FOUND[0].shape.config() | {"model_type": "none_such"})


def test_what_is_liked_comes_before_what_has_a_successor() -> None:
    place = {model.id: number for number, model in enumerate(FOUND)}
    for newer, older in [("qwen3.5-4b", "qwen3-4b"), ("qwen3-8b", "qwen2.5-7b-instruct"), ("llama-3.1-8b-instruct",
        "llama-2-7b-chat"),
                         ("gemma-4-12b", "gemma-3-12b-it"), ("granite-4.2-8b", "granite-3.3-8b-instruct")]:  # fmt: skip
        assert place[newer] < place[older]
    newest = Counter(model.released[:4] for model in FOUND[1:31])
    assert newest["2026"] > 20, "what people take today leads"


def test_one_licence_means_one_thing_for_selling() -> None:
    meanings: dict[str, set[str]] = {}
    for model in FOUND:
        meanings.setdefault(model.licence, set()).add(model.commercial)
    assert all(len(found) == 1 for found in meanings.values()), meanings
    assert {meanings["Apache-2.0"].pop(), meanings["CC-BY-NC-4.0"].pop(), meanings["Gemma Terms of Use"].pop()} == {
        "allowed", "forbidden", "limited",
    }  # fmt: skip


def test_an_entry_with_a_field_too_few_or_too_many_is_refused() -> None:
    fields = BY_ID["qwen3-8b"].model_dump()
    for wrong in (
        {"released": "2026-13"},
        {"commercial": "maybe"},
        {"thinking": "yes"},
        {"stars": 5},
        {"source": None},
    ):
        with pytest.raises(ValueError):
            KnownModel.model_validate(fields | wrong)
    assert KnownModel.model_validate(fields).shape == ModelShape.model_validate(fields["shape"])
