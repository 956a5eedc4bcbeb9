"""Measures a step of an 8B's shape: four of its layers, random weights in NF4, 2,048 tokens of four examples. Torch."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_report.hour import Hour
from benchmarks.gpu_report.stand_ins import (
    LLAMA_8B,
    SMALL,
    compute_of,
    examples,
    head_seconds,
    kernels_by_time,
    seconds_of,
    step_of,
    tuned_of,
)

LAYERS = 4
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")


def eight_b(hour: Hour, kept: bool = False) -> list[str]:
    """Time a step as a run computes it: packed, fused, checkpointed. kept: without checkpointing, as where memory
    suffices."""
    compute = compute_of(hour)
    shape = (LLAMA_8B if compute.on_card else SMALL).model_copy(update={"gradient_checkpointing": not kept})
    layers = LAYERS if compute.on_card else SMALL.num_hidden_layers
    step = step_of(tuned_of(shape, compute, layers), shape, compute)
    step.begin(0)
    rows = examples(shape.length)
    count = [0]

    def once() -> None:
        step.compute([rows], 1e-4)
        step.apply(is_good=True, is_first=not count[0])
        count[0] += 1

    try:
        once()
        if compute.on_card:
            torch.cuda.reset_peak_memory_stats()
        seconds = seconds_of(once, compute.device)
        syncs = waits(once, compute.on_card)
        launches, slowest = profiled(once, compute.on_card)
        peak = f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if compute.on_card else "unknown"
    finally:
        step.release()
    head = head_seconds(shape, compute)
    whole = seconds * shape.num_hidden_layers / layers + head
    return [
        f"{'packed' if step.packed else 'not packed'}; {layers} layers {1e3 * seconds:.0f} ms a step "
        f"({shape.length / seconds:,.0f} tokens/s), head {1e3 * head:.0f} ms",
        (
            f"reckoned for {shape.num_hidden_layers} layers: {shape.length / whole:,.0f} tokens/s; peak of {layers} "
            f"layers "
            f"{peak}"
        ),
        f"{launches / layers:.0f} launches a layer, {len(syncs)} waits for the card a step"
        + "".join(f"; {each}" for each in syncs[:3]),
        "most of the card's time: " + "; ".join(slowest),
    ]


def waits(once: Any, on_card: bool) -> list[str]:
    """Return where a step waits for the card: file and line of each synchronizing call that torch warns of."""
    if not on_card:
        once()
        return []
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            once()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [f"{each.filename.rsplit('/', 1)[-1]}:{each.lineno}" for each in found if "synchroniz" in str(each.message)]


def profiled(once: Any, on_card: bool) -> tuple[int, list[str]]:
    """Return the launches of one warm step, and the kernels that take most of the card's time."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_card else [])]
    with profile(activities=activities) as found:
        once()
        if on_card:
            torch.cuda.synchronize()
    events = found.key_averages()
    launches = sum(event.count for event in events if event.key in LAUNCHES)
    slowest = (
        kernels_by_time(events)
        if on_card
        else sorted(((event.self_cpu_time_total, event.key) for event in events), reverse=True)
    )
    total = sum(time for time, _ in slowest) or 1
    return launches, [f"{key[:60]} {time / total:.0%}" for time, key in slowest[:8]]
