"""A run's card as HTML: pure functions of a RunView and a Wording."""

from __future__ import annotations

import time

from core.advice.goals import goal_of
from core.files import JsonObject
from core.runs.folder import Status
from core.runs.run_json import RunFacts
from core.runs.states import ACTIVE, BUSY, State
from webui.kit import format
from webui.kit.format import data_name, goal_name, method_name, model_name
from webui.kit.html import Html, bar, facts, join, muted, tag
from webui.kit.wording import Wording, field_of
from webui.run import better, figures, guard, memory
from webui.state.snapshot import RunRow, RunView

TONES = {
    State.QUEUED: "plain",
    State.COMPLETED: "ok",
    State.STOPPED: "ok",
    State.PAUSED: "plain",
    State.FAILED: "bad",
    State.INTERRUPTED: "warn",
}
MAX_EVENTS = 60


def tone_of(status: Status) -> str:
    """Return the tone of a run's state, which the style sheets colour: ok (completed, or stopped with an adapter), bad
    (failed), warn (interrupted), plain (queued, paused, or stopped without an adapter), else active."""
    is_without = status.state == State.STOPPED and not status.has_adapter
    return "plain" if is_without else TONES.get(status.state, "active")


# Settings shown without unfolding, in this order; the rest of the recipe is in its file.
SUMMARY = (
    ("adapter", "r"), ("adapter", "lora_alpha"), ("train", "learning_rate"), ("train", "num_train_epochs"),
    ("train", "max_steps"), ("train", "per_device_train_batch_size"), ("data", "max_length"), ("data", "eval_fraction"),
    ("train", "optim"), ("train", "seed"), ("train", "ranks"),
)  # fmt: skip


def card(view: RunView, w: Wording) -> Html:
    """Return a run's card: name, state and model; while it is at work its phase with numbers and time left, else its
    outcome and what to try; figures, memory and quality."""
    status = view.row.status
    badge = tag("span", w.t(f"state.{status.state.value}"), class_=f"lg-badge lg-{tone_of(status)}")
    lines = [
        tag("div", tag("h2", view.row.name), badge, guard.chip(view, w), class_="lg-run-head"),
        muted(" · ".join(filter(None, (model_line(view.row, w), objective_name(view, w))))),
    ]
    lines += _at_work(view, w) if status.state in BUSY else _ended(view, w)
    if status.total_steps:
        lines.append(figures.figures(view, w))
    lines += memory.now(view, w)
    lines += better.lines(view, w)
    return tag("div", *lines, class_="lg-run" if status.state in BUSY else "lg-run lg-over")


def model_line(row: RunRow, w: Wording) -> str:
    """Return a line such as "LoRA, rank 8 · SmolLM2-135M-Instruct · Pirate answers"."""
    if not row.method:
        return w.t("train_page.recipe_unreadable")
    method = format.METHODS.get(row.method, row.method)
    return w.t("train_page.run_line", method=method, r=row.r, model=model_name(row.model), data=data_name(row, w))


def objective_name(view: RunView, w: Wording) -> str:
    """Return the name of a preference run's objective, as in "DPO (preference training)"; "" for every other run,
    supervised or by rewards, and for a recipe that cannot be read."""
    return w.t(f"wizard.choice_{view.recipe.train.objective}") if view.recipe and view.recipe.train.compares else ""


def _at_work(view: RunView, w: Wording) -> list[Html]:
    """Return the phase of a run at work with what the phase counts and its time left, then a progress bar, none for a
    queued run. While the run pauses, the time waited so far stands in place of the time left.

    The step and the time left of the training itself are figures below.
    """
    status = view.row.status
    fraction = share_done(status)
    phase = w.t(f"train_page.waits_for_{view.waits_for}" if view.waits_for else f"stage.{status.stage}")
    if status.state in (State.STOPPING, State.PAUSING):
        phase = w.t(f"train_page.{status.state.value}")
    # While pausing: the time waited so far instead of the time left.
    waited = format.duration(w, time.time() - status.since) if status.state == State.PAUSING else ""
    has_figure = status.state == State.RUNNING and status.total_steps
    left = waited or ("" if has_figure else format.time_left(w, status.seconds_left))
    detail = [part for part in (format.progress(w, status.progress), left) if part]
    percent = None if fraction is None else round(100 * fraction)
    return [
        tag("p", tag("strong", phase), tag("span", " · ".join(detail), class_="lg-numbers"), class_="lg-phase"),
        *([] if status.state == State.QUEUED else [bar(phase, percent)]),  # nothing is going on yet
    ]


def share_done(status: Status) -> float | None:
    """Return the share of the present phase that is done, 0 to 1; None if unknown."""
    if status.progress is not None:
        done, total = status.progress.done, status.progress.total
    else:
        done, total = status.step, status.total_steps
        if status.state not in (State.RUNNING, State.PAUSING, State.STOPPING):
            return None
    return min(1.0, max(0.0, done / total)) if total else None


def ended_with(status: Status, w: Wording) -> str:
    """Return how a run ended: its message, else a sentence for its state."""
    return w.render(status.message) or w.t(f"train_page.ended_{status.state.value}")


def _ended(view: RunView, w: Wording) -> list[Html]:
    """Return [one block]: what happened, what to try, and the log's end, each if there is something."""
    status = view.row.status
    outcome = ended_with(status, w)
    tone = tone_of(status)
    lines = [
        tag("p", tag("strong", w.t("train_page.what_happened") + " ") if tone in ("bad", "warn") else None, outcome)
    ]
    if status.advice:
        lines.append(tag("p", tag("strong", w.t("train_page.what_to_try") + " "), w.render(status.advice)))
    if view.log_tail:
        pre = tag("pre", view.log_tail, tabindex=0, role="region", aria_label=w.t("train_page.log"))
        lines.append(tag("details", tag("summary", w.t("train_page.log")), pre, class_="lg-fold"))
    return [tag("div", *lines, class_=f"lg-outcome lg-{tone}")]


def settings(view: RunView, w: Wording) -> Html:
    """Return the run's own recipe (never the form's) and facts as a list, unused settings left out; a sentence if it
    cannot be read."""
    if view.recipe is None:
        return muted(w.t("train_page.recipe_unreadable"))
    row = view.row
    goal = goal_of(view.recipe.goal) if view.recipe.goal else None
    pairs = [
        *([(w.t("wizard.step_goal"), goal_name(goal, w))] if goal else []),
        (w.t("train_page.model"), model_name(row.model)),
        (w.t("train_page.data"), data_name(row, w)),
        (w.t("train_page.method"), method_name(view.recipe.adapter)),
    ]
    if objective := objective_name(view, w):
        pairs += [
            (w.t("wizard.field_objective"), objective),
            (w.t("wizard.field_beta"), format.number(w, view.recipe.train.beta or 0)),
        ]
    for section, name in SUMMARY:
        value = getattr(getattr(view.recipe, section), name)
        if view.facts.brought_from and section != "adapter":  # unknown, the recipe's are defaults
            continue
        if name in ("max_steps", "ranks") and value == field_of(section, name).default:
            continue
        if (section, name) == ("train", "num_train_epochs") and view.recipe.train.max_steps > 0:
            continue
        pairs.append((w.t(f"wizard.field_{name}"), "–" if value is None else format.number(w, value)))
    pairs += _run_facts(view.facts, w)
    return facts(pairs)


def _run_facts(facts: RunFacts, w: Wording) -> list[tuple[str, str]]:
    """Return (label, value) of the facts that were determined while preparing the run, the known ones."""
    pairs = []
    if parent := facts.parent:
        text = w.t("further_card.continues_from", name=parent.name, step=parent.step)
        pairs.append((w.t("further_card.continues_short"), text))
    if facts.trainable_params is not None:
        pairs.append((w.t("train_page.trainable"), format.grouped(w, facts.trainable_params)))
    if facts.dtype:
        device = w.t("train_page.device_cpu") if facts.device == "cpu" else str(facts.device)
        pairs.append((w.t("train_page.computed_in"), f"{facts.dtype}, {device}"))
    if facts.rows_trained is not None:
        rows = w.t("train_page.rows_split", trained=facts.rows_trained, measured=facts.rows_measured or 0)
        pairs.append((w.t("train_page.rows_used"), rows))
    return pairs


def story(view: RunView, w: Wording) -> Html:
    """Return the run's timeline: its own corrections, memory and time against the plan, then its newest MAX_EVENTS
    events, newest last.

    A repeated phase is listed once.
    """
    status, lines, stages = view.row.status, [], set()
    notes = [muted(w.t("train_page.may_close"))] if status.state in BUSY else []
    if status.awake and status.state in ACTIVE:
        notes.append(muted(w.render(status.awake)))
    notes += [*guard.lines(view, w), *memory.lines(view, w)]
    for event in view.events:
        sentence, tone = _sentence(event, w)
        if not sentence or (event.get("kind") == "stage" and sentence in stages):
            continue
        stages.add(sentence)
        lines.append(
            tag("li", tag("time", format.clock(event.get("time"))), tag("span", sentence, class_=f"lg-{tone}"))
        )
    if not lines:
        return join([*notes, muted(w.t("train_page.no_events"))])
    return join([*notes, tag("ol", *lines[-MAX_EVENTS:], class_="lg-story")])


def _sentence(event: JsonObject, w: Wording) -> tuple[str, str]:
    """Return an event in words ("" for none), and its tone."""
    kind, message = event.get("kind"), guard.sentence(event.get("message"), w)
    if kind == "state":
        state = str(event.get("state"))
        tone = TONES.get(State(state), "plain") if state in set(State) else "plain"
        return message or w.t("train_page.now", state=w.t(f"state.{state}")), tone
    if kind == "stage":
        return w.t(f"stage.{event.get('stage')}"), "plain"
    if kind == "checkpoint":
        return w.t("train_page.checkpoint_saved", step=event.get("step")), "plain"
    return message, "warn" if kind in ("warning", "guard") else "plain"


def headline(view: RunView | None, w: Wording) -> Html:
    """Return one short line for the page's header about a run at work or paused: state, name, per cent and time left;
    for any other, that nothing runs."""
    if view is None or view.row.status.state not in (*BUSY, State.PAUSED):
        return tag("span", w.t("page.idle"), class_="lg-quiet")
    status = view.row.status
    # The share of all steps, also during an evaluation, which counts rows.
    running = status.state in (State.RUNNING, State.PAUSED) and status.total_steps
    percent = f"{round(100 * min(1.0, status.step / status.total_steps))} %" if running else ""
    state = w.t(f"state.{status.state.value}")
    parts = [part for part in (percent, format.time_left(w, status.seconds_left)) if part]
    return join(
        [
            tag("span", state, class_=f"lg-badge lg-{tone_of(status)}"),
            tag("span", view.row.name, class_="lg-name"),
            tag("span", " · ".join(parts), class_="lg-quiet"),
        ]
    )
