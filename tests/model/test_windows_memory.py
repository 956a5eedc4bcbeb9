"""Memory on a card that Windows drives: what is full is said and answered as on Linux. The card is a fake
(tests/kit/cuda)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from core.advice.stopped import Stopped
from core.engine import device
from core.errors import DoesNotFitError
from core.messages import msg
from core.models.shapes.shape import ModelShape
from core.runs.run_json import RunFacts
from core.system.gpu import Card
from core.training.memory import probe
from core.training.memory.probe import Probe
from core.training.trainer import Trainer
from core.values import GIB
from core.workspace.folder import Workspace
from tests.kit.cuda import FakeCuda
from tests.kit.shapes import LLAMA
from tests.kit.trainer import trainer_of

Make = Callable[[FakeCuda, dict[bool, float]], tuple[Trainer, Probe]]


@pytest.fixture
def probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A trainer on that card whose longest batch needs so many GiB without and with gradient checkpointing, and its
    probe."""

    def make(cuda: FakeCuda, needs: dict[bool, float]) -> tuple[Trainer, Probe]:
        cuda.stand_in(monkeypatch)
        monkeypatch.setattr(probe, "this_machine", cuda.machine)
        trainer = trainer_of(tmp_path / "run", None)
        trainer.step.on_card = True
        monkeypatch.setattr(
            trainer.step, "rehearse", lambda longest: cuda.use(needs[trainer.step.retreat.checkpointing])
        )
        trainer.reporter.run.add_facts(RunFacts(advice={}))
        return trainer, Probe(trainer.reporter.run, Workspace.open(tmp_path / "ws"), trainer.recipe, None)

    return make


@pytest.mark.parametrize("spills", [True, False], ids=["Windows", "Linux"])
def test_a_plan_that_is_a_little_too_large_saves_memory_once_and_starts(
    spills: bool, probed: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen in the code: what the first try left in the allocator counted as the second's, so that no saving was ever
    enough."""
    cuda = FakeCuda(spills=spills)
    monkeypatch.setattr("core.memory.record.driver_system", lambda: "Windows" if spills else "Linux")
    trainer, memory_probe = probed(cuda, {False: 7.3, True: 5.0})
    memory_probe(trainer.ahead)
    assert trainer.step.retreat.checkpointing
    assert trainer.reporter.run.facts().memory.measured_gib == pytest.approx(5.0, abs=0.01)


def test_what_fits_no_way_is_refused_with_the_last_measurement(probed: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.memory.record.driver_system", lambda: "Windows")
    trainer, memory_probe = probed(FakeCuda(), {False: 9.0, True: 7.5})
    with pytest.raises(DoesNotFitError, match=r"7\.5"):
        memory_probe(trainer.ahead)


@pytest.mark.parametrize(("context", "counted"), [(0.4, 0.4), (1.7, 1.0)])
def test_what_other_programs_take_while_a_model_is_loaded_is_not_the_context(
    context: float, counted: float, probed: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen in the code: everything that came to the card since the start, less torch's, was taken for CUDA's, up to 2
    GiB; it then corrected every later plan. Nobody's context is over 1 GiB."""
    cuda = FakeCuda(context=context)
    monkeypatch.setattr(probe.gpu, "probe", lambda: cuda.machine().nvidia)
    monkeypatch.setattr("core.memory.record.driver_system", lambda: "Windows")
    trainer, memory_probe = probed(cuda, {False: 3.0})
    memory_probe.measure_context()
    cuda.others += 1.2  # a browser
    memory_probe(trainer.ahead)
    memory = trainer.reporter.run.facts().memory
    assert memory.measured_gib == pytest.approx(3.0 + counted, abs=0.01) and memory.reserved_gib == pytest.approx(
        3.0, abs=0.01
    )


def test_what_the_kernels_of_the_first_step_take_belongs_to_the_context(
    probed: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA loads a kernel's code when it is first called: it was on the card, and no plan knew of it."""
    cuda = FakeCuda(context=0.4)
    monkeypatch.setattr(probe.gpu, "probe", lambda: cuda.machine().nvidia)
    monkeypatch.setattr("core.memory.record.driver_system", lambda: "Windows")
    trainer, memory_probe = probed(cuda, {False: 3.0})
    used = trainer.step.rehearse

    def first_step(longest: object) -> None:
        cuda.context = 0.65
        used(longest)

    monkeypatch.setattr(trainer.step, "rehearse", first_step)
    memory_probe.measure_context()
    memory_probe(trainer.ahead)
    assert trainer.reporter.run.facts().memory.measured_gib == pytest.approx(3.65, abs=0.01)


@pytest.mark.parametrize(("system", "gives"), [("Windows", 6.5), ("WSL", 6.5), ("Linux", 8.0)])
def test_torch_may_have_what_was_free_before_it_came(
    system: str, gives: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 8 GiB others hold 1, and half a GiB is spared. Then a full card is an error, after what was cached is given
    back."""
    cuda = FakeCuda()
    cuda.stand_in(monkeypatch)
    device.stay_within_card(cuda.machine(), system)
    assert cuda.fraction * 8 == pytest.approx(gives)
    cuda.use(6.0)
    assert cuda.reserved == 6.0
    if system != "Linux":
        with pytest.raises(RuntimeError, match="out of memory"):
            cuda.use(6.6)
        assert cuda.refused == 1 and cuda.reserved == 0


def test_every_worker_stays_within_its_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training, chat, export and the measurement of the pace ask device.choose, before anything is on the card."""
    cuda = FakeCuda()
    cuda.stand_in(monkeypatch)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda card: (8, 9))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda card: "RTX")
    monkeypatch.setattr(device, "this_machine", cuda.machine)
    monkeypatch.setattr(device, "driver_system", lambda: "Windows")
    assert device.choose().on_card and cuda.fraction * 8 == pytest.approx(6.5)


def test_a_card_that_tells_nothing_is_not_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    cuda.stand_in(monkeypatch)
    machine = cuda.machine()
    silent = machine.nvidia.cards[0].model_copy(update={"free_bytes": None})
    device.stay_within_card(
        machine.model_copy(update={"nvidia": machine.nvidia.model_copy(update={"cards": (silent,)})}), "Windows"
    )
    assert cuda.fraction == 1.0


def test_what_would_fit_is_said_for_the_card_in_use(probed: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was the card with most free memory, on which this run does not train."""
    cuda = FakeCuda()
    one = cuda.machine()
    larger = Card(index=1, name="larger", uuid="GPU-2", total_bytes=24 * GIB, free_bytes=23 * GIB)
    both = one.model_copy(update={"nvidia": one.nvidia.model_copy(update={"cards": (*one.nvidia.cards, larger)})})
    monkeypatch.setattr(cuda, "machine", lambda: both)
    trainer, memory_probe = probed(cuda, {})
    memory_probe._shape = ModelShape.from_config(LLAMA)
    stops: list[Stopped] = []
    monkeypatch.setattr(
        probe.stopped, "advice", lambda this, on_card: stops.append(this) or msg("probe.advice_nothing")
    )
    memory_probe.advice_when_full(trainer.ahead)
    assert (stops[0].budget.name, stops[0].budget.sold_gb, stops[0].budget.equal_cards) == ("RTX", 8, 0)
    plan = {"budget": {"kind": "card", "equal_cards": 1, "equal_free_gib": 3.0}}
    memory_probe._run.add_facts(RunFacts(advice=plan))
    memory_probe.advice_when_full(trainer.ahead)
    assert (stops[1].budget.equal_cards, stops[1].budget.equal_free_gib) == (1, 3.0), (
        "as planned: this process sees its own card alone"
    )
