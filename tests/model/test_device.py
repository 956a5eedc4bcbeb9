"""Which card torch computes on, by the fake of torch.cuda; what a chat and the proof of an export say where it is
another."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from core.engine import device
from core.engine.device import Compute
from core.export.export_worker import Exporter
from core.export.records import ExportRequest
from core.messages import msg
from core.runs.run_json import RunFacts
from core.system.gpu import Card
from core.system.machine import Machine
from core.workspace.folder import Workspace
from tests.kit.cuda import FakeCuda
from tests.kit.runs import trained


def compute(kind: str) -> Compute:
    return Compute(torch.device(kind), torch.float32, msg("device.cpu_fp32"))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """The second of two unequal cards, as torch sees it: its first and only."""
    fake_cuda = FakeCuda()
    fake_cuda.stand_in(monkeypatch)
    one = fake_cuda.machine()
    larger = Card(index=0, name="larger", uuid="GPU-2", total_bytes=24 << 30, free_bytes=23 << 30)
    both = one.model_copy(update={"nvidia": one.nvidia.model_copy(update={"cards": (larger, *one.nvidia.cards)})})
    monkeypatch.setattr(device, "this_machine", lambda: both)
    return fake_cuda


def test_the_card_in_use_is_known_by_its_uuid(cuda: FakeCuda):
    assert device.card_in_use(compute("cuda:0")).name == "RTX"
    assert device.card_in_use(compute("cpu")) is None


def test_a_card_that_torch_does_not_name_is_the_only_one_or_unknown(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: object())
    assert device.card_in_use(compute("cuda:0")) is None
    one: Machine = cuda.machine()
    monkeypatch.setattr(device, "this_machine", lambda: one)
    assert device.card_in_use(compute("cuda:0")).name == "RTX"


def test_an_export_that_another_card_proves_says_so(cuda: FakeCuda, workspace: Workspace):
    run = trained(workspace, "A run")
    run.add_facts(RunFacts(wanted_device="GPU-2", advice={"budget": {"kind": "card", "name": "larger"}}))
    exporter = Exporter(workspace, run, ExportRequest(workspace=str(workspace.root), run=run.id, kind="adapter"), None)
    assert exporter._other_gpu_note(compute("cuda:0")) == msg("device.instead", then="larger", now="RTX")
    assert exporter._other_gpu_note(compute("cpu")) is None, "a matter of memory"
    run.add_facts(RunFacts(wanted_device="GPU-1"))
    assert exporter._other_gpu_note(compute("cuda:0")) is None


@pytest.mark.parametrize(
    ("ratio", "expected"), [(0.25, torch.bfloat16), (0.5, torch.bfloat16), (1.8, torch.float32), (5.0, torch.float32)]
)
def test_a_processor_computes_in_what_it_is_faster_in(
    ratio: float, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    """Seen: a Xeon with AVX512_BF16 and without AMX takes 1.8 to 2.8 times as long in bfloat16, and two runs computed
    in two types."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(device, "_bf16_to_fp32_time", lambda: ratio)
    assert device.on_cpu().dtype == expected


def test_both_types_are_timed_by_turns(monkeypatch: pytest.MonkeyPatch):
    clock, dtypes = [0.0], []

    def linear(x: torch.Tensor, weight: torch.Tensor) -> None:
        dtypes.append(weight.dtype)
        clock[0] += {torch.bfloat16: 3.0, torch.float32: 2.0}[weight.dtype] + (40.0 if len(dtypes) < 3 else 0.0)

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    monkeypatch.setattr(device.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(device.time, "thread_time", lambda: clock[0])
    threads = torch.get_num_threads()
    assert device._bf16_to_fp32_time() == 1.5 and torch.get_num_threads() == threads
    assert dtypes[::2] == [torch.bfloat16] * 121 and dtypes[1::2] == [torch.float32] * 121


def test_a_processor_that_other_programs_keep_busy_is_asked_until_bf16_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch,
):
    """Seen at load 20: all of the first thirty in bf16 were disturbed, and a run computed in fp32."""
    clock, dtypes = [0.0], []

    def linear(x: torch.Tensor, weight: torch.Tensor) -> None:
        dtypes.append(weight.dtype)
        clock[0] += 2.0 if weight.dtype == torch.float32 else 1.0 + 2.0 * (len(dtypes) < 80)

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    monkeypatch.setattr(device.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(device.time, "thread_time", lambda: clock[0])
    assert device._bf16_to_fp32_time() == 0.5 and len(dtypes) == 82


def test_a_product_is_timed_where_the_clock_of_threads_moves_each_16_ms(monkeypatch: pytest.MonkeyPatch):
    """Seen on a Windows Python, where its resolution is said to be 1e-7 s: each product took 0 s, and each run failed
    with ZeroDivisionError."""
    real = time.thread_time
    monkeypatch.setattr(time, "thread_time", lambda: int(real() * 64) / 64)
    monkeypatch.setattr(time, "get_clock_info", lambda name: SimpleNamespace(resolution=1e-7))
    assert 0 < device._bf16_to_fp32_time(rounds=5) < float("inf")


def test_a_product_is_timed_by_the_clock_of_threads_where_it_moves(monkeypatch: pytest.MonkeyPatch):
    """Other programs do not disturb that clock."""
    calls = itertools.count()
    monkeypatch.setattr(time, "thread_time", lambda: next(calls) * 1e-6)
    monkeypatch.setattr(time, "perf_counter", lambda: pytest.fail("other programs disturb this clock"))
    assert device._bf16_to_fp32_time(rounds=1) == pytest.approx(1.0)


def test_bitsandbytes_is_read_without_torchs_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It asks for it twice, as a decorator with and without settings."""
    asks = "@torch.compile\ndef plain(): return 1\n@torch.compile(dynamic=False)\ndef fixed(): return 2\n"
    (tmp_path / "bitsandbytes.py").write_text(f"import torch\n{asks}", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("it was compiled"))
    device.read_bitsandbytes()
    fake = sys.modules["bitsandbytes"]
    assert (fake.plain(), fake.fixed()) == (1, 2)
    with pytest.raises(pytest.fail.Exception):
        torch.compile(fake.plain)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # it is not there
    device.read_bitsandbytes()
