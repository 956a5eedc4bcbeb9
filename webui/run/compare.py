"""All runs as a table to search and open; several in one chart, with their differing settings.

The page requests the rows while the table is visible, and gets them if they changed; names reach the page as text
(assets/runs_table.js).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress

import gradio as gr

from core.errors import GarageError
from core.files import JsonObject
from core.recipe import Recipe
from core.runs.run_json import Parent
from core.runs.states import BUSY
from webui.form.fields import FIELDS, label_of
from webui.kit import format
from webui.kit.theme import ASSETS
from webui.kit.wording import Wording
from webui.run.card import model_line, tone_of
from webui.run.chart import IDLE_POLL_MS, POLL_MS
from webui.state.services import Services
from webui.state.snapshot import RunRow

FEWEST, MOST = 2, 6  # runs in one chart: more than six cannot be told apart
COLUMNS = ("run", "state", "course", "eval", "minutes", "size")
WORDS = (
    *COLUMNS, "list", "search", "any_state", "none_found", "compare", "compare_this", "choose", "loss", "eval_loss",
    "rate", "step", "tokens",
    "time", "archived", "only_tag", "shown", "over", "differ", "same", "spoken", "offline", "compared",
)  # fmt: skip
TEMPLATE = (
    "<div class='rt-tools'><input class='rt-search' type='search'><select class='rt-state'></select></div>"
    "<div class='rt-scroll' tabindex='0' role='region'><table "
    "class='rt-table'><thead><tr></tr></thead><tbody></tbody></table></div>"
    "<p class='rt-message lg-quiet' role='status'></p><p class='rt-disk lg-quiet'></p>"
    "<div class='rt-compare' hidden><div class='rt-tools'><h3></h3><select class='rt-y'></select><select "
    "class='rt-x'></select></div>"
    "<ul class='rt-legend'></ul><div class='rt-plot' role='img' aria-label='-'></div>"
    "<div class='rt-scroll' tabindex='0' role='region'><table class='rt-differ'></table></div></div>"
)
PICKED = "(listed, opened) => [window.loraGarageRun ?? '', opened]"


def runs_table(services: Services, w: Wording) -> gr.HTML:
    """Return the table. Its `value` is the open run; `select` reports the one that a person opens (PICKED)."""

    exports = KnownExports(services)

    def rows(stamp: object) -> JsonObject:
        """Return the table with its stamp and the time until the next poll; the last two alone if the page has this
        stamp."""
        runs = services.snapshots.now().rows
        table = {"rows": [row_data(row, w) for row in runs], "disk": disk_line(runs, exports.bytes(), w)}
        digest = hashlib.blake2b(json.dumps(table).encode(), digest_size=8).hexdigest()
        wait = POLL_MS if any(row.status.state in BUSY for row in runs) else IDLE_POLL_MS
        return {"stamp": digest, "wait_ms": wait} | ({} if stamp == digest else table)

    def compared(ids: object) -> JsonObject:
        """Return the curves and settings of the runs with these ids, at most MOST, for any JSON from a browser."""
        return overlay(
            services, [one for one in ids if isinstance(one, str)][:MOST] if isinstance(ids, list) else [], w
        )

    words = {name: w.raw(f"runs_table.{name}") for name in WORDS} | {"fewest": FEWEST, "most": MOST, "columns": COLUMNS}
    return gr.HTML(
        html_template=TEMPLATE,
        css_template=(ASSETS / "runs_table.css").read_text("utf-8"),
        js_on_load=(ASSETS / "runs_table.js").read_text("utf-8").replace("__WORDS__", json.dumps(words)),
        server_functions=[rows, compared],
        apply_default_css=False,
        elem_id="runs-list",
    )


class KnownExports:
    """The size of all exports, counted again when one is added or removed."""

    def __init__(self, services: Services):
        self._services, self._stamp, self._bytes = services, -1, 0

    def bytes(self) -> int:
        """Return the bytes of all exports; those counted last if the folder cannot be read."""
        with suppress(OSError):
            if (now := self._services.workspace.exports.stat().st_mtime_ns) != self._stamp:
                self._stamp, self._bytes = now, sum(done.bytes for done in self._services.exports.list())
        return self._bytes


def disk_line(rows: Sequence[RunRow], exports: int, w: Wording) -> str:
    """Return the disk space used in words, "Disk space: runs 1.2 GB, exports 0 B. You can free 800 MB …, most of it in
    …"; "" without runs."""
    if not rows:
        return ""
    used, spare = (sum(getattr(row, name) for row in rows) for name in ("bytes_used", "spare_bytes"))
    text = w.t("runs_table.disk_used", runs=format.bytes_used(w, used), exports=format.bytes_used(w, exports))
    most = max(rows, key=lambda row: row.spare_bytes).name
    return f"{text} {w.t('runs_table.disk_spare', spare=format.bytes_used(w, spare), name=most)}" if spare else text


def row_data(row: RunRow, w: Wording) -> JsonObject:
    """Return a run as assets/runs_table.js draws it: id, name, state, course, loss, minutes, size, label."""
    state = row.status.state
    steps = w.t("runs_page.steps", step=row.status.step, total=row.status.total_steps) if row.status.total_steps else ""
    right = w.t("runs_table.right", right=row.right[0], count=row.right[1]) if row.right else ""
    lost = w.t("runs_table.lost", count=row.lost) if row.lost else ""
    evaluated = format.loss(w, row.evaluated)
    return {
        "id": row.id,
        "name": row.name,
        "about": " · ".join(filter(None, (model_line(row, w), steps, right, lost, format.moment(w, row.created)))),
        "state": w.t(f"state.{state.value}"),
        "tone": tone_of(row.status),
        "course": row.course,
        "eval": w.t("runs_table.reward", value=evaluated) if row.is_reward and row.evaluated is not None else evaluated,
        "minutes": format.duration(w, row.seconds) or "–",
        "size": format.bytes_used(w, row.bytes_used),
        "tags": row.label.tags,
        "note": row.label.note,
        "archived": row.label.archived and state not in BUSY,
    }


def overlay(services: Services, ids: Sequence[str], w: Wording) -> JsonObject:
    """Return several runs for one chart.

    runs: id, name and points of each. differ: the settings that differ, with the value in each run, and the run that
    each continues.
    """
    runs = []
    for run_id in ids:
        with suppress(GarageError):  # deleted meanwhile
            run = services.runs.get(run_id)
            runs.append((run, run.recipe(), services.curves.overlaid(run_id)))
    points = [{"id": run.id, "name": run.name, **curve} for run, _, curve in runs]
    started = [_started(run.facts().parent, w) for run, _, _ in runs]
    continues = [[w.t("further_card.continues_short"), *started]] if len(set(started)) > 1 else []
    return {"runs": points, "differ": [*continues, *differing([recipe for _, recipe, _ in runs], w)]}


def _started(parent: Parent | None, w: Wording) -> str:
    """Return the run and step that a run continues; "–" for none."""
    return w.t("further_card.continues_from", name=parent.name, step=parent.step) if parent else "–"


def differing(recipes: Sequence[Recipe], w: Wording) -> list[list[str]]:
    """Return [label, value in each recipe] for each setting, model and dataset included, that differs."""
    keys = [
        (w.t("train_page.model"), "model", "id"),
        (w.t("train_page.data"), "data", "source"),
        *((label_of(name, w), section, name) for section, name in FIELDS),
    ]
    values_of = [
        (label, [getattr(getattr(recipe, section), name) for recipe in recipes]) for label, section, name in keys
    ]
    return [
        [label, *(_value(value, w) for value in values)]
        for label, values in values_of
        if any(v != values[0] for v in values)
    ]


def _value(value: bool | tuple[str, ...] | float | None, w: Wording) -> str:
    """Return a setting's value in words; "–" if it is not set."""
    if isinstance(value, bool):
        return w.t("wizard.choice_yes" if value else "wizard.choice_no")
    if isinstance(value, tuple):
        return ", ".join(value) or "–"
    return "–" if value is None else format.number(w, value)
