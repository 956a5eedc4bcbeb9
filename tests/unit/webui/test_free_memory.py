"""What the page says of memory beside the plan and the run, and when the plan's card must be drawn anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.advice.plan import Grounds, make
from core.memory import budget
from core.memory.record import Correction, Corrections
from core.models.known import typical_shapes
from core.progress import RankUse
from core.recipe import Recipe
from core.runs.folder import Status
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.system import processes
from core.system.gpu import Card, Holder, Nvidia
from core.system.machine import Machine
from core.values import GIB
from webui.form import memory_view, plan_view
from webui.form.planner import FormResult
from webui.kit.wording import Wording
from webui.run import memory
from webui.state.snapshot import RunRow, RunView

W = Wording("en")
TOTAL = 8 * GIB


def machine(free_gib: float, holders: tuple[Holder, ...] | None = ()) -> Machine:
    free = int(free_gib * GIB)
    card = Card(
        index=0,
        name="RTX 4060",
        uuid="GPU-1",
        total_bytes=TOTAL,
        free_bytes=free,
        used_bytes=TOTAL - free,
        holders=holders,
    )
    return Machine(
        system="Linux",
        cpu="A processor",
        ram_total_bytes=32 * GIB,
        ram_free_bytes=20 * GIB,
        nvidia=Nvidia(cards=(card,)),
    )


def result(seen: Machine, corrections: Corrections | None = None, planned: float | None = None) -> FormResult:
    budget_now = budget.planned(planned, "Linux") if planned else budget.of_machine(seen)
    recipe = Recipe.parse({"model": {"id": "starter"}, "data": {"source": "x"}})
    return FormResult(plan=make(recipe, Grounds(budget_now, typical_shapes()["7B"], corrections=corrections)))


def test_the_correction_stands_beside_the_number() -> None:
    known = Corrections({"qlora": Correction(factor=1.044, runs=3)})
    shown = plan_view.card(result(machine(7.3), known), W)
    assert "Adjusted by measurements of 3 runs on this PC: ×1.04." in shown
    assert "Adjusted by measurements of 1 run on" in plan_view.card(
        result(machine(7.3), Corrections({"qlora": Correction(factor=0.9, runs=1)})), W
    )
    assert "orrected" not in plan_view.card(result(machine(7.3)), W)


def test_who_holds_the_cards_memory_is_listed_where_the_plan_lacks_it() -> None:
    held = (Holder(pid=7, name="chrome<b>", used_bytes=3 * GIB), Holder(pid=8, used_bytes=None))
    pc = machine(2.0, held)
    shown = memory_view.holders(result(pc), pc, W)
    assert "chrome&lt;b&gt;: 3.0 GiB" in shown and "process 8: amount not reported" in shown
    assert memory_view.holders(result(machine(7.3, held)), machine(7.3, held), W) == ""
    assert "does not report" in memory_view.holders(result(machine(2.0, None)), machine(2.0, None), W)
    assert memory_view.holders(result(pc, planned=6), pc, W) == "", "a card that is only planned for"


def test_the_largest_programs_of_all_its_cards_are_listed() -> None:
    """Seen: of two cards the small programs of the first filled the list."""
    first = machine(2.0, tuple(Holder(pid=n, name=f"small{n}", used_bytes=GIB >> 4) for n in range(8)))
    (card,) = first.nvidia.cards
    second = card.model_copy(update={"uuid": "GPU-2", "holders": (Holder(pid=99, name="large", used_bytes=5 * GIB),)})
    pc = first.model_copy(update={"nvidia": Nvidia(cards=(card, second))})
    on_both = budget.of_machine(first).model_copy(update={"beside": (("GPU-2", "RTX 4060"),)})
    holders = memory_view._on_card(on_both, pc, W)
    assert holders is not None and holders[0] == ("large", "5.0 GiB")
    assert len(holders) == memory_view.MAX_HOLDERS


def test_without_a_card_the_programs_with_most_ram_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_view, "top_by_ram", lambda count: [("firefox", 3 * GIB)])
    pc = Machine(system="Linux", cpu="A processor", ram_total_bytes=4 * GIB, ram_free_bytes=GIB)
    assert "firefox: 3.0 GiB" in memory_view.holders(result(pc), pc, W)


def test_programs_are_added_up_and_ours_left_out() -> None:
    import psutil

    largest = processes.top_by_ram(50)
    assert [size for _, size in largest] == sorted((size for _, size in largest), reverse=True)
    assert psutil.Process().pid in processes._ours()


@pytest.mark.parametrize(
    ("free", "moved"),
    [(7.3, False), (7.2, False), (7.7, True), (6.0, True), (2.0, True), (None, False)],
)
def test_the_card_is_drawn_anew_when_memory_has_really_moved(free: float | None, moved: bool) -> None:
    assert memory_view.has_moved({"free": 7.3, "bare": 5.0, "needed": 5.5}, free) == moved


def test_a_hair_is_enough_where_it_turns_the_verdict() -> None:
    drawn = memory_view.mark(result(machine(7.3)))
    assert memory_view.has_moved(drawn | {"free": drawn["needed"] + 0.01}, drawn["needed"] - 0.01)
    assert memory_view.has_moved(drawn | {"free": drawn["bare"] - 0.01}, drawn["bare"] + 0.01)
    assert memory_view.mark(result(machine(7.3), planned=12)) == {}


@pytest.mark.parametrize("drawn", [None, {}, [], "x", {"free": "7"}, {"free": None}])
def test_whatever_a_browser_sends_is_no_reason_to_fail(drawn: Any) -> None:
    assert not memory_view.has_moved(drawn, 3.0)


# ---- the run's card ------------------------------------------------------------------------------


def view(state: State = State.RUNNING, seconds_total: float | None = None, **facts: Any) -> RunView:
    row = RunRow(
        "id", "A run", Status(state=state, seconds_total=seconds_total), 0.0, "lora", 8, "starter", "x", None, 0, ()
    )
    return RunView(row, "folder", None, RunFacts.from_json(facts), (), "")


MEASURED = {"predicted_gib": 1.31, "measured_gib": 1.42, "runs": 0, "factor": 1.0}


def memory_text(shown: RunView) -> str:
    return "".join([*memory.now(shown, W), *memory.lines(shown, W)])


def test_predicted_and_measured_stand_beside_each_other() -> None:
    assert "estimated 1.31 GiB, measured 1.42 GiB" in memory_text(view(memory=MEASURED))
    assert "Adjusted by measurements of 2 runs on this PC: ×1.08." in memory_text(
        view(memory=MEASURED | {"runs": 2, "factor": 1.08})
    )
    assert "orrected" not in memory_text(view(memory=MEASURED))
    assert "measured 1.42 GiB before the first step, 1.60 GiB at peak" in memory_text(
        view(memory=MEASURED | {"peak_gib": 1.6})
    )
    assert memory_text(view(memory=MEASURED | {"measured_gib": None})) == "" == memory_text(view())


def test_each_process_of_a_run_on_several_gpus_has_its_line_while_it_is_at_work() -> None:
    """As its driver says; what a processor does not tell is left out. One rank is told by the chart."""
    used = (
        RankUse(device="RTX 3060", used_bytes=int(7.9 * GIB), total_bytes=12 * GIB, load_percent=98),
        RankUse(device="<Xeon>", used_bytes=GIB, total_bytes=23 * GIB, host="10.0.0.2"),
    )

    def of(state: State, *ranks: RankUse) -> str:
        shown = view(state)
        return memory_text(
            replace(shown, row=replace(shown.row, status=shown.row.status.model_copy(update={"ranks": ranks})))
        )

    lines = of(State.RUNNING, *used)
    assert "Process 0: RTX 3060, 7.9 of 12.0 GiB, 98 % load" in lines
    assert "Process 1: &lt;Xeon&gt; of 10.0.0.2, 1.0 of 23.0 GiB<" in lines
    assert of(State.RUNNING, used[0]) == of(State.COMPLETED, *used) == ""


def test_the_time_said_before_the_start_and_now_and_in_the_end() -> None:
    assert "about 4 min estimated before the start, about 5 min in total" in memory_text(
        view(seconds_total=300, predicted_seconds=240)
    )
    assert "before" not in memory_text(view(seconds_total=300))
    over = view(
        State.COMPLETED, predicted_seconds=240, time={"after_steps": 20, "said_seconds": 300, "took_seconds": 310}
    )
    assert "about 4 min estimated before the start, about 5 min estimated after 20 steps, took 5 min" in memory_text(
        over
    )
    for ended in (State.STOPPED, State.COMPLETED):  # completed: nothing had improved for long enough
        short = view(ended, predicted_seconds=240, time={"after_steps": 20, "said_seconds": 300, "took_seconds": 61})
        early = replace(
            short, row=replace(short.row, status=short.row.status.model_copy(update={"step": 30, "total_steps": 90}))
        )
        assert "Time: took 1 min" in memory_text(early) and "estimated" not in memory_text(early)


def test_a_spill_is_on_the_card_while_it_lasts() -> None:
    spill = {"kind": "shared_memory", "over_gib": 1.5, "slower": 6.0, "step": 40}
    assert "1.5 GiB more than the GPU has" in memory_text(view(spill=spill)) and "6.0 times" in memory_text(
        view(spill=spill)
    )
    assert (
        memory_text(view(State.COMPLETED, spill=spill))
        == ""
        == memory_text(view(spill=None))
        == memory_text(view(spill={"of": "another version"}))
    )


def test_everything_is_said_in_chinese_too() -> None:
    chinese = Wording("zh")
    shown = "".join(memory.lines(view(seconds_total=300, predicted_seconds=240, memory=MEASURED), chinese))
    assert "实测 1.42 GiB" in shown and "开始前估计" in shown
    assert replace(chinese).t("free_memory.recheck")
