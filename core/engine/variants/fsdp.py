"""A frozen base sharded over the ranks of a run by PyTorch's FSDP2 (torch.distributed.fsdp.fully_shard): every rank has
a part of each matrix of a decoder layer, and a layer is gathered while it computes. Workers only.

The adapter is not sharded: it is small, every rank has all of it, and its gradients are exchanged as without sharding.
Norms, biases, embeddings, head and parameters that several layers share are not sharded either. NF4 is gathered as
packed bytes; every rank has all of its scales (a 32nd of it).

Gathers are FSDP2's own, on its own streams and prefetched by it: by NCCL, and where torch has none on a GPU (Windows)
by Gloo through RAM. A gather needs every rank. In a step all have the same number of them: a rank that computes less,
or ran out of memory, joins the remaining ones by `complete`. If one rank computes alone (sample answers, a batch that
is tried out), it announces each gather by `lead`, and the others join by `repeat`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import distributed
from torch.distributed.fsdp import FSDPModule, fully_shard

from core.engine import base_model
from core.engine.variants import pinned, streaming
from core.errors import ModelError
from core.messages import Message, msg
from core.values import GIB

if TYPE_CHECKING:
    from bitsandbytes.functional import QuantState
    from peft import PeftModel
    from torch.distributed.device_mesh import DeviceMesh


def shard(tuned: PeftModel, card: torch.device, mesh: DeviceMesh, lead: Callable[[int], None] | None = None) -> Sharded:
    """Move a model and its adapter from RAM to the GPU, layer by layer, without the parts of the other ranks of mesh,
    and return its Sharded: no GPU ever has the whole base, but what is not in layers' frozen matrices is on each.

    lead: only on rank 0, announces to the others which layer it gathers alone. Call it on every rank, before an
    optimizer is created. Raises ModelError for a family whose layers cannot be found, or an 8-bit base.
    """
    base = tuned.get_base_model()
    if base_model.bits(base) == 8:
        raise ModelError("fsdp.eight_bit")
    layers = streaming.layers_of(base)
    if not layers:
        raise ModelError("fsdp.no_layers", model_type=base.config.model_type)
    sharded = Sharded(base.get_decoder(), layers, lead)
    inside = set[torch.nn.Parameter]()
    for number, (layer, own) in enumerate(zip(layers, sharded_parameters(layers), strict=True)):
        sharded.bytes += sum(each.nbytes for each in own)
        scales = _scales(layer, card)
        # FSDP2 leaves ignored parameters as they are: the adapter, small ones, and what layers share.
        fully_shard(layer, mesh=mesh, ignored_params={*layer.parameters()} - own)
        _put_scales_back(scales)
        layer.register_forward_pre_hook(partial(_put_scales_back, scales))
        layer.set_custom_all_gather(_Gather(sharded, number))
        inside |= {*layer.parameters()}
    fully_shard(sharded.root, mesh=mesh, ignored_params={*sharded.root.parameters()} - inside)
    # The warning is about gathering the root's own parameters; there are none.
    warnings.filterwarnings("ignore", rf".*\({type(sharded.root).__name__}\) returned a view tensor")
    # Before FSDP2's own hook, which would otherwise go on where an interrupted pass ended.
    sharded.root.register_forward_pre_hook(lambda *_: sharded.reset(), prepend=True)
    # By the order of the first whole forward `complete` repeats the gathers that it missed.
    sharded.root.register_forward_hook(lambda *_: sharded.learn_order())
    sharded.root.register_forward_hook(lambda *_: setattr(sharded, "has_computed", True), always_call=True)
    streaming.bring_rest(tuned, card)
    return sharded


def sharded_parameters(layers: Sequence[torch.nn.Module]) -> list[set[torch.nn.Parameter]]:
    """Return the sharded parameters of each layer: its frozen matrices, except those shared with another layer."""
    holders = streaming.holders_of(layers)
    return [
        {each for each in layer.parameters() if not each.requires_grad and each.dim() > 1 and holders[id(each)] == 1}
        for layer in layers
    ]


def _scales(layer: torch.nn.Module, card: torch.device) -> dict[torch.nn.Module, QuantState]:
    """Move the scales of a layer's 4-bit matrices to the GPU; return them by the module that has the matrix."""
    states = {}
    for module in layer.modules():
        if state := getattr(getattr(module, "weight", None), "quant_state", None):
            state.to(card)
            states[module] = state
    return states


def _put_scales_back(scales: dict[torch.nn.Module, QuantState], *_: object) -> None:
    """Put the 4-bit scales back on the weights of these modules, also as a forward hook.

    FSDP2 replaces bitsandbytes' parameters with plain ones, a sharded and a gathered one, which lack the scales.
    """
    for module, state in scales.items():
        module.weight.quant_state = state


@dataclass
class Sharded:
    """This rank's part of a sharded base.

    bytes: of all shards. gathered: layers since `begin`. order: of the layers in a forward, from the first one.
    together: all ranks know the next gathers; otherwise rank 0 announces its own by lead.
    """

    root: FSDPModule
    layers: list[FSDPModule]
    lead: Callable[[int], None] | None = None
    bytes: int = 0
    gathered: int = 0
    together: bool = True
    has_computed: bool = False
    order: tuple[int, ...] = ()
    _first_order: list[int] = field(default_factory=list)

    @property
    def message(self) -> Message:
        """Return the message on the sharded base for the run's events: its layers, their GiB, the number of ranks and
        the GiB on each."""
        ranks = distributed.get_world_size()
        return msg(
            "fsdp.begun", layers=len(self.layers), gib=self.bytes / GIB, ranks=ranks, each=self.bytes / ranks / GIB
        )

    def begin(self) -> None:
        """Begin forwards and backwards that all ranks compute in the same order, and count gathers from 0; until
        `complete` rank 0 does not announce its gathers."""
        self.gathered, self.together = 0, True

    def complete(self, passes: int, trains: bool) -> None:
        """Join the gathers that are still missing on this rank, because it has fewer micro-batches than others, in the
        order of the layers, so that the other ranks do not wait forever. Afterwards rank 0 announces its gathers again.
        passes: micro-batches that every rank has to take part in, its own included. trains: each has a backward too,
        which gathers the layers in reverse."""
        # A backward gathers each layer once more, the last one first.
        left = ((self.order + self.order[::-1] if trains else self.order) * passes)[self.gathered :]
        if left:
            self.reset()
        for number in left:
            self.repeat(number)
        self.together = False

    def learn_order(self) -> None:
        """Keep the order of the layers in the first forward, once."""
        self.order = self.order or tuple(self._first_order)

    def repeat(self, number: int) -> None:
        """Gather a layer's weights and drop them at once, so that the same gather on another rank can end."""
        self.layers[number].unshard()
        self.layers[number].reshard()

    def reset(self) -> None:
        """Forget an interrupted forward or backward, so that the next one begins anew."""
        self._first_order.clear()
        if self.has_computed:
            self.root.reset_iter_state()

    def gather(
        self, number: int, output: torch.Tensor, shard: torch.Tensor, group: distributed.ProcessGroup, async_op: bool
    ) -> distributed.Work | None:
        """Fill output (ranks * n,) with every rank's shard (n,), by way of RAM where NCCL is missing. On rank 0 it
        announces the layer first, unless all ranks compute together. Returns torch's Work, or None if it is over."""
        # Told before the gather begins: it waits for all ranks, so the others have to join before it can end.
        if self.lead and not self.together:
            self.lead(number)
        self.gathered += 1
        if not self.order:
            self._first_order.append(number)
        if output.device.type == "cpu" or distributed.is_nccl_available():
            return distributed.all_gather_into_tensor(output, shard, group=group, async_op=async_op)
        # Gloo exchanges what is in RAM; from pinned RAM the copy to the GPU is faster.
        in_ram = pinned.empty(output.shape, output.dtype)
        if in_ram is None:
            in_ram = torch.empty_like(output, device="cpu")
        distributed.all_gather_into_tensor(in_ram, shard.cpu(), group=group)
        output.copy_(in_ram)
        return None


class _Gather:
    """A layer's gather in the form that FSDP2 calls (set_custom_all_gather)."""

    def __init__(self, sharded: Sharded, number: int):
        self._gather = partial(sharded.gather, number)

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Return an uninitialized tensor for FSDP2 to gather the layer's shards into."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: torch.Tensor,
        input_tensor: torch.Tensor,
        group: distributed.ProcessGroup,
        async_op: bool = False,
    ) -> distributed.Work | None:
        """Fill output_tensor with every rank's shard (input_tensor) of the layer, as `Sharded.gather` does. Returns
        torch's Work, or None if the transfer is over."""
        return self._gather(output_tensor, input_tensor, group, async_op)
