"""Experiments that only a card decides. Each answers in seconds, with the consequence of its outcome. Imports torch.

P1 to P11 are the suspicions of docs/gaming-pc.md; P5 and P8 need no experiment.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_report.hour import Hour, LeftOut, NotWell
from benchmarks.gpu_report.journey import learned
from benchmarks.gpu_report.stand_ins import (
    SMALL,
    StandIn,
    compute_of,
    examples,
    gradient,
    kernels_by_time,
    step_of,
    tuned_of,
)
from core import files
from core.engine import attention
from core.engine.batches import collate_packed
from core.engine.device import Compute
from core.engine.variants import streaming
from core.messages import msg
from core.system import devices, gpu

REGISTERED = 100_000  # bytes of a block: no multiple of a page, so that two neighbours share one
NOT_PINNED = 128 << 20  # bytes of the card that are left free
MIB = 1 << 20


def on_card(hour: Hour) -> Compute:
    compute = compute_of(hour)
    if not compute.on_card:
        raise LeftOut("needs a GPU")
    return compute


def imports(hour: Hour) -> str:
    """P10: the GPU memory of a process that has imported the libraries and computed nothing. First check of its
    process."""
    import bitsandbytes  # noqa: F401 - it asks for the compute capability as it loads

    holders = [
        holder for card in devices.read_cards().cards for holder in card.holders or () if holder.pid == os.getpid()
    ]
    begun = "CUDA is initialized" if torch.cuda.is_initialized() else "CUDA is not initialized"
    has_context = getattr(torch._C, "_cuda_hasPrimaryContext", None)
    if has_context and torch.cuda.is_initialized():  # in a container NVML knows other process ids
        begun += f", a context of its own: {has_context(0)}"
    if not holders:
        return f"{begun}, NVML does not list this process: the libraries hold no memory of the GPU"
    follows = "bitsandbytes must be imported only as a run begins"
    return f"{begun}, NVML lists this process with {holders[0].used_bytes} bytes: {follows}"


def neighbours(hour: Hour) -> str:
    """P1: does cudaHostRegister take complete pages?"""
    compute = on_card(hour)
    block = torch.empty(3 * REGISTERED, dtype=torch.uint8)
    runtime, at = torch.cuda.cudart(), [block.data_ptr(), block.data_ptr() + REGISTERED]
    codes = [int(runtime.cudaHostRegister(each, REGISTERED, 0)) for each in at]
    try:
        torch.ones(1, device=compute.device).add_(1).cpu()
        after = "the next kernel runs"
    except RuntimeError as error:
        after = f"the next kernel raises {str(error).splitlines()[0]}: a refusal must be consumed where it happens"
    for address, code in zip(at, codes, strict=True):
        if not code:
            runtime.cudaHostUnregister(address)
    follows = "neighbours may be registered" if not any(codes) else "what is registered must be page-aligned"
    return f"codes {codes}: {follows}; {after}"


def pinning_beside_a_full_card(hour: Hour) -> str:
    """P2: does Windows count pinned RAM against the card's?"""
    compute = on_card(hour)
    held: list[torch.Tensor] = []
    while torch.cuda.mem_get_info()[0] > NOT_PINNED + 64 * MIB:
        try:
            held.append(torch.empty(64 * MIB, dtype=torch.uint8, device=compute.device))
        except torch.OutOfMemoryError:
            break
    said = f"{len(held) / 16:.1f} GiB held, {torch.cuda.mem_get_info()[0] / 2**30:.2f} GiB free"
    try:
        torch.empty(512 * MIB, dtype=torch.uint8, pin_memory=True)
    except RuntimeError as error:
        known = "known as out of memory" if files.is_out_of_memory(error) else "not known as out of memory"
        return (
            f"{said}: not pinned ({str(error).splitlines()[0]}), {known}: activation offload must fall back to "
            f"pageable RAM"
        )
    finally:
        held.clear()
        torch.cuda.empty_cache()
    return f"{said}: 0.5 GiB pinned: activation offload may pin"


def flash(hour: Hour) -> str:
    """P3: does this build have flash attention, which Windows' wheels may lack?"""
    compute = on_card(hour)
    query, key = (torch.randn(1, heads, 512, 128, device=compute.device, dtype=compute.dtype) for heads in (32, 8))
    there = torch.backends.cuda.is_flash_attention_available()
    used = kernels(lambda: functional.scaled_dot_product_attention(query, key, key, is_causal=True, enable_gqa=True))
    follows = "nothing" if there else "long rows are slower here; a kernel that needs no flash would help"
    return f"flash attention {'is' if there else 'is not'} in this torch; {'; '.join(used)}; what follows: {follows}"


def kernels(once: Callable[[], object]) -> list[str]:
    """Return the kernels of a call that take longest."""
    once()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        once()
        torch.cuda.synchronize()
    return [name[:70] for _, name in kernels_by_time(found.key_averages())[:3]]


def enabled_again(hour: Hour) -> str:
    """P4: packing is enabled only where 16-bit results are the same bits twice."""
    compute = compute_of(hour)
    base, found, times = tuned_of(SMALL, compute).get_base_model(), [], 20 if compute.on_card else 2
    for _ in range(times):
        found.append(attention.enable(base))
        if found[-1]:
            attention.switch(base, base.attention_before)
    if all(found):
        return f"{times} of {times}: packing holds in NF4"
    raise NotWell(
        f"{sum(found)} of {times}: `holds` must allow the last bits, because the 4-bit product is not deterministic"
    )


def emulated_bf16(hour: Hour, tokens: int = 2048) -> str:
    """P6: one attention of Gemma's width in bf16, which a card before RTX 30 emulates."""
    compute = on_card(hour)
    query, key = (
        torch.randn(1, heads, tokens, 256, device=compute.device, dtype=torch.bfloat16, requires_grad=True)
        for heads in (8, 4)
    )
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()

    def once() -> None:
        functional.scaled_dot_product_attention(query, key, key, is_causal=True, enable_gqa=True).sum().backward()

    used = kernels(once)
    grown, square = torch.cuda.max_memory_allocated() - before, 8 * tokens * tokens * 2
    follows = (
        "memory grows with the square of the length: the plan must count it"
        if grown > square
        else "memory grows with the length"
    )
    return f"{grown / MIB:.0f} MiB beside a square of {square / MIB:.0f}; {'; '.join(used)}: {follows}"


def context(hour: Hour) -> str:
    """P7: the bytes that NVML counts and torch does not, before and after the first step."""
    compute = on_card(hour)

    def beside() -> int | None:
        used = gpu.probe().cards[0].used_bytes
        return None if used is None else used - torch.cuda.memory_reserved()

    torch.cuda.current_blas_handle()
    torch.cuda.synchronize()
    before, step = beside(), step_of(tuned_of(SMALL, compute), SMALL, compute, "adamw_8bit")
    step.begin(0)
    try:
        step.compute([examples(SMALL.length)], 1e-3)
        step.apply(is_good=True, is_first=True)
        torch.cuda.synchronize()
        after = beside()
    finally:
        step.release()
    if before is None or after is None:
        raise LeftOut("NVML does not tell how much is used")
    return f"{(after - before) / MIB:.0f} MiB came with the first step, which the probe adds to the context"


def sharded(hour: Hour) -> str:
    """P9: a QLoRA run whose layers two GPUs share by FSDP2."""
    if len(gpu.probe().cards) < 2:
        raise LeftOut("needs two GPUs")
    settings = (
        "adapter.method=qlora",
        "train.ranks=2",
        "train.fsdp=true",
        "train.max_steps=20",
        "train.sample_seconds=0",
    )
    return learned(hour.train("Sharded over two", *settings))


# Layers of 180 MB in NF4, 3 of them.
WIDE = StandIn(
    hidden_size=5120, intermediate_size=20480, num_attention_heads=40, num_key_value_heads=8, head_dim=128,
    vocab_size=512,
    num_hidden_layers=3, rows=1, length=512, learned=512, r=8, four_bit=True, gradient_checkpointing=True,
)  # fmt: skip


def streamed(hour: Hour) -> str:
    """P11: gradients with all layers in RAM against those with all on the card, bit for bit. In another trainer the
    gradients of streamed layers of 165 MiB were wrong, because bitsandbytes' backward had kept the packed weights."""
    compute = compute_of(hour)
    shape = WIDE if compute.on_card else SMALL.model_copy(update={"num_hidden_layers": 3})
    in_ram, found, moved = Compute(torch.device("cpu"), torch.bfloat16, msg("device.cpu_fp32")), [], 0
    for count in (0, shape.num_hidden_layers):
        tuned = tuned_of(shape, in_ram, shape.num_hidden_layers)
        streams = streaming.begin(tuned, compute.device, count)
        step = step_of(tuned, shape, Compute(compute.device, torch.bfloat16, compute.reason))
        step.begin(0)
        try:
            found.append(gradient(step, [collate_packed(examples(shape.length), compute.device)]).cpu())
        finally:
            step.release()
        moved = streams.moved_bytes
        del tuned, step, streams
    said = f"{shape.num_hidden_layers} layers, {moved / MIB:.0f} MiB copied"
    if not torch.equal(*found):
        cosine = float(functional.cosine_similarity(*found, 0))
        raise NotWell(
            f"{said}: other gradients than on the card, cosine {cosine:.4f}: offload_layers must not be used with such "
            f"layers"
        )
    return f"{said}: the same gradients, bit for bit"
