"""Right numbers on the null card: each operator runs as CUDA's, whose kernels do nothing there (its allocations,
launches and errors are real), and then on the processor, over the same bytes: the card's memory has a second mapping
(nullcard_host).

An operator that returns views, or only makes memory, runs once. One whose result's size depends on values runs on the
processor and its result is put on the card. CUDA's attentions have no twin of the same name on the processor: they are
written here. What cannot be computed, and a result of another shape or number, raises RuntimeError; a kernel launched
outside this layer, or by a view, fails (null/runtime.c).
"""

from __future__ import annotations

import ctypes
import os
import threading
import zlib
from functools import cache

import late_kernels
import races
import torch
from torch.utils._python_dispatch import TorchDispatchMode

library = ctypes.CDLL(None)
library.nullcard_host.restype = ctypes.c_void_p
library.nullcard_host.argtypes = [ctypes.c_void_p]
library.nullcard_flush_stream.argtypes = [ctypes.c_void_p]
aten = torch.ops.aten
CPU = torch.device("cpu")
# Operators that compute nothing.
ONCE = {
    "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_quantized", "_local_scalar_dense",
    "record_stream",
    "resize_", "set_", "is_same_size", "_pin_memory", "is_pinned", "_has_compatible_shallow_copy_type",
    "_reshape_alias",
    "_unsafe_view", "lift_fresh", "detach", "alias", "split_with_sizes", "unbind", "split", "chunk",
}  # fmt: skip
# Operators whose result has a size that depends on values.
SIZED = {
    "nonzero", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive", "masked_select",
    "repeat_interleave",
    "bincount", "index", "is_nonzero", "equal", "histc", "nonzero_static", "item", "allclose", "int8_vectorwise_quant",
}  # fmt: skip
PRODUCTS = {aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default}
DEFERS = os.environ.get("NULLCARD_DEFER", "")
RACES = os.environ.get("NULLCARD_RACES") == "1"


class NoNumbers(RuntimeError):
    """An operator that the numbers layer cannot compute."""


def tree_map(change, value):
    """As torch's, for lists, tuples and dictionaries alone, in a fifth of the time."""
    if isinstance(value, tuple | list):
        return type(value)([tree_map(change, each) for each in value])
    return {name: tree_map(change, each) for name, each in value.items()} if isinstance(value, dict) else change(value)


def tree_leaves(value) -> list:
    if isinstance(value, dict):
        value = [*value.values()]
    return [leaf for each in value for leaf in tree_leaves(each)] if isinstance(value, tuple | list) else [value]


# ---- one operator ---------------------------------------------------------------------------------------------------


def twin(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of the processor over the same bytes."""
    storage = tensor.untyped_storage()
    size = storage.nbytes()
    if size == 0 or tensor.numel() == 0:
        return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype)
    tensor_of_all = torch.frombuffer(
        (ctypes.c_char * size).from_address(library.nullcard_host(storage.data_ptr())), dtype=torch.uint8
    )
    result = torch.empty(0, dtype=tensor.dtype)
    result.set_(tensor_of_all.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
    return result.conj() if tensor.is_conj() else result


def on_cpu(value):
    """The processor's twin of an argument; generators of the card give way to a seed taken from its state."""
    if isinstance(value, torch.Tensor):
        return twin(value) if value.device.type == "cuda" else value
    if isinstance(value, torch.device):
        return CPU if value.type == "cuda" else value
    return None if isinstance(value, torch.Generator) and value.device.type == "cuda" else value


def is_of_card(value) -> bool:
    if isinstance(value, torch.Tensor):
        return value.device.type == "cuda"
    return isinstance(value, torch.device) and value.type == "cuda"


def put(op, made, computed) -> None:
    """Write the processor's results where the card's own lie. An operator written here leaves out what only its own
    backward reads."""
    made, computed = tree_leaves(made), tree_leaves(computed)
    if len(made) != len(computed) and not (op_name(op) in WRITTEN and len(computed) < len(made)):
        raise NoNumbers(f"null card: {op} gives {len(made)} results, its twin {len(computed)}")
    for result, right in zip(made, computed, strict=False):
        if not isinstance(result, torch.Tensor) or not isinstance(right, torch.Tensor):
            continue
        if result.shape != right.shape:
            raise NoNumbers(f"null card: {op} has the shape {tuple(result.shape)}, its twin {tuple(right.shape)}")
        if result.numel():
            (twin(result) if result.device.type == "cuda" else result).copy_(right)


@cache
def op_name(op) -> str:
    return op._schema.name.split("::")[-1]


def compute(op, args, kwargs, seed: int | None):
    args, kwargs = tree_map(on_cpu, (args, kwargs))
    kwargs.pop("pin_memory", None)
    before = torch.get_rng_state() if seed is not None else None
    try:
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        if op in PRODUCTS and args[0].dtype == torch.float16:  # by the processor itself it takes forty times as long
            args = tree_map(lambda value: value.float() if isinstance(value, torch.Tensor) else value, args)
            return op(*args, **kwargs).half()
        return WRITTEN.get(op_name(op), op)(*args, **kwargs)
    except (NotImplementedError, TypeError, AssertionError) as error:
        raise NoNumbers(f"null card: no numbers for {op}: {str(error).splitlines()[0][:200]}") from error
    finally:
        if before is not None:
            torch.set_rng_state(before)


class Numbers(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls):
        return False  # else the first operator imports the compiler, two seconds of each process

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not any(map(is_of_card, tree_leaves((args, kwargs)))):
            if RACES and not computes_nothing(op):
                races.on_host(op, args, kwargs)
            return op(*args, **kwargs)
        if is_composite(op):
            with self:
                return op.decompose(*args, **kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            if computes_nothing(op):
                return op(*args, **kwargs)  # a kernel that it launches fails
            library.nullcard_computes(1)
            try:
                return self.both(op, args, kwargs)
            finally:
                library.nullcard_computes(0)

    @staticmethod
    def both(op, args, kwargs):
        stream = torch._C._cuda_getCurrentRawStream(torch._C._cuda_getDevice()) if DEFERS or RACES else 0
        if RACES:
            races.begin(stream, op, args, kwargs)
        seed = None
        if torch.Tag.nondeterministic_seeded in op.tags:
            seed = zlib.crc32(torch.cuda.get_rng_state().numpy().tobytes())
        if DEFERS == "kernels" and can_wait(op, args, kwargs):
            made = Numbers.later(stream, op, args, kwargs, seed)
        else:
            if DEFERS:
                library.nullcard_flush_stream(stream)
            made = Numbers.at_once(op, args, kwargs, seed)
        if RACES and not writes_arguments(op):
            races.end(stream, op, made)
        return made

    @staticmethod
    def at_once(op, args, kwargs, seed):
        name = op_name(op)
        if name in SIZED:
            computed = compute(op, args, kwargs, seed)
            return tree_map(lambda value: value.to("cuda") if isinstance(value, torch.Tensor) else value, computed)
        if name.startswith("index_put") and any(is_mask(index) for index in args[1]):
            compute(op, args, kwargs, seed)  # CUDA's own would take the number of True from a kernel that did nothing
            return args[0]
        made = op(*args, **kwargs)
        if DEFERS == "copies" and name in races.COPIES and comes_later(made, args[1 if name == "copy_" else 0]):
            return made
        computed = compute(op, args, kwargs, seed)
        if not writes_arguments(op):
            put(op, made, computed)
        return made

    @staticmethod
    def later(stream, op, args, kwargs, seed):
        """The operator's allocations and errors now, its numbers when its stream is waited for."""
        library.nullcard_computes(2)
        made = op(*args, **kwargs)
        given = tree_map(kept, (args, kwargs))
        into = None if writes_arguments(op) else tree_map(on_cpu, made)

        def work():
            computed = compute(op, *given, seed)
            if into is not None:
                put(op, into, computed)

        late_kernels.add(stream, work)
        return made


def computes_nothing(op) -> bool:
    return op_name(op) in ONCE or is_view(op)


def writes_arguments(op) -> bool:
    return any(a.alias_info is not None and a.alias_info.is_write for a in op._schema.arguments)


def kept(value):
    """An argument as a kernel gets it: numbers by value, tensors by their address."""
    return value.clone() if isinstance(value, torch.Tensor) and value.device.type == "cpu" else on_cpu(value)


def can_wait(op, args, kwargs) -> bool:
    """Whether CUDA queues it: not where the size of the result depends on values, nor where memory of the host takes
    part."""
    if op_name(op) == "index" and not any(map(is_mask, args[1])):
        return True
    if op_name(op) in SIZED or (op_name(op).startswith("index_put") and any(map(is_mask, args[1]))):
        return False
    leaves = tree_leaves((args, kwargs))
    return not any(
        (isinstance(value, torch.device) and value.type != "cuda")
        or (
            isinstance(value, torch.Tensor)
            and value.device.type != "cuda"
            and (value.dim() or op_name(op) in races.COPIES)
        )
        for value in leaves
    )


@cache
def is_composite(op) -> bool:
    """Whether it is made of other operators, such as to() and linear(): autograd takes it apart, inference mode hands
    it over whole."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "CompositeImplicitAutograd")


@cache
def is_view(op) -> bool:
    return any(r.alias_info is not None and not r.alias_info.is_write for r in op._schema.returns)


def is_mask(index) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)


def comes_later(to: torch.Tensor, source: torch.Tensor) -> bool:
    """Whether this copy is one of bytes between pinned memory and the card, which the runtime does when it is waited
    for."""
    host = source if to.device.type == "cuda" else to
    is_plain = to.dtype == source.dtype and to.is_contiguous() and source.is_contiguous()
    return to.device != source.device and is_plain and host.is_pinned()


# ---- operators without a twin of the same name ----------------------------------------------------------------------


def no_dropout(dropout: float) -> None:
    if dropout:
        raise NotImplementedError("attention with dropout")


def repeated(q, k):
    return k if k.shape[1] == q.shape[1] else k.repeat_interleave(q.shape[1] // k.shape[1], 1)


def summed(q, k, grad):
    return grad if k.shape[1] == q.shape[1] else grad.unflatten(1, (k.shape[1], -1)).sum(2)


def attend(q, k, v, causal, scale, mask=None):
    return aten._scaled_dot_product_flash_attention_for_cpu(
        q, repeated(q, k), repeated(q, v), 0.0, causal, attn_mask=mask, scale=scale
    )


def attend_back(grad, q, k, v, causal, scale, mask=None):
    out, lse = attend(q, k, v, causal, scale, mask)
    gq, gk, gv = aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad.contiguous(), q, repeated(q, k), repeated(q, v), out, lse, 0.0, causal, attn_mask=mask, scale=scale
    )
    return gq, summed(q, k, gk), summed(q, v, gv)


def flash(q, k, v, dropout=0.0, causal=False, debug=False, scale=None):
    no_dropout(dropout)
    return attend(q, k, v, causal, scale)


def flash_back(grad, q, k, v, out, lse, cq, ck, mq, mk, dropout, causal, seed, offset, scale=None):
    return attend_back(grad, q, k, v, causal, scale)


def efficient(q, k, v, bias, with_lse, dropout=0.0, causal=False, scale=None):
    no_dropout(dropout)
    return (attend(q, k, v, causal, scale, bias)[0],)


def efficient_back(grad, q, k, v, bias, out, lse, seed, offset, dropout, masks, causal=False, scale=None):
    return attend_back(grad, q, k, v, causal, scale, bias)


def spans(ends):
    ends = ends.tolist()
    return list(zip(ends, ends[1:], strict=False))


def windowed(length, window, dtype):
    """(T, T) A mask of the last window[0] + 1 tokens; None where all earlier ones are attended to."""
    if not window or window[0] is None or window[0] < 0:
        return None
    far = torch.ones(length, length, dtype=torch.bool)
    return torch.zeros(length, length, dtype=dtype).masked_fill_(~(far.tril() & far.triu(-window[0])), float("-inf"))


def varlen(q, k, v, cq, ck, mq, mk, causal=False, scale=None, window=None, *more, **others):
    out = torch.empty_like(q)
    for a, b in spans(cq):
        mask = windowed(b - a, window, q.dtype)
        one = [x[a:b].transpose(0, 1)[None] for x in (q, k, v)]
        is_causal = mask is None and (causal or bool(window and window[1] == 0))
        out[a:b] = attend(*one, is_causal, scale, mask)[0][0].transpose(0, 1)
    return (out,)


def varlen_back(grad, q, k, v, out, lse, cq, ck, mq, mk, causal, rng, scale=None, window=None, *more, **others):
    gradients = [torch.empty_like(x) for x in (q, k, v)]
    for a, b in spans(cq):
        mask = windowed(b - a, window, q.dtype)
        one = [x[a:b].transpose(0, 1)[None] for x in (grad, q, k, v)]
        is_causal = mask is None and (causal or bool(window and window[1] == 0))
        for into, part in zip(gradients, attend_back(*one, is_causal, scale, mask), strict=True):
            into[a:b] = part[0].transpose(0, 1)
    return tuple(gradients)


def rms(x, shape, weight, eps):
    wide = x.float()
    inverse = torch.rsqrt(
        wide.square().mean(-1, keepdim=True) + (torch.finfo(torch.float32).eps if eps is None else eps)
    )
    out = wide * inverse
    return (out if weight is None else out * weight.float()).to(x.dtype), inverse


def rms_back(grad, x, shape, inverse, weight, masks):
    g, normal = grad.float(), x.float() * inverse
    gw = (g * normal).flatten(0, -2).sum(0) if weight is not None else None
    g = g if weight is None else g * weight.float()
    gx = inverse * (g - normal * (g * normal).mean(-1, keepdim=True))
    return gx.to(x.dtype), gw if gw is None else gw.to(weight.dtype)


def fused_dropout(x, p, generator=None):
    kept = torch.rand(x.shape) < p
    return x * kept / p, kept.to(torch.uint8)


def gemv_4bit(a, b, shape, absmax, code, blocksize, *more):
    kind = "nf4" if -0.8 < float(code[1]) < -0.6 else "fp4"
    weight = torch.ops.bitsandbytes.dequantize_4bit(b, absmax, blocksize, kind, shape, a.dtype)
    return torch.nn.functional.linear(a, weight)


def log_sigmoid(x):
    """Without the buffer that the processor's own backward reads: CUDA's has none."""
    return (torch.nn.functional.logsigmoid(x),)


def log_sigmoid_back(grad, x, buffer):
    return grad * torch.sigmoid(-x)


WRITTEN = {
    "log_sigmoid_forward": log_sigmoid,
    "log_sigmoid_backward": log_sigmoid_back,
    "_scaled_dot_product_flash_attention": flash,
    "_scaled_dot_product_flash_attention_backward": flash_back,
    "_scaled_dot_product_efficient_attention": efficient,
    "_scaled_dot_product_efficient_attention_backward": efficient_back,
    "_varlen_attn": varlen,
    "_varlen_attn_backward": varlen_back,
    "_fused_rms_norm": rms,
    "_fused_rms_norm_backward": rms_back,
    "_fused_dropout": fused_dropout,
    "gemv_4bit": gemv_4bit,
}


def install() -> None:
    """The layer in this thread, for good, and in every thread that begins later."""
    Numbers().__enter__()
    if DEFERS == "kernels":
        late_kernels.install()
    begin = threading.Thread._bootstrap_inner

    def with_numbers(thread: threading.Thread) -> None:
        with Numbers():
            begin(thread)

    threading.Thread._bootstrap_inner = with_numbers
    shown = torch._tensor_str._str  # computes with every mode switched off
    torch._tensor_str._str = lambda tensor, **named: shown(
        twin(tensor.detach()) if is_of_card(tensor) else tensor, **named
    )
