"""NEFTune: noise on the embeddings, as loud as each example's length says, in training alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from core.data.labels import Encoded
from core.engine import adapter, attention
from core.engine.batches import Batch, collate, collate_packed
from core.engine.variants import neftune
from core.recipe import Adapter
from core.training.trainer import Ahead
from tests.kit.trainer import FP32, assert_same, tiny_base, trainer_of


def embedded(tuned: Any, batch: Batch, alpha: float | None) -> torch.Tensor:
    """What the first layer is given."""
    inputs = []
    layer = tuned.get_base_model().model.layers[0]
    hook = layer.register_forward_pre_hook(
        lambda module, args, kwargs: inputs.append((args or tuple(kwargs.values()))[0]), with_kwargs=True
    )
    with neftune.noise(tuned, alpha), torch.no_grad():
        tuned.get_base_model().get_decoder()(**batch.inputs())
    hook.remove()
    return inputs[0]


@pytest.mark.parametrize("packed", [True, False])
def test_noise_is_as_loud_as_each_examples_own_length_says(packed: bool) -> None:
    tuned = adapter.add(tiny_base(), Adapter(r=4), "tiny", None)
    assert attention.enable(tuned.get_base_model())
    several = [Encoded(list(range(3, 3 + n)), [True] * n) for n in (2, 30)]
    batch = collate_packed(several, FP32.device) if packed else collate(several, 0, FP32.device)
    plain = embedded(tuned.eval(), batch, 5.0)
    torch.testing.assert_close(plain, embedded(tuned.eval(), batch, None))
    torch.manual_seed(0)
    difference = (embedded(tuned.train(), batch, 5.0) - plain).abs()
    short, long = (difference[0, :2], difference[0, 2:]) if packed else (difference[0, :2], difference[1])
    for part, length in ((short, 2), (long, 30)):
        most = 5 / math.sqrt(length * 32)
        assert 0.9 * most < part.max() <= most * 1.001, "width 32"
    assert not [m for m in tuned.modules() if m._forward_hooks or m._forward_pre_hooks]


def test_the_rehearsal_hears_the_noise_and_takes_nothing_of_it(tmp_path: Path) -> None:
    heard = []

    def listen(ahead: Ahead) -> None:
        hook = ahead.step.tuned.get_input_embeddings().register_forward_hook(
            lambda module, args, output: heard.append(output)
        )
        before = torch.get_rng_state()
        for _ in range(2):
            ahead.step.rehearse(ahead.longest())
        hook.remove()
        assert torch.equal(torch.get_rng_state(), before)

    noisy, alone = (trainer_of(tmp_path / name, neftune_noise_alpha=5.0) for name in "ab")
    noisy.run(listen)
    alone.run()
    plain = noisy.step.tuned.get_base_model().get_input_embeddings().weight
    assert torch.equal(heard[0], heard[1]), "the same random numbers each time"
    assert not (heard[0][0, :, None] == plain).all(-1).any(), "no token's embedding as it is"
    assert_same(noisy, alone)
