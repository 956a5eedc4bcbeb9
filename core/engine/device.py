"""Choose the device and the 16-bit (or 32-bit) dtype, each with its reason. Imports torch: workers only."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import torch

from core.messages import Message, msg
from core.system.gpu import Card
from core.system.machine import SPILLING_SYSTEMS, Machine, driver_system, this_machine

SPARE_BYTES = 512 << 20  # left free for the CUDA context, which torch does not count, and a growing desktop


@dataclass(frozen=True)
class Compute:
    """The device and dtype that a run computes with.

    device: "cuda:0" or "cpu". dtype: of the frozen base and of activations; adapters stay float32.
    """

    device: torch.device
    dtype: torch.dtype
    reason: Message

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def on_card(self) -> bool:
        """Return True if the run computes on a GPU (CUDA)."""
        return self.device.type == "cuda"


def choose(before: str | None = None) -> Compute:
    """Return the device and dtype of a run: bf16 on GPUs from Ampere on, and on CPUs that have it natively and no
    slower than fp32; fp16 on older GPUs; otherwise fp32.

    On Windows and WSL it also limits this process to the memory that is free on the GPU, so call it before using the
    GPU. before: the dtype of an earlier attempt of the same run, which is used even if another one were chosen now.
    """
    chosen = _choose()
    if chosen.on_card:
        stay_within_card(this_machine(), driver_system())
    if before is None or before == chosen.dtype_name:
        return chosen
    return Compute(chosen.device, getattr(torch, before), msg("device.as_before", dtype=before))


def read_bitsandbytes() -> None:
    """Import bitsandbytes, if it is installed, before peft or transformers do, with a torch.compile that does nothing.
    Its import registers four kernel fallbacks with torch.compile, which are never used here but import torch's
    compiler: 1.4 of the 6.9 s of CPU time of all imports (2026-11-28, torch 2.15)."""
    compiled = torch.compile
    torch.compile = lambda function=None, **_: function or (lambda each: each)
    try:
        with contextlib.suppress(ImportError):
            import bitsandbytes  # noqa: F401
    finally:
        torch.compile = compiled


def beyond_float16(compute: Compute) -> Compute:
    """Return the compute for a base with values above 65,504: bfloat16 on a GPU, which has float32's range in the same
    memory and is emulated on older GPUs; float32 on a CPU or where torch lacks that."""
    emulated = compute.on_card and torch.cuda.is_bf16_supported()
    dtype, key = (torch.bfloat16, "device.overflow_bf16") if emulated else (torch.float32, "device.overflow_fp32")
    return Compute(compute.device, dtype, msg(key))


def stay_within_card(machine: Machine, system: str) -> None:
    """Make a full GPU an error on Windows and WSL too, where the driver would silently use RAM instead, many times
    slower: torch may from now on allocate what is free now less SPARE_BYTES, and raises OutOfMemoryError beyond it, as
    on Linux. Does nothing on other systems, or if the free memory is unknown."""
    card = card_of(machine)
    if system not in SPILLING_SYSTEMS or card is None or card.free_bytes is None:
        return
    _, total = torch.cuda.mem_get_info(0)
    torch.cuda.set_per_process_memory_fraction(min(1.0, max(0.0, card.free_bytes - SPARE_BYTES) / total), 0)


def card_of(machine: Machine) -> Card | None:
    """Return NVML's record of the first GPU that torch sees: by its uuid, or because there is only one; None if it
    cannot be told."""
    uuid = str(getattr(torch.cuda.get_device_properties(0), "uuid", ""))
    cards = [card for card in machine.nvidia.cards if not card.lost]
    match = next((card for card in cards if uuid and card.uuid and card.uuid.removeprefix("GPU-") == uuid), None)
    # With several GPUs and no uuid any of them may be the one: unknown is better than the numbers of another.
    return match or (cards[0] if len(cards) == 1 else None)


def card_in_use(compute: Compute) -> Card | None:
    """Return NVML's record of the GPU that compute uses; None on a CPU, or if it cannot be identified."""
    return card_of(this_machine()) if compute.on_card else None


def _choose() -> Compute:
    """Return the first GPU that torch sees, in bf16 or fp16, otherwise `on_cpu`; each with its reason."""
    if torch.cuda.is_available():
        (major, minor), name = torch.cuda.get_device_capability(0), torch.cuda.get_device_name(0)
        # From compute capability 8.0 (Ampere) on, a GPU computes in bf16 itself; before, torch emulates it.
        dtype, key = (torch.bfloat16, "device.card_bf16") if major >= 8 else (torch.float16, "device.card_fp16")
        return Compute(torch.device("cuda:0"), dtype, msg(key, card=name, capability=f"{major}.{minor}"))
    return on_cpu()


def on_cpu() -> Compute:
    """Return the CPU with its reason, in bfloat16 only if it has native instructions for it and a timed product takes
    no longer in it than in float32."""
    cpu = torch.device("cpu")
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return Compute(cpu, torch.float32, msg("device.cpu_fp32"))
    ratio = _bf16_to_fp32_time()
    # By AMX, or AVX512_BF16 of an EPYC, a product takes 0.2 to 0.5 of the fp32 one; by AVX512_BF16 of a Xeon without
    # AMX 1.8 to 2.8 times it, emulated 5 times (measured, torch 2.13 and 2.15): 1 lies far from all of them.
    if ratio > 1:
        return Compute(cpu, torch.float32, msg("device.cpu_fp32_timed", ratio=ratio))
    return Compute(cpu, torch.bfloat16, msg("device.cpu_bf16", ratio=ratio))


def _bf16_to_fp32_time(size: int = 576, rounds: int = 30) -> float:
    """Return the time of one bf16 linear (256 x size by size x size) divided by that of the same in fp32, on one
    thread; torch's thread count is restored.

    The best of each counts; they alternate, so that other programs disturb both. If bf16 is not clearly faster, four
    times as many rounds are timed: beside twenty programs a worker once chose fp32 where bf16 takes half the time.
    """
    # Windows' thread_time advances each 16 ms
    clock = time.thread_time if len({time.thread_time() for _ in range(100)}) > 10 else time.perf_counter
    factors = {dtype: torch.ones(size, size, dtype=dtype) for dtype in (torch.bfloat16, torch.float32)}
    best, threads, number = dict.fromkeys(factors, float("inf")), torch.get_num_threads(), 0
    torch.set_num_threads(1)
    while number <= rounds or (number <= 4 * rounds and best[torch.bfloat16] > 0.7 * best[torch.float32]):
        for dtype, factor in factors.items():
            start = clock()
            torch.nn.functional.linear(factor[:256], factor)
            best[dtype] = min(best[dtype], clock() - start)  # the first call, which sets things up, is never the best
        number += 1
    torch.set_num_threads(threads)
    return best[torch.bfloat16] / best[torch.float32]


States = dict[str, torch.Tensor]


def random_states(on_card: bool) -> States:
    """Return the states of the CPU's random numbers and, on_card, the GPU's."""
    return {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state()} if on_card else {})


def set_random_states(states: States) -> None:
    """Set torch's random number generators to states that `random_states` returned: the CPU's, and the GPU's if they
    contain it."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
