"""The Windows shared-memory spill is named when it is there, with how far over it is, and never where it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.messages import Message
from core.runs.folder import RunFolder
from core.runs.spill import IN_A_ROW, Memory, SpillWatch, judge, sentence
from core.values import GIB


def card(reserved: float, others: float = 1.0, used: float | None = None, total: float = 8.0) -> Memory:
    """GiB; used: as NVML would say, never more than there is."""
    used = min(total, reserved + others + 0.3) if used is None else used
    return Memory(int(total * GIB), int(used * GIB), int(reserved * GIB), int(others * GIB))


SLOW, FAST = [5.0, 4.0, 6.0], [1.1, 0.9, 1.0]
CASES = [
    ("over", card(8.2), SLOW, "Windows", 1.5),
    ("over in WSL", card(8.2), SLOW, "WSL", 1.5),
    ("just full", card(6.5), SLOW, "Windows", 0.0),
    ("full because others grew", card(5.0, used=8.0), SLOW, "Windows", 0.0),
    ("one of the steps was fast", card(8.2), [5.0, 1.1, 5.0], "Windows", None),
    ("fast", card(8.2), FAST, "Windows", None),
    ("slow with room", card(4.0), SLOW, "Windows", None),
    ("a Linux refuses instead", card(8.2), SLOW, "Linux", None),
    ("too few steps", card(8.2), SLOW[:2], "Windows", None),
]


@pytest.mark.parametrize(("memory", "recent", "where", "over"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_a_jump_of_the_step_time_on_a_full_card_is_the_spill(
    memory: Memory, recent: list, where: str, over: float | None
) -> None:
    verdict = judge(1.0, recent, memory, where, 40)
    if over is None:
        assert verdict is None
    else:
        assert (verdict.kind, verdict.slower, verdict.step) == ("shared_memory", 5.0, 40)
        assert verdict.over_gib == pytest.approx(over, abs=0.01)
        for language in ("en", "zh"):
            assert (f"{over:.1f} GiB" in sentence(verdict).render(language)) == (over > 0)


@pytest.mark.parametrize(("free", "found"), [(0.02, True), (0.2, False)])
def test_on_a_processor_full_memory_and_slow_steps_are_the_disk(free: float, found: bool) -> None:
    memory = Memory(16 * GIB, int((1 - free) * 16 * GIB), 2 * GIB)
    assert (judge(1.0, SLOW, memory, "cpu", 9) is not None) == found


class Said:
    """Stands where the reporter stands."""

    def __init__(self, folder: Path) -> None:
        self.run, self.warned = RunFolder(folder), []

    def warn(self, message: Message) -> None:
        self.warned.append(message.key)


def watched(tmp_path: Path, times: list[float], memory: Memory | None) -> tuple[Said, list[Any]]:
    reporter, looks, now = Said(tmp_path), [], [0.0]

    def look() -> Memory | None:
        looks.append(now[0])
        return memory

    watch = SpillWatch(reporter, "Windows", look, lambda: now[0])
    for step, seconds in enumerate(times, 1):
        now[0] += seconds
        watch.note(step, seconds, 100)
    return reporter, looks


USUAL_STEPS = [9.0] + [1.0] * 12  # the first one warms up


def test_it_is_told_once_and_its_end_too(tmp_path: Path) -> None:
    reporter, _ = watched(tmp_path, USUAL_STEPS + [7.0] * 20 + [1.0] * 2, card(8.2))
    assert reporter.warned == ["spill.shared_memory_over"]
    assert reporter.run.facts().spill is None
    assert [event["message"]["key"] for event in reporter.run.events()] == ["spill.over"]


def test_the_fact_stays_while_it_lasts(tmp_path: Path) -> None:
    reporter, _ = watched(tmp_path, USUAL_STEPS + [7.0] * 30, card(8.2))
    spill = reporter.run.facts().spill
    assert spill and spill.slower == pytest.approx(7.0) and spill.over_gib > 1


@pytest.mark.parametrize(
    "times", [USUAL_STEPS * 3, [1.0] * 10 + [6.0] * (IN_A_ROW - 1) + [1.0] * 9, [0.001] * 50, [1.0, 8.0, 8.0, 8.0]]
)
def test_steps_as_ever_or_a_hiccup_are_nothing_and_cost_no_look(times: list[float], tmp_path: Path) -> None:
    reporter, looks = watched(tmp_path, times, card(8.2))
    assert reporter.warned == [] and looks == [] and not (reporter.run.path / "run.json").exists()


def test_where_the_card_cannot_be_asked_nothing_is_claimed(tmp_path: Path) -> None:
    reporter, looks = watched(tmp_path, USUAL_STEPS + [7.0] * 9, None)
    assert reporter.warned == [] and len(looks) > 1
