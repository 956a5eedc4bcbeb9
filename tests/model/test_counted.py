"""The count of a micro-batch's launches, multiplications and bytes (benchmarks/counted) is what can be reckoned by
hand."""

from __future__ import annotations

import warnings

import torch

from benchmarks import counted
from core.memory.setup import Setup
from core.models.shapes.shape import ModelShape

SHAPE = ModelShape(
    model_type="llama", hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16, vocab_size=128, tie_word_embeddings=False,
)  # fmt: skip
T, R = 64, 4
SETUP = Setup(method="qlora", r=R, max_length=T, optim="adamw_torch")


def test_looking_costs_nothing_and_a_product_in_place_its_reads_and_writes() -> None:
    a, b, c = (torch.zeros(size, device="meta") for size in ((4, 8), (8, 2), (4, 2)))
    with counted.Tally() as tally:
        a.t().view(2, 4, 4).transpose(0, 1)
        torch.empty(100, device="meta")
        c.addmm_(a, b)
        c.mul_(a.new_zeros(()).expand(4, 2))  # a scalar, however wide it is spread: zeros is a launch too
    assert tally.flops == 2 * 4 * 8 * 2
    assert dict(tally.launches) == {"product": 1, "rest": 2}
    assert dict(tally.bytes) == {"product": 4 * (32 + 16 + 2 * 8), "rest": 4 * (8 + 1 + 8) + 4}


def test_multiplications_of_ours_and_by_reading_are_those_of_the_formula() -> None:
    sizes = [
        (matrix.d_in, matrix.d_out) for matrix in SHAPE.matrices for _ in range(matrix.count // SHAPE.num_hidden_layers)
    ]
    weights, sides = sum(a * b for a, b in sizes), sum(a + b for a, b in sizes)
    down, attention, head = 96 * 64, 4 * T * T * 64, 4 * T * 64 * 128
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own words on names that it gives up
        ours, plain = (way(SHAPE.config(), SETUP) for way in (counted.ours, counted.plain))
    read = counted.unsloth(SHAPE, SETUP)
    # forward, forward again, gradient of the input
    assert read.flops == 3 * (2 * T * (3 * weights + 5 * R * sides) + 4.5 * attention) + head
    # neither down_proj nor what its B adds is computed again; attention's way back is 2.5 times its forward
    assert ours.flops == 3 * (2 * T * (3 * weights - down + 4 * R * sides - R * 64) + 4.5 * attention) + head
    # PEFT's products are as many; checkpointing stops before the last of them
    assert plain.flops == 3 * (2 * T * (3 * weights + 4 * R * sides - R * 64) + 4.5 * attention) + head
    # norms, rotary and gates as one function each (core/engine/variants/elementwise): what is not a product moves a
    # third of the bytes
    assert ours.launches["rest"] < 0.8 * plain.launches["rest"] and ours.bytes["rest"] < 0.5 * plain.bytes["rest"]
