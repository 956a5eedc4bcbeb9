"""Compares the arithmetic with the dry run, for a published model of each family (benchmarks/published_shapes.yaml),
without their memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import yaml

from core.memory.arithmetic import estimate
from core.memory.setup import Setup
from core.models.headers import Tensor, count_weights
from core.models.known import known_models
from core.models.shapes.shape import ModelShape

SHAPES = yaml.safe_load(Path(__file__).with_name("published_shapes.yaml").read_text("utf-8"))


class Compared(NamedTuple):
    """GiB at the peak of a step as the allocator counts it, of the arithmetic and of the dry run; trained parameters,
    of both."""

    family: str
    model: str
    method: str
    counted: float
    seen: float
    trained: tuple[int, int]

    @property
    def off(self) -> float:
        return self.counted / self.seen - 1


def config_of(family: str) -> tuple[str, dict[str, Any]]:
    """Return the model's title and its config.json."""
    from transformers import AutoConfig

    entry = SHAPES[family]
    if "catalogue" in entry:
        known = next(model for model in known_models() if model.id == entry["catalogue"])
        return known.title, known.config or known.shape.config()
    text = dict(entry["text"])
    if every := text.pop("attention_every", None):
        text["layer_types"] = [
            "attention" if i % every[0] == every[1] else "mamba" for i in range(text["num_hidden_layers"])
        ]
    whole = AutoConfig.for_model(entry["kind"])
    if whole.get_text_config() is not whole:
        kind = entry.get("of_text") or whole.get_text_config().model_type
        text = {"text_config": text | {"model_type": kind}}
    return entry["model"], json.loads(AutoConfig.for_model(entry["kind"], **text).to_json_string(use_diff=False))


def shape_of(config: dict[str, Any]) -> ModelShape:
    """Return the shape with the sizes from the class of config, as the headers of its files would give them."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, PreTrainedConfig

    from core.engine.families import mended, parts

    made = mended.config(AutoConfig.for_model(**PreTrainedConfig._decode_special_floats(config)))
    with init_empty_weights():
        model = parts.auto_class(made).from_config(made)
    model.tie_weights()
    parts.set_aside(model)
    shape = ModelShape.from_config(config)
    return shape.with_held(
        count_weights([Tensor(name, "BF16", tuple(p.shape)) for name, p in model.named_parameters()], config, shape)
    )


def compare(families: Sequence[str], methods: Sequence[Any] = ("lora", "qlora"), **more: Any) -> Iterator[Compared]:
    from core.trial.dry_run import dry_run
    from core.trial.dry_runs import Question

    for family in families:
        title, config = config_of(family)
        shape = shape_of(config)
        for method in methods:
            setup = Setup(**({"method": method, "r": 8, "max_length": 1024} | more))
            counted, seen = estimate(shape, setup), dry_run(Question(config=config, setup=setup)).estimate
            trained = (counted.trainable_params, seen.trainable_params)
            yield Compared(family, title, method, counted.allocated_gib, seen.allocated_gib, trained)


def report(families: Sequence[str]) -> None:
    found = []
    print("| family | model | method | arithmetic, GiB | dry run, GiB | off |", flush=True)
    for one in compare(families or list(SHAPES)):
        found.append(one)
        same = "" if one.trained[0] == one.trained[1] else f" trained {one.trained}"
        print(
            (
                f"| {one.family} | {one.model} | {one.method} | {one.counted:.2f} | {one.seen:.2f} | {one.off:+.1%} "
                f"|{same}"
            ),
            flush=True,
        )
    worst = max(found, key=lambda one: abs(one.off))
    print(
        f"{len(found)} cases: median {median(abs(one.off) for one in found):.1%}, worst {worst.off:+.1%} "
        f"({worst.model}, {worst.method})"
    )
