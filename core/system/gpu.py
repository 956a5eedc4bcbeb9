"""NVIDIA GPUs as the driver's library (NVML) reports them. No torch, no CUDA context; a query takes milliseconds.

Unknown values are None, a GPU that answers nothing still counts, and nothing here raises: a missing driver is a fact.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import psutil

from core.values import Frozen

# nvml.h: NVML_ERROR_GPU_IS_LOST "fallen off the bus or otherwise inaccessible", NVML_ERROR_RESET_REQUIRED.
GONE = {15, 16}


class Holder(Frozen):
    """A process with memory on a GPU. In a container the pid may be of another namespace: then name is None or
    wrong."""

    pid: int
    name: str | None = None
    used_bytes: int | None = None  # Windows' display driver model (WDDM) never tells


class Card(Frozen):
    """One GPU. Memory in bytes: total as the driver reports it (a 24 GB GPU shows a little less), free right now.

    mig: cut into instances (data-centre GPUs); memory is then the whole GPU's, and free is None because the free memory
    of an instance is unknown. holders: None if the driver does not report them, () if nothing runs. drives_display:
    whether a monitor is on (NVML's display active). lost: it fell off the bus, or was there and no longer answers
    (machine.Monitor); only a restart brings it back. left_out: by CUDA_VISIBLE_DEVICES, or because torch or
    bitsandbytes has no code for it (core/system/devices).
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
        """True unless the GPU is lost or left out."""
        return not self.lost and self.left_out is None


class Nvidia(Frozen):
    """All GPUs. driver: its version, like "580.65.06". error, error_code: NVML's own, if it could not be queried at
    all."""

    driver: str | None = None
    cards: tuple[Card, ...] = ()
    error: str | None = None
    error_code: int | None = None


def probe(nvml: ModuleType | None = None) -> Nvidia:
    """Return driver and GPUs by NVML; without NVML or a driver, the error in their place. nvml replaces pynvml in
    tests."""
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
    driver = _NvmlCalls(nvml)
    try:
        count = driver.call("nvmlDeviceGetCount") or 0
        return Nvidia(
            driver=driver.call("nvmlSystemGetDriverVersion"), cards=tuple(_card(nvml, i) for i in range(count))
        )
    finally:
        driver.call("nvmlShutdown")


def newest(card: Card) -> Card | None:
    """Return the present state of a GPU, by its uuid; None if it is gone."""
    return next((now for now in probe().cards if now.uuid == card.uuid), None)


def is_asleep(driver: Path = Path("/sys/bus/pci/drivers/nvidia")) -> bool:
    """Return whether Linux has suspended every GPU, as on laptops; any NVML query wakes them. False if unknown.

    driver: the folder of the driver's devices, each of them with its power/runtime_status (kernel.org/doc, runtime_pm).
    """
    states = []
    for file in driver.glob("*:*/power/runtime_status"):
        try:
            states.append(file.read_text("ascii").strip())
        except OSError:
            return False
    return bool(states) and set(states) == {"suspended"}


class _NvmlCalls:
    """Calls NVML's functions without their exceptions: unknown values are None. refused: the error numbers met so
    far."""

    def __init__(self, nvml: ModuleType):
        self.nvml = nvml
        self.refused: set[int | None] = set()

    def call(self, function: str, *arguments: object) -> Any:
        """Call an NVML function; None if the card or the driver refuses it. The error's code is added to refused."""
        try:
            answer = getattr(self.nvml, function)(*arguments)
        except self.nvml.NVMLError as error:  # NotSupported, FunctionNotFound with an old driver, GPU_IS_LOST, ...
            self.refused.add(getattr(error, "value", None))
            return None
        except UnicodeDecodeError:
            return None
        return answer.decode(errors="replace") if isinstance(answer, bytes) else answer


def _card(nvml: ModuleType, index: int) -> Card:
    """Return all facts of one GPU; those that it does not report are None."""
    calls = _NvmlCalls(nvml)
    call = calls.call
    handle = call("nvmlDeviceGetHandleByIndex", index)
    if handle is None:
        return Card(index=index, lost=bool(calls.refused & GONE))
    # the first version of this call: its `free` excludes reserves
    memory = call("nvmlDeviceGetMemoryInfo", handle)
    mig = call("nvmlDeviceGetMigMode", handle)
    in_instances = None if mig is None else bool(mig[0])
    display = call("nvmlDeviceGetDisplayActive", handle)
    card = Card(
        index=index,
        name=call("nvmlDeviceGetName", handle),
        uuid=call("nvmlDeviceGetUUID", handle),
        total_bytes=_bytes(memory, "total") or None,
        free_bytes=None if in_instances else _bytes(memory, "free"),
        used_bytes=_bytes(memory, "used"),
        capability=call("nvmlDeviceGetCudaComputeCapability", handle),
        utilization_percent=getattr(call("nvmlDeviceGetUtilizationRates", handle), "gpu", None),
        temperature_c=call("nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU),
        power_w=_watts(call("nvmlDeviceGetPowerUsage", handle)),
        power_limit_w=_watts(call("nvmlDeviceGetEnforcedPowerLimit", handle)),
        holders=_holders(calls, handle),
        mig=in_instances,
        drives_display=None if display is None else bool(display),
    )
    return card.model_copy(update={"lost": bool(calls.refused & GONE)})


def _bytes(record: object, field: str) -> int | None:
    """Return a size in a record of NVML's; None if it is missing or "not available", for which NVML writes the largest
    number."""
    value = getattr(record, field, None)
    return None if value is None or value >= 2**63 else int(value)


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _holders(calls: _NvmlCalls, handle: object) -> tuple[Holder, ...] | None:
    """Return the GPU's compute and graphics processes with their memory, None if the driver does not tell, those with
    most memory first.

    Uses the _v3 names: pynvml's plain ones raise something other than NVMLError with an old driver.
    """
    lists = [calls.call(f"nvmlDeviceGet{kind}RunningProcesses_v3", handle) for kind in ("Compute", "Graphics")]
    if lists == [None, None]:
        return None
    used: dict[int, int | None] = {}
    for process in (process for processes in lists for process in processes or ()):
        amounts = (used.get(process.pid), _bytes(process, "usedGpuMemory"))
        used[process.pid] = max((amount for amount in amounts if amount is not None), default=None)
    holders = [Holder(pid=pid, name=_process_name(pid), used_bytes=amount) for pid, amount in used.items()]
    return tuple(sorted(holders, key=lambda holder: (-(holder.used_bytes or 0), holder.pid)))


def _process_name(pid: int) -> str | None:
    """Return the name of a process; None if it has ended or cannot be read."""
    try:
        return psutil.Process(pid).name() or None
    except psutil.Error:
        return None
