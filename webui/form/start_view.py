"""The top of the Train page: the purpose of the app, the sample datasets and the person's own, a drop zone, and the
whole plan in one bar beside Start.

The steps (goal, model, data, plan, run) open below it, one at a time (assets/start.js).
"""

from __future__ import annotations

from typing import NamedTuple

import gradio as gr

from core.advice import plan
from core.advice.case import Grounds
from core.advice.goals import goal_of
from core.data.labels import Learning
from core.data.reading.choices import NO_CHOICES
from core.data.sample_sets import introduction, sample_of
from core.data.sets.info import DatasetInfo
from core.errors import GarageError
from core.recipe import Recipe
from core.trial import pace
from webui.form import plan_view
from webui.form.data import FIRST
from webui.form.planner import FormResult
from webui.kit import format, samples
from webui.kit.html import Html, join, tag
from webui.kit.icons import icon
from webui.kit.panel import Panel
from webui.state.evaluating import BASE, DATA, Choice, tried

# A press on a card chooses its dataset; the page marks the chosen card.
CHOOSE = """
element.addEventListener("click", (event) => {
  const card = event.target.closest("button[data-set]");
  if (card) trigger("select", { value: loraGarageStart.choose(card.dataset.set) });
});
"""
MARK = "(data) => loraGarageStart.mark(data)"
MAX_OWN = 6  # own datasets shown as cards; all of them are in the step


class Summary(NamedTuple):
    """The texts of the bar above Start.

    data, model: the name and the line below it. problems: the number of the plan's problems, in words. run: the name
    given to the run. Both are "" if there is none.
    """

    goal: str = ""
    model: tuple[str, str] = ("", "")
    data: tuple[str, str] = ("", "")
    problems: str = ""
    run: str = ""


class StartView(Panel):
    """The top of the Train page: headline, cards of datasets, links, and the plan in a bar."""

    def build(self) -> None:
        """Build the headline and the cards of datasets."""
        w = self.w
        head = tag("div", tag("h2", w.t("start_view.headline")), tag("p", w.t("start_view.about")), class_="lg-hero")
        gr.HTML(head, elem_id="start-head")
        self.cards = gr.HTML(
            self.draw_cards(FormResult(), FIRST),
            elem_id="start-cards",
            js_on_load=CHOOSE,
            apply_default_css=False,
        )

    def build_links(self) -> None:
        self.links = gr.HTML(self.draw_links(None, None), elem_id="start-links")

    def draw_links(self, model: object, data: object) -> Html:
        """Return the links below the place where files are dropped: the search of the Hub; for a chosen model and
        dataset, the evaluation of the model as it is, with its result once there is one."""
        w, links = self.w, {"type": "button", "class_": "lg-link"}
        find = tag("button", w.t("start_view.find"), data_step="data", data_part="#hub-set", **links)
        if not (isinstance(model, str) and model.strip() and isinstance(data, str) and data):
            return find
        choice = Choice(f"{BASE}{model.strip()}", f"{DATA}{data}")
        leads = {"data_page": "evaluate", "data_model": choice.model, "data_questions": choice.questions}
        result = tried(self.services.workspace, choice)
        without = tag("button", w.t("start_view.without"), data_start=None if result else "yes", **leads, **links)
        return join([find, without, tag("span", w.render(result), class_="lg-quiet") if result else None])

    def build_bar(self) -> None:
        """Build the bar that shows the choice of each step and the plan's verdict and time; it has no plan yet."""
        self.bar = gr.HTML(self.draw_bar(Summary()), elem_id="start-summary")

    # ---- the cards --------------------------------------------------------------------------------------------------
    def draw_cards(self, result: FormResult, data: object) -> Html:
        """Return the cards of those samples that belong on the start page (and of a chosen other one), the default
        sample first, and of up to MAX_OWN of the person's own datasets, the chosen one first."""
        every = self.services.datasets.list()
        of_samples = [(info, sample) for info in every if (sample := sample_of(info.id))]
        shown = [info for info, sample in of_samples if sample.on_start or info.id == data]
        shown.sort(key=lambda info: info.id != FIRST)
        own = [info for info in every if info.origin != "sample"]
        own.sort(key=lambda info: info.id != data)  # so that the chosen one is always shown
        return join(
            [
                tag("div", *(self._sample(info, result, data) for info in shown), class_="lg-samples"),
                tag("div", *(self._own(info, data) for info in own[:MAX_OWN]), class_="lg-own") if own else None,
            ]
        )

    def _sample(self, info: DatasetInfo, result: FormResult, data: object) -> Html:
        """Return the button that chooses a sample dataset, with its first row, goal and time."""
        w, sample = self.w, sample_of(info.id)
        question, answer = introduction(info.id)
        goal = goal_of(sample.goal) if sample and sample.goal else None
        facts = [format.goal_name(goal, w)] if goal else []
        if info.good_rows is not None:
            facts.append(format.rows(w, info.good_rows))
        seconds = result.seconds if info.id == data else self._seconds(info.id, result)
        return tag(
            "button",
            tag("strong", samples.title(info, w)),
            tag("span", tag("span", question), tag("span", answer), class_="lg-sample-row", lang="en"),
            tag(
                "span",
                tag("span", " · ".join(facts)),
                tag("span", format.about(w, seconds), class_="lg-badge lg-active") if seconds else None,
                class_="lg-sample-foot lg-quiet",
            ),
            type="button",
            class_="lg-sample",
            data_set=info.id,
            aria_pressed=str(info.id == data).lower(),
        )

    def _own(self, info: DatasetInfo, data: object) -> Html:
        """Return the button that chooses one of the person's own datasets; pressed if it is the chosen one (data)."""
        title = samples.title(info, self.w)
        size = format.rows(self.w, info.good_rows) if info.good_rows is not None else ""
        return tag(
            "button",
            icon("data"),
            tag("strong", title),
            tag("span", size, class_="lg-quiet"),
            type="button",
            class_="lg-own-set",
            data_set=info.id,
            aria_pressed=str(info.id == data).lower(),
        )

    def _seconds(self, data: str, result: FormResult) -> float | None:
        """Return the estimated time, in seconds, to train the chosen model on another sample: with the advised settings
        instead of the person's, at the pace of the shown plan. None without a plan or a pace, for training by rewards,
        or if no plan can be made for the sample."""
        if result.plan is None or result.pace is None or result.plan.recipe.rewards:
            return None
        model, budget = result.plan.recipe.model, result.plan.advice.budget
        recipe = Recipe.parse({"model": model.model_dump(), "data": {"source": data}}, where="sample")
        try:
            preview = self.services.previews.get(data, model.id, Learning.from_recipe(recipe), None, NO_CHOICES)
            planned = plan.make(recipe, Grounds.from_preview(budget, result.shape, preview, None, continues=False))
        except GarageError:
            return None
        counts = preview.counts_of(planned.recipe.data)
        return pace.seconds(pace.planned_tokens(planned.recipe, planned.advice.planned_steps or 0, counts), result.pace)

    # ---- the bar ----------------------------------------------------------------------------------------------------
    def draw_bar(self, summary: Summary, result: FormResult | None = None) -> Html:
        """Return five buttons with the choices of each step, and the plan's verdict and time; a press opens the step.
        result: None until the form was first looked at."""
        w, change = self.w, self.w.t("start_view.change")
        (data, rows), (model, size) = summary.data, summary.model
        method, verdict, tone = self._plan(result) if result else (w.t("start_view.planning"), "", "")
        if summary.problems:
            verdict, tone = f"{verdict} · {summary.problems}", "warn" if tone == "ok" else tone
        steps = plan_view.steps_and_time(result, w) if result else []
        no_time = w.t("start_view.no_time") if result else ""
        time = steps[1] if len(steps) > 1 else no_time
        parts = (
            ("data", data, rows or change, ""),
            ("goal", summary.goal, change, ""),
            ("model", model, size or change, ""),
            ("plan", method, verdict, tone),
            (
                "train",
                time,
                " · ".join([*steps[:1], summary.run or w.t("start_view.run")]),
                "warn" if result and result.is_long else "",
            ),
        )
        return join(
            tag(
                "button",
                tag("span", w.t(f"start_view.{step}"), class_="lg-quiet"),
                tag("strong", value),
                tag("span", more, class_=f"lg-part-more lg-{tone}" if tone else "lg-part-more lg-quiet"),
                type="button",
                class_="lg-part",
                data_step=step,
                aria_expanded="false",
            )
            for step, value, more, tone in parts
        )

    def _plan(self, result: FormResult) -> tuple[str, str, str]:
        """Return (method and rank, verdict, its tone) of the plan; (no plan, see why, "bad") without one."""
        if result.plan is None:
            return self.w.t("start_view.no_plan"), self.w.t("start_view.see_why"), "bad"
        advice, recipe = result.plan.advice, result.plan.recipe
        method = self.w.t("plan_view.method_rank", method=format.method_name(recipe.adapter), r=advice.recipe.adapter.r)
        tone = format.TONES[advice.verdict]
        return method, plan_view.verdict_line(advice, self.w), "warn" if tone == "ok" and result.is_long else tone
