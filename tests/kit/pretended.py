"""A pretended GPU in pure Python: the real Step on tensors without data, and every operation seen.

    python -m tests.kit.pretended     writes the kept table (KEPT) again, after a change of launches that is intended

torch's "privateuse one" backend is the device `card`; FakeTensorMode propagates shapes, dtypes and devices. Forward,
recomputation, backward, clipping and AdamW run as on a GPU, with its kernels for attention, norm and dropout. Shows
which operations are launched, what the processor waits for, which devices meet. Shows no numbers, no time and no
memory; a test of numbers that the program makes on the GPU itself is taken as passed. The backend is registered for
good, so all of this runs in a process of its own.

A launch is an operation that computes on the card: what only views or allocates is none, a product of bitsandbytes'
counts as its kernels. A wait is a copy between card and RAM that does not return at once, or a number that is read. An
operation whose result's size depends on data, such as `nonzero`, ends in torch's own error.
"""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _foreach_utils, backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface, AutoConfig, masking_utils

from core.data.labels import Encoded
from core.engine import adapter, attention
from core.engine import optimizer as optimizers
from core.engine.loss import Head
from core.engine.out_of_memory import Retreat
from core.engine.step import Step
from core.engine.variants import elementwise, neftune, streaming, varlen
from core.engine.variants.preference import Preference
from core.memory.setup import Setup
from core.presets import PROJECT
from core.recipe import Adapter
from core.system.processes import worker_environment
from core.trial import dry_run
from tests.kit.cuda import PlayedRuntime

CARD = torch.device("privateuseone:0")
KEPT = PROJECT / "tests" / "data" / "launches.json"  # {case: {"forward": launches a layer, "backward": the same}}
COMMON = {
    "hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 16, "num_key_value_heads": 4,
    "vocab_size": 1000,
    "max_position_embeddings": 4096, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"head_dim": 64},
    "gemma3_text": {"head_dim": 64, "sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "mistral": {"head_dim": 64, "sliding_window": 128},
    "granite": {},
    "phi3": {"sliding_window": None},
}
LENGTHS = 700, 500, 400, 448  # tokens of the rows: 2,048, for which bitsandbytes unpacks a matrix
ENOUGH = 1 << 20


@dataclass(frozen=True)
class Case:
    """rows: packed (one attention for all examples), apart (packed, one attention for each) or padded. objective: of
    pairs. offload: what lies in RAM: nothing, layers, or activations. pins: how often RAM may be pinned.
    noise: NEFTune. planted: a key of PLANTED."""

    family: str
    rows: str = "packed"
    bits: int = 16
    checkpointing: bool = True
    objective: str = ""
    offload: str = ""
    pins: int = ENOUGH
    noise: bool = False
    planted: str = ""

    @property
    def name(self) -> str:
        checkpointing = "checkpointing" if self.checkpointing else "all saved"
        words = (self.family, self.rows, self.objective, f"{self.bits} bit", checkpointing)
        pins = "" if self.pins == ENOUGH else f"{self.pins} pins"
        more = (self.offload and f"{self.offload} in RAM", pins, "noise" * self.noise, self.planted)
        return ", ".join(filter(None, (*words, *more)))


CASES = (
    *(Case(family, bits=bits) for family in FAMILIES for bits in (16, 4)),
    *(Case(family, "padded") for family in FAMILIES),
    Case("llama", checkpointing=False),
    Case("llama", bits=4, checkpointing=False),
    Case("llama", "apart", bits=4),
    Case("gemma3_text", "apart"),
    Case("llama", pins=0),
    Case("llama", noise=True),
    Case("llama", bits=4, objective="dpo"),
    Case("gemma3_text", objective="kto"),
    Case("qwen3", "padded", objective="dpo"),
    Case("llama", objective="simpo"),
    Case("llama", bits=4, offload="layers"),
    Case("granite", offload="layers"),
    Case("llama", bits=4, offload="layers", pins=0),
    Case("llama", offload="activations"),
    Case("llama", offload="activations", pins=0),
)


@dataclass
class Observed:
    """What a step of one micro-batch did. launches: per layer, by phase. waits: by place. copies: to the card. mixed:
    operations with tensors of both devices. gradients: their dtypes and devices."""

    launches: dict[str, float] = field(default_factory=dict)
    waits: dict[str, int] = field(default_factory=dict)
    copies: int = 0
    mixed: list[str] = field(default_factory=list)
    gradients: list[str] = field(default_factory=list)


# ---- what is seen --------------------------------------------------------------------------------

ATEN, DEVICE = torch.ops.aten, torch.ops.prim.device.default
ALLOCATES = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "_unsafe_view",
    "is_same_size",
    "set_",
}
COPIES = {ATEN._to_copy.default, ATEN.copy_.default}


class Watch(TorchDispatchMode):
    """Counts operations while it is entered. A tensor without data is read as False, 1 or 1.0, so that rows count as
    padded."""

    def __init__(self, pins: int):
        super().__init__()
        self._pins, self._pinned = pins, dict[int, torch.Tensor]()
        self.begin()

    def begin(self) -> None:
        """Reset the counts."""
        self.launches, self.waits = Counter[str](), Counter[str]()
        self.copies, self.mixed, self.updates = 0, list[str](), False
        self._list: FrameType | None = None

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation is DEVICE:
            return operation(*args)
        kwargs = dict(kwargs or {})
        given = _tensors((args, kwargs))
        if operation is ATEN._local_scalar_dense.default and (given[0].is_meta or isinstance(given[0], FakeTensor)):
            return self._read(given[0])
        if kwargs.pop("pin_memory", None):
            return self._pin(operation, args, kwargs)
        self._note_mixed(operation, given)
        made = operation(*args, **kwargs)
        every = [*given, *_tensors(made)]
        if any(map(_is_on_card, every)):
            if operation in COPIES and not all(map(_is_on_card, every)):
                self._note_copy(every, args, kwargs)
            elif not (_views(operation) or operation.__name__.split(".")[0] in ALLOCATES):
                self.launches[self._phase()] += _kernels(operation, args)
        return made

    def _phase(self) -> str:
        return "update" if self.updates else "backward" if torch._C._current_graph_task_id() != -1 else "forward"

    def _pin(self, operation: Any, args: Any, kwargs: Any) -> torch.Tensor:
        if len(self._pinned) >= self._pins:
            raise torch.AcceleratorError(PlayedRuntime.OUT_OF_MEMORY)
        made = operation(*args, **kwargs)
        self._pinned[made.untyped_storage()._cdata] = made
        return made

    def _read(self, tensor: torch.Tensor) -> Any:
        frame = _frame_of("tolist")  # a fake tensor reads one number after the other, where a copy reads all
        if _is_on_card(tensor) and (frame is None or frame is not self._list):
            self.waits[_place()] += 1
        self._list = frame
        return False if tensor.dtype == torch.bool else 1.0 if tensor.is_floating_point() else 1

    def _note_copy(self, every: Sequence[torch.Tensor], args: Any, kwargs: Any) -> None:
        self.copies += _is_on_card(every[-1])
        in_ram = next(each for each in every if not _is_on_card(each))
        returns = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
        if not (returns and in_ram.untyped_storage()._cdata in self._pinned):
            self.waits[_place()] += 1

    def _note_mixed(self, operation: Any, given: Sequence[torch.Tensor]) -> None:
        """Note an operation on tensors of both devices; a number of no dimension in RAM is a kernel's argument and not
        noted."""
        if operation not in COPIES and len({each.device.type for each in given if each.dim() or _is_on_card(each)}) > 1:
            self.mixed.append(f"{operation} at {_place()}")


def _is_on_card(tensor: torch.Tensor) -> bool:
    return tensor.device.type == CARD.type


def _tensors(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def _views(operation: Any) -> bool:
    returned = [each.alias_info for each in operation._schema.returns]
    return any(alias is not None and not alias.is_write for alias in returned)


def _kernels(operation: Any, args: Any) -> int:
    """Return an operation's kernels on the card. Of more than 1,536 rows, bitsandbytes unpacks the matrix and
    multiplies; before that the scales, if they are packed too, and adds their mean
    (bitsandbytes/backends/cuda/ops.py)."""
    if operation in (ATEN.select_backward.default, ATEN.slice_backward.default):
        return 2  # zeros, and the gradient copied into them
    if not str(operation).startswith("bitsandbytes.gemm_4bit"):
        return 1
    absmax_8bit = args[7:8]
    return 2 if absmax_8bit in ((), (None,)) else 4


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame:
        yield frame
        frame = frame.f_back


def _frame_of(name: str) -> FrameType | None:
    return next((frame for frame in _frames() if frame.f_code.co_name == name), None)


def _place() -> str:
    """Return file and function of the innermost code that is neither torch's nor this file."""
    for frame in _frames():
        path = Path(frame.f_code.co_filename)
        name = path.as_posix().rpartition("site-packages/")[2] if "site-packages" in path.parts else ""
        if not name and path.is_relative_to(PROJECT) and path != Path(__file__):
            name = path.relative_to(PROJECT).as_posix()
        if name and not name.startswith("torch/"):
            return f"{name} {frame.f_code.co_name}"
    return "?"


# ---- the step ------------------------------------------------------------------------------------


class Backend(backend_registration._DummyBackendModule):
    """torch.card, and its only stream."""

    watch: Watch

    def current_stream(self, device: torch.device) -> Backend:
        return self

    def synchronize(self) -> None:
        self.watch.waits[_place()] += 1

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class AtOnce:
    """Replaces the thread that copies offloaded layers by calls at once: a FakeTensorMode belongs to one thread."""

    def submit(self, function: Callable[..., Any], *given: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(function(*given))
        return done


def register() -> None:
    """Register the backend, for the rest of this process."""
    backend_registration._setup_privateuseone_for_python_backend("card", Backend())
    FakeTensorMode.avoid_device_init = True
    AttentionInterface.register(attention.NAME, attention.packed_sdpa)
    varlen.CARD = CARD.type
    _foreach_utils._foreach_supported_types.append(FakeTensor)
    # which it would be of a tensor without data, and skip its questions
    masking_utils.is_tracing = lambda tensor=None: False


def observe(case: Case) -> Observed:
    """Return what a step of case does. A layer's launches are the difference between steps of two depths."""
    period = len(set(FAMILIES[case.family].get("layer_types", "?")))
    least = 3 if case.offload == "layers" else period  # two would stay in the two buffers
    first, second = (_watched(case, depth) for depth in (least, least + period))
    of_layer = {
        name: (second.launches.get(name, 0) - first.launches.get(name, 0)) / period for name in ("forward", "backward")
    }
    return replace(second, launches=of_layer)


def _watched(case: Case, depth: int) -> Observed:
    for kept in vars(varlen).values():
        getattr(kept, "cache_clear", lambda: None)()
    varlen.proven = lambda kernel, *about: kernel if case.rows == "packed" else None
    tuned, watch = _tuned(case, depth), Watch(case.pins)
    Backend.watch = watch
    with dry_run._as_on_a_card(), pytest.MonkeyPatch.context() as patch:
        PlayedRuntime().stand_in(patch)  # for the streams of layers in RAM
        # Storages without data have no address, by which activation offloading knows weights.
        patch.setattr(torch.UntypedStorage, "data_ptr", lambda storage: storage._cdata)
        replaced = elementwise.install(tuned)  # before, because its tests compare numbers in RAM
        with FakeTensorMode(), watch:
            step = _step(case, tuned)
            watch.begin()
            with neftune.noise(tuned, 5.0 if case.noise else None):
                gradients = _trained(step, watch, case)
            seen = Observed(dict(watch.launches), dict(watch.waits), watch.copies, watch.mixed, gradients)
            step.release()
    replaced.release()
    return seen


def _trained(step: Step, watch: Watch, case: Case) -> list[str]:
    """Compute and apply one step of one micro-batch, as core/training/trainer does. Returns the dtypes and devices of
    its gradients."""
    try:
        step.compute([_rows(case)], 1e-4)
    except RuntimeError:
        if not watch.mixed:
            raise
    gradients = sorted({f"{p.grad.dtype} on {p.grad.device.type}" for p in step.parameters if p.grad is not None})
    watch.updates = True
    step.apply(is_good=True)
    step.take_pair_metrics()
    return gradients


def _tuned(case: Case, depth: int) -> Any:
    """Return the model with its adapter, on the device meta."""
    kinds = FAMILIES[case.family].get("layer_types")
    values = (
        COMMON
        | FAMILIES[case.family]
        | {"num_hidden_layers": depth}
        | ({"layer_types": kinds[:depth]} if kinds else {})
    )
    config = AutoConfig.for_model(case.family, **values)
    config.use_cache = False
    model = dry_run._built(config).requires_grad_(False)
    if case.bits == 4:
        dry_run._hold_in_four_bit(model, Setup(method="qlora"), torch.bfloat16)
    with dry_run.META:
        return adapter.add(model, Adapter(r=8), "pretended", None).train()


def _step(case: Case, tuned: Any) -> Step:
    base, packed = tuned.get_base_model(), case.rows != "padded"
    layers = streaming.layers_of(base)
    _materialize(tuned)
    if case.planted:
        PLANTED[case.planted].plant(layers)
    if case.offload == "layers":
        bus = streaming.Bus(torch.device("cuda"))
        bus._thread = AtOnce()
        away = streaming.begin(tuned, CARD, len(layers), bus)
        away.layers = [replace(layer, home=torch.empty(layer.home.shape, dtype=torch.uint8)) for layer in away.layers]
    if packed:
        attention.switch(base, attention.NAME)
    groups = optimizers.groups_of(tuned, None)
    retreat = Retreat(sum(LENGTHS), packed, True, case.checkpointing, case.offload == "activations")
    preference = Preference(case.objective, 0.1, sft_weight=0.5) if case.objective else None
    optimizer, head = optimizers.by_name("adamw_torch", groups, lr=1e-4), Head.from_config(base.config)
    step = Step(tuned, CARD, torch.bfloat16, optimizer, head, retreat, criterion=preference)
    step.save_memory()
    step.fuse()
    return step


def _materialize(tuned: Any) -> None:
    """Replace every tensor of the device meta by one of the card; tied ones stay tied."""
    new: dict[int, torch.nn.Parameter] = {}

    def on_card(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
        found = torch.nn.Parameter(_empty(parameter), requires_grad=parameter.requires_grad)
        vars(found).update(vars(parameter))
        state = getattr(found, "quant_state", None)
        for scales in filter(None, (state, getattr(state, "state2", None))):
            for name in ("absmax", "code", "offset"):
                if isinstance(tensor := getattr(scales, name), torch.Tensor):
                    setattr(scales, name, _empty(tensor))
        return found

    for module in tuned.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in new:
                    new[id(parameter)] = on_card(parameter)
                module._parameters[name] = new[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _empty(buffer)


def _empty(like: torch.Tensor) -> torch.Tensor:
    return torch.empty(like.shape, dtype=like.dtype, device=CARD)


def _rows(case: Case) -> list[Encoded]:
    def row(length: int) -> Encoded:
        learned = [False] * (length // 2) + [True] * (length - length // 2)
        if not case.objective:
            return Encoded([5] * length, learned)
        half = length // 2
        return Encoded([5] * length, learned[half // 2 :][:half] * 2, second=half, reference=(-1.0, -2.0))

    return [row(length) for length in LENGTHS]


# ---- faults, to show that each is seen -----------------------------------------------------------

Layers = Sequence[torch.nn.Module]


@dataclass(frozen=True)
class Fault:
    """seen_as: what shows it: devices, gradients, waits or launches."""

    seen_as: str
    plant: Callable[[Layers], None]


def _after_each(do: Callable[[torch.Tensor], object]) -> Callable[[Layers], None]:
    """Return a plant that calls do with the output of every layer."""

    def hook(module: torch.nn.Module, args: Any, output: torch.Tensor) -> None:
        do(output)

    def plant(layers: Layers) -> None:
        for layer in layers:
            layer.register_forward_hook(hook)

    return plant


def _narrow(layers: Layers) -> None:
    found = next(
        each for each in layers[0].modules() if isinstance(each, torch.nn.Linear) and each.weight.requires_grad
    )
    found.weight = torch.nn.Parameter(found.weight.to(torch.bfloat16))


PLANTED = {
    "sum of two devices": Fault("devices", _after_each(lambda hidden: hidden + torch.zeros(hidden.shape))),
    "index in RAM": Fault("devices", _after_each(lambda hidden: hidden[:, torch.arange(4)])),
    "narrow gradient": Fault("gradients", _narrow),
    "number read": Fault("waits", _after_each(lambda hidden: hidden.sum().item())),
    "copy to RAM": Fault("waits", _after_each(lambda hidden: hidden.to("cpu", non_blocking=True))),
    "copy from RAM": Fault("waits", _after_each(lambda hidden: torch.tensor([1], device=hidden.device))),
    "more launches": Fault("launches", _after_each(lambda hidden: hidden * 2)),
}


# ---- asked from another process, and the kept table ----------------------------------------------


class Elsewhere:
    """Context manager: another process that registers the backend and runs cases, one after the other."""

    def __enter__(self) -> Elsewhere:
        command = [sys.executable, "-m", "tests.kit.pretended", "listen"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=PROJECT,
            env=worker_environment(),
        )
        return self

    def __exit__(self, *raised: object) -> None:
        with self._process:
            self._process.kill()

    def observe(self, case: Case) -> Observed:
        """Return what a step of case does there. Raises AssertionError with that process's traceback if it could not
        run the case."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asdict(case)) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"failed": "the process is gone"}')
        assert "failed" not in answer, answer["failed"]
        return Observed(**answer)


def listen() -> None:
    """Answer each line of Case's fields with a line of Observed's, or {"failed": traceback}."""
    for line in sys.stdin:
        try:
            answer = asdict(observe(Case(**json.loads(line))))
        except Exception:  # noqa: BLE001 - whatever it is, the test shows it
            answer = {"failed": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


def write() -> None:
    """Write the kept table, and print it with the waits, in Markdown."""
    kept = {}
    print("| case | launches a layer, forward | backward | copies to the GPU | waits |\n|---|--:|--:|--:|--:|")
    for case in CASES:
        seen = observe(case)
        kept[case.name] = seen.launches
        cells = (case.name, *(f"{count:g}" for count in seen.launches.values()), seen.copies, sum(seen.waits.values()))
        print("|", " | ".join(map(str, cells)), "|", flush=True)
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(launches)}" for name, launches in kept.items())
    KEPT.write_text(f"{{\n{lines}\n}}\n", "utf-8", newline="\n")


if __name__ == "__main__":
    register()
    listen() if sys.argv[1:] == ["listen"] else write()
