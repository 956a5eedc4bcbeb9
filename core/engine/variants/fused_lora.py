"""A faster forward and backward for PEFT's LoRA layers: same parameters, files and mathematics, fewer memory passes.
Workers only.

PEFT's own layer copies its input to fp32, multiplies, scales, adds and copies back, each a pass over (tokens, out)
values. Here base(x) + s x A^T B^T is computed at once for all layers that read the same x (q, k, v; gate, up): A and s
B are cast to x's dtype, not x to theirs, in 16 bits once between two changes of the adapter; x @ A^T is one product for
all; additions are in place; the input gradients are summed inside the products. Saved for the backward: x A^T, and x
once (PEFT: an fp32 copy per layer), or nothing if x can be recomputed from tensors that are saved anyway
(core/engine/variants/elementwise). Plain PyTorch, no compiler; runs on any device.

Left to PEFT: dropout, variants (DoRA etc.), LoRA biases, embeddings, several adapters in a layer; and calls with a
disabled or merged adapter, adapter_names or autocast.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear, LoraLayer
from torch.autograd.function import FunctionCtx, once_differentiable

from core.engine.families import unsupported
from core.messages import Message, msg


@dataclass(frozen=True)
class Fused:
    """The changes that `fuse` made. reason: which of the `total` adapter layers kept PEFT's product and why; None
    if no layer did."""

    count: int
    total: int
    reason: Message | None
    groups: tuple[_Group, ...]

    def forget(self) -> None:
        """Drop outputs that an interrupted forward computed for layers that were never called."""
        for group in self.groups:
            group.forget()

    def release(self) -> None:
        """Restore every layer's own forward; can be called twice."""
        for group in self.groups:
            group.release()


def fuse(tuned: PeftModel) -> Fused:
    """Replace the forward of each plain LoRA layer of a peft model until `release`; return the groups, counts, and a
    message with the reasons for layers that keep PEFT's forward, or None.

    Call it once, after the adapter was added and before training; it runs the model on a few tokens, without gradients,
    to see which layers read the same tensor.
    """
    layers = [module for module in tuned.modules() if isinstance(module, LoraLayer)]
    left = Counter(key for layer in layers if (key := _obstacle(layer)))
    plain = [layer for layer in layers if not _obstacle(layer)]
    copies = _Copies()
    groups = tuple(_Group(members, copies) for members in _readers_of_one_input(tuned, plain))
    if groups:
        copies.get(groups[0].members, tuned.get_base_model().dtype)
    reasons = [msg(key, count=count) for key, count in left.items()]
    reason = msg("fused_lora.left", count=sum(left.values()), total=len(layers), reasons=reasons) if reasons else None
    return Fused(len(plain), len(layers), reason, groups)


def _obstacle(layer: LoraLayer) -> str | None:
    """Return the message key of why this layer keeps PEFT's forward (another base layer, packed weights, several
    adapters, a variant, trained base or bias, dropout, a replaced forward), or None if it can be fused."""
    base: torch.nn.Module = layer.get_base_layer()
    four_bit = _is_bits(layer, 4)
    quantized = four_bit or (_is_bits(layer, 8) and not base.state.has_fp16_weights)
    if not quantized and (type(layer) is not Linear or type(base) is not torch.nn.Linear or layer.fan_in_fan_out):
        return "fused_lora.other_layer"
    if four_bit and not _dequantizes_plainly(base):
        return "fused_lora.packed"
    if len(layer.lora_A) != 1:
        return "fused_lora.several"
    if layer.lora_variant:
        return "fused_lora.variant"
    if any(layer.lora_bias.values()) or any(p.requires_grad for p in base.parameters()):
        return "fused_lora.trained_base"
    if not all(isinstance(dropout, torch.nn.Identity) for dropout in layer.lora_dropout.values()):
        return "fused_lora.dropout"
    return "fused_lora.replaced" if "forward" in vars(layer) else None


def _is_bits(layer: LoraLayer, bits: int) -> bool:
    # By name: importing peft's module needs bitsandbytes.
    """Return whether PEFT wraps this layer as bitsandbytes' linear layer of 4 or 8 bits.

    The type alone is compared: an 8-bit layer may still hold its weight in 16 bits (has_fp16_weights). Raises KeyError
    for other bits.
    """
    name = {4: "Linear4bit", 8: "Linear8bitLt"}[bits]
    return (type(layer).__module__, type(layer).__name__) == ("peft.tuners.lora.bnb", name)


def _dequantizes_plainly(base: torch.nn.Module) -> bool:
    """Return True if the base layer's weight is quantized to 4 bits, stored as (out, in), and not repacked for CPUs,
    whose kernel has no gradients. False for a layer that is not quantized."""
    state = getattr(base.weight, "quant_state", None)
    packed = getattr(state, "packing_format_for_cpu", False)
    return state is not None and not packed and tuple(state.shape) == (base.out_features, base.in_features)


@torch.no_grad()
def _readers_of_one_input(tuned: PeftModel, layers: Sequence[LoraLayer]) -> list[list[LoraLayer]]:
    """Return groups of layers that got the same tensor in a forward of 8 tokens; every other layer, also one that was
    called more than once, is a group of its own. If the family's forward fails, all are."""
    readers_of: dict[int, list[LoraLayer]] = {}
    inputs = []  # kept alive, so that ids are unique

    def note_input(layer: LoraLayer, args: tuple[torch.Tensor, ...]) -> None:
        """Note that the layer reads this input, which stays in memory so that its id is not reused."""
        inputs.append(args[0])
        readers_of.setdefault(id(args[0]), []).append(layer)

    model = tuned.get_base_model()
    ids = torch.arange(5, 13, device=model.device)[None] % model.config.get_text_config().vocab_size
    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(layer.register_forward_pre_hook(note_input))
        complete = False
        with unsupported.tolerated():
            model.get_decoder()(input_ids=ids, use_cache=False)
            complete = True
    if not complete:
        readers_of.clear()  # a family with another structure: each layer alone is always right
    calls = Counter(layer for readers in readers_of.values() for layer in readers)
    # A layer that is called twice may be in two groups, but has only one forward.
    together = [[layer for layer in readers if calls[layer] == 1] for readers in readers_of.values()]
    grouped = {layer for readers in together for layer in readers}
    return [readers for readers in together if readers] + [[layer] for layer in layers if layer not in grouped]


class _Group:
    """Layers with the same input. The first one called computes for all; the others return their part.

    Parts that were not fetched are dropped at the next call with another tensor, so nothing outlives its step for long.
    """

    def __init__(self, layers: Sequence[LoraLayer], copies: _Copies):
        """Replace the forward of each layer, and let copies hold the factors of these layers as one group."""
        self.members, self._copies = [_Member(layer) for layer in layers], copies
        copies.groups.append(self.members)
        self.last_input: torch.Tensor | None = None
        self.ready: dict[int, torch.Tensor] = {}
        for index, layer in enumerate(layers):
            layer.forward = self._forward_of(index)

    def release(self) -> None:
        """Restore each member's own forward, and drop outputs that were not fetched."""
        self.forget()
        for member in self.members:
            vars(member.layer).pop("forward", None)

    def _forward_of(self, index: int) -> Callable[..., torch.Tensor]:
        """Return a forward of one layer; it calls PEFT's own with further arguments, under autocast, or if the layer is
        no longer plain (merged or disabled)."""

        def grouped_or_own(x: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
            """Return the layer's output from the group; for further arguments, under autocast, or while the layer is
            merged or disabled, that of PEFT's own forward."""
            member = self.members[index]
            device = x.device.type  # of the meta device (core/trial/dry_run) torch refuses the second question
            autocasts = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
            if args or kwargs or not member.is_plain() or autocasts:
                return type(member.layer).forward(member.layer, x, *args, **kwargs)
            return self._output(index, x)

        return grouped_or_own

    def _output(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """Return one layer's output for x; the first layer computes those of all and keeps the others' until they are
        fetched. A layer called out of turn computes its own alone."""
        if self.last_input is not x or index not in self.ready:
            # Only the first member computes for all; one called with another tensor is computed alone.
            members = self.members if index == 0 and all(m.is_plain() for m in self.members) else [self.members[index]]
            outputs = _product(x, members, self._copies)
            if len(members) == 1:
                return outputs[0]
            self.last_input, self.ready = x, dict(enumerate(outputs))
        output = self.ready.pop(index)
        if not self.ready:
            self.forget()
        return output

    def forget(self) -> None:
        """Drop the last input and the outputs computed for it."""
        self.last_input, self.ready = None, {}


class _Member:
    """One LoRA layer as the product reads it. a, b: `_Copies` of A and s B; copied_of: the `state` then."""

    a: torch.Tensor
    b: torch.Tensor
    copied_of: tuple[object, ...] = ()

    def __init__(self, layer: LoraLayer):
        self.layer = layer
        (self.name,) = layer.lora_A

    def is_plain(self) -> bool:
        """True while the layer's one adapter is active, and neither disabled nor merged into the base."""
        layer = self.layer
        return not layer.disable_adapters and not layer.merged and list(layer.active_adapters) == [self.name]

    @property
    def A(self) -> torch.nn.Parameter:  # noqa: N802 - the paper's name
        """Return the layer's trained matrix A (r, in)."""
        return self.layer.lora_A[self.name].weight

    @property
    def B(self) -> torch.nn.Parameter:  # noqa: N802 - the paper's name
        """Return the layer's trained matrix B (out, r), not multiplied by s."""
        return self.layer.lora_B[self.name].weight

    @property
    def scaling(self) -> float:
        """Return the layer's factor s of B A x."""
        return self.layer.scaling[self.name]

    def state(self, dtype: torch.dtype) -> tuple[torch.dtype, float, int, int]:
        """Return what copies in dtype depend on: dtype, s, and PyTorch's version counters of A and B."""
        return dtype, self.scaling, self.A._version, self.B._version

    def base_weight(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the base's weight (out, in): of a 4-bit or 8-bit base a dequantized copy in dtype, as in bitsandbytes'
        own backward; of any other the weight itself, in its own dtype."""
        base = self.layer.get_base_layer()
        weight = base.weight
        if _is_bits(self.layer, 8):
            # LLM.int8 stores each row times 127 / its largest absolute value, which is SCB.
            return base.state.CB.to(dtype, copy=True).mul_(base.state.SCB.unsqueeze(1).mul(1 / 127))
        if not _is_bits(self.layer, 4):
            return weight
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight, weight.quant_state).to(dtype)


class _Copies:
    """A and s B of all fused layers in 16 bits. The first product after a change of the adapter makes them for all: a
    few launches a model instead of several a product. An optimizer's step has to advance PyTorch's version counters, as
    core/engine/step does."""

    def __init__(self) -> None:
        self.groups: list[list[_Member]] = []

    def get(self, members: Sequence[_Member], dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return all A as one (sum of r, in), and each s B (out, r), in dtype. members: a whole group or one member.
        Copies in 16 bits are renewed for all layers if one has changed; in float32 they are made anew each time."""
        if dtype.itemsize != 2:
            # The factors have this dtype already: there is no cast that a copy would save.
            all_a = torch.cat([member.A for member in members]) if len(members) > 1 else members[0].A
            return all_a.to(dtype), [(member.B * member.scaling).to(dtype) for member in members]
        if any(member.copied_of != member.state(dtype) for member in members):
            self._make([member for group in self.groups for member in group], dtype)
        first, rows = members[0].a, sum(len(member.a) for member in members)
        # `_make` put the A of a group end to end: this is a view of them as one matrix.
        return first.as_strided((rows, first.shape[1]), first.stride()), [member.b for member in members]

    @torch.no_grad()
    def _make(self, members: Sequence[_Member], dtype: torch.dtype) -> None:
        """Copy A and s B of all layers to dtype buffers, which are allocated at the first call and per dtype; the A of
        a group lie end to end."""
        # Written in place from then on, so that a step allocates nothing for them.
        if members[0].copied_of[:1] != (dtype,):
            for group in self.groups:
                rows = [len(member.A) for member in group]
                a = group[0].A.new_empty(sum(rows), group[0].A.shape[1], dtype=dtype)
                for member, own in zip(group, a.split(rows), strict=True):
                    member.a, member.b = own, torch.empty_like(member.B, dtype=dtype)
        scaled = torch._foreach_mul([member.B for member in members], [member.scaling for member in members])
        torch._foreach_copy_(
            [member.a for member in members] + [member.b for member in members],
            [member.A for member in members] + list(scaled),
        )
        for member in members:
            member.copied_of = member.state(dtype)


def _product(x: torch.Tensor, members: Sequence[_Member], copies: _Copies) -> tuple[torch.Tensor, ...]:
    """(base_i(x) + s_i x A_i^T B_i^T for each member i) of x (..., in), with A_i (r_i, in) and B_i (out_i, r_i).

    Products run in x's dtype with fp32 accumulation; the gradients of A and B have their dtype. Two autograd nodes, so
    that tensors for the backward are saved before the large products. Gradient checkpointing stops recomputing a layer
    at its last saved tensor, so products that nobody reads there (in most families down_proj's base product) are not
    recomputed.
    """
    hidden, *ways_back = _ForBackward.apply(x, members, copies, *(m.A for m in members), *(m.B for m in members))
    return _Recomputed.apply((x, hidden), members, copies, *ways_back)


class _ForBackward(torch.autograd.Function):
    """x A^T (tokens, sum of r), and for each member a tensor (..., out) without storage of its own, whose gradient is
    the output's."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: torch.Tensor, members: Sequence[_Member], copies: _Copies, *factors: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Return x A^T and the empty stand-ins for the outputs; saves x, or what it can be recomputed from (`made_of`),
        and x A^T."""
        hidden = x.reshape(-1, x.shape[-1]) @ copies.get(members, x.dtype)[0].t()
        ctx.mark_non_differentiable(hidden)
        ctx.set_materialize_grads(False)  # no zeros for hidden; those of the outputs always come
        # Set by a norm or gate on its output (elementwise): x is computed again from these tensors.
        again, *made_of = getattr(x, "made_of", (lambda x: x, x))
        ctx.members, ctx.copies, ctx.again, ctx.shape = members, copies, again, x.shape
        ctx.save_for_backward(*made_of, hidden)
        return hidden, *(x.new_empty(()).expand(*x.shape[:-1], member.B.shape[0]) for member in members)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, _of_hidden: None, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of x, with the base weight dequantized again, and of all A and B."""
        members, dtype = ctx.members, gradients[0].dtype
        *made_of, hidden = ctx.saved_tensors
        all_a, scaled_b = ctx.copies.get(members, dtype)
        # With h = x A^T and y = x W^T + s h B^T: dh = s dy B, dA = dh^T x, dB = s dy^T h, dx = dy W + dh A.
        grads = [g.reshape(-1, g.shape[-1]) for g in gradients]
        of_hidden = [g @ b for g, b in zip(grads, scaled_b, strict=True)]
        grad_hidden = torch.cat(of_hidden, dim=1) if len(members) > 1 else of_hidden[0]
        # First, because it needs x: one that was recomputed is freed before a base weight is dequantized.
        of_factors = _of_factors(members, grads, hidden, grad_hidden, ctx.again(*made_of).reshape(-1, ctx.shape[-1]))
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad_hidden @ all_a
            for member, g in zip(members, grads, strict=True):
                # In place: no second (tokens, in) beside the sum.
                grad_x.addmm_(g, member.base_weight(dtype))
            grad_x = grad_x.view(ctx.shape)
        return grad_x, None, None, *of_factors


def _of_factors(
    members: Sequence[_Member],
    grads: Sequence[torch.Tensor],
    hidden: torch.Tensor,
    grad_hidden: torch.Tensor,
    x: torch.Tensor,
) -> list[torch.Tensor]:
    """Return the gradients of all A and then of all B, from those of the outputs; they are cast and scaled together,
    which saves launches."""
    factors = [member.A for member in members] + [member.B for member in members]
    sizes, of_a = [factor.numel() for factor in factors], grad_hidden.shape[1] * x.shape[1]
    # One piece for all gradients: of all A, which one product computes, then of each B.
    together = x.new_empty(sum(sizes))
    torch.mm(grad_hidden.t(), x, out=together[:of_a].view(-1, x.shape[1]))
    of_b = together[of_a:].split(sizes[len(members) :])
    for g, h, into in zip(grads, _by_member(hidden, members), of_b, strict=True):
        torch.mm(g.t(), h, out=into.view(-1, h.shape[1]))
    gradients = [
        each.view_as(factor) for each, factor in zip(together.to(factors[0].dtype).split(sizes), factors, strict=True)
    ]
    torch._foreach_mul_(gradients[len(members) :], [member.scaling for member in members])
    return gradients


class _Recomputed(torch.autograd.Function):
    """The outputs. Saves nothing: their gradients are passed to `_ForBackward` unchanged."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        inputs: tuple[torch.Tensor, torch.Tensor],
        members: Sequence[_Member],
        copies: _Copies,
        *ways_back: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Return base(x) + (x A^T) (s B)^T for each member."""
        x, hidden = inputs
        outputs = tuple(member.layer.get_base_layer()(x) for member in members)
        for y, b, h in zip(outputs, copies.get(members, x.dtype)[1], _by_member(hidden, members), strict=True):
            # In place: another tensor would be as large as the output.
            y.view(-1, y.shape[-1]).addmm_(h, b.t())
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Pass the outputs' gradients on, unchanged, as those of `ways_back`, from which `_ForBackward` computes the
        layers' gradients; the other arguments get none."""
        return None, None, None, *gradients


def _by_member(hidden: torch.Tensor, members: Sequence[_Member]) -> tuple[torch.Tensor, ...]:
    """Split hidden (tokens, sum of r) into the columns of each member."""
    return hidden.split([member.A.shape[0] for member in members], dim=1)
