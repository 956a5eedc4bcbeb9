"""Norm, rotary and gate of a layer as one autograd function each: less saved for the backward, fewer kernel launches,
in place. Torch.

transformers implements RMSNorm as eight operations on an fp32 copy that is saved, and rotary embeddings as ten. Here a
norm saves its input and one value per token; on a GPU it is torch's own kernel, on a CPU it runs in cache-sized blocks.
On a CPU the output of a norm or gate is not saved: its attribute `made_of` is a function and the tensors to recompute
the same bits from, which the product that reads it saves instead (core/engine/variants/fused_lora); a gate saves its
two inputs.

The function of a module is not read from its name: a copy of it runs its own forward on a few made-up values, to test
that an implementation here gives the same values and gradients in fp32. A module that matches none keeps its own
forward; so does a call with other arguments. In 16 bits, results are rounded once, from fp32, where transformers rounds
twice.
"""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

from core.engine.families import unsupported

if TYPE_CHECKING:
    from peft import PeftModel


EXACT, NEAR = 1e-5, 0.02  # of the largest value: sums in another order, in fp32 and in 16 bits
BLOCKWISE = ("cpu",)  # devices without torch's own kernel, where saving memory is worth another pass
BLOCK = 1 << 18  # values per block of a norm there: 1 MiB in fp32
ROTARY = "apply_rotary_pos_emb"
PARTS = (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"))  # their names in different families
ROWS, WIDTH = 3, 16  # of the made-up values
Forward = Callable[..., Any]


@dataclass(frozen=True)
class Elementwise:
    """The replacements that `install` made: numbers of norms, gates and rotary functions. undo: restores each."""

    norms: int
    gates: int
    rotaries: int
    undo: tuple[Callable[[], None], ...]

    def release(self) -> None:
        """Restore the model's own functions; can be called twice."""
        for each in self.undo:
            each()


def install(tuned: PeftModel) -> Elementwise:
    """Replace each norm, gate and rotary function that passes its test in the text model of a peft model, and return
    the replacements with their counts, which `release` undoes. Modules whose forward something else has replaced are
    left out. Costs a tiny test per kind of module."""
    decoder = tuned.get_base_model().get_decoder()
    tested: dict[object, Forward | None] = {}  # modules that differ only in their weights are tested once

    def tested_forward(module: torch.nn.Module, prove: Callable[..., Forward | None]) -> Forward | None:
        """Return the module's forward if its test passes, else None; prove is tried once for all that are alike."""
        settings = {name: value for name, value in vars(module).items() if isinstance(value, _PLAIN)}
        parameters = [(each.shape, each.dtype, each.device) for each in module.parameters(recurse=False)]
        alike = type(module), prove, repr((settings, parameters, getattr(module, "act_fn", None)))
        if alike not in tested:
            tested[alike] = prove(module)
        return tested[alike]

    norms, gates, rotaries = [], [], []
    for module in decoder.modules():
        if "forward" in vars(module):
            continue
        if _may_be_norm(module):
            if function := tested_forward(module, _norm_function):
                norms.append(_replace_forward(module, _norm_forward(module, function)))
        elif _gate_up_down(module) and (function := tested_forward(module, _gate_function)):
            gates.append(_replace_forward(module, _gate_forward(module, function)))
    # A family's layers call it as a global of their file, so one replacement there reaches all of them.
    for code in {sys.modules[type(module).__module__] for module in decoder.modules()}:
        own = vars(code).get(ROTARY)
        if own and not hasattr(own, "rotaries") and (replacement := _rotary_replacement(own)):
            rotaries.append(_replace_rotary(code, replacement, own))
    return Elementwise(len(norms), len(gates), len(rotaries), (*norms, *gates, *rotaries))


_PLAIN = (int, float, str, bool, tuple, type(None))


def _replace_forward(module: torch.nn.Module, forward: Forward) -> Callable[[], None]:
    """Replace the module's forward; return a function that restores its class's, unless something else has replaced it
    since."""
    module.forward = forward

    def restore_forward() -> None:
        """Let the module use the forward of its class again, unless something else has replaced it since."""
        if vars(module).get("forward") is forward:
            del module.forward

    return restore_forward


def _replace_rotary(code: ModuleType, forward: Forward, own: Forward) -> Callable[[], None]:
    """Replace own, the function that a model's code applies rotary positions with, by forward. Return a function that
    puts own back, unless something else has replaced it since."""

    def restore_rotary() -> None:
        """Put the model's own rotary function back, unless something else has replaced it since."""
        if vars(code)[ROTARY] is forward:
            setattr(code, ROTARY, own)

    setattr(code, ROTARY, forward)
    return restore_rotary


# ---- tests of the replacements --------------------------------------------------------------------------------------


def _made_up(*shapes: Sequence[int]) -> list[torch.Tensor]:
    """Return fp32 values of different magnitudes, the same at each call; the global RNG is not used."""
    chance = torch.Generator().manual_seed(0)
    return [torch.randn(tuple(shape), generator=chance) * 1.7 + 0.3 for shape in shapes]


def _are_same(own: Forward, ours: Forward, given: Sequence[torch.Tensor]) -> bool:
    """True if both give the same tensors, within a tolerance, shapes and dtypes included, and the same gradients of
    given; False if one raises on these arguments."""
    tolerance = EXACT if given[0].dtype == torch.float32 else NEAR
    with unsupported.tolerated(Exception):  # in the code of a hundred families, called as it may not expect it
        expected, actual = (list(_outputs_and_gradients(each, given)) for each in (own, ours))
        return len(expected) == len(actual) and all(
            a.shape == b.shape
            and a.dtype == b.dtype
            and bool((a - b).abs().max() <= tolerance * a.abs().max().clamp(min=1e-3))
            for a, b in zip(expected, actual, strict=True)
        )
    return False


@torch.enable_grad()
def _outputs_and_gradients(function: Forward, given: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Yield a function's outputs for these inputs, then the gradients of the inputs from made-up gradients of the
    outputs."""
    leaves = [each.clone().requires_grad_() for each in given]
    results = function(*leaves)
    results = results if isinstance(results, tuple) else (results,)
    yield from (each.detach() for each in results)
    grad = [each.to(given[0]) for each in _made_up(*(each.shape for each in results))]
    yield from torch.autograd.grad(results, leaves, grad)


def _twin(module: torch.nn.Module) -> torch.nn.Module:
    """Return a shallow copy whose parameters and children can be exchanged; without hooks and replaced forwards."""
    # Not copy.deepcopy, which would copy the weights and those of all children.
    twin: torch.nn.Module = object.__new__(type(module))
    vars(twin).update(vars(module))
    for name in ("_parameters", "_modules", "_buffers"):
        vars(twin)[name] = dict(vars(module)[name])
    for name in [name for name in vars(twin) if "hooks" in name]:
        vars(twin)[name] = copy.copy(vars(module)[name])
        vars(twin)[name].clear()
    return twin


# ---- RMSNorm -------------------------------------------------------------------------------------


def _may_be_norm(module: torch.nn.Module) -> bool:
    """True if a frozen vector named weight is all that the module has: no child, buffer or other parameter."""
    weight = vars(module)["_parameters"].get("weight")
    alone = len(vars(module)["_parameters"]) == 1 and not vars(module)["_modules"] and not vars(module)["_buffers"]
    return bool(alone and weight is not None and weight.dim() == 1 and not weight.requires_grad)


def _norm_function(module: torch.nn.Module) -> Forward | None:
    """Return the function of (x, weight) that computes module, an RMSNorm with one of its own eps and an offset of 0 or
    1: tested in fp32 on a copy, then in its dtype on its device. None if no such norm gives its outputs and
    gradients."""
    twin, own = _twin(module), type(module).forward
    x, weight = _made_up((ROWS, module.weight.shape[0]), module.weight.shape)
    x *= torch.tensor([[1e-3], [1.0], [30.0]])  # the first shows the effect of eps
    twin._parameters["weight"] = torch.nn.Parameter(weight, requires_grad=False)
    # Families differ in the name of eps, and some (Gemma) multiply by 1 + weight.
    for eps in {value for value in vars(module).values() if isinstance(value, float) and value < 0.1}:
        for offset in (0.0, 1.0):
            if _are_same(partial(own, twin), partial(_normed, weight=weight, eps=eps, offset=offset), [x]):
                # Which formula it is was seen in fp32; 16 bits, where rounding hides a difference, are tested as they
                # will run.
                function = partial(_normed, eps=eps, offset=offset)
                if module.weight.is_meta:
                    return function
                # its own may still be on another device (streaming)
                x, weight = x.to(module.weight), weight.to(module.weight)
                twin._parameters["weight"] = torch.nn.Parameter(weight, requires_grad=False)
                return function if _are_same(partial(own, twin), partial(function, weight=weight), [x]) else None
    return None


def _norm_forward(module: torch.nn.Module, function: Forward) -> Forward:
    """Return a forward that calls function for a single tensor of the weight's dtype, else the module's own: for other
    arguments, or while the weight is trained."""
    own = type(module).forward

    def norm_or_own(*args: torch.Tensor, **kwargs: object) -> torch.Tensor:
        """Return function's result for a single tensor of the weight's dtype while the weight is frozen; for any other
        call that of the module's own forward."""
        weight = module.weight
        # Tested for a frozen weight alone.
        if len(args) != 1 or kwargs or args[0].dtype != weight.dtype or weight.requires_grad:
            return own(module, *args, **kwargs)
        return function(args[0], weight)

    return norm_or_own


def _normed(x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float) -> torch.Tensor:
    """Return the RMS norm of x. On a CPU, if it needs a gradient, its attribute `made_of` says how to recompute it, so
    that a LoRA layer need not save it."""
    beside: list[torch.Tensor] = []
    output = _Norm.apply(x, weight, eps, offset, beside)
    if output.requires_grad and x.device.type in BLOCKWISE:
        output.made_of = partial(_norm_from_inv_rms, eps=eps, offset=offset), x, weight, *beside
    return output


class _Norm(torch.autograd.Function):
    """x / rms(x) * (weight + offset) of x (..., h). Saves x and 1 / rms(x), fp32 (rows, 1), which is also appended to
    beside."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float, beside: list[torch.Tensor]
    ) -> torch.Tensor:
        """Return the normalized x, (..., h); append 1 / rms(x), fp32 (rows, 1), to `beside`, so that a caller can reuse
        it."""
        ctx.offset = offset
        output, inv_rms = _norm(x, weight, eps, offset)
        beside.append(inv_rms)
        ctx.save_for_backward(x, weight, inv_rms)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradient with respect to x, in its dtype; the weight gets none."""
        x, weight, inv_rms = ctx.saved_tensors
        rows, grad = (each.reshape(-1, x.shape[-1]) for each in (x, gradient))
        return _norm_back(rows, grad, weight, inv_rms, ctx.offset).to(x.dtype).view(x.shape), None, None, None, None


def _norm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float, known: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (x normalized, 1 / rms(x) in fp32), on a CPU blockwise, else by torch's kernel. known: 1 / rms(x), if it
    was computed before."""
    rows = x.reshape(-1, x.shape[-1])
    if x.device.type in BLOCKWISE:
        output, inv_rms = _blockwise(rows, weight, eps, offset, known)
    elif offset:
        # torch's kernel knows no offset, and 1 + weight in 16 bits would round small weights away.
        output, inv_rms = kernel(rows.float(), weight.float() + offset, eps)
    else:
        output, inv_rms = kernel(rows, weight, eps)
    return output.to(x.dtype).view(x.shape), inv_rms


def _norm_from_inv_rms(
    x: torch.Tensor, weight: torch.Tensor, inv_rms: torch.Tensor, eps: float, offset: float
) -> torch.Tensor:
    """Return the RMS norm of x again, from the 1 / rms(x) of its first computation."""
    return _norm(x, weight, eps, offset, inv_rms)[0]


def _norm_back(
    rows: torch.Tensor, grad: torch.Tensor, weight: torch.Tensor, inv_rms: torch.Tensor, offset: float
) -> torch.Tensor:
    """Return the gradient of rows from grad, that of the norm's output, on a CPU blockwise, else by torch's kernel."""
    if rows.device.type in BLOCKWISE:
        return _blockwise_back(rows, grad, weight, inv_rms, offset)
    if offset:
        return kernel_back(grad.float(), rows.float(), weight.float() + offset, inv_rms)
    return kernel_back(grad, rows, weight, inv_rms)


def kernel(rows: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (normalized rows, 1 / rms of each row) by torch's own RMSNorm for GPUs, which sums in fp32. It knows no
    offset of the weight."""
    return torch.ops.aten._fused_rms_norm(rows, [rows.shape[-1]], weight, eps)


def kernel_back(grad: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor, inv_rms: torch.Tensor) -> torch.Tensor:
    """Return the gradient of rows by the backward of torch's own RMSNorm. grad: of its output."""
    # [True, False]: not the gradient of the weight, which is frozen.
    return torch.ops.aten._fused_rms_norm_backward(grad, rows, [rows.shape[-1]], inv_rms, weight, [True, False])[0]


def _blocks(rows: torch.Tensor, spare: int) -> Iterator[tuple[slice, list[torch.Tensor]]]:
    """Yield slices of rows, each with that many fp32 scratch blocks, which share the same memory."""
    count = min(len(rows), max(1, BLOCK // rows.shape[1]))
    # The same memory for every block, so that it stays in the processor's cache.
    blocks = [rows.new_empty(count, rows.shape[1], dtype=torch.float32) for _ in range(spare)]
    for start in range(0, len(rows), count):
        some = slice(start, min(start + count, len(rows)))
        yield some, [block[: some.stop - start] for block in blocks]


def _blockwise(
    rows: torch.Tensor, weight: torch.Tensor, eps: float, offset: float, known: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute `_norm` in fp32 blocks small enough for a processor's cache."""
    wide, width = weight.float() + offset, rows.shape[1]
    output, inv_rms = (
        torch.empty_like(rows),
        rows.new_empty(len(rows), 1, dtype=torch.float32) if known is None else known,
    )
    for some, (block,) in _blocks(rows, 1):
        # To fp32 by blocks: a copy of everything would take twice the memory of the 16-bit rows.
        block.copy_(rows[some])
        if known is None:
            torch.linalg.vector_norm(block, dim=-1, keepdim=True, out=inv_rms[some])
            inv_rms[some].square_().div_(width).add_(eps).rsqrt_()
        output[some] = block.mul_(inv_rms[some]).mul_(wide)
    return output, inv_rms


def _blockwise_back(
    rows: torch.Tensor, grad: torch.Tensor, weight: torch.Tensor, inv_rms: torch.Tensor, offset: float
) -> torch.Tensor:
    """Return r (g - n mean(g n)), with r = 1 / rms(x), n = x r and g = grad * (weight + offset)."""
    wide, output = weight.float() + offset, torch.empty_like(rows)
    for some, (normed, block) in _blocks(rows, 2):
        torch.mul(normed.copy_(rows[some]), inv_rms[some], out=normed)
        block.copy_(grad[some]).mul_(wide)
        mean = torch.linalg.vecdot(block, normed)[:, None].div_(rows.shape[1])
        output[some] = block.addcmul_(normed, mean, value=-1).mul_(inv_rms[some])
    return output


# ---- MLP: down(act(gate(x)) * up(x)) -------------------------------------------------------------


@dataclass(frozen=True)
class Act:
    """An activation and its backward, which overwrites the input with its gradient: (gradient, input)."""

    forward: Callable[[torch.Tensor], torch.Tensor]
    back_in_place: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


ACTS = {
    "silu": Act(functional.silu, lambda grad, x: torch.ops.aten.silu_backward.grad_input(grad, x, grad_input=x)),
    "gelu": Act(
        partial(functional.gelu, approximate="tanh"),
        lambda grad, x: torch.ops.aten.gelu_backward.grad_input(grad, x, approximate="tanh", grad_input=x),
    ),
}


def _gate_up_down(module: torch.nn.Module) -> tuple[str, str, str] | None:
    """Return the names of the module's gate, up and down layers, in this order; None if it is no gated MLP by them."""
    return next((names for names in PARTS if all(name in vars(module)["_modules"] for name in names)), None)


def _gate_function(module: torch.nn.Module) -> Forward | None:
    """Return the function of (gate, up) that gives down_proj's input, if the module's forward on small made-up weights
    equals a gated MLP with one of ACTS; otherwise None, also if the module has float settings other than 0."""
    names = _gate_up_down(module)
    assert names
    if any(isinstance(value, float) and value for value in vars(module).values()):
        # a factor, as in Falcon H1, where it is seldom 1; a sparsity of 0, as in most layers of Gemma 3n, is none
        return None
    gate, up, down = names
    twin, sizes = _twin(module), {gate: (WIDTH, 2 * WIDTH), up: (WIDTH, 2 * WIDTH), down: (2 * WIDTH, WIDTH)}
    # With a quarter of these weights the sums of WIDTH products lie where the activations bend and differ.
    x, *weights = _made_up((ROWS, WIDTH), *((out, into) for into, out in sizes.values()))
    for (name, (into, out)), weight in zip(sizes.items(), weights, strict=True):
        twin._modules[name] = torch.nn.Linear(into, out, bias=False, device="meta")
        twin._modules[name].weight = torch.nn.Parameter(weight / 4, requires_grad=False)
    for act in ACTS.values():
        function = partial(_gated, act=act)
        if _are_same(partial(type(module).forward, twin), partial(_mlp, twin, names, function), [x]):
            return function
    return None


def _gate_forward(module: torch.nn.Module, function: Forward) -> Forward:
    """Return a forward of the MLP with our gate; called in another way than with one tensor it is the module's own."""
    own, names = type(module).forward, _gate_up_down(module)
    assert names

    def gate_or_own(*args: torch.Tensor, **kwargs: object) -> torch.Tensor:
        """Return the MLP's output with the faster gate for a call with one tensor; for any other call that of the
        module's own forward."""
        return own(module, *args, **kwargs) if len(args) != 1 or kwargs else _mlp(module, names, function, args[0])

    return gate_or_own


def _mlp(module: torch.nn.Module, names: tuple[str, str, str], function: Forward, x: torch.Tensor) -> torch.Tensor:
    """Return down(function(gate(x), up(x))), by the layers of these names in module."""
    gate, up, down = (vars(module)["_modules"][name] for name in names)
    return down(function(gate(x), up(x)))


def _gated(gate: torch.Tensor, up: torch.Tensor, act: Act) -> torch.Tensor:
    """Return act(gate) * up. On a CPU, if it needs a gradient, its attribute `made_of` says how to recompute it."""
    acted: list[torch.Tensor] = []
    product = _Gate.apply(gate, up, act, acted)
    if product.requires_grad and gate.device.type in BLOCKWISE:
        # down_proj's LoRA layer would otherwise save the product, the widest tensor of a layer.
        product.made_of = partial(_gate_again, act=act, acted=acted), gate, up
    return product


def _gate_again(gate: torch.Tensor, up: torch.Tensor, act: Act, acted: list[torch.Tensor]) -> torch.Tensor:
    """Recompute the product; leaves in acted the activation, which the gate's backward, coming next, would otherwise
    recompute."""
    acted.append(act.forward(gate))
    return acted[0] * up


class _Gate(torch.autograd.Function):
    """act(gate) * up. Saves all three as autograd would, on a CPU gate and up; the backward overwrites them instead of
    allocating three more."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, gate: torch.Tensor, up: torch.Tensor, act: Act, acted: list[torch.Tensor]
    ) -> torch.Tensor:
        """Return act(gate) * up, on a CPU in the memory of the activation, and save what the backward needs."""
        ctx.act, ctx.acted = act, acted
        activated = act.forward(gate)
        if gate.device.type in BLOCKWISE:
            ctx.save_for_backward(gate, up)
            return activated.mul_(up)
        ctx.save_for_backward(gate, up, activated)
        return activated * up

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of gate and up, written over both saved tensors."""
        gate, up, *activated = ctx.saved_tensors
        activated = activated or ctx.acted
        # Before the return below, which overwrites gate with its gradient.
        acted = activated.pop() if activated else ctx.act.forward(gate)
        return ctx.act.back_in_place(up.mul_(gradient), gate), acted.mul_(gradient), None, None


# ---- rotary --------------------------------------------------------------------------------------


def _rotary_replacement(own: Forward) -> Forward | None:
    """Return a replacement for own, which applies rotary embeddings to queries and keys, or to one of them, on all or
    the first half of each head's values; it calls own for every form that did not pass its test. None if own does
    something else."""
    # More heads of queries than of keys, as most families have.
    shapes = ((1, 4, ROWS, WIDTH), (1, 2, ROWS, WIDTH))
    proven = set()
    for count, width in itertools.product((2, 1), (WIDTH, WIDTH // 2)):
        angles = _made_up((1, ROWS, width), (1, ROWS, width))
        if _are_same(
            partial(_with_angles, own, angles), partial(_with_angles, _rotary, angles), _made_up(*shapes[:count])
        ):
            proven.add((count, width == WIDTH))
    if not proven:
        return None

    def rotary_or_own(*args: Any, **kwargs: object) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Return the rotated states for a call of a form that passed its test; for any other call what the model's own
        function returns."""
        return own(*args, **kwargs) if kwargs or not _is_tested_call(args, proven) else _rotary(*args)

    rotary_or_own.rotaries, rotary_or_own.own = proven, own  # type: ignore[attr-defined]
    return rotary_or_own


def _is_tested_call(given: tuple[Any, ...], proven: set[tuple[int, bool]]) -> bool:
    """True if the arguments are states, cos and sin of one dtype, with a tested count and width."""
    if len(given) < 3 or not all(isinstance(each, torch.Tensor) for each in given):
        return False
    *states, cos, sin = given
    # Angles that need a gradient are left to the family: `_Rotary` computes none of them.
    known = (len(states), cos.shape[-1] == states[0].shape[-1]) in proven and cos.dim() == 3 and not cos.requires_grad
    return known and len({each.dtype for each in given}) == 1


def _with_angles(
    function: Forward, angles: Sequence[torch.Tensor], *states: torch.Tensor
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Call a rotary function with states, then angles (cos, sin); with fixed angles `_are_same` varies only states."""
    return function(*states, *angles)


def _rotary(*given: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Rotate states (B, heads, T, d) by cos and sin (B, T, d), the last two of given. Returns a tensor for one state, a
    tuple for two."""
    *states, cos, sin = given
    rotated = _Rotary.apply(cos.unsqueeze(1), sin.unsqueeze(1), *states)
    return rotated if len(states) > 1 else rotated[0]


class _Rotary(torch.autograd.Function):
    """Each of states (B, heads, T, d) rotated by cos and sin (B, 1, T, d)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, cos: torch.Tensor, sin: torch.Tensor, *states: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        ctx.save_for_backward(cos, sin)
        return tuple(_rotate(state, cos, sin, back=False) for state in states)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of the states: the outputs' gradients rotated back by cos and sin, which get none."""
        cos, sin = ctx.saved_tensors
        return None, None, *(_rotate(gradient, cos, sin, back=True) for gradient in gradients)


def _rotate(state: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, back: bool) -> torch.Tensor:
    """Rotate the first values of each head, as many as cos has: halves (a, b) become (a cos - b sin, b cos + a sin),
    each with its own cos and sin; the rest is unchanged. back: the transpose."""
    width, half = cos.shape[-1], cos.shape[-1] // 2
    output = torch.empty_like(state)
    torch.mul(state[..., :width], cos, out=output[..., :width])
    sines = sin[..., :half], sin[..., half:]
    of_second, of_first = (sines[1], sines[0]) if back else sines
    output[..., :half].addcmul_(state[..., half:width], of_second, value=1 if back else -1)
    output[..., half:width].addcmul_(state[..., :half], of_first, value=-1 if back else 1)
    if width < state.shape[-1]:
        output[..., width:] = state[..., width:]
    return output
