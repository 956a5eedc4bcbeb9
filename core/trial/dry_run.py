"""Simulates a training step without GPU and weights and counts every allocation.

The model is built by its own code from its config.json, on tensors that have a size and no data (device meta), gets
adapters, 4-bit layers, checkpointing, the fused product, the loss and the optimizer as in a run, and makes one step
(core/engine/step) as a run of several micro-batches makes its second: gradients and the optimizer's state are there. So
families without a formula (experts, latent or linear attention, embeddings in each layer) are covered by their own
code. Where layers are alike, two and four of them are run and the rest is extrapolated; where kinds of layers
alternate, the larger run has one more period; otherwise all are run.

CUDA's context and the allocator's reserve come from core/memory/arithmetic. Imports torch: workers only.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from transformers import AttentionInterface, AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from core.engine import adapter, attention, base_model
from core.engine import optimizer as optimizers
from core.engine.batches import Batch
from core.engine.families import mended, parts
from core.engine.loss import Head
from core.engine.out_of_memory import Retreat
from core.engine.step import Step
from core.engine.variants import elementwise, streaming
from core.errors import GarageError, ModelError, first_line
from core.files import JsonObject
from core.memory import arithmetic
from core.memory.arithmetic import Estimate
from core.memory.constants import memory_constants
from core.memory.setup import Setup
from core.recipe import Adapter
from core.trial.allocations import Allocations, Peak
from core.trial.dry_runs import DryRun, Question

if TYPE_CHECKING:
    from peft import PeftModel


META = torch.device("meta")
LEAST = 2  # layers of the smaller run
MAX_ODD, MAX_PERIOD = 8, 12  # layers that may be unlike the others, and that may take turns


def dry_run(question: Question, check: Callable[[], None] = lambda: None) -> DryRun:
    """Simulate the training step of question on the meta device and return its memory by kind, with the place and
    operation of the peak. Like layers are run twice at small depths, and the rest is extrapolated linearly. check is
    called at every operation and may raise. Raises ModelError, with the reason, for a model that cannot be built or run
    this way."""
    began = time.perf_counter()
    config = _config(question.config)
    layers = config.get_text_config().num_hidden_layers
    kinds = _layer_kinds(config, layers)
    setup = question.setup
    are_unlike = setup.kept_layers or setup.offload_layers or setup.shards > 1
    depths: tuple[int, ...] = (layers,) if are_unlike else _depths(kinds)
    family = _FamilyTraits(config, setup.packed, check)

    def run_with_layers(depth: int) -> _StepMemory:
        """Simulate the training step of the model's first `depth` layers and return its memory."""
        return _SimulatedModel(_cut(config, depth), setup, family, check).run()

    runs = [run_with_layers(depth) for depth in depths]
    # Of few layers the worst moment may be another, or in a layer of another kind.
    while len(runs) == 2 and _moment(runs[0].peak, kinds) != _moment(runs[1].peak, kinds):
        deeper = 2 * depths[1] - depths[0]
        if deeper >= layers:
            depths, runs = (layers,), [run_with_layers(layers)]
        else:
            depths, runs = (depths[1], deeper), [runs[1], run_with_layers(deeper)]
    memory = runs[0] if len(runs) == 1 else _extrapolated(runs[0], runs[1], depths, layers)
    place, layer = _place_in_model(runs[-1].peak.place, depths[-1], layers)
    return DryRun(
        estimate=_estimate(memory, setup),
        place=place,
        layer=layer,
        operation=runs[-1].peak.operation,
        layers_run=tuple(depths),
        seconds=round(time.perf_counter() - began, 2),
    )


# ---- the model -----------------------------------------------------------------------------------


def _config(values: Mapping[str, object]) -> PreTrainedConfig:
    """Build the configuration. Raises ModelError if transformers knows no such family, the numbers do not fit together,
    or the model is stored quantized."""
    # config.json writes infinity as {"__float__": "Infinity"}
    rest: JsonObject = PreTrainedConfig._decode_special_floats(dict(values))
    model_type = rest.pop("model_type", None)
    quantized = rest.pop("quantization_config", None)
    if quantized is not None:
        method = quantized.get("quant_method") if isinstance(quantized, dict) else None
        raise ModelError("dry_run.quantised", method=str(method or "-")[:30])
    try:
        config = mended.config(AutoConfig.for_model(model_type, **rest))
    except (ValueError, KeyError):
        raise ModelError("dry_run.unknown_family", model_type=str(model_type)[:60]) from None
    except Exception as error:  # a config.json of anywhere, in the code of a hundred families
        raise ModelError("dry_run.cannot_build", reason=_describe(error)) from error
    config.use_cache = False
    return config


def _cut(config: PreTrainedConfig, depth: int) -> PreTrainedConfig:
    """Return a copy of config with the first `depth` layers; its lists by layer are shortened with it."""
    cut = copy.deepcopy(config)
    inner = cut.get_text_config()
    layers = inner.num_hidden_layers
    for name, value in vars(inner).items():
        if isinstance(value, list) and len(value) == layers:
            setattr(inner, name, value[:depth])
    if shared := getattr(inner, "num_kv_shared_layers", 0):  # the last ones, which take keys and values of those before
        inner.num_kv_shared_layers = max(0, shared - (layers - depth))
    inner.num_hidden_layers = depth
    return cut


def _moment(peak: Peak, kinds: Sequence[object]) -> tuple[object, ...]:
    """Return a key of the moment of a step at which memory peaked: equal for the same phase and operation in layers of
    the same kind. kinds: of all layers."""
    phase, _, number = peak.place.partition(" ")
    return phase, peak.operation, kinds[int(number)] if number else None


def _depths(kinds: Sequence[object]) -> tuple[int, ...]:
    """Return the depths, in layers, at which a dry run simulates the model: two to extrapolate from, or all layers
    alone.

    Where the kinds repeat, the second depth has one period more than the first, or LEAST layers more if all kinds are
    alike; a whole number of periods is left above the first. (all,) if no period of up to MAX_PERIOD is found behind
    fewer than MAX_ODD unlike layers, or if the second depth would reach all of them. kinds: one key for each layer,
    equal for layers that need the same memory.
    """
    layers = len(kinds)
    for odd in range(min(layers, MAX_ODD)):  # layers at the beginning that are unlike the rest
        tail = kinds[odd:]
        period = next(
            (p for p in range(1, MAX_PERIOD + 1) if all(a == b for a, b in zip(tail, tail[p:], strict=False))), None
        )
        if period is None:
            continue
        more = period if period > 1 else LEAST
        first = odd + LEAST + (layers - odd - LEAST) % period
        return (first, first + more) if first + more < layers else (layers,)
    return (layers,)


def _layer_kinds(config: PreTrainedConfig, layers: int) -> list[object]:
    """Return a key for the kind of each layer, its parameters' shapes and its entries in the configuration's lists;
    equal keys mean equal memory. If the decoder is not as deep as said, every layer is its own kind."""
    inner = config.get_text_config()
    built = _decoder_layers(_built(config))
    if len(built) != layers:
        return list(range(layers))  # blocks inside blocks: nothing is taken to be alike
    lists = [value for value in vars(inner).values() if isinstance(value, list) and len(value) == layers]
    shapes = [tuple((name, tuple(p.shape)) for name, p in layer.named_parameters()) for layer in built]
    return [(shape, *map(str, listed)) for shape, *listed in zip(shapes, *lists, strict=True)]


def _built(config: PreTrainedConfig, dtype: torch.dtype = torch.bfloat16) -> PreTrainedModel:
    """Return the model on the meta device in dtype, with sdpa or eager attention. Raises ModelError if transformers
    cannot build it."""
    try:
        with META:
            return _built_with(config, dtype, "sdpa")
    except Exception as error:  # in the code of a hundred families, given values of anywhere
        raise ModelError("dry_run.cannot_build", reason=_describe(error)) from error


def _built_with(config: PreTrainedConfig, dtype: torch.dtype, implementation: str) -> PreTrainedModel:
    """Build the model, without its towers, with an implementation of attention; with "eager" if it lacks that one."""
    try:
        model = mended.model(
            parts.auto_class(config).from_config(config, dtype=dtype, attn_implementation=implementation)
        )
        parts.set_aside(model)
        return model
    except ValueError as error:
        if "attn_implementation" not in str(error):
            raise
        return _built_with(config, dtype, "eager")  # as base_model.load does


def _decoder_layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    """Return the decoder's layers in their order, by the class that transformers can checkpoint; layers inside layers
    count too."""
    return [module for module in model.get_decoder().modules() if isinstance(module, GradientCheckpointingLayer)]


def _hold_in_four_bit(model: PreTrainedModel, setup: Setup, dtype: torch.dtype) -> None:
    """Replace each linear layer that transformers would quantize by one as bitsandbytes holds it: packed numbers and
    scales on the meta device."""
    from bitsandbytes.functional import QuantState
    from bitsandbytes.nn import Linear4bit, Params4bit
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear

    settings = base_model.nf4(dtype, setup.double_quant)
    replace_with_bnb_linear(model, parts.not_quantized(model), quantization_config=settings)
    with META:
        for layer in model.modules():
            if not isinstance(layer, Linear4bit):
                continue
            count = layer.in_features * layer.out_features
            blocks = -(-count // 64)
            state = QuantState(
                absmax=torch.empty(blocks, dtype=torch.uint8 if setup.double_quant else torch.float32),
                shape=torch.Size((layer.out_features, layer.in_features)),
                code=torch.empty(16),
                blocksize=64,
                quant_type="nf4",
                dtype=dtype,
            )
            if setup.double_quant:
                state.offset, state.nested = torch.empty(()), True
                state.state2 = QuantState(
                    absmax=torch.empty(-(-blocks // 256)), blocksize=256, code=torch.empty(256), dtype=torch.float32
                )
            packed = torch.empty(((count + 1) // 2, 1), dtype=torch.uint8)
            layer.weight = Params4bit(packed, quant_state=state, quant_type="nf4", bnb_quantized=True)
            layer.quant_state = state
            if layer.bias is not None:
                layer.bias = torch.nn.Parameter(layer.bias.to(dtype), requires_grad=False)
    model.is_loaded_in_4bit = True  # peft reads it
    model.config._is_quantized = True  # and Jamba, before it takes a weight past its layer
    base_model.close_cpu_gradient_trap(model)


def _scales(model: PreTrainedModel) -> Iterator[torch.Tensor]:
    """Yield the scales and codes that bitsandbytes holds beside its packed numbers."""
    for module in model.modules():
        state = getattr(module, "quant_state", None)
        for each in (state, getattr(state, "state2", None)):
            if each is not None:
                yield from (tensor for tensor in (each.absmax, each.code, each.offset) if tensor is not None)


# ---- one step ------------------------------------------------------------------------------------


class _StepMemory:
    """The memory of a step of a model with a given number of layers. params, trainable_params: numbers, not bytes.
    idle: bytes by kind between steps."""

    def __init__(self, params: int, trainable_params: int, idle: Mapping[str, int], peak: Peak):
        self.params, self.trainable_params, self.idle, self.peak = params, trainable_params, idle, peak


class _FamilyTraits:
    """The properties of a model that a run tests before its first step: whether its rows can be packed, and its head.
    Tested on the first layers alone, without adapters, which do not change them."""

    def __init__(self, config: PreTrainedConfig, packing: bool, check: Callable[[], None]):
        """Build and test the first layers. packing: as the setup has it."""
        model = _built(_cut(config, min(LEAST, config.get_text_config().num_hidden_layers))).requires_grad_(False)
        AttentionInterface.register(attention.NAME, attention.packed_sdpa)
        with _as_on_a_card(), Allocations(config.get_text_config().vocab_size, check):
            self.packs = packing and attention.enable(model)
            self.head = Head.from_model(model)


class _SimulatedModel:
    """A model of a given number of layers, with adapters, as setup has them."""

    def __init__(self, config: PreTrainedConfig, setup: Setup, family: _FamilyTraits, check: Callable[[], None]):
        """Build the model with its adapters on the meta device, its base in 4 bits, offloaded or sharded as setup
        says."""
        self.setup, self.family, self.check = setup, family, check
        self.dtype = torch.bfloat16 if setup.base_bytes == 2 else torch.float32
        model = _built(config, self.dtype).requires_grad_(False)
        if setup.method == "qlora":
            _hold_in_four_bit(model, setup, self.dtype)
        self.base, self.vocab_size = model, config.get_text_config().vocab_size
        settings = Adapter(
            method=setup.method, r=setup.r, target_modules=setup.target_modules, use_dora=setup.use_dora,
            lora_dropout=setup.lora_dropout, target_parameters=setup.target_parameters,
        )  # fmt: skip
        with META:
            self.tuned = adapter.add(model, settings, "dry run", None).train()
            if setup.offload_layers:  # layers in RAM are then no longer counted as held
                streaming.begin(self.tuned, META, setup.offload_layers)
        self.spared = self._sharded_elsewhere() if setup.shards > 1 else 0

    def _sharded_elsewhere(self) -> int:
        """Return the bytes of layers that this rank does not hold, if several share the base
        (core/engine/variants/fsdp)."""
        from core.engine.variants import fsdp

        layers = streaming.layers_of(self.base)
        size = sum(each.nbytes for own in fsdp.sharded_parameters(layers) for each in own)
        return size - size // self.setup.shards - arithmetic.GATHERED_THERE * size // max(1, len(layers))

    def run(self) -> _StepMemory:
        """Return the memory of one simulated training step. Raises ModelError if the model's code fails on meta
        tensors."""
        try:
            with _as_on_a_card():
                return self._counted()
        except GarageError:
            raise
        except Exception as error:  # in the code of a hundred families, which need not run without data
            raise ModelError("dry_run.cannot_run", reason=_describe(error)) from error

    def _step(self) -> Step:
        """Return the run's own step, on tensors without data, with fresh optimizer and memory settings of setup. A
        paged state of the optimizer counts like any other."""
        setup = self.setup
        optim = "adamw_8bit" if setup.optim == "paged_adamw_8bit" else setup.optim
        optimizer = optimizers.by_name(optim, optimizers.groups_of(self.tuned, None), lr=1e-4)
        retreat = Retreat(
            setup.per_device_train_batch_size, self.family.packs, True, setup.gradient_checkpointing, setup.offloads
        )
        retreat.uncheckpointed_layers = setup.kept_layers
        return Step(self.tuned, META, self.dtype, optimizer, self.family.head, retreat, offloading=_offload)

    def _counted(self) -> _StepMemory:
        """Carry out what a run does before and in its first step, on the meta device, and return the bytes between
        steps and at the peak, by kind."""
        setup, allocations = self.setup, Allocations(self.vocab_size, self.check)
        parameters = [p for p in self.tuned.parameters() if p.requires_grad]
        trained = {id(p) for p in parameters}
        in_ram = parts.per_layer_embeddings(self.base)  # as core/engine/base_model leaves it
        elsewhere = trained | {id(p) for p in self.base.get_submodule(in_ram).parameters()} if in_ram else trained
        allocations.hold((p for p in self.tuned.parameters() if id(p) not in elsewhere), "weights")
        allocations.hold(self.tuned.buffers(), "weights")
        allocations.hold(_scales(self.base), "weights")
        allocations.hold(parameters, "adapter")
        with allocations:  # as a run does before its first step
            with allocations.making("optimizer"):
                step = self._step()
            if self.family.packs:
                attention.switch(self.base, attention.NAME)
            step.save_memory()
            with allocations.making("adapter"):  # a copy of it stays
                step.fuse()
        # the answer where code tests that a mask of rows side by side has no padding
        allocations.truth = setup.per_device_train_batch_size == 1
        with allocations, _track_place(allocations, self.base):
            with allocations.making("gradients"):
                for parameter in parameters:
                    parameter.grad = torch.zeros_like(parameter)
            with allocations.making("optimizer"):
                _as_after_a_step(step.optimizer)
            if not setup.accumulates:
                step.optimizer.zero_grad(set_to_none=True)
            for parameter in parameters:
                parameter.register_post_accumulate_grad_hook(lambda p: allocations.rename(p.grad, "gradients"))
            idle = {
                name: size for name, size in allocations.now().items() if name in ("weights", "adapter", "optimizer")
            }
            with allocations.making("activations"):
                batch = _batch(setup, self.family.packs)
            allocations.forget_peak()
            self.tuned.train()
            step.backward([batch])
            allocations.place = "optimizer"
            step.clip()
            with allocations.making("optimizer"):
                step.apply(is_good=True)
        step.release()
        for counted in (idle, allocations.peak.bytes):
            counted["weights"] -= self.spared
        return _StepMemory(_parameter_count(self.base), sum(p.numel() for p in parameters), idle, allocations.peak)


def _offload(tuned: PeftModel) -> AbstractContextManager[object]:
    """Return the context that offloads tensors saved for backward."""
    return torch.autograd.graph.saved_tensors_hooks(_put_aside, lambda saved: saved() if callable(saved) else saved)


def _put_aside(tensor: torch.Tensor) -> torch.Tensor | Callable[[], torch.Tensor]:
    """Do as core/engine/variants/offload does: return a function that makes a new tensor of its size; weights and small
    tensors are returned as they are."""
    from core.engine.variants.offload import SMALLEST_BYTES

    if tensor.numel() * tensor.element_size() < SMALLEST_BYTES or isinstance(tensor, torch.nn.Parameter):
        return tensor
    size, dtype = tensor.size(), tensor.dtype
    return lambda: torch.empty(size, dtype=dtype, device=META)


def _batch(setup: Setup, packed: bool) -> Batch:
    """Return a stand-in for the largest micro-batch that setup allows: zeros on the meta device, each row with
    max_length tokens.

    It is built here, with the shapes that core/engine/batches gives to token ids, mask or positions, and trained tokens
    (at least one). packed: all rows end to end in one, with positions and lengths; else side by side, with a mask.
    """
    rows, length, learned = setup.per_device_train_batch_size, setup.max_length, max(1, setup.learned)
    index, targets = (torch.zeros(learned, dtype=torch.int64, device=META) for _ in range(2))
    if packed:
        ids, positions = (torch.zeros(1, setup.tokens, dtype=torch.int64, device=META) for _ in range(2))
        return Batch(ids, index, targets, setup.tokens, position_ids=positions, lengths=(length,) * rows)
    ids, mask = (torch.zeros(rows, length, dtype=torch.int64, device=META) for _ in range(2))
    return Batch(ids, index, targets, setup.tokens, attention_mask=mask)


def _as_after_a_step(optimizer: torch.optim.Optimizer) -> None:
    """Give the optimizer the state that it has after a step, by a step of zero gradients; AdamW's is created
    beforehand."""
    if isinstance(optimizer, torch.optim.AdamW):  # torch makes the state of its fused step on cards and processors only
        for parameter in optimizer.param_groups[0]["params"]:
            averages = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.zeros(()), **averages}
    optimizer.step()


def _parameter_count(model: PreTrainedModel) -> int:
    """Count the parameters of the base, tied ones once, 4-bit ones as unpacked."""
    parameters = {id(p): p for p in model.parameters() if not p.requires_grad}
    return sum(
        p.quant_state.shape.numel() if getattr(p, "quant_state", None) else p.numel() for p in parameters.values()
    )


@contextmanager
def _as_on_a_card() -> Iterator[None]:
    """Context manager: compute attention, norms and dropout by a GPU's kernels, which torch would do step by step for
    tensors without data. Also disables autocast, which torch refuses for such tensors even where code switches it off.

    torch's functions are replaced, because torch's modes are off while a backward recomputes a checkpointed layer.
    """
    functional = torch.nn.functional
    own = functional.scaled_dot_product_attention, functional.dropout, torch.autocast, elementwise.kernel
    functional.scaled_dot_product_attention, functional.dropout, elementwise.kernel = _attention, _dropout, _norm
    torch.autocast = lambda device_type, *args, **kwargs: (
        nullcontext() if device_type == "meta" else own[2](device_type, *args, **kwargs)
    )
    try:
        yield
    finally:
        functional.scaled_dot_product_attention, functional.dropout, torch.autocast, elementwise.kernel = own


def _norm(rows: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the outputs of a GPU's fused kernel, which torch would compute step by step: the rows, and one number in
    fp32 each."""
    return rows * weight, rows.new_empty(len(rows), 1, dtype=torch.float32)


def _dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """Compute dropout by a GPU's kernel; inplace is ignored."""
    return torch.ops.aten.native_dropout(input, p, True)[0] if training and p else input


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Return attention by the kernel that a GPU would use: flash attention; with a mask, in fp32, or of unequal widths
    the memory-efficient kernel, whose mask is of numbers."""
    aten = torch.ops.aten
    if enable_gqa and (groups := query.shape[1] // key.shape[1]) > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    flash = attn_mask is None and query.dtype != torch.float32 and query.shape[-1] == value.shape[-1] <= 256
    if flash:
        return aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.empty_like(attn_mask, dtype=query.dtype)
        attn_mask = attn_mask.expand(*query.shape[:3], key.shape[2])
    return aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, True, dropout_p, is_causal, scale=scale
    )[0]


@contextmanager
def _track_place(allocations: Allocations, model: PreTrainedModel) -> Iterator[None]:
    """Context manager: keep allocations.place up to date by hooks on the layers: "forward 3", "head", "backward 3"."""
    layers = _decoder_layers(model)
    phase = ["forward"]

    def set_forward_place(number: int) -> Callable[[torch.nn.Module, tuple[object, ...]], None]:
        """Return a hook that sets the place before layer `number`."""

        def hook(module: torch.nn.Module, args: tuple[object, ...]) -> None:
            """Set the place to this layer's number in the current phase, "forward 3" or, while the backward recomputes
            the layer, "backward 3"."""
            allocations.place = f"{phase[0]} {number}"

        return hook

    def set_later_places(number: int) -> Callable[[torch.nn.Module, tuple[object, ...], object], None]:
        """Return a hook that sets the place after layer `number` in the forward, and in the backward."""

        def arrived(gradient: torch.Tensor) -> None:
            """Note that the backward has reached the layer `number`: a hook for the gradient of its output, which is
            not read."""
            phase[0] = "backward"
            allocations.place = f"backward {number}"

        def hook(module: torch.nn.Module, args: tuple[object, ...], output: object) -> None:
            """Set the place to "head" after the forward of the last layer, and have `arrived` called once the gradient
            of the layer's output is computed. Does nothing when the backward recomputes the layer."""
            hidden = output[0] if isinstance(output, tuple) else output
            if phase[0] == "forward":
                allocations.place = "head" if number == len(layers) - 1 else allocations.place
                if isinstance(hidden, torch.Tensor) and hidden.requires_grad:
                    hidden.register_hook(arrived)

        return hook

    with ExitStack() as hooks:
        for number, layer in enumerate(layers):
            hooks.enter_context(layer.register_forward_pre_hook(set_forward_place(number)))
            hooks.enter_context(layer.register_forward_hook(set_later_places(number)))
        yield


# ---- the estimate --------------------------------------------------------------------------------


def _extrapolated(few: _StepMemory, more: _StepMemory, depths: Sequence[int], layers: int) -> _StepMemory:
    """Extrapolate every number linearly from two models of few layers (depths) to all layers."""

    def extrapolated_bytes(a: float, b: float) -> int:
        """Return the number at all layers, linear in the depth, from a at the first and b at the second depth; it may
        be negative."""
        return round(b + (b - a) * (layers - depths[1]) / (depths[1] - depths[0]))

    def by_kind(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
        """Return the bytes at all layers of each kind in either mapping, extrapolated from both, at least 0."""
        return {name: max(0, extrapolated_bytes(a.get(name, 0), b.get(name, 0))) for name in {*a, *b}}

    peak = Peak(by_kind(few.peak.bytes, more.peak.bytes), more.peak.operation, more.peak.place)
    return _StepMemory(
        extrapolated_bytes(few.params, more.params),
        extrapolated_bytes(few.trainable_params, more.trainable_params),
        by_kind(few.idle, more.idle),
        peak,
    )


def _estimate(memory: _StepMemory, setup: Setup) -> Estimate:
    """Return the counted bytes as an estimate in the terms of core/memory/arithmetic, with its numbers for memory
    outside the allocator's count."""
    step: dict[str, float] = {
        name: memory.peak.bytes.get(name, 0) for name in ("gradients", "activations", "logits", "dequantised")
    }
    idle = {name: memory.idle.get(name, 0) for name in ("weights", "adapter", "optimizer")} | {
        "workspace": arithmetic.workspace(setup)
    }
    # What an optimizer takes for its own step, where that is the worst moment.
    step["gradients"] += max(0, memory.peak.bytes.get("optimizer", 0) - idle["optimizer"])
    moving = step["activations"] + step["logits"]
    outside = {"context": arithmetic.context(setup), "slack": arithmetic.slack(moving, step["logits"], setup)}
    margin = memory_constants().margin["known"]
    return Estimate.from_terms(idle, step, outside, trainable_params=memory.trainable_params, margin=margin)


def _place_in_model(place: str, depth: int, layers: int) -> tuple[str, int | None]:
    """Return a place of a run of `depth` layers as (phase, layer from 1) of the whole model: at depth 4 of 24 layers
    "backward 3" is ("backward", 24). The layer of "head" and "optimizer" is None."""
    name, _, number = place.partition(" ")
    if not number:
        return name or "forward", None if name else 1
    return name, int(number) + 1 if int(number) < depth / 2 else layers - (depth - 1 - int(number))


def _describe(error: Exception) -> str:
    """Return an error's type and first line, at most 200 characters."""
    return f"{type(error).__name__}: {first_line(error)}"[:200]
