"""Layers of a frozen base that lie in RAM and visit the card, one ahead of the work: for a model that is larger than the card. Workers only.

Each offloaded layer has its frozen tensors, 4-bit scales with them, in one piece of pinned RAM. The card has two places, of the size of
the largest; layer i always goes to the place i % 2, so that whatever kept a view of it in the forward finds the same numbers there when the
layer is computed again. While one layer computes, the next is copied by a stream of its own: the following one in a forward, the one
before in a backward, where gradient checkpointing computes each layer again. The last two are still there when the backward begins, and the
first two when the next forward does: N layers travel 2 (N - 2) times a micro-batch. Everything else, the adapter of each layer with its gradients
and the optimizer too, stays on the card. A layer that is not there is NaN on the card: no number that its place could make up passes for one.

Nothing is written back, for nothing there is trained. Same products, same order: bit for bit those of a base that is there as a whole.
"""

from __future__ import annotations

import gc
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from core.engine import base_model, device
from core.engine.device import Compute
from core.engine.families import parts
from core.errors import ModelError
from core.messages import Message, msg
from core.values import GIB

ALIGNED = 512  # bytes; as torch's allocator begins its blocks, which is more than any kernel asks for
PLACES = 2


def load(folder: Path, compute: Compute, *how: bool) -> tuple[Any, Compute]:
    """As base_model.load_finite, but into RAM, where 4-bit layers are quantised too: `begin` takes to the card what is to be there."""
    in_ram = replace(compute, device=torch.device("cpu"))
    base = base_model.load(folder, in_ram, *how)
    if compute.dtype != torch.float16 or base_model.is_finite(base):
        return base, compute
    del base
    gc.collect()
    wider = device.beyond_float16(compute)
    return base_model.load(folder, replace(in_ram, dtype=wider.dtype), *how), wider


def begin(tuned: Any, card: torch.device, count: int, bus: Bus | None = None) -> Streaming:
    """Take a model and its adapter, all of it in RAM, to the card, but for `count` of its layers, evenly spread: what lies between two of
    them computes while the next one travels. Call it before an optimizer is made. Raises ModelError for a family whose layers cannot
    be found, or that is held in 8 bit."""
    base = tuned.get_base_model()
    if base_model.bits(base) == 8:
        raise ModelError("offload.eight_bit")
    layers = layers_of(base)
    if not layers:
        raise ModelError("offload.no_layers", model_type=base.config.model_type)
    chosen = spread(len(layers), count)
    held = held_by(layers)
    away = [_Layer.of(layers[number], list(_frozen(layers[number], held))) for number in chosen]
    bring_rest(tuned, card)
    return Streaming(base, away, bus or Bus(card), card)


def layers_of(base: Any) -> list[torch.nn.Module]:
    """The decoder's layers, in the order of their names; blocks inside blocks are one."""
    found: list[torch.nn.Module] = []
    inside: set[int] = set()
    for module in parts.text(base).modules():
        if isinstance(module, GradientCheckpointingLayer) and id(module) not in inside:
            found.append(module)
            inside |= {id(inner) for inner in module.modules()}
    return found


def spread(layers: int, count: int) -> list[int]:
    """Numbers of `count` layers (all, where there are fewer), as far from each other as they can be."""
    count = min(count, layers)
    return [number for number in range(layers) if (number + 1) * count // layers > number * count // layers]


Put = Callable[[torch.Tensor], None]


def _frozen(layer: torch.nn.Module, held: Counter[int]) -> Iterator[tuple[torch.Tensor, Put]]:
    """What a layer holds that is not trained, and how it is given another tensor in its place. What several layers share (held: by how
    many each parameter is, by its id) stays where it is."""
    for parameter in layer.parameters():
        if parameter.requires_grad or held[id(parameter)] > 1:
            continue
        yield parameter.data, partial(setattr, parameter, "data")
        state = getattr(parameter, "quant_state", None)
        for scales in filter(None, (state, getattr(state, "state2", None))):
            yield scales.absmax, partial(setattr, scales, "absmax")


def held_by(layers: Sequence[torch.nn.Module]) -> Counter[int]:
    """By how many of layers each parameter is held, by its id."""
    return Counter(id(parameter) for layer in layers for parameter in layer.parameters())


def bring_rest(tuned: Any, card: torch.device) -> None:
    """To the card, whatever `_Layer.of` has not taken away, which has left nothing of it behind, and FSDP2 has not taken apart; but for an
    embedding in every layer, which is looked up in RAM."""
    base = tuned.get_base_model()
    name = parts.per_layer_embeddings(base)
    in_ram = {id(parameter) for parameter in base.get_submodule(name).parameters()} if name else set()
    for module in tuned.modules():
        for parameter in module.parameters(recurse=False):
            if id(parameter) in in_ram or hasattr(parameter, "device_mesh"):
                continue
            parameter.data = parameter.data.to(card)
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
    like: torch.Tensor  # of its size and type, without data

    @property
    def bytes(self) -> slice:
        return slice(self.start, self.start + self.like.nbytes)

    def within(self, place: torch.Tensor) -> torch.Tensor:
        return place[self.bytes].view(self.like.dtype).view(self.like.shape)


@dataclass(frozen=True)
class _Layer:
    """home: (bytes,) uint8 in RAM, all of its tensors end to end."""

    module: torch.nn.Module
    home: torch.Tensor
    parts: tuple[_Piece, ...]

    @classmethod
    def of(cls, module: torch.nn.Module, tensors: Sequence[tuple[torch.Tensor, Put]]) -> _Layer:
        """Its tensors are copied into one piece, and what it had given back."""
        size, parts_of_it = 0, []
        for tensor, put in tensors:
            parts_of_it.append(_Piece(put, size, tensor.new_empty(tensor.shape, device="meta")))
            size += -(-tensor.nbytes // ALIGNED) * ALIGNED
        home = torch.empty(size, dtype=torch.uint8, device=tensors[0][0].device if tensors else "cpu")
        for (tensor, _), part in zip(tensors, parts_of_it, strict=True):
            part.within(home).copy_(tensor)
            part.put(tensor.new_empty(0))  # what it had is free before the next layer is copied
        return cls(module, home, tuple(parts_of_it))


@dataclass
class _Place:
    """On the card. holds: the number of the layer that is there, or on its way; shown: whether the layer computes with it."""

    bytes: torch.Tensor
    holds: int | None = None
    shown: bool = False
    arrival: Any = None


class Bus:
    """How a layer comes to the card. On a card: by a stream of its own, from pinned RAM, so that nothing waits for it but who needs it."""

    def __init__(self, card: torch.device):
        self._side = torch.cuda.Stream(card) if card.type == "cuda" else None

    def pin(self, home: torch.Tensor) -> bool:
        """Whether the copies of home can run beside the work. Registered where it lies: torch's own pinned memory comes in powers of two,
        which would be up to twice the model."""
        if self._side is None:
            return True
        return int(torch.cuda.cudart().cudaHostRegister(home.data_ptr(), home.nbytes, 0)) == 0

    def send(self, home: torch.Tensor, place: torch.Tensor) -> Any:
        """Begin to copy; what to wait for. What is queued now still finds in place what was there."""
        if self._side is None:
            return place.copy_(home)
        self._side.wait_stream(torch.cuda.current_stream(place.device))
        with torch.cuda.stream(self._side):
            place.copy_(home, non_blocking=True)
            return self._side.record_event()

    def arrived(self, arrival: Any) -> None:
        """What is queued from now on finds what was sent."""
        if self._side is not None:
            torch.cuda.current_stream(self._side.device).wait_event(arrival)


@dataclass
class Streaming:
    """layers: those that are offloaded, in the order of a forward. moved_bytes, copies: to the card so far. unpinned: layers whose RAM the
    system did not pin; their copies hold up the work."""

    base: Any
    layers: Sequence[_Layer]
    bus: Bus
    card: torch.device
    moved_bytes: int = 0
    copies: int = 0
    unpinned: int = 0
    places: list[_Place] = field(default_factory=list)
    _nothing: dict[torch.dtype, torch.Tensor] = field(default_factory=dict)

    @property
    def said(self) -> Message:
        """What is done, for the run's events."""
        of, size = len(layers_of(self.base)), sum(layer.home.numel() for layer in self.layers) / GIB
        key = "offload.unpinned" if self.unpinned else "offload.begun"
        return msg(key, layers=len(self.layers), of=of, gib=size, unpinned=self.unpinned)

    def __post_init__(self) -> None:
        for number in range(min(PLACES, len(self.layers))):
            size = max(layer.home.numel() for layer in self.layers[number::PLACES])
            place = torch.empty(size, dtype=torch.uint8, device=self.card)
            self.base.register_buffer(
                f"offloaded_layer_{number}", place, persistent=False
            )  # whoever counts what the model has there sees it
            self.places.append(_Place(place))
        for number, layer in enumerate(self.layers):
            self.unpinned += not self.bus.pin(layer.home)
            self._take_away(number)
            layer.module.register_forward_pre_hook(partial(self._forward_begins, number))
            layer.module.register_forward_hook(partial(self._forward_ends, number))

    def _forward_begins(self, number: int, layer: Any, given: Any) -> None:
        if torch.is_grad_enabled() and not layer.gradient_checkpointing:
            raise RuntimeError(
                "an offloaded layer is computed without gradient checkpointing: its backward would not find its weights"
            )
        self._bring(number, number + 1)

    def _forward_ends(self, number: int, layer: Any, given: Any, output: Any) -> None:
        """transformers checkpoints what is inside a layer's hooks: that it is about to be computed again its output's gradient tells."""
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: self._bring(number, number - 1))

    def _bring(self, number: int, after: int) -> None:
        """Before a layer computes: it is there, and the one that comes after it on its way."""
        place = self.places[number % PLACES]
        if place.holds != number:
            self._send(number)
        if not place.shown:
            self.bus.arrived(place.arrival)
            for part in self.layers[number].parts:
                part.put(part.within(place.bytes))
            place.shown = True
        if 0 <= after < len(self.layers) and self.places[after % PLACES].holds != after:
            self._send(after)

    def _send(self, number: int) -> None:
        place, home = self.places[number % PLACES], self.layers[number].home
        if place.holds is not None and place.shown:
            self._take_away(place.holds)
        place.holds, place.shown = number, False
        place.arrival = self.bus.send(home, place.bytes[: home.numel()])
        self.copies, self.moved_bytes = self.copies + 1, self.moved_bytes + home.numel()

    def _take_away(self, number: int) -> None:
        for part in self.layers[number].parts:
            part.put(self._absent(part.like.dtype).expand(part.like.shape))

    def _absent(self, dtype: torch.dtype) -> torch.Tensor:
        if dtype not in self._nothing:
            self._nothing[dtype] = torch.full((), math.nan if dtype.is_floating_point else 0, dtype=dtype, device=self.card)
        return self._nothing[dtype]
