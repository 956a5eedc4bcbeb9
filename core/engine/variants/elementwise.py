"""Norm, rotary and gate of a layer as one autograd function each: less saved for the backward, fewer kernel launches,
in place. Torch.

transformers implements RMSNorm as eight operations on an fp32 copy that is saved, and rotary embeddings as ten. Here a
norm saves its input and one value per token; on a GPU it is torch's own kernel, on a CPU it runs in cache-sized blocks.
On a CPU the output of a norm or gate is not saved: it has `made_of`, a function and the tensors to recompute the same
bits from, which the product that reads it saves instead (core/engine/variants/fused_lora); a gate saves its two inputs.
What a module computes is not read from its name: a copy of it runs its own forward on a few made-up values, to test
that an implementation here gives the same values and gradients in fp32. A module that matches none keeps its own
forward; so does a call with other arguments. In 16 bits, results are rounded once, from fp32, where transformers rounds
twice.

If Liger is installed and its kernels agree on this GPU, they are used (core/engine/variants/liger).
"""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from core.engine.families import unlike
from core.engine.variants import liger
from core.files import is_out_of_memory

EXACT, NEAR = 1e-5, 0.02  # of the largest value: sums in another order, in fp32 and in 16 bits
BLOCKWISE = ("cpu",)  # devices without torch's own kernel, where saving memory is worth another pass
BLOCK = 1 << 18  # values per block of a norm there: 1 MiB in fp32
ROTARY = "apply_rotary_pos_emb"
PARTS = (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"))  # their names in different families
ROWS, WIDTH = 3, 16  # of the made-up values
Forward = Callable[..., Any]


class Ways(NamedTuple):
    """The arithmetic of the functions below, compiled (core/engine/variants/compiled). Shapes as there; turn writes
    into its first argument."""

    norm: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    norm_again: Callable[..., torch.Tensor]
    norm_back: Callable[..., torch.Tensor]
    # by name in ACTS
    gates: dict[str, tuple[Callable[..., torch.Tensor], Callable[..., tuple[torch.Tensor, torch.Tensor]]]]
    turn: Callable[..., None] | None


ways: Ways | None = None  # in use instead of the plain functions, in this process


@dataclass(frozen=True)
class Elementwise:
    """What `install` replaced: numbers of norms, gates and rotary functions; how to restore each; which are Liger's."""

    norms: int
    gates: int
    turns: int
    undo: tuple[Callable[[], None], ...]
    by_liger: tuple[str, ...] = ()

    def release(self) -> None:
        """Can be called twice."""
        global ways
        ways = None
        for each in self.undo:
            each()


def install(tuned: Any) -> Elementwise:
    """Replace what passes its test in the text model of a peft model, until `release`. Costs a tiny test per kind of
    module; with Liger, two forwards and backwards of 8 tokens."""
    faster = _faster(tuned.get_base_model())
    found = _install(tuned, {})
    if not faster:
        return found
    plain = _answers(tuned)
    found.release()
    found = _install(tuned, faster)
    try:
        exact = next(iter(tuned.get_base_model().get_decoder().parameters())).dtype == torch.float32
        if all(_near(*each, exact) for each in zip(_answers(tuned), plain, strict=True)):
            return found
    except Exception as error:  # noqa: BLE001 - whatever a foreign kernel or its compiler raises, our own functions are there
        if is_out_of_memory(error):
            found.release()
            raise
    found.release()
    return _install(tuned, {})


def _install(tuned: Any, faster: dict[str, Forward]) -> Elementwise:
    decoder = tuned.get_base_model().get_decoder()
    seen: dict[Any, Any] = {}  # modules that differ only in their weights are tested once

    def proven(module: Any, prove: Callable[..., Forward | None]) -> Forward | None:
        settings = {name: value for name, value in vars(module).items() if isinstance(value, _PLAIN)}
        parameters = [(each.shape, each.dtype, each.device) for each in module.parameters(recurse=False)]
        alike = type(module), prove, repr((settings, parameters, getattr(module, "act_fn", None)))
        if alike not in seen:
            seen[alike] = prove(module, faster)
        return seen[alike]

    norms, gates, turns = [], [], []
    for module in decoder.modules():
        if "forward" in vars(module):
            continue
        if _may_be_norm(module):
            if way := proven(module, _norm_way):
                norms.append(_replace(module, _norm_forward(module, way)))
        elif _parts(module) and (way := proven(module, _gate_way)):
            gates.append(_replace(module, _gate_forward(module, way)))
    for code in {sys.modules[type(module).__module__] for module in decoder.modules()}:
        own = vars(code).get(ROTARY)
        if own and not hasattr(own, "turns") and (turning := _turning(own, faster)):
            turns.append(_put(code, turning, own))
    return Elementwise(len(norms), len(gates), len(turns), (*norms, *gates, *turns), tuple(faster))


_PLAIN = (int, float, str, bool, tuple, type(None))


def _replace(module: Any, forward: Forward) -> Callable[[], None]:
    module.forward = forward

    def undo() -> None:
        if vars(module).get("forward") is forward:
            del module.forward

    return undo


def _put(code: Any, forward: Forward, own: Forward) -> Callable[[], None]:
    def undo() -> None:
        if vars(code)[ROTARY] is forward:
            setattr(code, ROTARY, own)

    setattr(code, ROTARY, forward)
    return undo


# ---- tests of the replacements --------------------------------------------------------------------------------------


def _made_up(*shapes: Sequence[int]) -> list[torch.Tensor]:
    """fp32 values of different magnitudes, the same at each call; the global RNG is not used."""
    chance = torch.Generator().manual_seed(0)
    return [torch.randn(tuple(shape), generator=chance) * 1.7 + 0.3 for shape in shapes]


def _same(own: Forward, ours: Forward, given: Sequence[torch.Tensor]) -> bool:
    """Whether both give the same tensors and the same gradients of given; False if one fails on these arguments."""
    tolerance = EXACT if given[0].dtype == torch.float32 else NEAR
    with unlike.tried(Exception):  # in the code of a hundred families, called as it may not expect it
        wanted, found = (list(_asked(each, given)) for each in (own, ours))
        return len(wanted) == len(found) and all(
            a.shape == b.shape
            and a.dtype == b.dtype
            and bool((a - b).abs().max() <= tolerance * a.abs().max().clamp(min=1e-3))
            for a, b in zip(wanted, found, strict=True)
        )
    return False


@torch.enable_grad()
def _asked(way: Forward, given: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    leaves = [each.clone().requires_grad_() for each in given]
    results = way(*leaves)
    results = results if isinstance(results, tuple) else (results,)
    yield from (each.detach() for each in results)
    above = [each.to(given[0]) for each in _made_up(*(each.shape for each in results))]
    yield from torch.autograd.grad(results, leaves, above)


def _faster(model: Any) -> dict[str, Forward]:
    """The Liger functions that agree with ours on this device, in the model's dtype."""
    parameters = model.get_decoder().parameters()
    like = next((each for each in parameters if each.is_floating_point() and each.device.type == liger.CARD), None)
    offered = liger.layers(like.device) if like is not None else {}
    if like is None or not offered:
        return {}
    angles = [each.to(like) for each in _made_up((1, ROWS, WIDTH // 2), (1, ROWS, WIDTH // 2))]
    cos, sin = (torch.cat([each, each], -1) for each in angles)
    weight = _made_up((WIDTH,))[0].to(like)
    rows, heads = (ROWS, WIDTH), ((1, 4, ROWS, WIDTH), (1, 2, ROWS, WIDTH))

    def gates(name: str) -> tuple[Forward, Forward, tuple[tuple[int, ...], ...]]:
        ours, theirs = partial(_gated, act=ACTS[name]), offered[name]
        return (lambda gate, up: ours(gate * 1, up * 1)), (lambda gate, up: theirs(gate * 1, up * 1)), (rows, rows)

    def turns() -> tuple[Forward, Forward, tuple[tuple[int, ...], ...]]:
        ours, theirs = (partial(_by, way, (cos, sin)) for way in (_turned, offered["turned"]))
        return ours, (lambda *states: theirs(*(each * 1 for each in states))), heads

    asked = {"silu": gates("silu"), "gelu": gates("gelu"), "turned": turns()}
    asked["normed"] = (
        partial(_normed, weight=weight, eps=1e-6, offset=1.0),
        partial(offered["normed"], weight=weight, eps=1e-6),
        (rows,),
    )
    return {
        name: offered[name]
        for name, (ours, theirs, shapes) in asked.items()
        if _same(ours, theirs, [each.to(like) for each in _made_up(*shapes)])
    }


@torch.enable_grad()
def _answers(tuned: Any) -> list[torch.Tensor]:
    """The model's output for 8 tokens and its adapter's gradients, as one tensor."""
    model, was_training = tuned.get_base_model(), tuned.training
    ids = torch.arange(5, 13, device=model.device)[None] % model.config.get_text_config().vocab_size
    trained = [each for each in tuned.parameters() if each.requires_grad]
    tuned.eval()  # no random numbers
    try:
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state.float()
        found = torch.autograd.grad(hidden.square().mean(), trained, allow_unused=True)
    finally:
        tuned.train(was_training)
    return [hidden.detach(), torch.cat([each.flatten() for each in found if each is not None])]


def _near(a: torch.Tensor, b: torch.Tensor, exact: bool) -> bool:
    """Rounding adds up over the layers; exact: for fp32, otherwise 16 bits, where errors below a tenth go unnoticed
    here."""
    return bool((a - b).norm() <= (1e-3 if exact else 0.1) * b.norm())


def _twin(module: torch.nn.Module) -> Any:
    """A shallow copy whose parameters and children can be exchanged; without hooks and replaced forwards."""
    twin: Any = object.__new__(type(module))
    vars(twin).update(vars(module))
    for name in ("_parameters", "_modules", "_buffers"):
        vars(twin)[name] = dict(vars(module)[name])
    for name in [name for name in vars(twin) if "hooks" in name]:
        vars(twin)[name] = copy.copy(vars(module)[name])
        vars(twin)[name].clear()
    return twin


# ---- RMSNorm -------------------------------------------------------------------------------------


def _may_be_norm(module: Any) -> bool:
    weight = vars(module)["_parameters"].get("weight")
    alone = len(vars(module)["_parameters"]) == 1 and not vars(module)["_modules"] and not vars(module)["_buffers"]
    return bool(alone and weight is not None and weight.dim() == 1 and not weight.requires_grad)


def _norm_way(module: Any, faster: dict[str, Forward]) -> Forward | None:
    """The function of (x, weight) that computes module: tested in fp32 on a copy, then in its dtype on its device. None
    if module is not an RMSNorm."""
    twin, own = _twin(module), type(module).forward
    x, weight = _made_up((ROWS, module.weight.shape[0]), module.weight.shape)
    x *= torch.tensor([[1e-3], [1.0], [30.0]])  # the first shows the effect of eps
    twin._parameters["weight"] = torch.nn.Parameter(weight, requires_grad=False)
    for eps in {value for value in vars(module).values() if isinstance(value, float) and value < 0.1}:
        for offset in (0.0, 1.0):
            if _same(partial(own, twin), partial(_normed, weight=weight, eps=eps, offset=offset), [x]):
                liger_way = faster.get("normed") if offset else None
                way = partial(liger_way, eps=eps) if liger_way else partial(_normed, eps=eps, offset=offset)
                if module.weight.is_meta:
                    return way
                # its own may still be on another device (streaming)
                x, weight = x.to(module.weight), weight.to(module.weight)
                twin._parameters["weight"] = torch.nn.Parameter(weight, requires_grad=False)
                return way if _same(partial(own, twin), partial(way, weight=weight), [x]) else None
    return None


def _norm_forward(module: Any, way: Forward) -> Forward:
    own = type(module).forward

    def forward(*args: Any, **kwargs: Any) -> torch.Tensor:
        weight = module.weight
        if len(args) != 1 or kwargs or args[0].dtype != weight.dtype or weight.requires_grad:
            return own(module, *args, **kwargs)
        return way(args[0], weight)

    return forward


def _normed(x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float) -> torch.Tensor:
    beside: list[torch.Tensor] = []
    output: Any = _Norm.apply(x, weight, eps, offset, beside)
    if output.requires_grad and x.device.type in BLOCKWISE:
        output.made_of = partial(_norm_again, eps=eps, offset=offset), x, weight, *beside
    return output


class _Norm(torch.autograd.Function):
    """x / rms(x) * (weight + offset) of x (..., h). Saves x and 1 / rms(x), fp32 (rows, 1), which is also written to
    beside."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float, beside: list[torch.Tensor]
    ) -> torch.Tensor:
        ctx.offset = offset
        output, shrunk = _norm(x, weight, eps, offset)
        beside.append(shrunk)
        ctx.save_for_backward(x, weight, shrunk)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, shrunk = ctx.saved_tensors
        rows, above = (each.reshape(-1, x.shape[-1]) for each in (x, gradient))
        return _norm_back(rows, above, weight, shrunk, ctx.offset).to(x.dtype).view(x.shape), None, None, None, None


def _norm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float, known: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """x normalized, and 1 / rms(x), which may be given."""
    rows = x.reshape(-1, x.shape[-1])
    if ways:
        output, shrunk = (
            ways.norm(rows, weight, eps, offset)
            if known is None
            else (ways.norm_again(rows, weight, known, offset), known)
        )
    elif x.device.type in BLOCKWISE:
        output, shrunk = _blockwise(rows, weight, eps, offset, known)
    elif offset:
        output, shrunk = kernel(rows.float(), weight.float() + offset, eps)
    else:
        output, shrunk = kernel(rows, weight, eps)
    return output.to(x.dtype).view(x.shape), shrunk


def _norm_again(x: torch.Tensor, weight: torch.Tensor, shrunk: torch.Tensor, eps: float, offset: float) -> torch.Tensor:
    return _norm(x, weight, eps, offset, shrunk)[0]


def _norm_back(
    rows: torch.Tensor, above: torch.Tensor, weight: torch.Tensor, shrunk: torch.Tensor, offset: float
) -> torch.Tensor:
    if ways:
        return ways.norm_back(rows, above, weight, shrunk, offset)
    if rows.device.type in BLOCKWISE:
        return _blockwise_back(rows, above, weight, shrunk, offset)
    if offset:
        return kernel_back(above.float(), rows.float(), weight.float() + offset, shrunk)
    return kernel_back(above, rows, weight, shrunk)


def kernel(rows: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """torch's own for GPUs; sums in fp32."""
    return torch.ops.aten._fused_rms_norm(rows, [rows.shape[-1]], weight, eps)


def kernel_back(above: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor, shrunk: torch.Tensor) -> torch.Tensor:
    return torch.ops.aten._fused_rms_norm_backward(above, rows, [rows.shape[-1]], shrunk, weight, [True, False])[0]


def _blocks(rows: torch.Tensor, spare: int) -> Iterator[tuple[slice, list[torch.Tensor]]]:
    """Slices of rows, each with that many fp32 scratch blocks, which share the same memory."""
    count = min(len(rows), max(1, BLOCK // rows.shape[1]))
    blocks = [rows.new_empty(count, rows.shape[1], dtype=torch.float32) for _ in range(spare)]
    for start in range(0, len(rows), count):
        some = slice(start, min(start + count, len(rows)))
        yield some, [block[: some.stop - start] for block in blocks]


def _blockwise(
    rows: torch.Tensor, weight: torch.Tensor, eps: float, offset: float, known: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    wide, width = weight.float() + offset, rows.shape[1]
    output, shrunk = (
        torch.empty_like(rows),
        rows.new_empty(len(rows), 1, dtype=torch.float32) if known is None else known,
    )
    for some, (block,) in _blocks(rows, 1):
        block.copy_(rows[some])
        if known is None:
            torch.linalg.vector_norm(block, dim=-1, keepdim=True, out=shrunk[some])
            shrunk[some].square_().div_(width).add_(eps).rsqrt_()
        output[some] = block.mul_(shrunk[some]).mul_(wide)
    return output, shrunk


def _blockwise_back(
    rows: torch.Tensor, above: torch.Tensor, weight: torch.Tensor, shrunk: torch.Tensor, offset: float
) -> torch.Tensor:
    """With n = x r and g = above * (weight + offset): r (g - n mean(g n))."""
    wide, output = weight.float() + offset, torch.empty_like(rows)
    for some, (normed, block) in _blocks(rows, 2):
        torch.mul(normed.copy_(rows[some]), shrunk[some], out=normed)
        block.copy_(above[some]).mul_(wide)
        mean = torch.linalg.vecdot(block, normed)[:, None].div_(rows.shape[1])
        output[some] = block.addcmul_(normed, mean, value=-1).mul_(shrunk[some])
    return output


# ---- MLP: down(act(gate(x)) * up(x)) -------------------------------------------------------------


@dataclass(frozen=True)
class Act:
    """An activation and its backward, which overwrites the input with its gradient: (gradient, input)."""

    name: str
    there: Callable[[torch.Tensor], torch.Tensor]
    back_in_place: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _silu_back(above: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.ops.aten.silu_backward.grad_input(above, x, grad_input=x)


def _gelu_back(above: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.ops.aten.gelu_backward.grad_input(above, x, approximate="tanh", grad_input=x)


ACTS = {
    "silu": Act("silu", functional.silu, _silu_back),
    "gelu": Act("gelu", partial(functional.gelu, approximate="tanh"), _gelu_back),
}


def _parts(module: torch.nn.Module) -> tuple[str, str, str] | None:
    return next((names for names in PARTS if all(name in vars(module)["_modules"] for name in names)), None)


def _gate_way(module: Any, faster: dict[str, Forward]) -> Forward | None:
    """The function of (gate, up) that gives down_proj's input, if module is a gated MLP; otherwise None."""
    names = _parts(module)
    assert names
    if any(isinstance(value, float) for value in vars(module).values()):
        # a factor, as in Falcon H1, where it is seldom 1
        return None
    gate, up, down = names
    twin, sizes = _twin(module), {gate: (WIDTH, 2 * WIDTH), up: (WIDTH, 2 * WIDTH), down: (2 * WIDTH, WIDTH)}
    x, *weights = _made_up((ROWS, WIDTH), *((out, into) for into, out in sizes.values()))
    for (name, (into, out)), weight in zip(sizes.items(), weights, strict=True):
        twin._modules[name] = torch.nn.Linear(into, out, bias=False, device="meta")
        twin._modules[name].weight = torch.nn.Parameter(weight / 4, requires_grad=False)
    for name, act in ACTS.items():
        way = partial(_gated, act=act)
        if _same(partial(type(module).forward, twin), partial(_mlp, twin, names, way), [x]):
            return faster.get(name, way)
    return None


def _gate_forward(module: Any, way: Forward) -> Forward:
    own, names = type(module).forward, _parts(module)
    assert names

    def forward(*args: Any, **kwargs: Any) -> Any:
        return own(module, *args, **kwargs) if len(args) != 1 or kwargs else _mlp(module, names, way, args[0])

    return forward


def _mlp(module: Any, names: tuple[str, str, str], way: Forward, x: torch.Tensor) -> torch.Tensor:
    gate, up, down = (vars(module)["_modules"][name] for name in names)
    return down(way(gate(x), up(x)))


def _gated(gate: torch.Tensor, up: torch.Tensor, act: Act) -> torch.Tensor:
    acted: list[torch.Tensor] = []
    product: Any = _Gate.apply(gate, up, act, acted)
    if product.requires_grad and gate.device.type in BLOCKWISE:
        product.made_of = partial(_gate_again, act=act, acted=acted), gate, up
    return product


def _gate_again(gate: torch.Tensor, up: torch.Tensor, act: Act, acted: list[torch.Tensor]) -> torch.Tensor:
    """Leaves in acted what the gate's backward, which comes next, would otherwise recompute."""
    if ways:
        return ways.gates[act.name][0](gate, up)
    acted.append(act.there(gate))
    return acted[0] * up


class _Gate(torch.autograd.Function):
    """act(gate) * up. Saves all three as autograd would, on a CPU gate and up; the backward overwrites them instead of
    allocating three more."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, act: Act, acted: list[torch.Tensor]) -> torch.Tensor:
        ctx.act, ctx.acted, ctx.ways = act, acted, ways
        if ways:
            ctx.save_for_backward(gate, up)
            return ways.gates[act.name][0](gate, up)
        flowed = act.there(gate)
        if gate.device.type in BLOCKWISE:
            ctx.save_for_backward(gate, up)
            return flowed.mul_(up)
        ctx.save_for_backward(gate, up, flowed)
        return flowed * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gate, up, *flowed = ctx.saved_tensors
        if ctx.ways:
            return *ctx.ways.gates[ctx.act.name][1](gradient, gate, up), None, None
        flowed = flowed or ctx.acted
        acted = flowed.pop() if flowed else ctx.act.there(gate)
        return ctx.act.back_in_place(up.mul_(gradient), gate), acted.mul_(gradient), None, None


# ---- rotary --------------------------------------------------------------------------------------


def _turning(own: Forward, faster: dict[str, Forward]) -> Forward | None:
    """A replacement for own, which applies rotary embeddings to queries and keys, or to one of them, on all or the
    first values of each head; None if own does something else."""
    shapes = ((1, 4, ROWS, WIDTH), (1, 2, ROWS, WIDTH))
    proven = set()
    for count, width in itertools.product((2, 1), (WIDTH, WIDTH // 2)):
        angles = _made_up((1, ROWS, width), (1, ROWS, width))
        if _same(partial(_by, own, angles), partial(_by, _turned, angles), _made_up(*shapes[:count])):
            proven.add((count, width == WIDTH))
    if not proven:
        return None

    def turning(*args: Any, **kwargs: Any) -> Any:
        if kwargs or not _is_plain(args, proven):
            return own(*args, **kwargs)
        whole = len(args) == 4 and args[-1].shape[-1] == args[0].shape[-1]  # as Liger's does
        return faster["turned"](*args) if whole and "turned" in faster else _turned(*args)

    turning.turns, turning.own = proven, own  # type: ignore[attr-defined]
    return turning


def _is_plain(given: tuple[Any, ...], proven: set[tuple[int, bool]]) -> bool:
    """Whether these are states, cos and sin of one dtype, with a tested count and width."""
    if len(given) < 3 or not all(isinstance(each, torch.Tensor) for each in given):
        return False
    *states, cos, sin = given
    known = (len(states), cos.shape[-1] == states[0].shape[-1]) in proven and cos.dim() == 3 and not cos.requires_grad
    return known and len({each.dtype for each in given}) == 1


def _by(way: Forward, angles: Sequence[torch.Tensor], *states: torch.Tensor) -> Any:
    return way(*states, *angles)


def _turned(*given: torch.Tensor) -> Any:
    *states, cos, sin = given
    turned = _Turn.apply(cos.unsqueeze(1), sin.unsqueeze(1), *states)
    return turned if len(states) > 1 else turned[0]


class _Turn(torch.autograd.Function):
    """Each of states (B, heads, T, d) rotated by cos and sin (B, 1, T, d)."""

    @staticmethod
    def forward(ctx: Any, cos: torch.Tensor, sin: torch.Tensor, *states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.save_for_backward(cos, sin)
        return tuple(_turn(state, cos, sin, back=False) for state in states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return None, None, *(_turn(gradient, cos, sin, back=True) for gradient in gradients)


def _turn(state: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, back: bool) -> torch.Tensor:
    """Rotate the first values of each head, as many as cos has: halves (a, b) become (a cos - b sin, b cos + a sin),
    each with its own cos and sin; the rest is unchanged. back: the transpose."""
    width, half = cos.shape[-1], cos.shape[-1] // 2
    turned = torch.empty_like(state)
    if ways and ways.turn:
        ways.turn(turned, state, cos, sin, back)
        return turned
    torch.mul(state[..., :width], cos, out=turned[..., :width])
    sines = sin[..., :half], sin[..., half:]
    of_second, of_first = (sines[1], sines[0]) if back else sines
    turned[..., :half].addcmul_(state[..., half:width], of_second, value=1 if back else -1)
    turned[..., half:width].addcmul_(state[..., :half], of_first, value=-1 if back else 1)
    if width < state.shape[-1]:
        turned[..., width:] = state[..., width:]
    return turned
