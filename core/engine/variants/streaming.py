"""Layers of a frozen base offloaded to RAM and prefetched to the GPU one ahead: for a model larger than the GPU.
Workers only.

The frozen tensors of each offloaded layer, 4-bit scales included, are one piece of ordinary RAM. The GPU has two
buffers of the size of the largest layer; layer i always goes to buffer i % 2, so that views of it saved in the forward
are valid when the layer is recomputed. While one layer computes, another is copied: the next one in a forward, the
previous one in a backward, where gradient checkpointing recomputes each layer. A thread copies it to a staging buffer
in pinned RAM, a separate stream from there to the GPU. The last two are still there when the backward begins, and the
first two when the next forward does: N layers are copied 2 (N - 2) times per micro-batch. Everything else, including
adapters, gradients and optimizer, stays on the GPU. A layer that is not in a buffer reads as NaN, so a wrong one cannot
go unnoticed.

Only the two staging buffers are pinned, because Windows and WSL refuse to pin as much RAM as all layers take. If even
these are refused, each layer is copied from ordinary RAM, and the computation waits for it.

Nothing is copied back, because nothing there is trained. Results equal those of a base that is all on the GPU, bit for
bit.
"""

from __future__ import annotations

import gc
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from core.engine import base_model, device
from core.engine.device import Compute
from core.engine.families import parts
from core.engine.variants import pinned
from core.errors import ModelError
from core.messages import Message, msg
from core.values import GIB

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


PLACES = 2  # buffers on the GPU: one layer computes while the next one arrives


def load(folder: Path, compute: Compute, *how: bool) -> tuple[PreTrainedModel, Compute]:
    """Load the base into RAM, where 4-bit layers are quantized too; return it and the compute to use, whose device is
    still the GPU and whose dtype is a wider one if the base overflows float16. `begin` then moves what is not offloaded
    to the GPU. how: four_bit, eight_bit and keep_towers of base_model.load."""
    in_ram = replace(compute, device=torch.device("cpu"))
    base = base_model.load(folder, in_ram, *how)
    if compute.dtype != torch.float16 or base_model.is_finite(base):
        return base, compute
    del base  # before the second load: RAM need not hold both
    gc.collect()
    wider = device.beyond_float16(compute)
    return base_model.load(folder, replace(in_ram, dtype=wider.dtype), *how), wider


def begin(tuned: PeftModel, card: torch.device, count: int, bus: Bus | None = None) -> Streaming:
    """Move a model and its adapter from RAM to the GPU, except for `count` evenly spread layers, and return their
    Streaming: those between two of them compute while the next one is copied. Call it before an optimizer is created.
    Raises ModelError for a family whose layers cannot be found, or an 8-bit base."""
    base = tuned.get_base_model()
    if base_model.bits(base) == 8:
        raise ModelError("offload.eight_bit")
    layers = layers_of(base)
    if not layers:
        raise ModelError("offload.no_layers", model_type=base.config.model_type)
    chosen = evenly_spread(len(layers), count)
    holders = holders_of(layers)
    # Before the rest moves: an offloaded layer's tensors are empty by then and take no memory of the GPU.
    away = [_Layer.offload(layers[number], list(_frozen(layers[number], holders))) for number in chosen]
    bring_rest(tuned, card)
    return Streaming(base, away, bus or Bus(card), card)


def layers_of(base: PreTrainedModel) -> list[torch.nn.Module]:
    """Return the decoder's layers, in the order of their names; nested blocks count as one."""
    layers: list[torch.nn.Module] = []
    inside: set[int] = set()
    for module in parts.text(base).modules():
        if isinstance(module, GradientCheckpointingLayer) and id(module) not in inside:
            layers.append(module)
            inside |= {id(inner) for inner in module.modules()}
    return layers


def evenly_spread(layers: int, count: int) -> list[int]:
    """Return the indices of `count` layers at even distances, the last layer always among them: [3, 7] for 2 of 8.

    The first layer only if all are chosen, so that others compute before it. All for a larger count, [] for 0.
    """
    count = min(count, layers)
    # A layer at which the share of `count` passes the next whole number, as in Bresenham's line.
    return [number for number in range(layers) if (number + 1) * count // layers > number * count // layers]


Put = Callable[[torch.Tensor], None]


def _frozen(layer: torch.nn.Module, holders: Counter[int]) -> Iterator[tuple[torch.Tensor, Put]]:
    """Yield (tensor, function that replaces it) for each frozen tensor of a layer, the scales of 4-bit weights
    included. Tensors that several layers share stay on the GPU (holders: number of layers per parameter id)."""
    for parameter in layer.parameters():
        # A shared one would be wanted in the buffers of two layers at once.
        if parameter.requires_grad or holders[id(parameter)] > 1:
            continue
        yield parameter.data, partial(setattr, parameter, "data")
        state = getattr(parameter, "quant_state", None)
        for scales in filter(None, (state, getattr(state, "state2", None))):
            yield scales.absmax, partial(setattr, scales, "absmax")


def holders_of(layers: Sequence[torch.nn.Module]) -> Counter[int]:
    """Count how many layers hold each parameter, by its id."""
    return Counter(id(parameter) for layer in layers for parameter in layer.parameters())


def bring_rest(tuned: PeftModel, card: torch.device) -> None:
    """Move to the GPU what `_Layer.offload` has not offloaded and FSDP2 has not sharded, except per-layer embeddings,
    whose forward is replaced by one that looks them up in RAM."""
    base = tuned.get_base_model()
    name = parts.per_layer_embeddings(base)
    in_ram = {id(parameter) for parameter in base.get_submodule(name).parameters()} if name else set()
    for module in tuned.modules():
        for parameter in module.parameters(recurse=False):
            if id(parameter) in in_ram or hasattr(parameter, "device_mesh"):
                continue
            parameter.data = parameter.data.to(card)
            # bitsandbytes' scales do not move with the parameter.
            if state := getattr(parameter, "quant_state", None):
                state.to(card)
        for own, buffer in module.named_buffers(recurse=False):
            module._buffers[own] = buffer.to(card)
    if name:
        parts.look_up_in_ram(base)


@dataclass(frozen=True)
class _Piece:
    """One tensor of a layer. start: its first byte there."""

    put: Put
    start: int
    like: torch.Tensor  # of its size and dtype, without data

    def within(self, place: torch.Tensor) -> torch.Tensor:
        """Return the view of this tensor in the bytes of its layer."""
        return pinned.within(place, self.start, self.like)


@dataclass(frozen=True)
class _Layer:
    """An offloaded layer. home: (bytes,) uint8 in RAM, all of its tensors end to end."""

    module: torch.nn.Module
    home: torch.Tensor
    parts: tuple[_Piece, ...]

    @classmethod
    def offload(cls, module: torch.nn.Module, tensors: Sequence[tuple[torch.Tensor, Put]]) -> _Layer:
        """Copy a layer's tensors end to end into one piece of RAM, replace the originals by empty tensors, and return
        the layer."""
        size, pieces = 0, []
        for tensor, put in tensors:
            pieces.append(_Piece(put, size, tensor.new_empty(tensor.shape, device="meta")))
            size += pinned.aligned(tensor.nbytes)
        home = torch.empty(size, dtype=torch.uint8, device=tensors[0][0].device if tensors else "cpu")
        for (tensor, _), part in zip(tensors, pieces, strict=True):
            part.within(home).copy_(tensor)
            part.put(tensor.new_empty(0))  # freed before the next layer is copied
        return cls(module, home, tuple(pieces))


@dataclass
class _Place:
    """A buffer on the GPU. holds: the layer that is in it, or being copied. in_use: the layer computes with it."""

    bytes: torch.Tensor
    holds: int | None = None
    in_use: bool = False
    arrival: Future[torch.cuda.Event] | None = None


@dataclass
class _Staging:
    """A buffer in pinned RAM. read: the event after which the GPU has read its last layer from it."""

    bytes: torch.Tensor
    read: torch.cuda.Event | None = None


class Bus:
    """Copies layers to the GPU while it computes, if it has staging buffers; otherwise the computation waits for each
    copy.

    One thread fills the staging buffers and starts the copies from them. It ends when its bus is no longer used.
    """

    def __init__(self, card: torch.device):
        self._side: Any = torch.cuda.Stream(card) if card.type == "cuda" else None
        self._thread = ThreadPoolExecutor(1, "offloaded-layers")
        self._staging: Iterator[_Staging] | None = None

    def prepare(self, size: int) -> bool:
        """Reserve the staging buffers, for layers of at most size bytes. Returns False if the system refuses to pin
        them, True also on a CPU, which needs none."""
        if self._side is None:
            return True
        buffers = [pinned.empty((size,), torch.uint8) for _ in range(PLACES)]
        granted = [_Staging(buffer) for buffer in buffers if buffer is not None]
        self._staging = cycle(granted) if len(granted) == PLACES else None
        return self._staging is not None

    def send(self, home: torch.Tensor, place: torch.Tensor) -> Future[torch.cuda.Event] | None:
        """Start to copy home to place in the thread and return the argument of `arrived`; without staging buffers copy
        now and return None. GPU work queued before still finds the old contents."""
        if self._staging is None:
            place.copy_(home)
            return None
        queued = torch.cuda.current_stream(self._side.device).record_event()
        return self._thread.submit(self._carry, home, next(self._staging), place, queued)

    def _carry(
        self, home: torch.Tensor, staging: _Staging, place: torch.Tensor, queued: torch.cuda.Event
    ) -> torch.cuda.Event:
        """Copy a layer to the staging buffer once that has been read, and start its copy to the GPU after the work
        queued there; runs in the thread. Returns the event of its arrival."""
        if staging.read is not None:
            # The GPU still reads the layer before the last from it.
            staging.read.synchronize()
        passing = staging.bytes[: home.numel()].copy_(home)
        # The computation queued so far reads the layer that is in the buffer now.
        self._side.wait_event(queued)
        with torch.cuda.stream(self._side):
            place.copy_(passing, non_blocking=True)
        # Blocking: the thread sleeps in `synchronize` instead of occupying a core.
        staging.read = self._side.record_event(torch.cuda.Event(blocking=True))
        return staging.read

    def arrived(self, arrival: Future[torch.cuda.Event] | None) -> None:
        """Make GPU work that is queued from now on wait until the copy has arrived. Raises the error of a copy that
        failed in the thread; None: nothing to wait for."""
        if arrival is not None:
            torch.cuda.current_stream(self._side.device).wait_event(arrival.result())


@dataclass
class Streaming:
    """The offloaded layers of a base and their way to the GPU.

    layers: in the order of a forward. moved_bytes, copies: to the GPU so far. waits: the system refused pinned RAM, so
    the computation waits for each copy.
    """

    base: PreTrainedModel
    layers: Sequence[_Layer]
    bus: Bus
    card: torch.device
    moved_bytes: int = 0
    copies: int = 0
    waits: bool = False
    places: list[_Place] = field(default_factory=list)
    _nothing: dict[torch.dtype, torch.Tensor] = field(default_factory=dict)

    @property
    def message(self) -> Message:
        """Return the message on offloading for the run's events: the offloaded layers, of how many, and their GiB;
        another message if the computation waits for each copy."""
        total, size = len(layers_of(self.base)), sum(layer.home.numel() for layer in self.layers) / GIB
        return msg("offload.unpinned" if self.waits else "offload.begun", layers=len(self.layers), of=total, gib=size)

    def __post_init__(self) -> None:
        """Allocate the GPU buffers that layers share in turn, as buffers of the base, take all layers' weights away,
        and hook their forwards."""
        for number in range(min(PLACES, len(self.layers))):
            # Every second layer comes here; a buffer is as large as the largest of its own.
            size = max(layer.home.numel() for layer in self.layers[number::PLACES])
            place = torch.empty(size, dtype=torch.uint8, device=self.card)
            self.base.register_buffer(
                f"offloaded_layer_{number}", place, persistent=False
            )  # so that counts of the model's memory include it
            self.places.append(_Place(place))
        self.waits = not self.bus.prepare(max((layer.home.numel() for layer in self.layers), default=0))
        for number, layer in enumerate(self.layers):
            self._take_away(number)
            layer.module.register_forward_pre_hook(partial(self._forward_begins, number))
            layer.module.register_forward_hook(partial(self._forward_ends, number))

    def _forward_begins(self, number: int, layer: torch.nn.Module, given: tuple[object, ...]) -> None:
        """Bring the layer's weights before its forward, and start to copy the next layer. Raises RuntimeError if
        gradients are on and the layer is not checkpointed."""
        if torch.is_grad_enabled() and not layer.gradient_checkpointing:
            raise RuntimeError(
                "an offloaded layer is computed without gradient checkpointing: its backward would not find its weights"
            )
        self._bring(number, number + 1)

    def _forward_ends(
        self,
        number: int,
        layer: torch.nn.Module,
        given: tuple[object, ...],
        output: torch.Tensor | tuple[torch.Tensor, ...],
    ) -> None:
        """Register a hook on the layer's output that, in the backward, makes the layer's weights available again and
        starts to copy the layer before. Does nothing without gradients.

        transformers checkpoints inside a layer's hooks: the gradient of its output comes right before it is recomputed.
        """
        hidden = output[0] if isinstance(output, tuple) else output
        # Without gradients there is no backward to come back in.
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: self._bring(number, number - 1))

    def _bring(self, number: int, after: int) -> None:
        """Make a layer's weights available on the GPU, waiting for their copy, and start to copy layer `after`, if
        there is one."""
        place = self.places[number % PLACES]
        if place.holds != number:
            self._send(number)  # nobody has prefetched it: the first layer of a pass, or one after an interruption
        if not place.in_use:
            self.bus.arrived(place.arrival)
            for part in self.layers[number].parts:
                part.put(part.within(place.bytes))
            place.in_use = True
        if 0 <= after < len(self.layers) and self.places[after % PLACES].holds != after:
            self._send(after)

    def _send(self, number: int) -> None:
        """Take a layer's buffer from the layer that used it, start to copy the layer there, and count the copy and its
        bytes."""
        place, home = self.places[number % PLACES], self.layers[number].home
        # Its tensors are views of the buffer: read on, they would show the new layer's weights under their old names.
        if place.holds is not None and place.in_use:
            self._take_away(place.holds)
        place.holds, place.in_use = number, False
        place.arrival = self.bus.send(home, place.bytes[: home.numel()])
        self.copies, self.moved_bytes = self.copies + 1, self.moved_bytes + home.numel()

    def _take_away(self, number: int) -> None:
        """Let a layer's weights read as NaN until `_bring` puts them back."""
        for part in self.layers[number].parts:
            part.put(self._absent(part.like.dtype).expand(part.like.shape))

    def _absent(self, dtype: torch.dtype) -> torch.Tensor:
        """Return a scalar on the GPU that stands for weights not there: NaN, or 0 for integers; one for each dtype."""
        if dtype not in self._nothing:
            # Expanded to any shape it takes no memory; NaN shows if a layer computes without its weights.
            self._nothing[dtype] = torch.full(
                (), math.nan if dtype.is_floating_point else 0, dtype=dtype, device=self.card
            )
        return self._nothing[dtype]
