"""Memory that a process frees and wants again is not asked of the system twice (glibc), counted by the faults of its
pages."""

from __future__ import annotations

import subprocess
import sys

import pytest

from core.system.processes import KEPT_PRODUCTS, worker_environment

ROUNDS = """
import resource, sys
from core.system.processes import keep_freed_memory

def blocks():
    return [bytearray(b"x") * (20 << 20) for _ in range(4)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "keeps":
    keep_freed_memory()
blocks()
before = faults()
for _ in range(3):
    blocks()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_what_is_freed_between_two_steps_costs_no_page_again() -> None:
    faults = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", ROUNDS, how], capture_output=True, text=True, check=True, timeout=120
            ).stdout
        )
        for how in ("keeps", "returns")
    }
    assert faults["keeps"] < 0.1 * faults["returns"], faults


LENGTHS = """
import ctypes, torch

class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

glibc = ctypes.CDLL(None)
glibc.mallinfo2.restype = Info

def product(tokens):
    torch.nn.functional.linear(torch.ones(tokens, 64, dtype=torch.bfloat16), weight)

weight = torch.ones(64, 64, dtype=torch.bfloat16)
product(1)
before = glibc.mallinfo2().uordblks
if torch.cpu._is_avx512_bf16_supported():
    for tokens in range(2, 602):
        product(tokens)
print((glibc.mallinfo2().uordblks - before) >> 20)
"""


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_products_of_lengths_that_never_come_again_are_not_kept_without_end() -> None:
    """A worker grew by about 15 MiB with each packed micro-batch of another length."""
    ours = worker_environment()
    environments = {"ours": ours, "torch's": {name: value for name, value in ours.items() if name not in KEPT_PRODUCTS}}
    kept = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", LENGTHS],
                capture_output=True,
                text=True,
                check=True,
                timeout=120,
                env=environment,
            ).stdout
        )
        for how, environment in environments.items()
    }
    if not kept["torch's"]:
        pytest.skip("no products in 16 bits on this processor")
    assert kept["ours"] < 0.6 * kept["torch's"], kept


def test_who_sets_how_many_products_are_kept_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    assert {name: worker_environment()[name] for name in KEPT_PRODUCTS} == KEPT_PRODUCTS | {"LRU_CACHE_CAPACITY": "7"}
