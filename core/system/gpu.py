"""NVIDIA GPUs as the driver's library (NVML) reports them. No torch, no CUDA context; a query takes milliseconds.

Unknown stays None, a card that answers nothing still counts, and nothing here raises: a missing driver is a fact.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import psutil

from core.values import Frozen

# nvml.h: NVML_ERROR_GPU_IS_LOST "fallen off the bus or otherwise inaccessible", NVML_ERROR_RESET_REQUIRED.
GONE = {15, 16}


class Holder(Frozen):
    """A process that has memory on a card. In a container the pid may be another namespace's: then name is None or
    wrong."""

    pid: int
    name: str | None = None
    used_bytes: int | None = None  # Windows' display driver model (WDDM) never tells


class Card(Frozen):
    """One card. Memory in bytes: total as the driver reports it (a 24 GB card shows a little less), free right now.

    mig: cut into instances (data-centre cards); memory is then the whole card's, and free is None because what one
    instance has left is not known. holders: None where the driver does not tell, () where nothing runs.
    drives_display: whether a monitor is on (NVML's display active).
    lost: it fell off the bus, or was there and no longer answers (hardware.Monitor); only a restart brings it back.
    left_out: by CUDA_VISIBLE_DEVICES, or because torch or bitsandbytes has no code for it (core/system/devices).
    """

    index: int
    name: str | None = None
    uuid: str | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    used_bytes: int | None = None
    capability: tuple[int, int] | None = None
    utilization_percent: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    holders: tuple[Holder, ...] | None = None
    mig: bool | None = None
    drives_display: bool | None = None
    lost: bool = False
    left_out: Literal["hidden", "no_kernels", "too_old"] | None = None

    @property
    def usable(self) -> bool:
        return not self.lost and self.left_out is None


class Nvidia(Frozen):
    """driver: its version, like "580.65.06". error, error_code: NVML's own words and number when it could not be asked
    at all."""

    driver: str | None = None
    cards: tuple[Card, ...] = ()
    error: str | None = None
    error_code: int | None = None


def probe(nvml: Any = None) -> Nvidia:
    """What NVML says now. nvml stands in for pynvml in tests."""
    if nvml is None:
        try:
            import pynvml

            nvml = pynvml
        except ImportError as error:
            return Nvidia(error=str(error))
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return Nvidia(error=str(error), error_code=getattr(error, "value", None))
    driver = _Questions(nvml)
    try:
        count = driver.ask("nvmlDeviceGetCount") or 0
        return Nvidia(
            driver=driver.ask("nvmlSystemGetDriverVersion"), cards=tuple(_card(nvml, i) for i in range(count))
        )
    finally:
        driver.ask("nvmlShutdown")


def newest(card: Card) -> Card | None:
    """The same card now, by its uuid; None where it is gone."""
    return next((seen for seen in probe().cards if seen.uuid == card.uuid), None)


def is_asleep(driver: Path = Path("/sys/bus/pci/drivers/nvidia")) -> bool:
    """Whether Linux has put every card to sleep, as it does on laptops; any question of NVML's wakes them. False where
    it is not told.

    driver: the folder of the devices that the driver has, each of them with its power/runtime_status (kernel.org/doc,
    runtime_pm).
    """
    states = []
    for file in driver.glob("*:*/power/runtime_status"):
        try:
            states.append(file.read_text("ascii").strip())
        except OSError:
            return False
    return bool(states) and set(states) == {"suspended"}


class _Questions:
    """NVML's functions without its exceptions: what it does not tell is None. refused: the error numbers met so far."""

    def __init__(self, nvml: Any):
        self.nvml = nvml
        self.refused: set[int | None] = set()

    def ask(self, function: str, *arguments: Any) -> Any:
        try:
            answer = getattr(self.nvml, function)(*arguments)
        except self.nvml.NVMLError as error:  # NotSupported, FunctionNotFound with an old driver, GPU_IS_LOST, ...
            self.refused.add(getattr(error, "value", None))
            return None
        except UnicodeDecodeError:
            return None
        return answer.decode(errors="replace") if isinstance(answer, bytes) else answer


def _card(nvml: Any, index: int) -> Card:
    questions = _Questions(nvml)
    ask = questions.ask
    handle = ask("nvmlDeviceGetHandleByIndex", index)
    if handle is None:
        return Card(index=index, lost=bool(questions.refused & GONE))
    # the first version: its free is what can be had, reserves taken off
    memory = ask("nvmlDeviceGetMemoryInfo", handle)
    mig = ask("nvmlDeviceGetMigMode", handle)
    in_instances = None if mig is None else bool(mig[0])
    display = ask("nvmlDeviceGetDisplayActive", handle)
    card = Card(
        index=index,
        name=ask("nvmlDeviceGetName", handle),
        uuid=ask("nvmlDeviceGetUUID", handle),
        total_bytes=_bytes(memory, "total") or None,
        free_bytes=None if in_instances else _bytes(memory, "free"),
        used_bytes=_bytes(memory, "used"),
        capability=ask("nvmlDeviceGetCudaComputeCapability", handle),
        utilization_percent=getattr(ask("nvmlDeviceGetUtilizationRates", handle), "gpu", None),
        temperature_c=ask("nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU),
        power_w=_watts(ask("nvmlDeviceGetPowerUsage", handle)),
        power_limit_w=_watts(ask("nvmlDeviceGetEnforcedPowerLimit", handle)),
        holders=_holders(questions, handle),
        mig=in_instances,
        drives_display=None if display is None else bool(display),
    )
    return card.model_copy(update={"lost": bool(questions.refused & GONE)})


def _bytes(record: Any, field: str) -> int | None:
    """NVML writes "not available" as the largest number there is."""
    value = getattr(record, field, None)
    return None if value is None or value >= 2**63 else int(value)


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _holders(questions: _Questions, handle: Any) -> tuple[Holder, ...] | None:
    """Compute and graphics processes, those with most memory first. The _v3 names: pynvml's plain ones raise something
    that is no NVMLError with an old driver."""
    lists = [questions.ask(f"nvmlDeviceGet{kind}RunningProcesses_v3", handle) for kind in ("Compute", "Graphics")]
    if lists == [None, None]:
        return None
    used: dict[int, int | None] = {}
    for process in (process for found in lists for process in found or ()):
        amounts = (used.get(process.pid), _bytes(process, "usedGpuMemory"))
        used[process.pid] = max((amount for amount in amounts if amount is not None), default=None)
    holders = [Holder(pid=pid, name=_process_name(pid), used_bytes=amount) for pid, amount in used.items()]
    return tuple(sorted(holders, key=lambda holder: (-(holder.used_bytes or 0), holder.pid)))


def _process_name(pid: int) -> str | None:
    try:
        return psutil.Process(pid).name() or None
    except psutil.Error:
        return None
