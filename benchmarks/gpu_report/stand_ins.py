"""Models of random weights for the checks, created on their device, and how they are timed. Imports torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.autograd import DeviceType

from benchmarks.gpu_report.hour import Hour
from core.data.labels import Encoded
from core.engine import attention, device
from core.engine import optimizer as optimizers
from core.engine.device import Compute
from core.engine.loss import Head
from core.engine.out_of_memory import Retreat
from core.engine.step import Step
from core.messages import msg
from core.trial import pace_probe
from core.trial.pace import StandIn

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


def tuned_of(shape: StandIn, compute: Compute, layers: int = 2) -> Any:
    """Return a peft model whose adapter changes its output, so that its gradients have both factors."""
    torch.manual_seed(0)
    tuned = pace_probe.stand_in(shape, compute, layers)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return tuned


def examples(tokens: int, many: int = 4) -> list[Encoded]:
    """Return examples of equal length with ids of the stand-ins' vocabulary; tokens: of all together."""
    each = tokens // many
    return [
        Encoded([(7 * i + j) % pace_probe.VOCABULARY for j in range(each)], [False, *[True] * (each - 1)])
        for i in range(many)
    ]


def step_of(tuned: Any, shape: StandIn, compute: Compute, optim: str = "adamw_torch") -> Step:
    """Return a run's own step on packed rows, before `begin`."""
    base = tuned.get_base_model()
    packed = attention.enable(base)
    optimizer = optimizers.of_name(optim, optimizers.groups_of(tuned, None), lr=1e-3)
    retreat = Retreat(shape.length, packed, compute.on_card, shape.gradient_checkpointing)
    return Step(tuned, compute.device, compute.dtype, optimizer, Head.from_model(base), retreat)


def gradient(step: Step, batches: Sequence[Any]) -> torch.Tensor:
    """Return the gradients of the adapter, all of them end to end."""
    step.optimizer.zero_grad(set_to_none=True)
    step.backward(batches, is_scaled=False)
    return torch.cat([parameter.grad.flatten() for parameter in step.parameters if parameter.grad is not None]).float()


def hidden(tuned: Any, length: int = 32) -> torch.Tensor:
    ids = torch.arange(length, device=next(tuned.parameters()).device)[None] % pace_probe.VOCABULARY
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
