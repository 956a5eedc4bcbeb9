"""Norm and gate, on a GPU rotary too, compiled by torch.compile (`train.torch_compile`), where that makes a run faster.
Torch: workers only.

Each is a few operations over the same memory, which a compiler fuses into one pass: Inductor's C++ on a CPU, Triton on
a GPU. Only the arithmetic inside the functions of core/engine/variants/elementwise is replaced: as much is kept for the
backward, on a GPU a gate's activation less. `trial` compares values with the plain functions, then the time of the
run's longest micro-batch, and keeps the plain ones if they are as fast, or if there is no working compiler. Results are
rounded once, in another place than the plain functions round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import NamedTuple

import torch
from torch.nn import functional

from core.engine.variants import elementwise
from core.errors import PauseRequested, StopRequested, first_line
from core.messages import Message, msg

TRIED = 3  # passes of each, in turn
ROWS, WIDTH = 6, 32  # of the made-up values
FASTER = 0.98  # of the plain time, or less
EXACT, NEAR = 1e-4, 0.03  # of the largest value: in fp32 and in 16 bits, where both round


class Compiled(NamedTuple):
    """The outcome of `trial`. is_used: the compiled functions are used from now on, until elementwise is released."""

    is_used: bool
    message: Message


def trial(rehearse: Callable[[], None], like: torch.Tensor, check: Callable[[], None], again: bool = False) -> Compiled:
    """Compile, compare and time the functions; if they are used, they are in elementwise.compiled_functions afterwards.

    rehearse: a forward and backward that leave nothing behind. like: a tensor with the run's device and dtype. check is
    called between two functions and may raise. again: a resumed run that used them must use them again.
    """
    began = time.perf_counter()
    try:
        functions = _compile(like.device.type == "cuda")
        for same in _comparisons(functions, like):
            check()
            if not same:
                return Compiled(False, msg("compiled.other_numbers"))
        with _using(functions):
            rehearse()
        # The first pass compiled; those that are timed only run.
        compiling = time.perf_counter() - began
        plain, compiled = (0.0, 0.0) if again else _timed(rehearse, functions, like.device)
    except (StopRequested, PauseRequested):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a compiler raises, our own functions are there
        return Compiled(False, msg("compiled.impossible", reason=first_line(error)))
    facts = {"seconds": compiling, "compiled": compiled, "plain": plain}
    if not again and compiled > FASTER * plain:
        return Compiled(False, msg("compiled.no_faster", **facts))
    elementwise.compiled_functions = functions
    return Compiled(
        True, msg("compiled.again" if again else "compiled.faster", **facts, share=1 - compiled / (plain or 1.0))
    )


@contextmanager
def _using(functions: elementwise.CompiledFunctions | None) -> Iterator[None]:
    before, elementwise.compiled_functions = elementwise.compiled_functions, functions
    try:
        yield
    finally:
        elementwise.compiled_functions = before


def _timed(
    rehearse: Callable[[], None], functions: elementwise.CompiledFunctions, device: torch.device
) -> tuple[float, float]:
    """Return the seconds of a pass with the plain functions and with the compiled ones, medians of TRIED in turn."""
    took: tuple[list[float], list[float]] = [], []
    for _ in range(TRIED):
        for each, seconds in zip((None, functions), took, strict=True):
            with _using(each):
                began = time.perf_counter()
                rehearse()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds.append(time.perf_counter() - began)
    return median(took[0]), median(took[1])


def _compile(on_card: bool) -> elementwise.CompiledFunctions:
    """Compile all functions; not rotary on a CPU, where its compiled form took twice the time of the plain one."""
    # One process (no pool that outlives a step), any number of rows, and as many threads as torch has at each call.
    torch._inductor.config.compile_threads = 1
    compiled = partial(torch.compile, dynamic=True, options={"cpp.dynamic_threads": True})
    gates = {
        name: (compiled(partial(_gate, act=act)), compiled(partial(_gate_back, act=act))) for name, act in ACTS.items()
    }
    return elementwise.CompiledFunctions(
        compiled(_norm), compiled(_norm_again), compiled(_norm_back), gates, compiled(_rotate) if on_card else None
    )


def _comparisons(functions: elementwise.CompiledFunctions, like: torch.Tensor) -> Iterator[bool]:
    """Yield for each function whether it gives what the plain one does, on made-up values of the run's dtype on its
    device."""
    chance = torch.Generator().manual_seed(0)

    def made_up(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=chance) * 1.7 + 0.3).to(like)

    rows, grad, weight = made_up(ROWS, WIDTH), made_up(ROWS, WIDTH), made_up(WIDTH)
    for offset in (0.0, 1.0):
        plain, inv_rms = elementwise._norm(rows, weight, 1e-6, offset)
        output, compiled_rms = functions.norm(rows, weight, 1e-6, offset)
        again = functions.norm_again(rows, weight, compiled_rms, offset)
        yield _near(output, plain) and _near(compiled_rms, inv_rms) and torch.equal(again, output)
        back = elementwise._norm_back(rows, grad, weight, inv_rms, offset)
        yield _near(functions.norm_back(rows, grad, weight, compiled_rms, offset), back)
    gate, up, grad = (made_up(ROWS, WIDTH) for _ in range(3))
    for name, act in elementwise.ACTS.items():
        there, back = functions.gates[name]
        yield _near(there(gate, up), act.there(gate) * up)
        expected = act.back_in_place(grad * up, gate.clone()), act.there(gate) * grad
        yield all(map(_near, back(grad, gate.clone(), up.clone()), expected))
    for width in (WIDTH, WIDTH // 2):
        state, cos, sin = made_up(2, 3, ROWS, WIDTH), made_up(2, 1, ROWS, width), made_up(2, 1, ROWS, width)
        for back in (False, True):
            plain = elementwise._rotate(state, cos, sin, back)
            with _using(functions):
                yield _near(elementwise._rotate(state, cos, sin, back), plain)


def _near(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    tolerance = EXACT if expected.dtype == torch.float32 else NEAR
    return bool((actual.float() - expected.float()).abs().max() <= tolerance * expected.float().abs().max())


# ---- the compiled functions: fp32 inside, rounded once -------------------------------------------


def _norm(rows: torch.Tensor, weight: torch.Tensor, eps: float, offset: float) -> tuple[torch.Tensor, torch.Tensor]:
    inv_rms = torch.rsqrt(rows.float().square().mean(-1, keepdim=True) + eps)
    return _norm_again(rows, weight, inv_rms, offset), inv_rms


def _norm_again(rows: torch.Tensor, weight: torch.Tensor, inv_rms: torch.Tensor, offset: float) -> torch.Tensor:
    return (rows.float() * inv_rms * (weight.float() + offset)).to(rows.dtype)


def _norm_back(
    rows: torch.Tensor, grad: torch.Tensor, weight: torch.Tensor, inv_rms: torch.Tensor, offset: float
) -> torch.Tensor:
    # With n = x / rms(x) and y = n w: dx = (w dy - n mean(n w dy)) / rms(x).
    normed, wide = rows.float() * inv_rms, grad.float() * (weight.float() + offset)
    return ((wide - normed * (wide * normed).mean(-1, keepdim=True)) * inv_rms).to(rows.dtype)


ACTS: dict[str, tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]] = {
    "silu": (functional.silu, torch.ops.aten.silu_backward),
    "gelu": (partial(functional.gelu, approximate="tanh"), partial(torch.ops.aten.gelu_backward, approximate="tanh")),
}


def _gate(
    gate: torch.Tensor, up: torch.Tensor, act: tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]
) -> torch.Tensor:
    return (act[0](gate.float()) * up.float()).to(gate.dtype)


def _gate_back(
    grad: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    act: tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of gate and up, written over them."""
    wide, x, factor = grad.float(), gate.float(), up.float()
    of_gate, of_up = act[1](wide * factor, x), wide * act[0](x)
    return gate.copy_(of_gate), up.copy_(of_up)


def _rotate(output: torch.Tensor, state: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, back: bool) -> None:
    """Write elementwise._rotate's result into output. back: rotate backwards, for gradients."""
    half, width = cos.shape[-1] // 2, cos.shape[-1]
    first, second = state[..., :half].float(), state[..., half:width].float()
    of_second, of_first = (-sin[..., half:], -sin[..., :half]) if back else (sin[..., :half], sin[..., half:])
    output[..., :half] = first * cos[..., :half] - second * of_second
    output[..., half:width] = second * cos[..., half:] + first * of_first
    if width < state.shape[-1]:
        output[..., width:] = state[..., width:]
