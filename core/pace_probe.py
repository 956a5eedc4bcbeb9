"""How fast this PC trains a small stand-in model, in a process of its own: `python -m core.pace_probe`. Imports torch.

Prints one JSON line {"device": "cpu", "dtype": "bfloat16", "tflops": 0.3}: the operations that a step's products need,
over the time that the step really takes. A bare product would say too little: on one Intel Xeon it reaches 2.2 TFLOP/s with
AMX instructions and 0.22 without, a training step 0.26 and 0.12. Takes six seconds, five of them imports.
"""

from __future__ import annotations

import json
import time
from typing import Any

import torch

from core import adapter, device
from core.batches import Batch
from core.loss import summed_loss
from core.recipe import Adapter

ROWS, LENGTH = 4, 128
LAYERS, VOCABULARY = 2, 512
# A layer of what is trained there: models of 0.1 to 1B parameters on a processor, of 7B on a card.
WIDTH_ON_CPU, WIDTH_ON_CARD = 1024, 4096
SECONDS, LEAST_STEPS = 1.0, 2


def stand_in(compute: device.Compute) -> Any:
    """Two layers with random weights, LoRA on all of their linear layers, as core.worker would train them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    width = WIDTH_ON_CARD if compute.on_card else WIDTH_ON_CPU
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=LAYERS,
        num_attention_heads=width // 64,
        vocab_size=VOCABULARY,
        dtype=compute.dtype,
    )
    with torch.device(compute.device):
        model = LlamaForCausalLM._from_config(config)
    return adapter.add(model, Adapter(), "stand-in", None).train()


def tflops(compute: device.Compute) -> float:
    """10^12 operations a second: 4 a parameter and token, forward and back through a frozen base."""
    model = stand_in(compute)
    parameters = sum(p.numel() for p in model.get_base_model().get_decoder().layers.parameters() if not p.requires_grad)
    ids = torch.arange(ROWS * LENGTH, device=compute.device) % VOCABULARY
    learned = torch.arange(0, ROWS * LENGTH, 2, device=compute.device)
    batch = Batch(
        ids.view(ROWS, LENGTH), learned, ids[learned], ROWS * LENGTH, attention_mask=torch.ones_like(ids).view(ROWS, LENGTH)
    )

    def step() -> None:
        summed_loss(model, batch).backward()
        model.zero_grad(set_to_none=True)
        if compute.on_card:
            torch.cuda.synchronize(compute.device)

    step()
    steps, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < SECONDS or steps < LEAST_STEPS:
        step()
        steps += 1
    return steps * 4 * parameters * ROWS * LENGTH / elapsed / 1e12


if __name__ == "__main__":
    chosen = device.choose()
    print(json.dumps({"device": str(chosen.device), "dtype": chosen.dtype_name, "tflops": tflops(chosen)}))
