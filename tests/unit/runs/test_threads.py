"""The count of threads on scripted step times: a PC in twenty lines, on which other programs come and go."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from core.runs.threads import CALM_S, FASTER, LATEST_S, TRIED, Threads

Load = Callable[[float], float]  # seconds of steps -> cores that other programs hold


class Pc:
    """A step takes `work` core seconds over its threads; where programs want more cores than there are, threads wait
    for each other, and it takes 4 times as long."""

    def __init__(self, cores: int, load: Load, most: int | None = None, is_seen: bool = True, work: float = 2.0):
        self.cores, self.load, self.work, self.seconds = cores, load, work, 0.0
        self.told: list[tuple[int, str]] = []
        self.used = [most or cores]
        self.counts: list[int] = []
        self.threads = Threads(most or cores, cores, lambda: load(self.seconds) if is_seen else None, self.used.append)

    def steps(self, count: int, noise: Sequence[float] = (1.0,)) -> Pc:
        for number in range(count):
            now = self.used[-1]
            crowded = now > 1 and now + self.load(self.seconds) > self.cores + 0.5
            took = self.work / now * (4 if crowded else 1) * noise[number % len(noise)]
            self.seconds += took
            self.counts.append(now)
            if message := self.threads.note(took, 100):
                self.told.append((now, message.key))
        return self


def quiet(at: float) -> float:
    return 0.1


def busy(at: float) -> float:
    return 1.0


def test_beside_a_busy_program_one_thread_fewer_is_found_and_told_once() -> None:
    pc = Pc(2, busy).steps(100)
    assert pc.used == [2, 1] and pc.told == [(1, "threads.fewer")]
    assert pc.counts.count(2) <= 1 + 2 * TRIED  # the first step, and two looks


@pytest.mark.parametrize("begins", [20.0, 21.3, 23.9, 400.0])
def test_of_the_slow_steps_beside_a_program_that_begins_one_or_two_are_computed_with_all_threads(begins: float) -> None:
    """It took four or five: one to be noticed by, three to be sure. What others used is told as a mean since it was
    asked last."""
    pc = Pc(2, lambda at: 1.0 if at >= begins else 0.0)
    while pc.seconds < begins:
        pc.steps(1)
    before = pc.counts.count(2)
    pc.steps(30)
    assert pc.counts.count(2) - before in (1, 2) and pc.used == [2, 1]
    assert pc.told == [(1, "threads.fewer")]


def test_a_single_slow_step_changes_nothing_for_long() -> None:
    """A program that was there for that step alone: fewer threads look better than it, and are given up all the
    same."""
    used, at = [2], 0
    threads = Threads(2, 2, lambda: 1.0 if at == 20 else 0.1, used.append)
    for at in range(100):
        assert threads.note(5.0 if at == 20 else 2.0 / used[-1], 100) is None
    assert used == [2, 1, 2]


def test_a_slow_step_soon_after_a_decision_is_no_reason_for_the_next() -> None:
    used, slow = [2], False
    threads = Threads(2, 2, lambda: 1.0 if slow else 0.1, used.append)
    for at in range(400):
        slow = at % 8 == 7
        threads.note(5.0 if slow else 2.0 / used[-1], 100)
    assert used.count(1) <= 7, "5, 10, 20, 40, 80, 160 and 320 s apart"


def test_a_slow_step_of_which_no_other_program_is_the_cause_is_no_reason() -> None:
    pc = Pc(2, quiet).steps(100, (1.0, 1.0, 1.0, 1.0, 5.0))
    assert pc.used == [2]


def test_the_threads_come_back_when_the_program_ends() -> None:
    pc = Pc(2, lambda at: 1.0 if at < 100 else 0.0).steps(200)
    assert pc.used == [2, 1, 2] and [key for _, key in pc.told] == ["threads.fewer", "threads.more"]


@pytest.mark.parametrize("noise", [(1.0,), (1.0, 1.25, 0.8, 1.1), (1.0, 1.0, 3.0)])
@pytest.mark.parametrize("is_seen", [True, False])
def test_a_quiet_pc_keeps_its_threads(noise: Sequence[float], is_seen: bool) -> None:
    pc = Pc(2, quiet, is_seen=is_seen).steps(1000, noise)
    assert pc.told == [] and pc.used[-1] == 2
    assert pc.counts.count(1) <= 0.02 * len(pc.counts)  # a trial now and then, where others cannot be seen


def test_a_load_that_comes_and_goes_is_not_chased() -> None:
    """Each half as long as the shortest time between two decisions, for 2,000 s."""
    pc = Pc(2, lambda at: 1.0 if int(at / 6) % 2 else 0.0)
    while pc.seconds < 2000:
        pc.steps(1)
    assert len(pc.used) <= 2 * (8 + 2000 / LATEST_S)


def test_a_program_that_is_not_in_the_way_costs_a_trial_and_no_more() -> None:
    """Its core is another's, or hyperthreads share one: a step is no slower beside it, and one thread fewer is."""
    threads = Threads(2, 2, lambda: 1.0, (used := [2]).append)
    for _ in range(400):
        assert threads.note(2.0 / used[-1], 100) is None
    assert used.count(1) <= 8 and used[-1] == 2


def test_others_that_cannot_be_seen_are_known_by_the_steps() -> None:
    """A container's limit is below the cores of the PC: what others use says nothing."""
    pc = Pc(2, lambda at: 1.0 if 60 < at < 900 else 0.0, is_seen=False)
    while pc.seconds < 2000:
        pc.steps(1)
    assert [key for _, key in pc.told] == ["threads.fewer", "threads.more"] and pc.used[-1] == 2
    slow = sum(1 for count in pc.counts if count == 2)
    assert slow > 0.5 * len(pc.counts)  # 1,100 of 2,000 s were quiet, in steps of half the time


def test_of_64_cores_as_many_go_as_others_use_at_once() -> None:
    pc = Pc(64, lambda at: 3.2 if at < 60 else 0.0, work=64.0).steps(80)
    assert pc.used[:2] == [64, 61] and pc.told[0] == (61, "threads.fewer")


def test_one_thread_asks_nothing_and_changes_nothing() -> None:
    def others() -> float:
        raise AssertionError("asked")

    threads = Threads(1, 2, others, lambda count: None)
    assert [threads.note(1.0, 100) for _ in range(50)] == [None] * 50


def test_a_trial_that_is_slower_in_its_first_step_ends_there() -> None:
    used = [2]
    threads = Threads(2, 2, lambda: 1.0, used.append)
    for _ in range(12):
        threads.note(1.0 if used[-1] == 2 else 1.0 / FASTER + 1, 100)
    assert used == [2, 1, 2]


def test_after_a_long_calm_the_next_change_is_found_as_soon_as_the_first() -> None:
    until = 3 * CALM_S
    pc = Pc(2, lambda at: 1.0 if at > until else 0.0)
    while pc.seconds < until + 30:
        pc.steps(1)
    assert pc.used == [2, 1]
