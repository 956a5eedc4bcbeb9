"""The dry run beside the arithmetic, a line on the plan's card. Pure functions."""

from __future__ import annotations

from core.advice.recommend import Advice
from core.trial.dry_runs import Looked
from webui.kit.html import Html, join, notice, tag
from webui.kit.verdict import gib
from webui.kit.wording import Wording


def line(looked: Looked | None, advice: Advice, w: Wording) -> Html | None:
    """ "Dry run: 7.1 GiB; rule of thumb 7.4 GiB." That it is being counted, or why there is none. And a warning where the plan
    fits by the rule of thumb alone."""
    if looked is None or advice.arithmetic_gib is None:
        return None
    thumb = gib(advice.arithmetic_gib)
    if looked.is_counting:
        return _quiet(w.t("dry_run_view.counting", thumb=thumb))
    if looked.answer is None:
        return _quiet(w.t("dry_run_view.none", why=w.of(looked.why)))
    counted = looked.answer.estimate
    said = w.t("dry_run_view.counted", gib=gib(counted.on_card_gib), thumb=thumb, where=w.of(looked.answer.where))
    free = advice.budget.free_gib
    needed = counted.needed_gib * advice.factor
    if advice.verdict == "fits" and free is not None and needed > free:
        return join([_quiet(said), notice(w.t("dry_run_view.too_much", needed=gib(needed), free=gib(free)), "warn")])
    return _quiet(said)


def _quiet(sentence: str) -> Html:
    return tag("p", sentence, class_="lg-quiet lg-dry-run")
