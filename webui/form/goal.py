"""The goal step: the skill that the model should gain, or a recipe file."""

from __future__ import annotations

import gradio as gr

from core.advice.goals import Goal, goals
from webui.kit.format import goal_name
from webui.kit.html import Html, join, notice, tag
from webui.kit.panel import Panel
from webui.kit.wording import Wording

FIRST = "style"


class GoalStep(Panel):
    """The goal step, with the field for a recipe file."""

    def build_notice(self) -> None:
        """Build the notice about a loaded recipe. It stands above the form, as the step may be closed."""
        self.notice = gr.HTML("", visible=False, elem_id="fill-notice")

    def build(self) -> None:
        """Build the step: the goals, the one that is chosen, and the field for a recipe file."""
        w = self.w
        self.goal = gr.Radio(
            [(label(goal, w), goal.id) for goal in goals()],
            value=FIRST,
            label=w.t("wizard.goal"),
            info=w.t("wizard.goal_info"),
            elem_id="goal",
        )
        gr.HTML(unsuitable_fold(w), elem_id="goal-against")
        self.about = gr.HTML(about(chosen(FIRST), w), elem_id="goal-about")
        with gr.Accordion(w.t("wizard.start_from"), open=False, elem_id="start-from"):
            self.recipe = gr.File(
                label=w.t("wizard.recipe_file"), height=90, elem_id="recipe-file", elem_classes="lg-drop"
            )
        self.next = gr.Button(w.t("wizard.next"), elem_id="next-goal", elem_classes="lg-next")


def chosen(goal_id: object) -> Goal | None:
    """Return the goal of an id from the form; None for anything else."""
    return next((goal for goal in goals() if goal.id == goal_id), None)


def label(goal: Goal, w: Wording) -> str:
    """Return a goal's title, which says so if LoRA does not suit it."""
    title = goal_name(goal, w)
    return title if goal.suitable else w.t("wizard.unsuitable_goal", title=title)


def unsuitable_fold(w: Wording) -> Html:
    """Return a fold that hides the goals that LoRA does not suit, until it is opened or one of them is chosen."""
    unsuitable = [goal.id for goal in goals() if not goal.suitable]
    inputs = ", ".join(f'[value="{goal}"]' for goal in unsuitable)
    hidden = (
        f"#step-goal:not(:has(#goal-against [open])) #goal label:has(input:is({inputs}):not(:checked)) {{ "
        f"display: none; }}"
    )
    unfolded = tag("details", tag("summary", w.t("wizard.goals_against", count=len(unsuitable))), class_="lg-fold")
    return join([Html(f"<style>{hidden}</style>"), unfolded])


def about(goal: Goal | None, w: Wording) -> Html:
    """Return a goal's description, why LoRA suits it or does not (and what to do instead), and an example row; ""
    without a goal."""
    if goal is None:
        return Html("")
    why = w.preset(goal.why, f"goal_{goal.id}_why")
    instead = w.preset(goal.instead, f"goal_{goal.id}_instead") if goal.instead else None
    return join(
        [
            tag("p", w.preset(goal.description, f"goal_{goal.id}_description")),
            tag("p", why, class_="lg-quiet") if goal.suitable else notice(why, "warn"),
            tag("p", tag("strong", w.t("wizard.instead") + " "), instead) if instead else None,
            _example(goal, w),
        ]
    )


def _example(goal: Goal, w: Wording) -> Html:
    """Return a goal's example, question and answer, in the page's language."""
    parts = []
    for part in ("question", "answer"):
        text = w.preset({language: row[part] for language, row in goal.example.items()}, f"goal_{goal.id}_{part}")
        parts.append(join([tag("dt", w.t(f"wizard.example_{part}")), tag("dd", text)]))
    return tag("dl", *parts, class_="lg-example")
