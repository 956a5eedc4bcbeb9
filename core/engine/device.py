"""Where to compute and in which 16-bit (or 32-bit) type, each with its reason. Imports torch: workers only."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from core.messages import Message, msg


@dataclass(frozen=True)
class Compute:
    """device: "cuda:0" or "cpu"; dtype: of the frozen base and of what flows through it; adapters stay float32."""

    device: torch.device
    dtype: torch.dtype
    reason: Message

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def on_card(self) -> bool:
        return self.device.type == "cuda"


def choose(before: str | None = None) -> Compute:
    """bf16 on cards from Ampere on and on CPUs that multiply it natively, fp16 on older cards, else fp32.

    before: the dtype of an earlier attempt of the same run, which is kept, whatever a product takes today.
    """
    chosen = _choose()
    if before is None or before == chosen.dtype_name:
        return chosen
    return Compute(chosen.device, getattr(torch, before), msg("device.as_before", dtype=before))


def _choose() -> Compute:
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability(0)
        name = torch.cuda.get_device_name(0)
        dtype, key = (torch.bfloat16, "device.card_bf16") if major >= 8 else (torch.float16, "device.card_fp16")
        return Compute(torch.device("cuda:0"), dtype, msg(key, card=name, capability=f"{major}.{minor}"))
    return _choose_on_cpu()


def _choose_on_cpu() -> Compute:
    cpu = torch.device("cpu")
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    if not native:
        return Compute(cpu, torch.float32, msg("device.cpu_fp32"))
    ratio = _bf16_to_fp32_time()
    # Natively a product takes 0.2-0.5 of the fp32 one, emulated 5 times it (docs/memory.md, measured here): 2 lies far from both.
    if ratio > 2:
        return Compute(cpu, torch.float32, msg("device.cpu_fp32_timed", ratio=f"{ratio:.1f}"))
    return Compute(cpu, torch.bfloat16, msg("device.cpu_bf16", ratio=f"{ratio:.2f}"))


def _bf16_to_fp32_time(size: int = 576) -> float:
    """Time of one bf16 linear over that of the same in fp32, the best of 5 each."""

    def best(dtype: torch.dtype) -> float:
        x, w = torch.ones(256, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
        times = []
        for _ in range(6):
            start = time.perf_counter()
            torch.nn.functional.linear(x, w)
            times.append(time.perf_counter() - start)
        return min(times[1:])

    return best(torch.bfloat16) / best(torch.float32)


States = dict[str, Any]


def random_states(on_card: bool) -> States:
    return {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state()} if on_card else {})


def set_random_states(states: States) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
