"""Every number that a person reads is written as the page's language writes it: 2,2 GiB and 1.962 in German."""

from __future__ import annotations

import ast
import math
import re
from types import SimpleNamespace

import pytest

from core.chat.answer import Done
from core.hub.hub_errors import format_size
from core.memory import budget
from core.messages import figures, msg
from core.presets import PROJECT
from core.progress import Progress, RankUse
from core.recipe import NO_DATA
from core.runs.folder import Status
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.values import GIB
from webui.kit import correction, format
from webui.kit.wording import Wording
from webui.pages.chat import ChatPage
from webui.run import card, compare, guard, memory
from webui.state.snapshot import RunRow, RunView

EN, DE, ZH = Wording("en"), Wording("de"), Wording("zh")
# Who may write a number into text without a catalogue or webui/kit/format.py: what is no sentence of a page, each with
# its reason.
EXCEPTIONS = {
    "webui/kit/format.py": "the one place",
    "webui/form/learned_view.py": "coordinates of a drawing",
    "webui/run/judged.py": "coordinates of a drawing",
    "webui/form/plan_view.py": "widths of a bar, in CSS",
    "core/messages.py": "the catalogue itself",
    "core/runs/further.py": "a learning rate in the name of a run, which is stored",
    "core/runs/cards/picture.py": "coordinates of a drawing",
    "core/runs/cards/model_card.py": "a README in English",
    "core/export/records.py": "a folder's name",
    "core/data/reading/workbook.py": "a cell as its row has it",
    "core/advice/shelf.py": "the name of a size, as a person types it",
    "core/system/checkup.py": "an error of a child process, in English",
}


def test_no_code_formats_a_number_that_a_catalogue_or_the_format_module_could() -> None:
    """Seen: f"{row.number:,}" beside sentences in German, so that one page had 1,962 and 1.962. float(f"...") rounds
    and is no text."""
    lines_by_name = {}
    for path in sorted(path for room in ("core", "webui") for path in (PROJECT / room).rglob("*.py")):
        name = path.relative_to(PROJECT).as_posix()
        if not name.startswith("core/commands/") and (lines := formatting(path.read_text("utf-8"))):
            lines_by_name[name] = lines
    assert lines_by_name.keys() - EXCEPTIONS.keys() == set(), (
        "pass the number to a sentence ({x:.2f}, {x:,}), or use webui/kit/format.py"
    )
    assert EXCEPTIONS.keys() <= lines_by_name.keys(), "an exception that is none any more"


def formatting(source: str) -> list[int]:
    tree = ast.parse(source)
    rounding = {
        id(part)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "float"
        for part in ast.walk(call)
    }
    specs = (
        (part.lineno, "".join(str(each.value) for each in part.format_spec.values if isinstance(each, ast.Constant)))
        for part in ast.walk(tree)
        if isinstance(part, ast.FormattedValue)
        and isinstance(part.format_spec, ast.JoinedStr)
        and id(part) not in rounding
    )
    return [line for line, spec in specs if re.search(r",|[efg%]$", spec)]


def test_the_check_of_the_sources_finds_what_it_looks_for() -> None:
    assert formatting("f'{rows:,} {loss:.3f} {rate:g} {share:.0%}'") == [1, 1, 1, 1]
    assert formatting("float(f'{loss:.3g}'), f'{name:<12} {count:>5}'") == []


def run_view(**facts: object) -> RunView:
    status = Status(state=State.RUNNING, ranks=RANKS, has_adapter=True, step=1962, total_steps=2000)
    row = RunRow("id", "A run", status, 0.0, "lora", 8, "starter", "x", 1.2345, 2_500_000_000, ())
    return RunView(row, "folder", None, RunFacts.from_json(facts), (), "")


@pytest.mark.parametrize(("ended", "said"), [("merge.ended", "combined from other runs"), (None, "trained elsewhere")])
def test_a_run_without_data_says_whether_it_was_combined_or_brought_in(ended: str | None, said: str) -> None:
    """Seen: Train called a combined run "trained elsewhere"."""
    status = Status(state=State.COMPLETED, message=msg(ended) if ended else None)
    row = RunRow("id", "A run", status, 0.0, "lora", 8, "starter", NO_DATA, None, 0, ())
    assert format.data_name(row, EN) == said


RANKS = tuple(RankUse(device="RTX 3060", used_bytes=int(7.9 * GIB), total_bytes=12 * GIB) for _ in range(2))
FACTS = {
    "memory": {"predicted_gib": 1.31, "measured_gib": 1.42, "peak_gib": 1.6, "runs": 2, "factor": 1.08},
    "trainable_params": 4_884_480, "adapter_is_best": True, "adapter_step": 20, "best_eval_loss": 1.2345,
}  # fmt: skip


@pytest.mark.parametrize(("w", "point", "comma"), [(EN, ".", ","), (ZH, ".", ","), (DE, ",", ".")])
def test_a_run_the_chat_and_a_row_have_numbers_of_one_language(w: Wording, point: str, comma: str) -> None:
    view = run_view(**FACTS)
    held = "".join([*memory.now(view, w), *memory.lines(view, w)])
    assert all(
        f"{whole}{point}{part}" in held for whole, part in [(1, 31), (1, 42), (1, 60), (1, "08"), (7, 9), (12, 0)]
    ), held
    assert f"1{point}234" in str(guard.kept_best(view, w)) or f"1{point}235" in str(guard.kept_best(view, w))
    assert (w.t("train_page.trainable"), f"4{comma}884{comma}480") in card._run_facts(view.facts, w)
    assert compare.row_data(view.row, w)["size"] == f"2{point}5 GB"
    assert f"×1{point}08" in correction.factor_sentence(1.08, 2, w)
    done = Done(column="tuned", tokens=25, seconds=4.0, finish_reason="stop")
    answered = str(ChatPage._note(SimpleNamespace(w=w), done, None))  # type: ignore[arg-type]
    assert f"6{point}2 " in answered and f"4{point}0" in answered
    assert format.progress(w, Progress(done=1.2e9, total=2.5e9, unit="bytes")) == w.t(
        "units.of", done=f"1{point}2 GB", total=f"2{point}5 GB"
    )


def test_german_has_a_comma_where_english_has_a_point() -> None:
    """Seen: "2.2 GiB" and "1,962" on the German page."""
    there = budget.planned(12, "Linux").model_copy(update={"free_gib": 11.25})
    assert (
        "11,2 GiB" in format.free_memory(there, DE)
        and "11.2 GiB" in format.free_memory(there, EN)
        and "11.2 GiB" in format.free_memory(there, ZH)
    )
    for w, rows, percent in ((DE, "1.962", "42,9 %"), (EN, "1,962", "42.9 %")):
        learned = w.t("plan_view.learned", rows=format.grouped(w, 1962), held=format.grouped(w, 65), percent=42.9)
        assert f"{rows} " in learned and percent in learned
    assert format.bytes_used(DE, 1.2e9) == "1,2 GB" and format.bytes_used(EN, 1.2e9) == "1.2 GB"
    assert "135M" in format.parameters(DE, 135_000_000) and "7,2B" in format.parameters(DE, 7_200_000_000)
    assert (
        format.loss(DE, 1.2345) == "1,234"
        and format.number(DE, 2e-4) == "0,0002"
        and format.number(EN, 2e-4) == "0.0002"
    )


def test_numbers_of_core_follow_the_language_also_inside_another_message() -> None:
    inner = msg("advise.warn_cpu_in_32_bit", needed=20.7, free=17.0)
    assert "20,7" in inner.render("de") and "20.7" in inner.render("en")
    outer = msg("advise.warn_nothing_fits", verdict=inner)
    assert "20,7" in outer.render("de") and "20.7" in outer.render("zh")
    full = msg("hub.interrupted", repo="a/b", host="huggingface.co", done=format_size(1.24e9), total=format_size(999))
    assert "1,2 GB" in full.render("de") and "1.2 GB" in full.render("en") and "999 B" in full.render("de")


def test_a_bare_number_in_a_sentence_is_written_as_a_person_types_it() -> None:
    bad = {"field": "learning_rate", "found": 3.0, "low": 1e-5, "high": 1.0}
    assert "0,00001" in Wording("de").t("wizard.bad_number", **bad) and "3.0" not in EN.t("wizard.bad_number", **bad)


def test_what_only_looks_like_a_number_stays() -> None:
    assert "2.13" in msg("doctor.bitsandbytes", version="2.13").render("de"), "a version"
    assert figures("1,962.5", "de") == "1.962,5" and figures("1,962.5", "en") == "1,962.5"


def test_what_is_no_number_is_told_and_can_be_written_as_json() -> None:
    message = msg("sanity.left_out", step=7, loss=math.nan, grad_norm=math.inf)
    assert "nan" in message.render("de") and "inf" in message.render("de")
    assert type(message).model_validate_json(message.model_dump_json()) == message


def test_a_sentence_of_an_earlier_version_which_holds_text_is_still_told() -> None:
    assert "1.31" in msg("pausing.paused", step=7, seconds="1.31").render("en")


def test_a_number_can_be_typed_as_german_writes_it() -> None:
    from webui.form.fields import setting_of

    assert setting_of(("train", "neftune_noise_alpha"), "1,5") == 1.5
    assert setting_of(("train", "neftune_noise_alpha"), "1.5") == 1.5
    assert setting_of(("train", "neftune_noise_alpha"), "0,125") == 0.125
    assert setting_of(("train", "eval_steps"), "2,000") == "2,000", "two thousand in English, two in German: no number"
