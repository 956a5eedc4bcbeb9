"""Times a step of a plan, in its own process: `python -m core.trial.pace_probe JSON` (pace.StandIn).

Prints one JSON line {"device": "cpu", "dtype": "bfloat16", "tokens_per_second": 340.0}. It times a step as in the run
(forward, backward, AdamW) through two layers of the model's own widths, or one if they are large, with random weights;
the layers' time is scaled to all layers of the model, the head's is timed alone and added. Takes some seconds, five of
them imports.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from core.engine import adapter, base_model, device
from core.engine import optimizer as optimizers
from core.engine.batches import Batch
from core.engine.loss import Head, head_losses
from core.engine.out_of_memory import Retreat
from core.engine.step import Step
from core.recipe import Adapter
from core.trial.pace import StandIn

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


LARGE_LAYER = 300e6  # parameters; two of them would need more than a gigabyte
VOCABULARY = 512  # of the layers' own measurement: the head is timed apart
SECONDS, MIN_STEPS = 1.0, 2


def stand_in(step: StandIn, compute: device.Compute, layers: int) -> PeftModel:
    """Return a Llama of so many layers with random weights, quantized as step says, and LoRA on all of their linear
    layers, as core.training.worker would train them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=step.hidden_size,
        intermediate_size=step.intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=step.num_attention_heads,
        num_key_value_heads=step.num_key_value_heads,
        head_dim=step.head_dim,
        vocab_size=VOCABULARY,
        use_cache=False,
        dtype=compute.dtype,
    )
    with torch.device(compute.device):
        model = LlamaForCausalLM._from_config(config)
    model.requires_grad_(False)
    if step.four_bit or step.eight_bit:
        _quantize(model, step, compute)
    return adapter.add(model, Adapter(r=step.r, use_dora=step.use_dora), "stand-in", None).train()


def _quantize(model: PreTrainedModel, step: StandIn, compute: device.Compute) -> None:
    """Replace the linear layers of the decoder by 8-bit or 4-bit ones."""
    from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit

    for layer in model.get_decoder().layers:
        for name, module in list(layer.named_modules()):
            if type(module) is torch.nn.Linear:
                widths, kept = (module.in_features, module.out_features), module.weight.data.cpu()
                if step.eight_bit:
                    small = Linear8bitLt(*widths, False, has_fp16_weights=False, threshold=6.0, device="meta")
                    small.weight = Int8Params(kept, requires_grad=False, has_fp16_weights=False)
                else:
                    small = Linear4bit(*widths, False, compute_dtype=compute.dtype, quant_type="nf4", device="meta")
                    small.weight = Params4bit(kept, requires_grad=False, quant_type="nf4", compress_statistics=True)
                parent, _, leaf = name.rpartition(".")
                setattr(layer.get_submodule(parent), leaf, small.to(compute.device))
    model.is_loaded_in_4bit, model.is_loaded_in_8bit = step.four_bit, step.eight_bit  # peft reads them
    base_model.close_cpu_gradient_trap(model)


def layers_seconds(step: StandIn, compute: device.Compute) -> float:
    """Return the seconds of one step through all layers of the model, optimizer included: one or two layers are timed
    and multiplied."""
    matrices = step.hidden_size * (3 * step.intermediate_size + 2 * step.head_dim * step.num_attention_heads)
    layers = min(step.num_hidden_layers, 1 if matrices > LARGE_LAYER else 2)
    model = stand_in(step, compute, layers)
    optimizer = optimizers.of_name(None, optimizers.groups_of(model, None), lr=1e-3)
    retreat = Retreat(step.rows, False, compute.on_card, step.gradient_checkpointing)
    own = Step(model, compute.device, compute.dtype, optimizer, Head.from_model(model.get_base_model()), retreat)
    own.save_memory()
    own.fuse()
    count = step.rows * step.length
    ids = torch.arange(count, device=compute.device) % VOCABULARY
    learned = torch.arange(0, count, max(1, step.length // step.learned), device=compute.device)
    mask = torch.ones_like(ids).view(step.rows, step.length)
    batch = Batch(ids.view(step.rows, step.length), learned, ids[learned], count, attention_mask=mask)

    def once() -> None:
        own.backward([batch])
        own.clip()
        own.apply(is_good=True)

    return timed(once, compute) * step.num_hidden_layers / layers


def head_seconds(step: StandIn, compute: device.Compute) -> float:
    """Return the seconds of the head and its loss at the learned positions of one step."""
    with torch.device(compute.device):
        head = torch.nn.Linear(step.hidden_size, step.vocab_size, bias=False, dtype=compute.dtype).requires_grad_(False)
        count = step.rows * step.learned
        hidden = torch.randn(count, step.hidden_size, dtype=compute.dtype, requires_grad=True)
        targets = torch.arange(count) % step.vocab_size
    return timed(lambda: head_losses(head, hidden, targets, Head()).sum().backward(), compute)


def timed(once: Callable[[], None], compute: device.Compute) -> float:
    """Return the mean seconds of a call of `once`, timed for SECONDS and at least MIN_STEPS calls; the first call, a
    warm-up, is left out."""

    def synchronized() -> None:
        once()
        if compute.on_card:
            torch.cuda.synchronize(compute.device)

    synchronized()
    times, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < SECONDS or times < MIN_STEPS:
        synchronized()
        times += 1
    return elapsed / times


if __name__ == "__main__":
    step, compute = StandIn.model_validate_json(sys.argv[1]), device.choose()
    seconds = layers_seconds(step, compute) + head_seconds(step, compute)
    speed = step.rows * step.length / seconds
    print(json.dumps({"device": str(compute.device), "dtype": compute.dtype_name, "tokens_per_second": speed}))
