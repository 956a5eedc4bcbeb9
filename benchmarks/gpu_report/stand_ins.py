"""Models of random weights for the checks, created on their device, and how they are timed. Imports torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.autograd import DeviceType

from benchmarks.gpu_report.hour import Hour
from core.data.labels import Encoded
from core.engine import adapter, attention, base_model, device
from core.engine import optimizer as optimizers
from core.engine.device import Compute
from core.engine.loss import Head, head_losses
from core.engine.out_of_memory import Retreat
from core.engine.step import Step
from core.messages import msg
from core.recipe import Adapter
from core.values import Frozen

VOCABULARY = 512  # of the layers: the head is timed apart
SECONDS, MIN_STEPS = 1.0, 2  # of a timing


class StandIn(Frozen):
    """A step of a model with random weights. Widths are named as in config.json. learned: tokens of a row that the loss
    counts."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    num_hidden_layers: int
    rows: int
    length: int
    learned: int
    r: int
    four_bit: bool
    gradient_checkpointing: bool
    eight_bit: bool = False
    use_dora: bool = False


SMALL = StandIn(
    hidden_size=256, intermediate_size=512, num_attention_heads=4, num_key_value_heads=2, head_dim=64, vocab_size=512,
    num_hidden_layers=2,
    rows=1, length=128, learned=128, r=8, four_bit=True, gradient_checkpointing=True,
)  # fmt: skip
TIMES = 10  # that something is timed
# As llama-3.1-8b-instruct in presets/models.yaml.
LLAMA_8B = SMALL.model_copy(
    update={
        "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128256, "num_hidden_layers": 32, "length": 2048, "learned": 2048, "r": 16,
    }
)  # fmt: skip


def compute_of(hour: Hour) -> Compute:
    if hour.device == "cpu":
        return Compute(torch.device("cpu"), torch.float32, msg("device.cpu_fp32"))
    return device.choose()


def stand_in(step: StandIn, compute: Compute, layers: int) -> Any:
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


def _quantize(model: Any, step: StandIn, compute: Compute) -> None:
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


def head_seconds(step: StandIn, compute: Compute) -> float:
    """Return the seconds of the head and its loss at the learned positions of one step."""
    with torch.device(compute.device):
        head = torch.nn.Linear(step.hidden_size, step.vocab_size, bias=False, dtype=compute.dtype).requires_grad_(False)
        count = step.rows * step.learned
        hidden = torch.randn(count, step.hidden_size, dtype=compute.dtype, requires_grad=True)
        targets = torch.arange(count) % step.vocab_size
    return timed(lambda: head_losses(head, hidden, targets, Head()).sum().backward(), compute)


def timed(once: Callable[[], None], compute: Compute) -> float:
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


def tuned_of(shape: StandIn, compute: Compute, layers: int = 2) -> Any:
    """Return a peft model whose adapter changes its output, so that its gradients have both factors."""
    torch.manual_seed(0)
    tuned = stand_in(shape, compute, layers)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return tuned


def examples(tokens: int, many: int = 4) -> list[Encoded]:
    """Return examples of equal length with ids of the stand-ins' vocabulary; tokens: of all together."""
    each = tokens // many
    return [
        Encoded([(7 * i + j) % VOCABULARY for j in range(each)], [False, *[True] * (each - 1)]) for i in range(many)
    ]


def step_of(tuned: Any, shape: StandIn, compute: Compute, optim: str = "adamw_torch") -> Step:
    """Return a run's own step on packed rows, before `begin`."""
    base = tuned.get_base_model()
    packed = attention.enable(base)
    optimizer = optimizers.by_name(optim, optimizers.groups_of(tuned, None), lr=1e-3)
    retreat = Retreat(shape.length, packed, compute.on_card, shape.gradient_checkpointing)
    return Step(tuned, compute.device, compute.dtype, optimizer, Head.from_model(base), retreat)


def gradient(step: Step, batches: Sequence[Any]) -> torch.Tensor:
    """Return the gradients of the adapter, all of them end to end."""
    step.optimizer.zero_grad(set_to_none=True)
    step.backward(batches, is_scaled=False)
    return torch.cat([parameter.grad.flatten() for parameter in step.parameters if parameter.grad is not None]).float()


def hidden(tuned: Any, length: int = 32) -> torch.Tensor:
    ids = torch.arange(length, device=next(tuned.parameters()).device)[None] % VOCABULARY
    with torch.no_grad():
        return tuned.get_base_model().get_decoder()(input_ids=ids, use_cache=False).last_hidden_state.float()


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the largest difference, over the largest value of b."""
    a, b = a.detach().float(), b.detach().float()
    return float((a - b).abs().max() / b.abs().max())


def seconds_of(once: Callable[[], Any], on: torch.device) -> float:
    """Return the median of TIMES, after a warm-up; on a processor, where the time does not matter, of one."""
    found, times = [], TIMES if on.type == "cuda" else 1
    for _ in range(times + 1):
        started = time.perf_counter()
        once()
        if on.type == "cuda":
            torch.cuda.synchronize(on)
        found.append(time.perf_counter() - started)
    return sorted(found[1:])[times // 2]


def kernels_by_time(events: Iterable[Any]) -> list[tuple[float, str]]:
    """Return time on the card and name of a profile's kernels, the longest first. The operations that launched them
    have that time too, and are left out."""
    return sorted(
        ((each.self_device_time_total, each.key) for each in events if each.device_type == DeviceType.CUDA),
        reverse=True,
    )
