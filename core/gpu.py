"""NVIDIA cards as the driver's own library (NVML) sees them. No torch, no CUDA context; a probe takes milliseconds.

Unknown stays None, a card that answers nothing still counts, and nothing here raises: a missing driver is a fact.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict


class Card(BaseModel):
    """One card. Memory in bytes: total as the driver reports it (a 24 GB card shows a little less), free right now."""

    model_config = ConfigDict(frozen=True)

    index: int
    name: str | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    capability: tuple[int, int] | None = None


class Nvidia(BaseModel):
    """driver: its version, like "580.65.06". error: NVML's own words when it could not be asked at all."""

    model_config = ConfigDict(frozen=True)

    driver: str | None = None
    cards: tuple[Card, ...] = ()
    error: str | None = None


def probe(nvml: ModuleType | Any | None = None) -> Nvidia:
    """What NVML says now. nvml stands in for pynvml in tests."""
    if nvml is None:
        try:
            import pynvml as nvml
        except ImportError as error:
            return Nvidia(error=str(error))
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return Nvidia(error=str(error))

    def known(ask: Callable[..., Any], *arguments: Any) -> Any:
        try:
            answer = ask(*arguments)
        except nvml.NVMLError:  # NotSupported, FunctionNotFound with an old driver, or a card that fell off the bus
            return None
        return answer.decode(errors="replace") if isinstance(answer, bytes) else answer

    def card(index: int) -> Card:
        handle = known(nvml.nvmlDeviceGetHandleByIndex, index)
        if handle is None:
            return Card(index=index)
        memory = known(nvml.nvmlDeviceGetMemoryInfo, handle)
        return Card(
            index=index,
            name=known(nvml.nvmlDeviceGetName, handle),
            total_bytes=None if memory is None else memory.total,
            free_bytes=None if memory is None else memory.free,
            capability=known(nvml.nvmlDeviceGetCudaComputeCapability, handle),
        )

    try:
        count = known(nvml.nvmlDeviceGetCount) or 0
        return Nvidia(driver=known(nvml.nvmlSystemGetDriverVersion), cards=tuple(card(i) for i in range(count)))
    finally:
        known(nvml.nvmlShutdown)


def has_card() -> bool:
    """Whether NVML sees a card. torch may still be unable to use it: the worker decides by what torch says."""
    return bool(probe().cards)
