"""A run on several ranks is that of one: Gloo between them, and rank 0 in this process (tests/kit/ranks). The others
are processes where their end is what is shown, else threads. Under torchrun's agent: tests/faults/test_ranks."""

from __future__ import annotations

import gc
import shutil
import socket
import weakref
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
import torch

from core.advice import plan
from core.engine.out_of_memory import HALVE
from core.engine.step import Step
from core.errors import PauseRequested, RecipeError, RunError
from core.models import weights
from core.progress import RankUse
from core.recipe import Recipe
from core.runs.folder import RunFolder
from core.system.gpu import Card
from core.training.ranks import agent, group, joining, meeting, use
from core.training.ranks.group import Ranks
from core.training.ranks.meeting import AGENT, ENDED, MEETING, RankError
from core.training.ranks.step import SharedStep, deal, halved
from core.training.ranks.use import UseOfRank
from core.training.trainer import Trainer, TrainingData
from tests.kit.ranks import in_processes, in_threads, tuned_of
from tests.kit.trainer import Pausing, adapter_of, assembled, pairs, rows


def recipe_of(data: dict[str, Any] | None = None, lora: dict[str, Any] | None = None, **train: Any) -> Recipe:
    usual = {
        "max_steps": 4, "per_device_train_batch_size": 3, "gradient_accumulation_steps": 3, "learning_rate": 1e-2,
        "eval_steps": 2,
        "save_steps": 2, "lr_scheduler_type": "cosine",
    }  # fmt: skip
    settings = {
        "data": {"source": "x", "max_length": 16} | (data or {}),
        "adapter": {"r": 4} | (lora or {}),
        "train": usual | train,
    }
    return plan.resolve(Recipe.parse(settings), "x", has_card=False)


def trainer_of(folder: Path, model: Path, recipe: Recipe, ranks: Ranks | None = None, measured: int = 5) -> Trainer:
    """In folder, gone on from its newest checkpoint where an earlier one left one. With pairs, where the recipe
    compares."""
    tuned, reporter = tuned_of(model, recipe), Pausing(RunFolder(folder))
    dealt = {"make_step": partial(SharedStep.on, ranks, weights.sampled_fingerprint(model))} if ranks else {}
    make = pairs if recipe.train.compares else rows
    return assembled(tuned, recipe, reporter, TrainingData(make(20), make(measured), 0), **dealt)


def nearly_the_same(trainer: Trainer, undisturbed: Trainer) -> None:
    """Whatever was told, but for who is ahead before anything was learned: both answers then are what they were to the
    last digits."""
    assert trainer.reporter.numbers == pytest.approx(undisturbed.reporter.numbers, rel=2e-4)
    assert trainer.reporter.told.keys() == undisturbed.reporter.told.keys()
    for (kind, step), expected in undisturbed.reporter.told.items():
        a_coin = {"rewards/accuracies", "eval_rewards/accuracies"} if step <= (kind == "train") else set()
        line = {name: value for name, value in trainer.reporter.told[kind, step].items() if name not in a_coin}
        assert line == pytest.approx(
            {name: value for name, value in expected.items() if name not in a_coin}, rel=2e-3, abs=2e-4
        )
    torch.testing.assert_close(adapter_of(trainer), adapter_of(undisturbed), rtol=1e-2, atol=1e-3)
    assert trainer.position.tokens_seen == undisturbed.position.tokens_seen


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Trainer:
    """By one rank."""
    trainer = trainer_of(tmp_path_factory.mktemp("whole"), tiny_model, recipe_of())
    trainer.run()
    return trainer


def test_what_is_dealt_is_even_and_complete() -> None:
    assert deal([5, 9, 1, 4], 2) == [[1, 2], [0, 3]] and deal([7], 3) == [[0], [], []]
    step = [rows(3), rows(1)]
    halves = halved(step, 3, lambda part: sum(len(row.input_ids) for row in part))
    assert len(halves) == 3 and sorted(len(part) for part in halves) == [1, 1, 2]
    assert halved([rows(1)], 2, len) == [rows(1)], "one row cannot be halved, and one rank then computes nothing"


def test_pairs_are_not_parted() -> None:
    """The halves of a micro-batch are of whole pairs: each row goes to one rank with both of its answers and its
    reference."""
    step = [pairs(5), pairs(2)]
    dealt = halved(step, 3, lambda part: sum(len(row.input_ids) for row in part))
    assert sorted(map(len, dealt)) == [2, 2, 3] and all(row.second for part in dealt for row in part)
    assert sorted(row.input_ids for part in dealt for row in part) == sorted(
        row.input_ids for part in step for row in part
    )


def test_pissa_changes_the_base_and_is_refused() -> None:
    with pytest.raises(RecipeError, match="several GPUs"):
        recipe_of(lora={"init_lora_weights": "pissa"}, ranks=2)


CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "packed": (2, {}),
    "padded, one micro-batch": (3, {"data": {"packing": False}, "gradient_accumulation_steps": 1}),
    "dpo, also learning the better answers": (2, {"objective": "dpo", "sft_weight": 0.7}),
    "simpo": (2, {"objective": "simpo"}),
}
LONG: dict[str, tuple[int, dict[str, Any]]] = {
    "qlora": (2, {"lora": {"method": "qlora"}}),
    "three, an uneven last step": (
        3,
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 7, "max_steps": 6},
    ),
    "more ranks than rows": (4, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}),
    "clipped, dora, lora+": (2, {"lora": {"use_dora": True}, "loraplus_lr_ratio": 4, "max_grad_norm": 0.1}),
    "orpo, three": (3, {"objective": "orpo"}),
    "kto, whose micro-batch is dealt whole": (
        2,
        {"objective": "kto", "gradient_accumulation_steps": 1, "per_device_train_batch_size": 6},
    ),
    "dpo, padded, qlora, one micro-batch": (
        3,
        {"data": {"packing": False}, "gradient_accumulation_steps": 1, "objective": "dpo", "lora": {"method": "qlora"}},
    ),
    "checkpointed, 8-bit history": (2, {"gradient_checkpointing": True, "optim": "adamw_8bit"}),
}


@pytest.mark.parametrize(
    ("count", "settings"), [*CASES.values(), *(pytest.param(*each, marks=pytest.mark.full) for each in LONG.values())],
    ids=[*CASES, *LONG],
)  # fmt: skip
def test_a_run_on_ranks_learns_what_one_learns(
    count: int, settings: dict[str, Any], tmp_path: Path, tiny_model: Path
) -> None:
    recipe = recipe_of(**settings)
    on_one = trainer_of(tmp_path / "whole", tiny_model, recipe)
    on_one.run()
    with in_threads(tmp_path / "ranks", tiny_model, recipe, count) as (ranks, steps):
        trainer = trainer_of(tmp_path / "ranks", tiny_model, recipe, ranks)
        trainer.run()
    nearly_the_same(trainer, on_one)
    for step in steps:  # each has updated its own, with the same sums
        assert all(map(torch.equal, step.parameters, trainer.step.parameters))


def test_all_give_way_to_a_full_memory_of_one_and_the_curve_goes_on(
    tmp_path: Path, tiny_model: Path, undisturbed: Trainer
) -> None:
    """Rank 1 has no room for more than two examples at once."""

    def spoil(step: SharedStep) -> None:
        computes = step.backward

        def full(batches: Any, *rest: Any, **others: Any) -> torch.Tensor:
            if any(len(batch.examples) > 2 for batch in batches):
                step.computing = step.computing or rows(1)
                raise torch.OutOfMemoryError("CUDA out of memory")
            return computes(batches, *rest, **others)

        step.backward = full  # type: ignore[method-assign]

    with in_threads(tmp_path, tiny_model, recipe_of(), 2, spoil) as (ranks, steps):
        trainer = trainer_of(tmp_path, tiny_model, recipe_of(), ranks)
        trainer.run()
    assert HALVE in trainer.position.retreats and steps[0].retreat.reductions == trainer.position.retreats
    nearly_the_same(trainer, undisturbed)


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.full)])
def test_an_evaluation_is_dealt_and_its_number_is_that_of_one_rank(
    count: int, tmp_path: Path, tiny_model: Path
) -> None:
    """Bit for bit: rank 0 adds what each batch gave in the order of one process. The ranks begin with another adapter
    than rank 0."""
    recipe, batches = recipe_of(per_device_train_batch_size=2), dict[int, int]()

    def measure(trainer: Trainer, name: int) -> float | None:
        with torch.no_grad():
            for parameter in trainer.step.parameters:
                parameter.add_(0.05)
        watch(trainer.step, name)
        trainer.step.begin(1)
        return trainer.recovery.attempt(0, trainer.evaluation.measure)

    def watch(step: Step, name: int) -> None:
        measures = step.evaluate_batch

        def counted(*arguments: Any, **others: Any) -> tuple[float, int]:
            batches[name] = batches.get(name, 0) + 1
            return measures(*arguments, **others)

        step.evaluate_batch = counted  # type: ignore[method-assign]

    alone = measure(trainer_of(tmp_path / "alone", tiny_model, recipe, measured=50), -1)
    with in_threads(tmp_path / "ranks", tiny_model, recipe, count, lambda step: watch(step, step.ranks.rank)) as (
        ranks,
        _,
    ):
        assert measure(trainer_of(tmp_path / "ranks", tiny_model, recipe, ranks, measured=50), 0) == alone
        assert sum(batches[rank] for rank in range(count)) == batches[-1] > 4 * count, "some times dealt"
        assert all(batches[rank] >= batches[-1] // (count + 1) for rank in range(count))


def test_a_full_memory_of_one_rank_in_an_evaluation_halves_the_batches_of_all(tmp_path: Path, tiny_model: Path) -> None:
    def spoil(step: SharedStep) -> None:
        measures = step.evaluate_batch

        def full(rows: Any, compares: bool = False) -> tuple[float, int]:
            if len(rows) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return measures(rows, compares)

        step.evaluate_batch = full  # type: ignore[method-assign]

    alone = trainer_of(tmp_path / "alone", tiny_model, recipe_of(), measured=20).evaluation.measure()
    with in_threads(tmp_path / "ranks", tiny_model, recipe_of(), 2, spoil) as (ranks, steps):
        trainer = trainer_of(tmp_path / "ranks", tiny_model, recipe_of(), ranks, measured=20)
        assert trainer.recovery.attempt(0, trainer.evaluation.measure) == pytest.approx(alone, rel=1e-6)
        assert HALVE in trainer.step.retreat.reductions == steps[0].retreat.reductions


@pytest.mark.full
def test_a_rank_that_is_killed_in_an_evaluation_ends_it_with_a_sentence(tmp_path: Path, tiny_model: Path) -> None:
    with in_processes(tmp_path, tiny_model, recipe_of(), 2) as (ranks, others):
        trainer = trainer_of(tmp_path, tiny_model, recipe_of(), ranks, measured=50)
        measures = trainer.step.evaluate_batch

        def kill_first(*arguments: Any, **others_: Any) -> tuple[float, int]:
            others[0].kill()
            return measures(*arguments, **others_)

        trainer.step.evaluate_batch = kill_first  # type: ignore[method-assign]
        with pytest.raises(RankError) as failed:
            trainer.evaluation.measure()
    assert failed.value.message.key == "ranks.gone"


def test_a_killed_rank_ends_the_run_which_goes_on_with_one(
    tmp_path: Path, tiny_model: Path, undisturbed: Trainer
) -> None:
    reports: list[tuple[RankUse, ...]] = []
    with in_processes(tmp_path, tiny_model, recipe_of(), 2) as (ranks, others):
        ranks.report_use = reports.append
        trainer = trainer_of(tmp_path, tiny_model, recipe_of(), ranks)
        finished = trainer.step.note_finished

        def kill_in_the_third() -> None:
            trainer.step._in_use._read_at = float("-inf")  # type: ignore[attr-defined]
            finished()
            if trainer.position.step == 3:
                others[0].kill()

        trainer.step.note_finished = kill_in_the_third  # type: ignore[method-assign]
        with pytest.raises(RankError) as failed:
            trainer.run()
        trainer.checkpoint()  # as the worker does
    assert failed.value.message.key == "ranks.gone" and failed.value.message.params["ranks"] == 2
    assert [
        used.used_bytes > 50 << 20 and used.total_bytes == psutil.virtual_memory().total for used in reports[-1]
    ] == [
        True,
        True,
    ]
    further = trainer_of(tmp_path, tiny_model, recipe_of())
    assert further.position.step == 3
    further.run()
    further.reporter.numbers = trainer.reporter.numbers | further.reporter.numbers
    further.reporter.told = trainer.reporter.told | further.reporter.told
    nearly_the_same(further, undisturbed)


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.full), 2, pytest.param(4, marks=pytest.mark.full)])
def test_a_pause_in_a_step_is_heard_at_its_end_and_the_run_goes_on_with_another_number_of_ranks(
    step: int, tmp_path: Path, tiny_model: Path, undisturbed: Trainer
) -> None:
    with in_threads(tmp_path, tiny_model, recipe_of(), 3) as (ranks, _):
        trainer = trainer_of(tmp_path, tiny_model, recipe_of(), ranks)
        share = trainer.step._share  # type: ignore[attr-defined]

        def sharing(*arguments: Any) -> Any:
            if trainer.position.step == step - 1:
                trainer.reporter.at = trainer.reporter.checks + 1
            return share(*arguments)

        trainer.step._share = sharing  # type: ignore[attr-defined]
        with pytest.raises(PauseRequested):
            trainer.run()
        trainer.checkpoint()
    assert trainer.position.step == step
    with in_threads(tmp_path / "again", tiny_model, recipe_of(), 2) as (ranks, _):
        further = trainer_of(tmp_path, tiny_model, recipe_of(), ranks)
        assert further.position.step == step
        further.run()
    further.reporter.numbers = trainer.reporter.numbers | further.reporter.numbers
    further.reporter.told = trainer.reporter.told | further.reporter.told
    nearly_the_same(further, undisturbed)


def test_rank_0_hears_from_the_store_that_all_are_ended_where_no_signal_reaches_it(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where a connection of a killed process stayed open under Wine."""
    monkeypatch.setattr(group, "LOOK_S", 0.0)
    with in_threads(tmp_path, tiny_model, recipe_of(), 2) as (ranks, _):
        ranks._store.set(ENDED, "")
        never = SimpleNamespace(is_completed=lambda: False)
        with pytest.raises(RankError, match="training processes ended"):
            ranks.wait(never)
        ranks.lost.clear()
        monkeypatch.setattr(ranks, "_store", SimpleNamespace(check=Mock(side_effect=RuntimeError("gone"))))
        with pytest.raises(RankError):
            ranks.wait(never)
        monkeypatch.undo()
        ranks._store.delete_key(ENDED)
        ranks.lost.clear()


@pytest.mark.full
def test_a_rank_that_hangs_and_one_that_cannot_load_end_with_a_sentence(tmp_path: Path, tiny_model: Path) -> None:
    with in_processes(tmp_path / "hangs", tiny_model, recipe_of(), 2) as (ranks, others):
        trainer = trainer_of(tmp_path / "hangs", tiny_model, recipe_of(), ranks)
        ranks.patience_s = 1.0
        psutil.Process(others[0].pid).suspend()
        with pytest.raises(RankError) as failed:
            trainer.run()
        others[0].kill()
    assert failed.value.message.key == "ranks.silent"
    with (
        in_processes(tmp_path / "loads", tmp_path / "nothing", recipe_of(), 2) as (ranks, _),
        pytest.raises(RankError) as failed,
    ):
        trainer_of(tmp_path / "loads", tiny_model, recipe_of(), ranks)
    assert failed.value.message.key == "ranks.failed" and "nothing" in str(failed.value)


OTHER_VERSION = """
from core.training.ranks import group
group.library_versions = lambda made=group.library_versions: made() | {"peft": "0.1"}
group.socket.gethostname = lambda: "attic"
"""


def test_another_version_and_another_base_are_refused_with_both_named_on_both_sides(
    tmp_path: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ours = socket.gethostname()
    with (
        pytest.raises(RunError, match=rf"attic has peft 0\.1, {ours} has"),
        in_processes(tmp_path / "version", tiny_model, recipe_of(), 2, OTHER_VERSION),
    ):
        raise AssertionError("they have met")
    assert "attic has peft 0.1" in capfd.readouterr().err
    other = shutil.copytree(tiny_model, tmp_path / "other")
    content = bytearray((other / "model.safetensors").read_bytes())
    content[-64:] = bytes(64)
    (other / "model.safetensors").write_bytes(content)
    with (
        in_processes(tmp_path / "base", other, recipe_of(), 2) as (ranks, _),
        pytest.raises(RunError, match="files of the base model") as refused,
    ):
        trainer_of(tmp_path / "base", tiny_model, recipe_of(), ranks)
    assert all(weights.sampled_fingerprint(folder)[:12] in str(refused.value) for folder in (tiny_model, other))
    assert "files of the base model" in capfd.readouterr().err


def test_nothing_that_ranks_exchange_is_unpickled(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer's pickle could run any code on this PC."""
    monkeypatch.setattr(torch.distributed.distributed_c10d, "_unpickler", Mock(side_effect=AssertionError("unpickled")))
    monkeypatch.setattr(group.socket, "gethostname", lambda: "Küche" * 50)  # longer than the other's
    with in_processes(tmp_path, tiny_model, recipe_of(), 2) as (ranks, _):
        trainer = trainer_of(tmp_path, tiny_model, recipe_of(), ranks)
        trainer.run()
    assert trainer.position.step == 4


def test_a_run_that_goes_on_with_one_rank_clears_away_where_several_met(tmp_path: Path) -> None:
    """All were killed; the file stayed, and would have left with the run in an archive."""
    (tmp_path / MEETING).write_bytes(b"x")
    reporter = Pausing(RunFolder(tmp_path))
    with joining.joined(reporter.run, reporter) as ranks:  # type: ignore[arg-type]
        assert ranks is None and not (tmp_path / MEETING).exists()


def test_what_a_rank_has_in_use_is_asked_each_two_seconds_and_left_out_where_nobody_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card, now = Card(index=0, name="RTX 3060", uuid="GPU-a"), [0.0]
    monkeypatch.setattr(use.gpu, "newest", lambda card: card.model_copy(update={"utilization_percent": 98}))
    reader = UseOfRank(card, lambda: (5, 12), lambda: now[0])
    assert reader.read() == RankUse(device="RTX 3060", used_bytes=5, total_bytes=12, load_percent=98)
    now[0] = 1.9
    assert reader.read() is None
    now[0] = 2.0
    assert reader.read() is not None

    def given_up() -> tuple[int, int]:
        raise RuntimeError("CUDA error: unknown error")

    assert UseOfRank(card, given_up).read() is None
    monkeypatch.setattr(use.gpu, "newest", lambda card: None)
    assert UseOfRank(card, lambda: (5, 12)).read() == RankUse(device="RTX 3060", used_bytes=5, total_bytes=12)


def test_no_end_of_a_worker_waits_for_its_group_to_be_taken_apart(tmp_path: Path) -> None:
    """Under Wine that waited for ever where a rank had been killed."""
    kept = weakref.ref(group.gloo(torch.distributed.FileStore(str(tmp_path / "meeting")), 0, 1, "127.0.0.1"))
    gc.collect()
    assert kept() is not None


def test_a_worker_that_torchrun_did_not_start_for_us_is_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app itself may have been started below another's torchrun, or in a cluster's job."""
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    assert not meeting.is_rank()
    monkeypatch.setenv(AGENT, "1")
    assert meeting.is_rank()


def of_family(address: str) -> Any:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@pytest.mark.parametrize(
    ("endpoint", "stands_for", "is_own"),
    [
        ("[::1]:29400", ["::1"], True),
        ("127.0.0.1:29400", ["127.0.0.1"], True),
        ("garage:29400", ["127.0.1.1"], True),
        ("garage:29400", ["192.168.1.9", "192.168.1.20"], True),
        ("[fd00::20]:29400", ["fd00::20"], True),
        ("[fe80::20%eth0]:29400", ["fe80::20%eth0"], True),
        ("[fd00::9]:29400", ["fd00::9"], False),
        ("attic:29400", ["192.168.1.9"], False),
        ("nowhere:29400", [], False),
    ],
)
def test_a_main_pcs_address_is_one_of_its_interfaces(
    endpoint: str, stands_for: list[str], is_own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        assert host == endpoint.rpartition(":")[0].strip("[]"), "no brackets"
        if not stands_for:
            raise socket.gaierror("Name or service not known")
        return [(of_family(each), socket.SOCK_STREAM, 6, "", (each, port)) for each in stands_for]

    addresses = [
        SimpleNamespace(family=of_family(each), address=each) for each in ("192.168.1.20", "fd00::20", "fe80::20%eth0")
    ]
    mac = SimpleNamespace(family=psutil.AF_LINK, address="02:00:00:00:00:01")
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"eth0": [mac, *addresses]})
    if is_own:
        agent.require_own(endpoint)
        return
    with pytest.raises(RunError, match="no address of this PC"):
        agent.require_own(endpoint)


def test_a_pc_whose_own_name_stands_for_loopback_is_reached_by_its_default_route(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As Debian writes /etc/hosts: a rank that listened at 127.0.1.1 would not be found by other PCs."""
    way = {"garage": "127.0.0.1", "127.0.0.1": "127.0.0.1", "attic": "192.168.1.20", meeting.NOBODY: "192.168.1.20"}
    monkeypatch.setattr(meeting, "_address_towards", lambda host, port: way[host])
    addresses = [meeting.own_address(host, 29400) for host in ("garage", "attic", "127.0.0.1")]
    assert addresses == ["192.168.1.20", "192.168.1.20", "127.0.0.1"]
    monkeypatch.setattr(meeting, "_address_towards", Mock(side_effect=["127.0.0.1", OSError("unreachable")]))
    assert meeting.own_address("garage", 29400) == "127.0.0.1"


def test_each_rank_needs_a_card_of_its_own_or_the_run_says_that_they_are_too_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    agent.require_cards(recipe_of(ranks=2))
    with pytest.raises(RunError, match="3 GPUs, but only 2 can"):
        agent.require_cards(recipe_of(ranks=3))
