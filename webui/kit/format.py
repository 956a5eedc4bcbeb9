"""Numbers as text in the page's language; no other module formats one. Pure functions. An unknown number is shown as
unknown, never as 0."""

from __future__ import annotations

import time
from datetime import date, datetime, timedelta

from core.advice.goals import Goal
from core.data.sample_sets import sample_of
from core.memory.budget import Budget
from core.messages import as_typed, figures
from core.progress import Progress
from core.recipe import NO_DATA, Adapter
from webui.kit.html import Html, tag
from webui.kit.wording import Wording
from webui.state.snapshot import RunRow

NARROW = "\u00a0"  # keeps "80 MB" on one line
LONG_S = 12 * 3600.0


def grouped(w: Wording, count: float) -> str:
    """Return a number with separators between thousands, as the language has them: "1,962", in German "1.962"."""
    return figures(f"{count:,}", w.language)


def decimals(w: Wording, value: float, places: int) -> str:
    """ "2.20", in German "2,20"."""
    return figures(f"{value:.{places}f}", w.language)


def bytes_used(w: Wording, count: float) -> str:
    """Return a size in decimal units, as disks are sold: 31 MB, 1.2 GB; one decimal below 10 GB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            value = count / size
            return f"{decimals(w, value, 1 if value < 10 and unit == 'GB' else 0)} {unit}"
    return f"{count:.0f} B"


def loss(w: Wording, value: float | None) -> str:
    """Return a loss with three decimals, or with three digits in all from 1000 on; a dash if it is unknown or not
    finite."""
    if value is None or value != value or abs(value) == float("inf"):
        return "–"
    return figures(f"{value:.3f}" if abs(value) < 1000 else f"{value:.3g}", w.language)


def number(w: Wording, value: float | int) -> str:
    """Return the value of a setting as it was typed, such as 0.0002 or 64."""
    return figures(as_typed(value), w.language)


def rows(wording: Wording, count: int) -> str:
    return wording.t("wizard.rows", rows=count)


def time_left(wording: Wording, seconds: float | None) -> str:
    """ "about 25 min left"; "" while it is not known."""
    return _roughly(wording, seconds, "seconds_left", "minutes_left", "hours_left", "days_left")


def about(wording: Wording, seconds: float | None) -> str:
    """ "about 25 min": a duration that is only estimated, from 4 h on in whole hours; "" while it is not known."""
    if seconds is not None and 4 * 3600 <= seconds < 48 * 3600:
        return wording.t("units.about_whole_hours", hours=round(seconds / 3600))
    return _roughly(wording, seconds, "about_seconds", "about_minutes", "about_hours", "about_days")


def _roughly(
    wording: Wording, seconds: float | None, in_seconds: str, in_minutes: str, in_hours: str, in_days: str
) -> str:
    """Return a time rounded to 5 s, minutes (from 50 s), hours and minutes (from 90 min) or days (from 48 h), in the
    sentence units.<key> of that unit; "" if it is unknown."""
    if seconds is None or seconds != seconds or seconds < 0:
        return ""
    if seconds < 50:
        return wording.t(f"units.{in_seconds}", seconds=max(5, 5 * round(seconds / 5)))
    minutes = max(1, round(seconds / 60))
    if minutes < 90:
        return wording.t(f"units.{in_minutes}", minutes=minutes)
    if minutes < 48 * 60:
        return wording.t(f"units.{in_hours}", hours=minutes // 60, minutes=minutes % 60)
    return wording.t(f"units.{in_days}", days=round(minutes / 60 / 24))


def duration(wording: Wording, seconds: float | None) -> str:
    """Return seconds, minutes or hours and minutes in words; "" for an unknown or invalid time."""
    if seconds is None or seconds != seconds or seconds < 0:
        return ""
    if seconds < 60:
        return wording.t("units.seconds", seconds=round(seconds))
    if seconds < 5400:
        return wording.t("units.minutes", minutes=round(seconds / 60))
    return wording.t("units.hours", hours=int(seconds // 3600), minutes=int(seconds % 3600 // 60))


def progress(wording: Wording, value: Progress | None) -> str:
    """Return progress in words: "34 of 93 MB", "120 of 140 rows"; of bytes without a known total only those that are
    done; "" for None."""
    if value is None:
        return ""
    if value.unit == "bytes":
        if not value.total:
            return bytes_used(wording, value.done)
        return wording.t("units.of", done=bytes_used(wording, value.done), total=bytes_used(wording, value.total))
    unit = wording.t(f"units.{value.unit}") if wording.knows(f"units.{value.unit}") else value.unit
    return wording.t("units.of_unit", done=round(value.done), total=round(value.total), unit=unit)


def moment(wording: Wording, seconds_since_1970: float | None) -> str:
    """Return a time on the clock of the PC that trains, such as "12-01 15:27", in German "01.12. 15:27"; with the year
    unless it is this year; "–" if unknown."""
    then = _local(seconds_since_1970)
    if not then:
        return "–"
    key = "units.day" if then.tm_year == time.localtime().tm_year else "units.day_of_year"
    day = wording.t(key, year=then.tm_year, month=then.tm_mon, day=then.tm_mday)
    return f"{day} {time.strftime('%H:%M', then)}"


def clock(seconds_since_1970: float | None) -> str:
    """Return a local time as "15:27:03"; "" if it is unknown."""
    then = _local(seconds_since_1970)
    return time.strftime("%H:%M:%S", then) if then else ""


def _local(seconds_since_1970: object) -> time.struct_time | None:
    """Return a number of seconds since 1970 as local time; None for 0 and for a value from a file that is no time."""
    try:
        return (
            time.localtime(seconds_since_1970)
            if seconds_since_1970 and isinstance(seconds_since_1970, int | float)
            else None
        )
    except (ValueError, OverflowError, OSError):
        return None


def parameters(wording: Wording, count: int) -> str:
    """ "135M parameters", "7.2B parameters"."""
    value = f"{count / 1e6:.0f}M" if count < 0.9995e9 else f"{decimals(wording, count / 1e9, 1)}B"
    return wording.t("units.parameters", count=value)


METHODS = {"lora": "LoRA", "qlora": "QLoRA"}
VARIANTS = {
    "load_in_8bit": "int8",
    "use_dora": "DoRA",
    "is_pissa": "PiSSA",
    "use_rslora": "rsLoRA",
    "trains_experts": "experts",
}
TONES = {"fits": "ok", "tight": "warn", "does_not_fit": "bad", "unknown": "plain"}


def is_long(seconds: float | None) -> bool:
    """Return whether a training takes longer than LONG_S, 12 hours; False for an unknown time."""
    return (seconds or 0.0) > LONG_S


def takes_long(seconds: float | None, w: Wording) -> Html | None:
    """Return the badge "takes long" for a training of more than 12 hours; None for a shorter one, or an unknown
    time."""
    return tag("span", w.t("plan_view.takes_long"), class_="lg-badge lg-warn") if is_long(seconds) else None


def badge(verdict: str, w: Wording, is_plain: bool = False) -> Html:
    """Return the badge that says whether a training fits into memory. verdict: a key of TONES, such as "fits" or
    "tight". is_plain: without the verdict's colour."""
    return tag(
        "span", w.t(f"plan_view.verdict_{verdict}"), class_=f"lg-badge lg-{'plain' if is_plain else TONES[verdict]}"
    )


def method_name(settings: Adapter) -> str:
    """ "QLoRA", or with what makes it a variant: "LoRA · int8 · DoRA"."""
    return " · ".join(
        [METHODS[settings.method], *(word for name, word in VARIANTS.items() if getattr(settings, name, False))]
    )


def gib(w: Wording, value: float) -> str:
    """Return GiB with as few digits as matter: 0.03, 5.2, 120."""
    return decimals(w, value, 0 if value >= 100 else 1 if value >= 0.095 else 2)


def free_memory(budget: Budget, w: Wording) -> str:
    """Return the free memory and its device (GPU, RAM, or planned GPU) in words: "7.3 GiB free on the NVIDIA GeForce
    RTX 4060"."""
    free = gib(w, budget.free_gib) if budget.free_gib is not None else w.t("plan_view.unknown")
    if budget.planned:
        return w.t("plan_view.place_planned", gb=budget.sold_gb, free=free, reserve=gib(w, budget.reserve_gib))
    if budget.kind == "cpu":
        return w.t("plan_view.place_cpu", free=free)
    return w.t("plan_view.place_card", name=budget.smallest or budget.name or w.t("plan_view.unknown"), free=free)


def at_time(w: Wording, seconds: float | None) -> str:
    """Return a time on the clock of the PC that trains: "23:00", "tomorrow 07:00", else with the date; "" for none."""
    if not seconds:
        return ""
    then = datetime.fromtimestamp(seconds)
    if then.date() == date.today():
        return then.strftime("%H:%M")
    if then.date() == date.today() + timedelta(days=1):
        return w.t("queue_panel.tomorrow", time=then.strftime("%H:%M"))
    return moment(w, seconds)


def model_name(model_id: str) -> str:
    """Return a model's id as it is shown: without "library:"; "SmolLM2-135M-Instruct" for "starter"."""
    return "SmolLM2-135M-Instruct" if model_id == "starter" else model_id.removeprefix("library:")


def data_name(row: RunRow, w: Wording) -> str:
    """Return the name of a run's dataset: the title of a sample in the page's language, else its id; for an adapter
    that was not trained here, whether it was combined of others or brought in."""
    if row.data == NO_DATA:
        is_combined = row.status.message is not None and row.status.message.key == "merge.ended"
        return w.t("runs_table.combined" if is_combined else "runs_table.elsewhere")
    sample = sample_of(row.data)
    if not sample or not sample.title or not row.data:
        return row.data
    return w.preset(sample.title, f"sample_{row.data.removeprefix('sample:')}_title")


def goal_name(goal: Goal, w: Wording) -> str:
    return w.preset(goal.title, f"goal_{goal.id}_title")
