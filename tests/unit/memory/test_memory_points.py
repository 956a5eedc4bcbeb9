"""The arithmetic against 69 published measurements (tests/data/memory_points.csv; each row names its source and
commit).

Wanted: idle rows within 2 % each; allocator peaks median 4 %, 90 of 100 within 10 %; card totals median 5 %, 90 of 100
within 12 %. Reached, and held here with little room: idle 0.02 %; allocator 0.5 %, 2.6 %; card 1.2 %, 5.8 %. Nothing
wanted is missed. The rows that are off most, and why:

177, 176, 175, 174 (+6.1, +3.2, +3.8, -3.2 %): torchtune's compiled layers. What a compiler keeps is its own choice, and
the
    published numbers have two digits.
190, 192 (-7.3, -5.7 %): hidden states in fp32; the share that the allocator holds is that of the 16-bit rows.
320, 322, 324 (-6.6, -5.2, -5.8 %): the loss in place over a 4-bit base holds more than over a 16-bit one (rows
308-312).

What is fitted on these very rows (presets/memory.yaml says which): slack, the A100's context, moving.hidden of fms. So
the last test asks for measurements that are not among them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from benchmarks import memory_cases
from benchmarks.memory_stacks import OthersSetup
from core.commands import __main__ as commands
from core.memory.arithmetic import estimate
from core.memory.setup import Setup
from core.models.known import shape_of_size
from core.models.shapes.shape import ModelShape
from core.presets import PROJECT

POINTS = PROJECT / "tests" / "data" / "memory_points.csv"
EACH = {"idle": 0.002, "allocated": 0.065, "on_card": 0.08}
MEDIAN = {"idle": 0.002, "allocated": 0.01, "on_card": 0.02}
P90 = {"idle": 0.002, "allocated": 0.03, "on_card": 0.065}
ROWS = {"idle": 2, "allocated": 45, "on_card": 22}


def no_names(name: str) -> ModelShape:
    raise AssertionError(f"{name} was looked up, but every row of the file has its widths")


def test_the_arithmetic_agrees_with_what_others_measured() -> None:
    answers = [case.answer() for case in memory_cases.read(POINTS, no_names)]
    for answer in answers:
        print(memory_cases.line(answer))
    summary = memory_cases.summary(answers)
    for kind, errors in summary.items():
        print(
            f"{kind}: "
            + ", ".join(f"{name} {value if name == 'rows' else f'{value:.2%}'}" for name, value in errors.items())
        )
    assert {kind: errors["rows"] for kind, errors in summary.items()} == ROWS
    assert [f"{a.case.id}: {a.error:+.1%}" for a in answers if abs(a.error or 0) > EACH[a.case.counter or "idle"]] == []
    assert all(summary[kind]["median"] <= MEDIAN[kind] and summary[kind]["p90"] <= P90[kind] for kind in summary)


ATTENTION = {"r": 16, "target_modules": "q_proj,k_proj,v_proj,o_proj", "optim": "adamw_torch", "accumulates": False,
             "per_device_train_batch_size": 4, "max_length": 4096}  # fmt: skip
# fms-acceleration's other models, GiB, told in docs/memory.md (1.1, 1.5); none of them was fitted on.
UNSEEN = [
    ("8B", {"method": "lora", "stack": "hf"}, "idle_gib", 15.13, 0.002),
    ("8B", {"method": "qlora", "stack": "hf"}, "idle_gib", 5.48, 0.002),
    ("70B", {"method": "qlora", "stack": "hf"}, "idle_gib", 34.63, 0.002),
    ("8B", {"method": "qlora", "stack": "fms", "loss": "fast"}, "allocated_gib", 25.39, 0.002),
    ("8B", {"method": "qlora", "stack": "fms", "loss": "fused"}, "allocated_gib", 13.42, 0.04),
    ("8B", {"method": "qlora", "stack": "fms", "loss": "fast"}, "on_card_gib", 40.3, 0.03),
    ("8B", {"method": "qlora", "stack": "fms", "loss": "fused"}, "on_card_gib", 15.2, 0.02),
]


@pytest.mark.parametrize(("size", "settings", "field", "gib", "within"), UNSEEN)
def test_it_agrees_with_measurements_that_nothing_was_fitted_on(
    size: str, settings: dict[str, Any], field: str, gib: float, within: float
) -> None:
    estimated = estimate(shape_of_size(size), OthersSetup(**ATTENTION | settings))
    assert getattr(estimated, field) == pytest.approx(gib, rel=within)


# ---- the benchmark -------------------------------------------------------------------------------


def test_one_call_answers_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert memory_cases.main([str(POINTS), "--json", "--workspace", str(tmp_path)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["cases"]) == 69 and set(answer["summary"]) == set(ROWS)
    first = answer["cases"][0]
    assert {
        "id",
        "counter",
        "measured_gib",
        "predicted_gib",
        "error",
        "trainable_params",
        "idle_gib",
        "allocated_gib",
        "on_card_gib",
        "terms",
    } <= set(first)
    assert first["predicted_gib"] == first["allocated_gib"]
    assert memory_cases.main([str(POINTS), "--workspace", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 69 + 3


def test_cases_need_no_more_than_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("model,method,max_length\n7B,qlora,512\nqwen3-8b,,\n", "utf-8")
    assert memory_cases.main([str(file), "--json", "--workspace", str(tmp_path)]) == 0
    cases = json.loads(capsys.readouterr().out)["cases"]
    alone = estimate(shape_of_size("7B"), Setup(method="qlora", max_length=512))
    assert cases[0]["on_card_gib"] == pytest.approx(alone.on_card_gib) and cases[0]["error"] is None
    assert cases[1]["setup"] == OthersSetup().model_dump() and cases[1]["shape_source"] == "catalogue"


@pytest.mark.parametrize(
    ("content", "mention"),
    [
        ("", "column"),
        ("size\n7B\n", "column"),
        ("model,r\n7B,8\n7B,many\n", "Line 3"),
        ("model,method\n7B,magic\n", "magic"),
        ("model,loss,stack\n7B,fast,ours\n", "fast"),
        (("model,hidden_size,num_hidden_layers,num_attention_heads,num_key_value_heads,intermediate_size,vocab_size\n"
          "x,0,1,1,1,1,1\n"), "Line 2"),
        ("model\nno/../model\n", "Line 2"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)  # fmt: skip
def test_a_bad_file_of_cases_is_one_sentence(
    content: str | bytes, mention: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert memory_cases.main([str(file), "--workspace", str(tmp_path)]) == 2
    output = capsys.readouterr()
    assert output.out == "" and mention in output.err and output.err.strip().count("\n") == 0


def test_a_loss_that_a_trainer_does_not_have_is_refused() -> None:
    with pytest.raises(ValidationError, match="fast is not known of ours"):
        OthersSetup(loss="fast")
    assert OthersSetup(loss="fast", stack="hf").trainer.loss["fast"]


def test_with_our_own_numbers_the_benchmarks_setup_is_the_products() -> None:
    for asked in ({}, {"method": "qlora", "use_dora": True}, {"loss": "full", "attention": "eager"}):
        assert estimate(shape_of_size("7B"), OthersSetup(**asked)) == estimate(shape_of_size("7B"), Setup(**asked))


def test_options_move_the_number_their_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def gib(*options: str) -> float:
        arguments = [
            "estimate",
            "--model",
            "8B",
            "--method",
            "qlora",
            "--max-length",
            "4096",
            "--json",
            "--workspace",
            str(tmp_path),
        ]
        assert commands.main([*arguments, *options]) == 0
        return json.loads(capsys.readouterr().out)["on_card_gib"]

    ours = gib()
    assert gib("--no-double-quant") - ours == pytest.approx(6.979e9 * (0.5625 - 0.515869) / 2**30, rel=0.01)
    assert gib("--optim", "adamw_torch", "--adapter-dtype", "bf16") < gib("--optim", "adamw_torch")
    theirs = estimate(shape_of_size("8B"), OthersSetup(method="qlora", max_length=4096, stack="hf")).on_card_gib
    assert theirs > ours + 5, "128k words x 4096 tokens x 14 bytes are 6.9 GiB"
    assert gib("--attention", "eager") > ours + 5
    assert ours < gib("--lora-dropout", "0.1") and ours < gib("--dora")
