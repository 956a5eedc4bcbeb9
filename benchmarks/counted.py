"""Counts the launches, multiplications and bytes of one micro-batch of QLoRA, on tensors without data. Nothing is
timed.

    .venv/bin/python -m benchmarks.counted [--model llama-3.1-8b-instruct] [--tokens 2048] [--rows 1]

Forward and backward of the complete model on device meta, all layers, r 8 on all linear layers; clipping and AdamW,
once a step and the same for all, are left out. Four ways: ours, as core/trial/dry_run builds a run's own step (with
every layer checkpointed, and with some left out); transformers' layers and loss with PEFT's adapters in bf16, as TRL
has them for QLoRA, checkpointed too; and the same model with Unsloth's published kernels (fast_lora, rms_layernorm,
rope_embedding, swiglu, cross_entropy_loss; offloaded checkpoints), written down here from their source and not run.

How it is counted: an operation that only views or allocates memory costs nothing, each other one is a launch that reads
its inputs and writes its outputs once (a cache would save some of it). Multiplications by torch's own counter, in which
causal attention counts as its full square. A 4-bit product unpacks first (three launches), as
bitsandbytes does from 1,537 rows on.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from benchmarks import machine
from core.engine.variants import varlen
from core.memory.setup import Setup
from core.models.known import known_models
from core.recipe import Adapter
from core.trial import dry_run
from core.trial.allocations import Allocations
from core.trial.dry_run import META

# Of what a kernel library launches for one call: flash attention's way back prepares, multiplies and casts.
KERNELS = {"_scaled_dot_product_flash_attention_backward": 3, "_varlen_attn_backward": 3}
UNPACKS = ("dequantize_4bit", "dequantize_blockwise")
TAKES = (
    "empty",
    "new_empty",
    "empty_like",
    "empty_strided",
    "new_empty_strided",
    "_unsafe_view",
    "lift_fresh",
    "_local_scalar_dense",
)
FILLS = ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "zero_", "fill_")


class Tally(TorchDispatchMode):
    """Counts launches, flops and bytes by kind (`product`, `unpacking`, `rest`) while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.flops, self.bytes = 0, Counter[str]()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        name = operation._schema.name.split("::")[1]
        if name not in TAKES and not _looks(operation):
            flops = _flops(operation, name, args, kwargs or {}, result)
            kind = "product" if flops else "unpacking" if name in UNPACKS else "rest"
            self.kernel(
                kind,
                () if name in FILLS else tree_leaves((args, kwargs)),
                tree_leaves(result),
                KERNELS.get(name, 1),
                flops,
            )
            if name == "gemm_4bit":
                # the unpacked matrix is written, and read again; before that its scales, if they are in 8 bits
                self.launches["unpacking"] += 1 if args[7:8] in ((), (None,)) else 3
                self.bytes["unpacking"] += 2 * math.prod(args[2]) * args[0].element_size()
        return result

    def kernel(self, kind: str, reads: Iterable[Any], writes: Iterable[Any], launches: int = 1, flops: int = 0) -> None:
        self.launches[kind] += launches
        self.bytes[kind] += _size(reads) + _size(writes)
        self.flops += flops

    def row(self) -> str:
        """Return a row of the table: launches, those of products, unpacking and the rest; TFLOP; GB, those of the
        three."""
        kinds = ("product", "unpacking", "rest")
        launches = [f"{sum(self.launches.values()):,}", *(f"{self.launches[kind]:,}" for kind in kinds)]
        sizes = [f"{size / 1e9:.0f}" for size in (sum(self.bytes.values()), *(self.bytes[kind] for kind in kinds))]
        return " | ".join((*launches, f"{self.flops / 1e12:.1f}", *sizes))


def _looks(operation: Any) -> bool:
    """True if the operation's result is existing memory, not written to."""
    returned = [each.alias_info for each in operation._schema.returns]
    return bool(returned) and all(alias is not None and not alias.is_write for alias in returned)


def _flops(operation: Any, name: str, args: Any, kwargs: Any, result: Any) -> int:
    if name == "gemm_4bit":
        return int(2 * args[0].numel() * args[2][0])
    if name in ("_varlen_attn", "_varlen_attn_backward"):
        is_back = name.endswith("backward")
        longest = args[8 if is_back else 5]  # examples of one length, which is how they are asked for here
        shapes = [(len(each) // longest, each.shape[1], longest, each.shape[2]) for each in args[is_back : is_back + 3]]
        return int(sdpa_flop_count(*shapes) * (2.5 if is_back else 1))
    counts = flop_registry.get(getattr(torch.ops.aten, name.removesuffix("_"), None))  # in place it is the same product
    return int(counts(*args, **kwargs, out_val=result)) if counts else 0


def _size(tensors: Iterable[Any]) -> int:
    """Return the bytes of memory; a tensor expanded to a larger shape counts once."""
    each = [tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]
    return sum(min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()) for tensor in each)


# ---- ours ----------------------------------------------------------------------------------------


class _Counted(dry_run._SimulatedModel):
    """The dry run's model, whose step is counted from the first operation of its forward to the last of its
    backward."""

    def __init__(self, config: Any, setup: Setup, tally: Tally):
        super().__init__(config, setup, dry_run._FamilyTraits(config, True, lambda: None), lambda: None)
        self.tally = tally

    def _step(self) -> Any:
        step = super()._step()
        backward: Callable[..., Any] = step.backward

        def counting(*args: Any, **kwargs: Any) -> Any:
            with self.tally:
                return backward(*args, **kwargs)

        step.backward = counting  # type: ignore[method-assign]
        return step


def ours(config: dict[str, Any], setup: Setup, together: bool = False) -> Tally:
    """Count our step. together: with one attention for all examples, which tensors without data cannot prove."""
    tally, own = Tally(), varlen.find
    varlen.find = (lambda *_: varlen._torch_kernel(varlen_attn)) if together else own
    try:
        _Counted(dry_run._config(config), setup, tally).run()
    finally:
        varlen.find = own
    return tally


# ---- transformers and PEFT -----------------------------------------------------------------------


def plain(config: dict[str, Any], setup: Setup) -> Tally:
    """Count transformers' layers with PEFT: adapters in bf16; rows side by side, all of one length; the model's own
    loss of all logits."""
    from core.engine import adapter

    model = dry_run._built(dry_run._config(config)).requires_grad_(False)
    dry_run._hold_in_four_bit(model, setup, torch.bfloat16)
    with META:
        wanted = Adapter(method="qlora", r=setup.r, target_modules=setup.target_modules)
        tuned = adapter.add(model, wanted, "counted", None).to(torch.bfloat16).train()
    tuned.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    tuned.enable_input_require_grads()
    ids = torch.zeros(setup.per_device_train_batch_size, setup.max_length, dtype=torch.int64, device=META)
    # What code asks of a tensor without data is answered as the dry run answers it.
    with (
        dry_run._as_on_a_card(),
        heads_shared(),
        Allocations(model.config.get_text_config().vocab_size),
        Tally() as tally,
    ):
        tuned(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return tally


@contextmanager
def heads_shared() -> Iterator[None]:
    """Context manager: a GPU's flash attention reads the keys and values of a group in place; nothing is repeated for
    it."""
    own = torch.nn.functional.scaled_dot_product_attention

    def flash(query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
              scale: float | None = None, enable_gqa: bool = False) -> Any:  # fmt: skip
        return torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, False, scale=scale
        )[0]

    torch.nn.functional.scaled_dot_product_attention = flash
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = own


# ---- Unsloth's kernels, by reading ---------------------------------------------------------------


class _Read:
    """A Llama-like layer with the widths of shape, on (tokens, width) matrices; each method makes the launches of one
    of the published functions."""

    def __init__(self, shape: Any, setup: Setup, tally: Tally):
        self.shape, self.rank, self.tokens, self.rows, self.tally = (
            shape,
            setup.r,
            setup.tokens,
            setup.per_device_train_batch_size,
            tally,
        )
        self.stream, self.mlp = self.values(shape.hidden_size), self.values(shape.active_width)
        self.q, self.k = self.values(shape.q_width), self.values(shape.kv_width)

    def values(self, *shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.empty(*((self.tokens, *shape) if len(shape) == 1 else shape), dtype=dtype, device=META)

    def passes(self, reads: Iterable[torch.Tensor], writes: Iterable[torch.Tensor]) -> None:
        self.tally.kernel("rest", reads, writes)

    def unpacked(self, d_in: int, d_out: int) -> torch.Tensor:
        """Count fast_dequantize: the scales, their offset, the numbers."""
        weight, scales = self.values(d_in, d_out), self.values(d_in * d_out // 64, 1, dtype=torch.float32)
        packed = torch.empty(d_in * d_out // 2, dtype=torch.uint8, device=META)
        self.tally.kernel("unpacking", [scales, scales, packed, scales], [scales, weight], launches=3)
        return weight

    def factors(self, d_in: int, d_out: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Count A and B, fp32, cast at each use."""
        a, b = (self.values(*size, dtype=torch.float32) for size in ((d_in, self.rank), (self.rank, d_out)))
        return a.to(torch.bfloat16), b.to(torch.bfloat16)

    def linear(self, x: torch.Tensor, d_out: int) -> torch.Tensor:
        """Count matmul_lora."""
        a, b = self.factors(x.shape[1], d_out)
        y = x @ self.unpacked(x.shape[1], d_out)
        return y.addmm_(x @ a, b)

    def back(
        self, x: torch.Tensor, gradient: torch.Tensor, into: torch.Tensor | None = None, made: bool = False
    ) -> torch.Tensor:
        """Count the gradients of A and B, and that of x, added to `into`. made: the base's share exists already."""
        a, b = self.factors(x.shape[1], gradient.shape[1])
        _ = x.t() @ (gradient @ b.t()), (a.t() @ x.t()) @ gradient
        if made:
            return gradient
        weight = self.unpacked(*x.shape[1:], *gradient.shape[1:])
        of_x = gradient @ weight.t() if into is None else into.addmm_(gradient, weight.t())
        return of_x.addmm_(gradient @ b.t(), a.t())

    def normed(self) -> None:
        """Count a norm's backward, and the residual beside it."""
        self.passes([self.stream] * 3, [self.stream])
        self.passes([self.stream] * 2, [self.stream])

    def attention(self, is_back: bool = False) -> None:
        heads = (self.shape.num_attention_heads, self.shape.num_key_value_heads, self.shape.num_key_value_heads)
        length = self.tokens // self.rows
        sizes = [(self.rows, count, length, self.shape.q_width // heads[0]) for count in heads]
        flops, three = sdpa_flop_count(*sizes), [self.q, self.k, self.k]
        if is_back:
            self.tally.kernel("product", [*three, self.q, self.q], three, 3, int(2.5 * flops))
        else:
            self.tally.kernel("product", three, [self.q], 1, flops)

    def forward(self) -> None:
        x, m = self.stream, self.mlp
        self.passes([x], [x])  # norm
        for width in (self.q, self.k, self.k):
            self.linear(x, width.shape[1])
        self.passes([self.q, self.k], [self.q, self.k])  # rotary, both at once, in place
        self.attention()
        self.linear(self.q, x.shape[1])
        self.passes([x, x], [x])
        self.passes([x], [x])
        self.linear(x, m.shape[1]), self.linear(x, m.shape[1])
        self.passes([m, m], [m])  # SwiGLU
        self.linear(m, x.shape[1])
        self.passes([x, x], [x])

    def backward(self) -> None:
        x, m = self.stream, self.mlp
        a, b = self.factors(m.shape[1], x.shape[1])
        (x @ self.unpacked(x.shape[1], m.shape[1])).addmm_(x @ b.t(), a.t())
        self.passes([m, m, m], [m, m, m])  # SwiGLU
        self.back(m, x, made=True)
        self.back(x, m, self.back(x, m))
        self.normed()
        self.back(self.q, x)
        self.attention(is_back=True)
        self.passes([self.q, self.k], [self.q, self.k])
        self.back(x, self.k, self.back(x, self.k, self.back(x, self.q)))
        self.normed()


def unsloth(shape: Any, setup: Setup) -> Tally:
    """Count Unsloth's step: every layer's input goes to RAM and comes back, the complete layer is computed twice,
    down_proj too; the head at all tokens, whose logits fast_cross_entropy reads once and overwrites with their
    gradient."""
    with Tally() as tally:
        layer, hidden = _Read(shape, setup, tally), shape.hidden_size
        for _ in range(shape.num_hidden_layers):
            layer.forward()
            layer.passes([layer.stream, layer.stream], [])  # to RAM and back
            layer.forward()
            layer.backward()
        head, logits = layer.values(hidden, shape.vocab_size), layer.values(shape.vocab_size)
        layer.passes([layer.stream], [layer.stream])  # embedding
        layer.passes([layer.stream], [layer.stream])  # the last norm
        layer.passes([layer.stream] * 3, [layer.stream])
        _ = layer.stream @ head, logits @ head.t()
        layer.passes([logits], [])
        layer.passes([logits], [logits])
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="llama-3.1-8b-instruct")
    parser.add_argument("--tokens", type=int, default=2048, help="of a micro-batch")
    parser.add_argument("--rows", type=int, default=1, help="that it holds")
    chosen = parser.parse_args()
    known = next(model for model in known_models() if model.id == chosen.model)
    shape, config = known.shape, known.config or known.shape.config()
    layers = shape.num_hidden_layers
    setup = Setup(
        method="qlora",
        r=8,
        per_device_train_batch_size=chosen.rows,
        max_length=chosen.tokens // chosen.rows,
        optim="adamw_torch",
    )
    some = setup.model_copy(update={"kept_layers": layers // 4})
    print(
        f"{machine.line('torch', 'transformers', 'peft', 'bitsandbytes')}\n{known.title}, {chosen.tokens} tokens, "
        f"{chosen.rows} rows\n"
    )
    print(
        "| counted | launches | products | unpacking | rest | TFLOP | GB | products | unpacking | rest |\n"
        + "|---" * 10
        + "|"
    )
    ways: dict[str, Callable[[], Tally]] = {
        "ours, every layer checkpointed": lambda: ours(config, setup),
        f"ours, {layers // 4} of {layers} layers not checkpointed": lambda: ours(config, some),
        "ours, one attention for all examples": lambda: ours(config, setup, True),
        "transformers + PEFT": lambda: plain(config, setup),
        "Unsloth's kernels, by reading": lambda: unsloth(shape, setup),
    }
    for name, count in ways.items():
        print(f"| {name} | {count().row()} |", flush=True)


if __name__ == "__main__":
    main()
