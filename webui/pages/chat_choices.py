"""The models that Chat offers: runs with their checkpoints and a strength, and base models."""

from __future__ import annotations

from typing import get_args

from core.chat.answer import STRENGTHS
from core.chat.comparison import Precision
from core.errors import ChatError, RunError
from webui.kit import format
from webui.kit.wording import Wording
from webui.state.services import Services
from webui.state.snapshot import RunRow

LATEST = "adapter"  # the run's final adapter, beside its checkpoints
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def run_id_of(target: object) -> str | None:
    """Return the id in "run:ID"; None for anything else."""
    return target.removeprefix("run:") if isinstance(target, str) and target.startswith("run:") else None


def target_choices(services: Services, w: Wording, rows: tuple[RunRow, ...]) -> list[tuple[str, str]]:
    """Return (label, id) of all models: runs with an adapter or a checkpoint that are not at work, and base models.
    Ids: run:<id>, base:<model>."""
    runs = [
        (w.t("chat_page.choice_run", name=row.name, when=format.moment(w, row.created)), f"run:{row.id}")
        for row in rows
        if row.can_chat
    ]
    models = services.models.choices()
    return [
        *runs,
        *((w.t("chat_page.choice_base", name=format.model_name(m)), f"base:{m}") for m in models),
    ]


def first_choice(choices: list[tuple[str, str]], rows: tuple[RunRow, ...]) -> str:
    """Return the id of the newest run with a final adapter, else of the first choice: a paused run may have made only
    one step."""
    offered = [value for _, value in choices]
    ended = (f"run:{row.id}" for row in rows if row.status.has_adapter)
    return next((value for value in ended if value in offered), offered[0])


def is_there(services: Services, w: Wording, target: object) -> bool:
    """Return whether Chat offers the target, or it is any run that exists: one at work or in the queue is offered again
    when it ends. False for a deleted run, a model that is not on this PC, and anything else."""
    rows = services.snapshots.now().rows
    return target in [id for _, id in target_choices(services, w, rows)] or run_id_of(target) in [
        row.id for row in rows
    ]


def checkpoint_choices(services: Services, w: Wording, target: object) -> list[tuple[str, str]]:
    """Return (label, value) of a run's final adapter, whose value is LATEST, and of each checkpoint, newest first,
    whose value is its folder's name. The label says which one is the best.

    target: "run:ID", from the browser; for a base model, None or an unknown run only the final adapter's entry is
    returned.
    """
    latest = [(w.t("chat_page.checkpoint_latest"), LATEST)]
    try:
        run = services.runs.get(run_id_of(target) or "")
    except RunError:
        return latest
    facts = run.facts()
    best = facts.best_checkpoint
    if facts.adapter_is_best:
        latest = [(w.t("chat_page.checkpoint_kept_best", step=facts.adapter_step), LATEST)]
    steps = []
    for folder in reversed(run.checkpoints()):
        key = "chat_page.checkpoint_best" if folder.name == best else "chat_page.checkpoint_step"
        steps.append((w.t(key, step=int(folder.name.rsplit("-", 1)[-1])), folder.name))
    return latest + steps


def strength_of(percent: object) -> float:
    """Return the adapter's strength from the form's per cent; 1 for an empty field. Raises ChatError with the
    limits."""
    low, high = (round(100 * limit) for limit in STRENGTHS)
    if percent is None:
        return 1.0
    if isinstance(percent, bool) or not isinstance(percent, int | float) or not low <= percent <= high:
        raise ChatError("wizard.bad_number", field="strength", found=str(percent)[:40], low=low, high=high)
    return float(percent) / 100
