"""What the catalogue says that a model holds is what its class in transformers holds; built on no memory at all."""

from __future__ import annotations

import pytest
from accelerate import init_empty_weights
from transformers import AutoConfig

from core.engine.families import parts
from core.models.headers import Tensor, count_weights
from core.models.known import KnownModel, known_models
from core.models.shapes.shape import ModelShape

BY_CLASS = [model for model in known_models() if model.config]
IN_THE_GATE = {"qwen3.5-4b", "gemma-4-e2b", "lfm2.5-1.2b"}


@pytest.mark.parametrize(
    "model",
    [pytest.param(m, marks=[] if m.id in IN_THE_GATE else pytest.mark.full, id=m.id) for m in BY_CLASS],
)
def test_a_known_model_holds_what_its_class_makes_of_its_config(model: KnownModel) -> None:
    assert model.config
    config = AutoConfig.for_model(**model.config)
    with init_empty_weights():
        made = parts.auto_class(config).from_config(config)
    made.tie_weights()
    towers = tuple(f"{name}." for name in parts.beside(made))
    tensors = [
        Tensor(name, "BF16", tuple(p.shape)) for name, p in made.named_parameters() if not name.startswith(towers)
    ]
    counted = count_weights(tensors, model.config, ModelShape.from_config(model.config))
    assert counted and (counted.params, counted.four_bit, counted.lora_width) == (
        model.shape.params,
        model.shape.four_bit_params,
        model.shape.lora_params(1, "all-linear"),
    )
    layers = [made.get_submodule(name) for name in parts.linear_layers(made)]
    assert counted.lora_width == sum(layer.in_features + layer.out_features for layer in layers)
