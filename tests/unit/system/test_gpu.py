"""Cards through the real pynvml on a fake driver library, in a child process; the budget and the words made of them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import RecipeError
from core.memory import budget
from core.presets import PROJECT
from core.system import gpu
from core.system.gpu import Card, Holder, Nvidia
from core.system.machine import Machine, Monitor, with_lost
from tests.kit import nvml
from tests.kit.waits import wait_until
from webui.kit import hardware
from webui.kit.wording import Wording

GIB, MIB = 2**30, 2**20
EN, ZH = Wording("en"), Wording("zh")
# Each line on its input is answered by one line of JSON.
CHILD = """
import sys
from core.system import gpu, machine
monitor = machine.Monitor(interval_s=0.01)
for line in sys.stdin:
    if line == "watch\\n":
        monitor.start()
    nvidia = gpu.probe() if line == "probe\\n" else monitor.newest().nvidia
    print(nvidia.model_dump_json(), flush=True)
"""


class Child:
    """A process that looks at the fake cards with the real pynvml."""

    def __init__(self, folder: Path):
        self.file = nvml.write(folder / "cards.txt", nvml.NO_CARD)
        environment = os.environ | nvml.environment(nvml.compile(folder), self.file) | {"PYTHONPATH": str(PROJECT)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=pipe, stdout=pipe, text=True, env=environment
        )

    def ask(self, word: str, scenario: nvml.Scenario | None = None) -> Nvidia:
        if scenario is not None:
            nvml.write(self.file, scenario)
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return Nvidia.model_validate_json(self.process.stdout.readline())

    def probe(self, scenario: nvml.Scenario) -> Nvidia:
        return self.ask("probe", scenario)


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    started = Child(tmp_path_factory.mktemp("nvml"))
    yield started
    started.process.stdin.close()
    assert started.process.wait(10) == 0
    started.process.stdout.close()


def machine(*cards: Card, **facts: object) -> Machine:
    ram = {"ram_total_bytes": 24 * GIB, "ram_free_bytes": 18 * GIB}
    return Machine(
        **{"system": "Linux", "cpu": "A processor", "cores": 2, **ram, "nvidia": Nvidia(driver="580", cards=cards)}
        | facts
    )


# ---- what NVML says ------------------------------------------------------------------------------


def test_everything_a_card_tells_is_read(child: Child):
    nvidia = child.probe(
        {**nvml.EIGHT_GB, "0.graphics": f"{os.getpid()}:100 4194303:-", "0.compute": f"{os.getpid()}:514"}
    )
    (card,) = nvidia.cards
    assert (nvidia.driver, nvidia.error, card.name, card.capability) == (
        "580.65.06",
        None,
        "NVIDIA GeForce RTX 4060",
        (8, 9),
    )
    assert card.uuid == "GPU-00000000-0000-0000-0000-000000000000"
    assert (card.total_bytes, card.used_bytes, card.free_bytes) == (8188 * MIB, 614 * MIB, (8188 - 614) * MIB)
    assert (card.utilization_percent, card.temperature_c, card.power_w, card.power_limit_w) == (7, 41, 23.45, 115.0)
    # In both lists with two amounts: one holder, the larger one. What Windows does not tell is unknown, not 2^64 bytes.
    ours, other = card.holders
    assert (ours.pid, ours.used_bytes) == (os.getpid(), 514 * MIB) and ours.name
    assert other == Holder(pid=4194303, name=None, used_bytes=None)
    assert (card.mig, card.lost) == (None, False)


@pytest.mark.parametrize("code", [nvml.FUNCTION_NOT_FOUND, "!3", "!4", "!999"])
@pytest.mark.parametrize(
    ("keys", "fields"),
    [
        (["name"], ["name"]),
        (["uuid"], ["uuid"]),
        (["total"], ["total_bytes", "used_bytes", "free_bytes"]),
        (["utilization"], ["utilization_percent"]),
        (["power"], ["power_w"]),
        (["compute", "graphics"], ["holders"]),
    ],
    ids=lambda names: "+".join(names),
)
def test_what_a_card_does_not_tell_is_unknown_and_the_rest_stays(
    child: Child, keys: list[str], fields: list[str], code: str
):
    (full_card,) = child.probe(nvml.EIGHT_GB).cards
    (card,) = child.probe({**nvml.EIGHT_GB, **{f"0.{key}": code for key in keys}}).cards
    assert card == full_card.model_copy(update=dict.fromkeys(fields))


def test_a_card_that_tells_its_name_alone_is_a_card(child: Child):
    assert child.probe(nvml.NOT_SUPPORTED).cards == (Card(index=0, name="NVIDIA Something"),)


def test_no_driver_and_no_card_are_two_facts(child: Child):
    without = child.probe(nvml.NO_DRIVER)
    assert (without.error, without.error_code, without.cards) == ("Driver Not Loaded", 9, ())
    assert child.probe(nvml.NO_CARD) == Nvidia(driver="580.65.06")
    # An error number that pynvml has no words for, with a library that has some.
    assert child.probe({"init": "!77"}).error_code == 77


def test_which_card_drives_the_display_is_told_by_the_driver_or_unknown(child: Child):
    assert [card.drives_display for card in child.probe(nvml.UNEQUAL).cards] == [True, False]
    assert child.probe(nvml.NOT_SUPPORTED).cards[0].drives_display is None


def test_the_free_memory_of_a_card_in_instances_is_unknown(child: Child):
    (card,) = child.probe(nvml.MIG).cards
    assert card.mig and card.total_bytes == 40960 * MIB and card.free_bytes is None
    card_budget = budget.of_card(card)
    assert (card_budget.kind, card_budget.sold_gb, card_budget.free_gib) == ("card", None, None)
    assert "40.0 GiB in total" in hardware.details(machine(card), EN)


def test_a_card_that_dies_while_it_is_watched_stays_under_its_name_until_it_is_back(child: Child):
    two = nvml.UNEQUAL
    assert [card.lost for card in child.ask("watch", two).cards] == [False, False]
    after: list[Nvidia] = []

    def newest_has(*lost: bool) -> bool:
        after.append(child.ask("newest"))
        return tuple(card.lost for card in after[-1].cards) == lost

    nvml.write(child.file, nvml.dead(two, 1))
    wait_until(lambda: newest_has(False, True), 5)
    gone = after[-1].cards[1]
    assert (gone.name, gone.total_bytes, gone.free_bytes) == ("NVIDIA GeForce RTX 4060", 8188 * MIB, None)
    # The driver drops it from its list and says that all is well with the other; later it knows none at all.
    nvml.write(child.file, {**two, "count": 1})
    wait_until(lambda: newest_has(False, True), 5)
    nvml.write(child.file, nvml.NO_DRIVER)
    wait_until(lambda: newest_has(True, True), 5)
    nvml.write(child.file, two)
    wait_until(lambda: newest_has(False, False), 5)


def test_an_error_that_only_says_unknown_makes_a_card_lost_only_where_it_was_there_before():
    mute, known = Card(index=0, name="A"), Card(index=0, name="A", total_bytes=8 * GIB, free_bytes=7 * GIB)
    assert not with_lost(Nvidia(cards=(mute,)), Nvidia(cards=(mute,))).cards[0].lost
    assert with_lost(Nvidia(cards=(known,)), Nvidia(cards=(mute,))).cards == (
        Card(index=0, name="A", total_bytes=8 * GIB, lost=True),
    )


def test_the_survivor_that_moves_to_the_first_place_is_not_taken_for_the_dead_card():
    first, second = (Card(index=i, name=f"card {i}", uuid=f"GPU-{i}", total_bytes=8 * GIB) for i in range(2))
    moved = second.model_copy(update={"index": 0})
    after = with_lost(Nvidia(cards=(first, second)), Nvidia(cards=(moved,))).cards
    assert [(card.name, card.lost) for card in after] == [("card 1", False), ("card 0", True)]


def test_the_monitor_outlives_whatever_a_look_raises(caplog: pytest.LogCaptureFixture):
    answers = iter([RuntimeError("odd"), RuntimeError("odd"), machine(cpu="seen at last")])

    def look() -> Machine:
        answer = next(answers, machine(cpu="seen later"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monitor = Monitor(interval_s=0.001, idle_s=0.001, look=look)
    monitor.start()
    wait_until(lambda: monitor._newest, 5)
    monitor.close()
    assert monitor.newest().cpu.startswith("seen")
    assert caplog.text.count("RuntimeError: odd") == 1  # told once, not every two seconds for a night


class Looks:
    """What the monitor saw so often, on a clock that stands."""

    def __init__(self) -> None:
        self.count, self.now, self.asleep = 0, 0.0, False

    def __call__(self) -> Machine:
        self.count += 1
        return machine(
            Card(index=0, name=f"seen {self.count}", uuid="GPU-1", total_bytes=8 * GIB, free_bytes=7 * GIB),
            cpu="looked",
        )

    def monitor(self, **settings: float) -> Monitor:
        return Monitor(look=self, is_asleep=lambda: self.asleep, steady=lambda: self.now, **settings)


def test_the_driver_is_asked_seldom_while_nobody_looks():
    """Each two seconds for ever: the card of a laptop never slept."""
    looks = Looks()
    monitor = looks.monitor()
    monitor.newest()
    assert monitor._pause_s() == 2
    looks.now += 4
    assert monitor._pause_s() == 2  # a page's clock was late
    looks.now += 1
    assert monitor._pause_s() == 30
    monitor.newest()
    assert monitor._pause_s() == 2


def test_who_looks_after_a_while_sees_what_is_there_now():
    looks = Looks()
    monitor = looks.monitor(idle_s=3600, patience_s=10)
    looks.now = 100
    monitor.start()
    wait_until(lambda: monitor._newest, 5)
    looks.now = 160
    assert monitor.newest().nvidia.cards[0].name == "seen 2"
    assert monitor.newest().nvidia.cards[0].name == "seen 2"
    monitor.close()
    assert not monitor._thread.is_alive()


def test_a_driver_that_hangs_is_waited_for_once():
    """A look at the form asks ten times, and waited a second each time."""
    looks, answers = Looks(), threading.Event()
    monitor = Monitor(
        look=lambda: looks() if looks.count == 0 or answers.wait(60) else looks(),
        is_asleep=lambda: False,
        steady=lambda: looks.now,
    )
    monitor._patience_s = 0.01
    monitor.start()
    wait_until(lambda: monitor._newest, 5)
    looks.now, waits = 60, []
    waited = monitor._updated.wait_for
    monitor._updated.wait_for = lambda *given: waits.append(given) or waited(*given)
    for _ in range(5):
        assert monitor.newest().nvidia.cards[0].name == "seen 1"
    assert len(waits) == 1
    answers.set()
    wait_until(lambda: monitor._looked_at == 60, 5)
    looks.now = 120
    monitor.newest()
    assert len(waits) == 2, "it answered since then"
    monitor.close()
    assert not monitor._thread.is_alive()


def test_a_driver_that_was_waited_for_in_vain_is_asked_again_by_who_looks_next():
    """A look that failed was the last for half a minute, whoever asked."""
    looks, tried = Looks(), []

    def look() -> Machine:
        tried.append(looks.now)
        if len(tried) == 2:
            raise RuntimeError("odd")
        return looks()

    hour = 3600.0
    monitor = Monitor(
        look=look, is_asleep=lambda: False, steady=lambda: looks.now, interval_s=hour, idle_s=hour, patience_s=0
    )
    monitor.start()
    wait_until(lambda: monitor._newest, 5)
    for looks.now in (3 * hour, 6 * hour):
        monitor.newest()
        wait_until(lambda: tried[-1] == looks.now, 5)
    wait_until(lambda: monitor._looked_at == 6 * hour, 5)
    monitor.close()


def test_a_card_that_sleeps_is_left_alone_and_stays_as_it_was_seen():
    looks = Looks()
    looks.asleep = True
    monitor = looks.monitor()
    first = monitor._look_now(wakes=False)
    assert looks.count == 1, "what was never seen is asked for"
    slept = monitor._look_now(wakes=False)
    assert looks.count == 1 and slept.nvidia == first.nvidia and not slept.nvidia.cards[0].lost
    assert slept.ram_total_bytes != first.ram_total_bytes, "the rest of this PC is looked at"
    assert monitor.look_again().nvidia.cards[0].name == "seen 2", "a person asked"


@pytest.mark.parametrize(
    ("states", "expected"), [([], False), (["suspended"], True), (["active"], False), (["suspended", "active"], False)]
)
def test_whether_a_card_sleeps_is_asked_of_linux(tmp_path: Path, states: list[str], expected: bool):
    for index, state in enumerate(states):
        power = tmp_path / f"0000:0{index}:00.0" / "power"
        power.mkdir(parents=True)
        (power / "runtime_status").write_text(f"{state}\n")
    (tmp_path / "module").mkdir()
    assert gpu.is_asleep(tmp_path) is expected and not gpu.is_asleep(tmp_path / "none")


# ---- what a plan may use -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reported_gib", "sold"),
    # What nvidia-smi shows of real cards: GTX 1650, 2060, 3060 Ti, 3080, 2080 Ti, 3060, T4 (ECC), 4090, L4 (ECC), 5090,
    # A40 (ECC), A100 80GB, H200, B200.
    [(3.9, 4), (5.8, 6), (8.0, 8), (9.8, 10), (10.75, 11), (11.76, 12), (14.75, 16), (23.6, 24), (22.5, 24), (31.8, 32),
     (45.0, 48), (79.6, 80), (139.8, 141), (179.1, 180), (500.0, 500)],
)  # fmt: skip
def test_a_reported_size_is_the_size_on_its_box(reported_gib: float, sold: float):
    assert budget.sold_gb(round(reported_gib * GIB)) == sold


def test_of_two_cards_the_one_with_more_free_memory_is_used(child: Child):
    chosen = budget.of_machine(machine(*child.probe(nvml.UNEQUAL).cards))
    assert (chosen.name, chosen.sold_gb, chosen.card_index) == ("NVIDIA GeForce RTX 4060", 8, 1)
    assert chosen.free_gib == pytest.approx((8188 - 614) / 1024)


def test_a_lost_card_is_not_used_and_one_that_tells_nothing_only_where_there_is_no_other():
    full, mute = Card(index=0, name="full", total_bytes=8 * GIB, free_bytes=0), Card(index=1, name="mute")
    lost = Card(index=2, name="lost", total_bytes=24 * GIB, lost=True)
    assert budget.of_machine(machine(lost, mute, full)).name == "full"
    assert (budget.of_machine(machine(lost, mute)).name, budget.of_machine(machine(lost, mute)).free_gib) == (
        "mute",
        None,
    )
    processor = budget.of_machine(machine(lost))
    assert (processor.kind, processor.name, processor.free_gib, processor.sold_gb) == ("cpu", "A processor", 18.0, None)
    assert budget.of_machine(machine(ram_free_bytes=None)).free_gib is None


def test_a_planned_card_leaves_the_desktop_its_share():
    linux, windows = budget.planned(12, "Linux"), budget.planned(12, "Windows")
    assert (linux.planned, linux.sold_gb, linux.free_gib, linux.reserve_gib) == (True, 12, pytest.approx(11.3), 0.7)
    assert windows.free_gib == pytest.approx(10.7)


@pytest.mark.parametrize("size", [0, -8, 1001, float("nan"), float("inf"), "eight", None])
def test_a_size_that_no_card_has_is_refused_with_what_was_given(size: object):
    with pytest.raises(RecipeError) as refusal:
        budget.planned(size, "Linux")
    assert str(size) in refusal.value.message.render("zh")


# ---- what the page says --------------------------------------------------------------------------


def test_the_header_says_what_a_run_would_use(child: Child):
    one = hardware.chip(machine(*child.probe(nvml.EIGHT_GB).cards), EN)
    assert "NVIDIA GeForce RTX 4060 · 0.6 of 8.0 GiB used" in one and "width:7%" in one  # 614 of 8188 MiB: 7.5 %
    assert "RTX 4060 +1 · 0.6 of 8.0" in hardware.chip(machine(*child.probe(nvml.UNEQUAL).cards), EN)
    without = hardware.chip(machine(), EN)
    assert "training uses the CPU · 6.0 of 24.0 GiB RAM used" in without and "width:25%" in without


def test_a_lost_card_is_said_in_words_and_has_no_numbers():
    lost = machine(Card(index=0, name="RTX <4060>", total_bytes=8 * GIB, lost=True))
    assert "RTX &lt;4060&gt; no longer responds: restart the PC" in hardware.chip(lost, EN)
    assert "不再响应" in hardware.chip(lost, ZH)
    assert "no longer responds" in hardware.details(lost, EN) and "of 8.0" not in hardware.details(lost, EN)


def test_what_is_not_known_is_called_unknown_and_never_zero():
    markup = hardware.details(machine(Card(index=0), cpu=None, cores=None, ram_free_bytes=None), EN)
    assert markup.count("<dd>unknown</dd>") == 9  # of the PC: processor, cores, RAM; of the card: six
    assert "<dd>0" not in markup and "GPU 0" in markup
    assert "memory unknown" in hardware.chip(machine(Card(index=0)), EN)


def test_programs_on_a_card_are_listed_and_the_many_are_counted(child: Child):
    busy = hardware.details(machine(*child.probe(nvml.BUSY_24).cards), EN)
    assert "<li>a program (process 4194303): 20.0 GiB</li>" in busy and "20.5 of 24.0 GiB used, 3.5 GiB free" in busy
    many = Card(index=0, holders=tuple(Holder(pid=i) for i in range(20)))
    assert "… and 12 more" in hardware.details(machine(many), EN)


@pytest.mark.parametrize(
    ("nvidia", "words"),
    [
        (Nvidia(error="NVML Shared Library Not Found", error_code=12), "No NVIDIA driver was found"),
        (Nvidia(error="Driver Not Loaded", error_code=9), "installed but not running"),
        (Nvidia(error="RM has detected an NVML/RM version mismatch.", error_code=18), "has not been restarted"),
        (Nvidia(error="Insufficient Permissions", error_code=4), "It says: “Insufficient Permissions”"),
        (Nvidia(driver="580.65.06"), "(580.65.06) responds, but reports no GPU"),
    ],
    ids=lambda value: value.error or "no card" if isinstance(value, Nvidia) else "",
)
def test_why_there_is_no_card_is_said_in_words(nvidia: Nvidia, words: str):
    assert words in hardware.details(machine(nvidia=nvidia), EN)
