"""Sentences on how much more would fit, in the plan's card: a pure function of a FormResult and a Wording."""

from __future__ import annotations

from core.advice import headroom
from core.advice.case import Advice
from core.advice.headroom import Headroom
from core.models.known import KnownModel, of_hub
from webui.form.planner import FormResult
from webui.kit.format import METHODS, grouped
from webui.kit.html import Html, tag
from webui.kit.wording import Wording


def setting_limits(result: FormResult, w: Wording) -> Html | None:
    """Return a list of how far each setting could be raised in the plan's memory while the others stay; None if memory
    or model are unknown."""
    plan, shape = result.plan, result.shape
    if plan is None or shape is None or (free_gib := plan.advice.budget.free_gib) is None:
        return None
    advice = plan.advice
    catalogued = of_hub(plan.recipe.model.id)
    limits = headroom.limits(shape, advice.setup, free_gib / advice.factor, catalogued)
    lines = [tag("li", sentence) for sentence in _limits(limits, advice, catalogued, w)]
    return tag("div", tag("p", w.t("fits_view.stretched_info"), class_="lg-quiet"), tag("ul", *lines))


def _limits(limits: Headroom, advice: Advice, catalogued: KnownModel | None, w: Wording) -> list[str]:
    """Return sentences on the longest text, largest rank, other method and, for a catalogued model, the largest one of
    its family."""
    other = METHODS["lora" if advice.recipe.adapter.method == "qlora" else "qlora"]
    sentences = [
        w.t("fits_view.longest", value=grouped(w, limits.max_length), now=grouped(w, advice.recipe.data.max_length))
        if limits.max_length
        else w.t("fits_view.no_length"),
        w.t("fits_view.largest_r", value=limits.r, now=advice.recipe.adapter.r) if limits.r else w.t("fits_view.no_r"),
        w.t("fits_view.other_fits" if limits.method else "fits_view.other_does_not", method=other),
    ]
    if catalogued is not None:
        same = limits.model is not None and limits.model.id == catalogued.id
        if limits.model is None:
            sentences.append(w.t("fits_view.no_model"))
        else:
            sentences.append(w.t("fits_view.same_model" if same else "fits_view.model", model=limits.model.title))
    return sentences
