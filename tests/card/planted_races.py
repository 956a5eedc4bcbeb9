"""Races planted on the null card, and the same without a fault; a line of JSON with the outcome of each
(test_races.py).

    NULLCARD_RACES=1 .venv/bin/python -m tests.card.card python tests/card/planted_races.py

Fields: case; race: the card's or the numbers layer's words, else null; same: whether the numbers are those of work
that waits for itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from core.engine import adapter, device
from core.engine.variants import offload, streaming
from core.engine.variants.streaming import Bus
from core.messages import msg
from core.recipe import Adapter
from tests.card.refusals import trainer_in
from tests.kit import trainer as kit

card = ctypes.CDLL(None)
card.nullcard_race.restype = ctypes.c_char_p
SIZE = 1 << 14
CARD = torch.device("cuda:0")


# ---- torch alone ----------------------------------------------------------------------------------------------------


def given() -> tuple[torch.Tensor, torch.Tensor, Any, Any]:
    """Numbers in pinned RAM, zeros on the card, the current stream and another one."""
    pinned, there = torch.arange(float(SIZE)).pin_memory(), torch.zeros(SIZE, device=CARD)
    torch.cuda.synchronize()
    return pinned, there, torch.cuda.current_stream(), torch.cuda.Stream()


def copied_aside(waits: bool = True, records_elsewhere: bool = False, leaves_reader: bool = True) -> float:
    """Copied on another stream to memory that this one has read, and used on this one."""
    pinned, there, main, side = given()
    before = there + 1
    if leaves_reader:
        side.wait_stream(main)
    with torch.cuda.stream(side):
        there.copy_(pinned, non_blocking=True)
    arrived = (main if records_elsewhere else side).record_event()
    if waits:
        main.wait_event(arrived)
    return (there * 2).sum().item() + before.sum().item()


def refilled() -> float:
    pinned, there, *_ = given()
    there.copy_(pinned, non_blocking=True)
    pinned.fill_(0)
    return there.sum().item()


def read_early() -> float:
    pinned, there, *_ = given()
    pinned.copy_(there, non_blocking=True)
    return float((pinned + 1).sum())


def freed_in_flight() -> float:
    _, there, *_ = given()
    at = ctypes.c_void_p()
    card.cudaHostAlloc(ctypes.byref(at), ctypes.c_size_t(4 * SIZE), 0)
    pinned = torch.frombuffer((ctypes.c_char * (4 * SIZE)).from_address(at.value), dtype=torch.float32)
    there.copy_(pinned, non_blocking=True)
    card.cudaFreeHost(at)
    torch.cuda.synchronize()
    return there.sum().item()


def memory_taken_again(recorded: bool = False) -> float:
    """Memory of another stream that this one reads, freed, and filled by the other stream's next tensor."""
    _, _, main, side = given()
    with torch.cuda.stream(side):
        mine = torch.ones(SIZE, device=CARD)
    main.wait_stream(side)
    twice = mine * 2
    if recorded:
        mine.record_stream(main)
    del mine
    with torch.cuda.stream(side):
        torch.full((SIZE,), 7.0, device=CARD)
    return twice.sum().item()


# ---- the product's own ----------------------------------------------------------------------------------------------


class NoWait(Bus):
    """The computation does not wait for a layer."""

    def arrived(self, arrival: Any) -> None:
        if arrival is not None:
            arrival.result()


class EventElsewhere(Bus):
    """A layer's event is recorded on the stream that computes."""

    def _carry(self, *given: Any) -> Any:
        super()._carry(*given)
        return torch.cuda.default_stream().record_event()


class NotQueued(Bus):
    """A layer overwrites another one that is still computed with."""

    def _carry(self, home: Any, staging: Any, place: Any, queued: Any) -> Any:
        return super()._carry(home, staging, place, torch.cuda.Event())


class StagingFilledEarly(Bus):
    """A staging buffer is filled while the card may still read its last layer."""

    def _carry(self, home: Any, staging: Any, place: Any, queued: Any) -> Any:
        staging.read = None
        return super()._carry(home, staging, place, queued)


def base(layers: int = 8) -> Any:
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        use_cache=False,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).requires_grad_(False)


def tuned() -> Any:
    made = adapter.add(base(), Adapter(r=4), "tiny", None)
    torch.manual_seed(1)
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    made.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    made.enable_input_require_grads()
    return made.train()


def gradient(model: Any, around: Any = None) -> torch.Tensor:
    """Of two micro-batches."""
    for seed in (3, 4):
        ids = torch.randint(3, 97, (2, 12), generator=torch.Generator().manual_seed(seed)).to(CARD)
        with around or contextlib.nullcontext():
            model(input_ids=ids, labels=ids).loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]).cpu()


def streamed(bus: type[Bus] = Bus) -> torch.Tensor:
    model = tuned()
    streaming.begin(model, CARD, 6, bus(CARD))
    return gradient(model)


def put_aside() -> torch.Tensor:
    offload.SMALLEST_BYTES = 1
    model = tuned().to(CARD)
    return gradient(model, offload.Offload(model))


def trained(goes_on: bool) -> torch.Tensor:
    """The adapter after two steps; goes_on: from the checkpoint of the first."""
    folder = Path(tempfile.mkdtemp())
    trainer = trainer_in(folder)
    trainer.run()
    if goes_on:
        shutil.rmtree(trainer.reporter.run.checkpoints()[-1])
        trainer = trainer_in(folder)
        assert trainer.position.step == 1
        trainer.run()
    adapted = kit.adapter_of(trainer).cpu()
    shutil.rmtree(folder)
    return adapted


CASES: dict[str, tuple[Callable[[], Any], Any]] = {
    "right": (copied_aside, None),
    "no wait": (lambda: copied_aside(waits=False), "right"),
    "event elsewhere": (lambda: copied_aside(records_elsewhere=True), "right"),
    "overwritten": (lambda: copied_aside(leaves_reader=False), "right"),
    "refilled": (refilled, SIZE * (SIZE - 1) / 2),
    "read early": (read_early, float(SIZE)),
    "freed in flight": (freed_in_flight, 0.0),
    "recorded": (lambda: memory_taken_again(recorded=True), 2.0 * SIZE),
    "not recorded": (memory_taken_again, 2.0 * SIZE),
    "plain": (lambda: gradient(tuned().to(CARD)), None),
    "put aside": (put_aside, "plain"),
    "streamed": (streamed, "plain"),
    "trained": (lambda: trained(goes_on=False), None),
    "went on": (lambda: trained(goes_on=True), "trained"),
    "streamed, no wait": (lambda: streamed(NoWait), "plain"),
    "streamed, event elsewhere": (lambda: streamed(EventElsewhere), "plain"),
    "streamed, overwritten": (lambda: streamed(NotQueued), "plain"),
    "streamed, staging filled early": (lambda: streamed(StagingFilledEarly), "plain"),
}


def main() -> None:
    device.read_bitsandbytes()
    kit.FP32 = device.Compute(CARD, torch.float32, msg("device.cpu_fp32"))
    results: dict[str, Any] = {}
    for case, (act, expected) in CASES.items():
        race = None
        try:
            results[case] = act()
            torch.cuda.synchronize()
        except Exception as error:  # noqa: BLE001 - whatever the fault led to
            race = card.nullcard_race().decode() or str(error).splitlines()[0]
        card.nullcard_mend()
        truth = results.get(expected) if isinstance(expected, str) else expected
        same = truth is None or (
            case in results and bool((torch.as_tensor(results[case]) == torch.as_tensor(truth)).all())
        )
        print(json.dumps({"case": case, "race": race, "same": same}), flush=True)


if __name__ == "__main__":
    main()
