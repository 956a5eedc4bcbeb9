"""One behaviour of the card, asked of its runtime without torch: `documented.py NAME` fails where it is not as
documented (test_documented.py).
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from pathlib import Path
from typing import Any

card = ctypes.CDLL(None)
INVALID, OUT_OF_MEMORY, INVALID_DEVICE, LAUNCH_FAILURE, NOT_READY, BAD_HANDLE = 1, 2, 101, 719, 600, 400
TO_CARD, TO_HOST = 1, 2
SIZE = ctypes.c_size_t(4096)
NO_TIME, NON_BLOCKING = 2, 1
GIB = 1 << 30


def memory(function: str = "cudaMalloc", size: int = 4096) -> ctypes.c_void_p:
    at = ctypes.c_void_p()
    arguments: tuple[Any, ...] = (ctypes.byref(at), ctypes.c_size_t(size))
    assert getattr(card, function)(*arguments, *([0] if function == "cudaHostAlloc" else [])) == 0
    return at


def made(function: str, *flags: int) -> ctypes.c_void_p:
    at = ctypes.c_void_p()
    assert getattr(card, function)(ctypes.byref(at), *flags) == 0
    return at


def pinned_and_card(byte: int = 7) -> tuple[ctypes.c_void_p, ctypes.c_void_p]:
    pinned, there = memory("cudaHostAlloc"), memory()
    ctypes.memset(pinned, byte, 4096)
    assert card.cudaMemset(there, 0, SIZE) == 0
    return pinned, there


def byte_on_card(there: ctypes.c_void_p) -> int:
    """Without waiting for anything: from the second mapping."""
    card.nullcard_host.restype = ctypes.c_void_p
    return ctypes.c_ubyte.from_address(card.nullcard_host(there)).value


def free_and_total() -> tuple[int, int]:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    assert card.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)) == 0
    return free.value, total.value


def last_error_is_kept_until_it_is_read() -> None:
    assert card.cudaMalloc(ctypes.byref(ctypes.c_void_p()), ctypes.c_size_t(99 * GIB)) == OUT_OF_MEMORY
    memory()  # a call that succeeds does not take it away
    assert [card.cudaPeekAtLastError(), card.cudaGetLastError(), card.cudaGetLastError()] == [
        OUT_OF_MEMORY,
        OUT_OF_MEMORY,
        0,
    ]


def last_error_is_of_its_thread() -> None:
    card.cudaMalloc(ctypes.byref(ctypes.c_void_p()), ctypes.c_size_t(99 * GIB))
    other: list[int] = []
    thread = threading.Thread(target=lambda: other.append(card.cudaPeekAtLastError()))
    thread.start()
    thread.join()
    assert other == [0] and card.cudaPeekAtLastError() == OUT_OF_MEMORY


def refused_pin_is_an_error_that_stays() -> None:
    assert card.cudaHostAlloc(ctypes.byref(ctypes.c_void_p()), SIZE, 0) == OUT_OF_MEMORY
    buffer = ctypes.create_string_buffer(8192)
    assert card.cudaHostRegister(buffer, SIZE, 0) == OUT_OF_MEMORY
    assert card.cudaGetLastError() == OUT_OF_MEMORY


def sticky_error_fails_every_later_call() -> None:
    pinned, there = pinned_and_card()
    event = made("cudaEventCreate")
    Path(os.environ["NULLCARD_GONE"]).touch()
    calls = [
        card.cudaMalloc(ctypes.byref(ctypes.c_void_p()), SIZE), card.cudaFree(there),
        card.cudaMemcpyAsync(there, pinned, SIZE, TO_CARD, None),
        card.cudaMemsetAsync(there, 0, SIZE, None), card.cudaEventRecord(event, None), card.cudaEventQuery(event),
        card.cudaStreamSynchronize(None), card.cudaStreamQuery(None), card.cudaDeviceSynchronize(),
        card.cudaFreeHost(pinned),
    ]  # fmt: skip
    assert calls == [LAUNCH_FAILURE] * len(calls)
    card.cudaGetLastError()
    Path(os.environ["NULLCARD_GONE"]).unlink()  # whatever happens to the card: the process is over
    assert card.cudaDeviceSynchronize() == LAUNCH_FAILURE


def free_memory_is_that_of_the_card() -> None:
    free, total = free_and_total()
    held = memory(size=GIB)
    assert free_and_total() == (free - GIB, total) and total == 12 * GIB > free
    card.cudaFree(held)
    assert free_and_total() == (free, total)


def memory_is_freed_once() -> None:
    at = memory()
    assert [card.cudaFree(at), card.cudaFree(at), card.cudaFree(None)] == [0, INVALID, 0]


def managed_memory_of_no_bytes_is_invalid() -> None:
    assert card.cudaMallocManaged(ctypes.byref(ctypes.c_void_p()), ctypes.c_size_t(0), 1) == INVALID


def event_that_was_never_recorded_is_complete() -> None:
    event, stream = made("cudaEventCreate"), made("cudaStreamCreate")
    assert [
        card.cudaEventQuery(event),
        card.cudaEventSynchronize(event),
        card.cudaStreamWaitEvent(stream, event, 0),
    ] == [0, 0, 0]


def time_between_events_needs_both_and_their_times() -> None:
    timed, other, untimed = made("cudaEventCreate"), made("cudaEventCreate"), made("cudaEventCreateWithFlags", NO_TIME)
    ms = ctypes.c_float()
    card.cudaEventRecord(timed, None)
    assert card.cudaEventElapsedTime(ctypes.byref(ms), timed, other) == BAD_HANDLE
    card.cudaEventRecord(untimed, None)
    assert card.cudaEventElapsedTime(ctypes.byref(ms), timed, untimed) == BAD_HANDLE
    card.cudaEventRecord(other, None)
    assert card.cudaEventElapsedTime(ctypes.byref(ms), timed, other) == 0 and ms.value >= 0


def event_after_waiting_work_is_not_ready() -> None:
    pinned, there = pinned_and_card()
    before, after = made("cudaEventCreate"), made("cudaEventCreate")
    card.cudaEventRecord(before, None)
    card.cudaMemcpyAsync(there, pinned, SIZE, TO_CARD, None)
    card.cudaEventRecord(after, None)
    assert [card.cudaEventQuery(before), card.cudaEventQuery(after), card.cudaStreamQuery(None)] == [
        0,
        NOT_READY,
        NOT_READY,
    ]
    assert byte_on_card(there) == 0
    assert card.cudaEventQuery(after) == 0 and byte_on_card(there) == 7  # a card goes on while it is asked


def event_waits_for_its_last_record_alone() -> None:
    pinned, there = pinned_and_card()
    side, event = made("cudaStreamCreateWithFlags", NON_BLOCKING), made("cudaEventCreate")
    card.cudaEventRecord(event, side)
    card.cudaMemcpyAsync(there, pinned, SIZE, TO_CARD, side)  # after the record
    assert card.cudaEventSynchronize(event) == 0 and byte_on_card(there) == 0
    card.cudaEventRecord(event, side)
    assert card.cudaEventSynchronize(event) == 0 and byte_on_card(there) == 7


def copies_of_pinned_memory_wait_and_others_do_not() -> None:
    pinned, there = pinned_and_card()
    pageable = ctypes.create_string_buffer(b"\5" * 4096)
    card.cudaMemcpyAsync(there, pinned, SIZE, TO_CARD, None)
    assert byte_on_card(there) == 0
    card.cudaStreamSynchronize(None)
    assert byte_on_card(there) == 7
    card.cudaMemcpyAsync(there, pageable, SIZE, TO_CARD, None)
    assert byte_on_card(there) == 5


def blocking_copy_is_done_when_it_returns() -> None:
    pinned, there = pinned_and_card()
    card.cudaMemcpyAsync(there, pinned, SIZE, TO_CARD, None)
    back = ctypes.create_string_buffer(4096)
    assert card.cudaMemcpy(back, there, SIZE, TO_HOST) == 0 and back[0] == b"\7"


def freeing_memory_of_the_card_waits_for_it() -> None:
    pinned, there = pinned_and_card()
    card.cudaMemcpyAsync(there, pinned, SIZE, TO_CARD, None)
    assert card.cudaFree(memory()) == 0 and byte_on_card(there) == 7


def pinned_memory_in_use_cannot_be_freed() -> None:
    pinned, there = pinned_and_card()
    card.cudaMemcpyAsync(there, pinned, SIZE, TO_CARD, None)
    assert card.cudaFreeHost(pinned) == LAUNCH_FAILURE


def memory_is_registered_once() -> None:
    buffer = ctypes.create_string_buffer(8192)
    assert [card.cudaHostRegister(buffer, SIZE, 0), card.cudaHostRegister(buffer, SIZE, 0)] == [0, 712]
    assert [card.cudaHostUnregister(buffer), card.cudaHostUnregister(buffer)] == [0, 713]


def default_stream_waits_for_streams_that_do_not_refuse_it() -> None:
    for flag, is_race in ((0, 0), (NON_BLOCKING, 1)):
        there = memory()
        side = made("cudaStreamCreateWithFlags", flag)
        card.nullcard_work(side)
        assert card.nullcard_touch(side, there, SIZE, 1, b"first") == 0
        card.nullcard_work(None)
        assert card.nullcard_touch(None, there, SIZE, 1, b"second") == is_race


def device_that_is_not_there_is_invalid() -> None:
    assert [card.cudaSetDevice(0), card.cudaSetDevice(1)] == [0, INVALID_DEVICE]


def old_driver_is_insufficient() -> None:
    assert card.cudaGetDeviceCount(ctypes.byref(ctypes.c_int())) == 35


if __name__ == "__main__":
    globals()[sys.argv[1]]()
