"""The arithmetic against a CSV file of cases: a line is a model, a way to train it, and perhaps what was measured.

    .venv/bin/python -m benchmarks.memory_cases tests/data/memory_points.csv [--json] [--workspace DIR]

Columns are those of tests/data/memory_points.csv; only the model's is needed. A model is what `--model` takes, or a
shape by the columns of a config.json (hidden_size, num_hidden_layers, ...), which then count. How a way to train is
told:

    stack                ours, hf, fms, litgpt, torchtune; else by `source`, where that names the project, else ours
    method               lora, full, qlora, qlora-no-double-quant
    loss                 chunked, full, fused, fast, or the words of published tables ("chunked lm_head+CE (128)",
                         "foak-...-liger")
    optim                what begins with adamw_8bit, paged_adamw_8bit, adamw_torch
    measured, unit, counter   a number, GiB or GB, and of what: idle..., alloc..., or what the card itself shows

No torch.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from benchmarks.memory_stacks import OthersSetup
from core.errors import GarageError
from core.memory.arithmetic import Estimate, estimate
from core.models.shapes.shape import ModelShape
from core.values import GIB

Counter = Literal["idle", "allocated", "on_card"]
MOST = 10_000  # lines
_SHAPE = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
)
_SOURCES = {"litgpt": "litgpt", "torchtune": "torchtune", "fms-acceleration": "hf"}


class BadCasesError(Exception):
    """A file does not contain cases; the message says why."""


@dataclass(frozen=True)
class Case:
    """One line. counter: which bytes `measured_gib` counts; None if the line has no measurement."""

    id: str
    model: str
    shape: ModelShape
    setup: OthersSetup
    counter: Counter | None = None
    measured_gib: float | None = None

    def answer(self) -> Answer:
        return Answer(self, estimate(self.shape, self.setup))


@dataclass(frozen=True)
class Answer:
    case: Case
    estimate: Estimate

    @property
    def predicted_gib(self) -> float:
        return getattr(self.estimate, f"{self.case.counter or 'on_card'}_gib")

    @property
    def error(self) -> float | None:
        """Predicted over measured, less one."""
        return None if self.case.measured_gib is None else self.predicted_gib / self.case.measured_gib - 1


def read(path: Path, shape_of: Callable[[str], ModelShape]) -> list[Case]:
    """Read the cases of a file. Raises BadCasesError that names the first line that is none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row, _ in zip(csv.DictReader(file), range(MOST + 1), strict=False)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadCasesError(f"{path} cannot be read as CSV in UTF-8: {str(error)[:200]}") from None
    if not rows or len(rows) > MOST or "model" not in rows[0]:
        columns = ", ".join(list(rows[0])[:10]) if rows else "-"
        raise BadCasesError(
            f"{path} has no cases. Expected a column “model” and 1 to {MOST} lines; its columns are: {columns}."
        )
    return list(_cases(rows, shape_of))


def _cases(rows: Iterable[Mapping[str, str | None]], shape_of: Callable[[str], ModelShape]) -> Iterable[Case]:
    known: dict[str, ModelShape] = {}

    def once(name: str) -> ModelShape:
        if name not in known:
            known[name] = shape_of(name)
        return known[name]

    for line, raw in enumerate(rows, 2):
        row = {
            key: value.strip()
            for key, value in raw.items()
            if isinstance(key, str) and isinstance(value, str) and value.strip()
        }
        try:
            yield _case(row, once)
        except (GarageError, BadCasesError) as error:
            raise BadCasesError(f"Line {line} of the cases: {error}") from None


def _case(row: dict[str, str], shape_of: Callable[[str], ModelShape]) -> Case:
    by_widths = all(name in row for name in _SHAPE)
    shape = _shape(row) if by_widths else shape_of(row.get("model", ""))
    measured, counter = _measured(row)
    return Case(row.get("id", ""), row.get("model", ""), shape, _setup(row), counter, measured)


def _shape(row: Mapping[str, str]) -> ModelShape:
    plain = row.get("mlp", "gated") == "plain"
    config: dict[str, Any] = {name: _whole(row, name) for name in (*_SHAPE, "head_dim") if name in row}
    # A name alone says nothing of its family; layers are named as Llama's, or where the MLP is plain as Nemotron's.
    kind = row.get("model_type") or ("nemotron" if plain else "llama")
    return ModelShape.from_config(
        config | {"model_type": kind, "tie_word_embeddings": _said(row, "tie_word_embeddings")}
    )


def _setup(row: Mapping[str, str]) -> OthersSetup:
    stack, loss = _stack(row), row.get("loss")
    method, double = row.get("method", "lora"), row.get("double_quant")
    values: dict[str, Any] = {
        "method": method.split("-")[0],
        "double_quant": double is None and not method.endswith("no-double-quant") or _said(row, "double_quant"),
        "target_modules": row.get("target_modules", "all-linear"),
        "stack": stack,
        "loss": _loss(loss, row, stack),
        "gradient_checkpointing": _said(row, "gradient_checkpointing", True),
        "optim": row.get("optim", "adamw_8bit").split()[0],
        "adapter_dtype": row.get("adapter_dtype", "fp32"),
        "attention": row.get("attention", "sdpa"),
        "use_dora": _said(row, "use_dora"),
        "load_in_8bit": _said(row, "load_in_8bit"),
        "fp32_stream": (loss or "").startswith("baseline-peft-bnb") or _said(row, "fp32_stream"),
        "accumulates": stack == "ours" and not by_others(row),
        "offloads": "activation offload" in row.get("notes", "") or _said(row, "offloads"),
    }
    for field, column in (
        ("r", "r"),
        ("per_device_train_batch_size", "micro_batch_size"),
        ("max_length", "max_length"),
    ):
        if column in row:
            values[field] = _whole(row, column)
    try:
        return OthersSetup(**values)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "loss"
        raise BadCasesError(
            f"{field} cannot be {str(first['input'] if first['loc'] else values['loss'])[:60]}."
        ) from None


def by_others(row: Mapping[str, str]) -> bool:
    """True if the line is another project's measurement of one micro-batch a step."""
    return "source" in row


def _stack(row: Mapping[str, str]) -> str:
    if stack := row.get("stack"):
        return stack
    found = next((stack for name, stack in _SOURCES.items() if name in row.get("source", "").lower()), None)
    if found is None:
        return "hf" if "source" in row else "ours"
    return "fms" if found == "hf" and "foak" in row.get("loss", "") else found


def _loss(said: str | None, row: Mapping[str, str], stack: str) -> str | None:
    """Return the loss that the words of published tables mean."""
    if said is None:
        return None
    words = said.lower()
    if words in ("supervised", "chunked", "full", "fused", "fast", "fast_first"):
        return words
    if any(name in words for name in ("liger", "cut", "unsloth")) or (stack == "torchtune" and "linear" in words):
        return "fused"
    if "foak" in words:  # its first version held the logits' gradient in fp32
        return "fast_first" if row.get("source", "").endswith("refs/a100_80gb.csv") else "fast"
    return "chunked" if "chunk" in words else "full"


def _measured(row: Mapping[str, str]) -> tuple[float | None, Counter | None]:
    if "measured" not in row:
        return None, None
    try:
        value = float(row["measured"])
    except ValueError:
        raise BadCasesError(f"measured cannot be {row['measured'][:60]}.") from None
    counter = row.get("counter", "")
    kind: Counter = "idle" if counter.startswith("idle") else "allocated" if counter.startswith("alloc") else "on_card"
    return value * (1e9 / GIB if row.get("unit", "GiB") == "GB" else 1), kind


def _whole(row: Mapping[str, str], name: str) -> int:
    try:
        return int(row[name])
    except ValueError:
        raise BadCasesError(f"{name} cannot be {row[name][:60]}.") from None


def _said(row: Mapping[str, str], name: str, otherwise: bool = False) -> bool:
    return row.get(name, str(otherwise)).lower() in ("1", "true", "yes")


def summary(answers: Iterable[Answer]) -> dict[str, dict[str, float]]:
    """Return the errors by kind of measurement: number of rows, median and 90th percentile of |predicted / measured -
    1|, and the worst."""
    found: dict[str, list[float]] = {}
    for answer in answers:
        if answer.error is not None and answer.case.counter:
            found.setdefault(answer.case.counter, []).append(abs(answer.error))
    return {kind: {"rows": len(errors), **_spread(sorted(errors))} for kind, errors in found.items()}


def _spread(errors: list[float]) -> dict[str, float]:
    def at(share: float) -> float:
        place = share * (len(errors) - 1)
        low = int(place)
        high = min(low + 1, len(errors) - 1)
        return errors[low] + (place - low) * (errors[high] - errors[low])

    return {"median": at(0.5), "p90": at(0.9), "worst": errors[-1]}


def line(answer: Answer) -> str:
    """Return one row of the printed table."""
    error = "-" if answer.error is None else f"{100 * answer.error:+.1f} %"
    measured = "-" if answer.case.measured_gib is None else f"{answer.case.measured_gib:.2f}"
    what = f"{answer.case.id or '-'}  {answer.case.model or '-'}, {answer.case.setup.method}"
    return f"{what}: predicted {answer.predicted_gib:.2f} GiB, measured {measured}, {error}"


def as_json(answers: Iterable[Answer]) -> dict[str, Any]:
    cases = [
        {"id": each.case.id, "counter": each.case.counter, "measured_gib": each.case.measured_gib,
         "predicted_gib": each.predicted_gib, "error": each.error, "model": each.case.model,
         "params": each.case.shape.params,
         "shape_source": each.case.shape.source, "setup": each.case.setup.model_dump(),
         **each.estimate.model_dump(mode="json")}
        for each in answers
    ]  # fmt: skip
    return {"cases": cases, "summary": summary(answers)}


def main(arguments: list[str] | None = None) -> int:
    from core.models.library import Models, shape_of
    from core.workspace.folder import Workspace

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--workspace", help="where models may lie that a line names; the app's own if left out")
    chosen = parser.parse_args(arguments)
    models = Models(Workspace.open(chosen.workspace))
    try:
        answers = [case.answer() for case in read(chosen.file, lambda name: shape_of(models, name))]
    except BadCasesError as error:
        print(error, file=sys.stderr)
        return 2
    if chosen.json:
        print(json.dumps(as_json(answers), ensure_ascii=False, indent=1))
        return 0
    for answer in answers:
        print(line(answer))
    for kind, errors in summary(answers).items():
        percent = {name: f"{100 * errors[name]:.1f} %" for name in ("median", "p90", "worst")}
        print(
            f"{kind}: {errors['rows']} measured, error median {percent['median']}, 90 of 100 within {percent['p90']}, "
            f"worst {percent['worst']}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
