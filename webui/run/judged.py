"""Training by rewards on a run's page: a curve for each judge, how the answers of a question differ, how far they are
from the start model, and the best and the worst answer of the newest step."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path

import gradio as gr

from core import files
from core.chat import corrections
from core.errors import GarageError
from core.files import JsonObject
from core.judges import weighted
from core.recipe import Recipe
from core.runs import judging
from core.runs.folder import RunFolder
from webui.kit import format
from webui.kit.drawn_part import drawn_part
from webui.kit.html import Html, join, muted, success, tag
from webui.kit.wording import Wording
from webui.state.services import Services

TAIL_BYTES = 256 << 10  # of answers.jsonl
MAX_TEXT = 1200  # characters shown of a question or an answer
WIDTH, HEIGHT, MAX_POINTS = 120, 24, 120  # of a small curve, in px
# Metrics that are shares, a mean of counts, and a number: name of the metric, key of its words.
SHARES = (
    ("frac_all_wrong", "all_wrong"),
    ("frac_all_right", "all_right"),
    ("completions/clipped_ratio", "cut_off"),
)
LENGTH, DISTANCE = ("completions/mean_length", "length"), ("eval_kl", "distance")


def judged_view(services: Services, w: Wording, value: str | None, elem_id: str) -> gr.HTML:
    """Return the section as a component; empty for a run of another kind. value: as of live_chart, below which it
    stands."""

    def drawn_if_rewarded(request: JsonObject) -> Html:
        """Return the section of the run request["run"] as HTML; empty unless it is a run by rewards."""
        run_id, _ = services.snapshots.now().followed(request.get("run"))
        try:
            run = services.runs.get(run_id)
            recipe = run.recipe()
        except GarageError:
            return Html("")
        return drawn(run, recipe, w) if recipe.rewards else Html("")

    return drawn_part(services, w, value, elem_id, drawn_if_rewarded, partial(pressed, services, w))


def pressed(services: Services, w: Wording, request: JsonObject) -> JsonObject:
    """Save a run's best and worst answers as pairs, and say where, for any JSON from a browser. Raises GarageError."""
    if request.get("act") != "pairs":
        return {"notice": ""}
    run = services.runs.get(str(request.get("run")))
    name, rows = w.t("judged_view.pairs_name", name=run.name), corrections.rows_from_draws(run)
    info, added = corrections.keep(services.workspace, services.datasets, f"run:{run.id}", name, rows)
    sentence = w.t("judged_view.pairs_saved", added=added, rows=info.good_rows or 0, name=info.name or info.id)
    return {"notice": success(sentence)}


def drawn(run: RunFolder, recipe: Recipe, w: Wording) -> Html:
    """Return the section of a run by rewards; empty before its first step."""
    metrics = _cached_metrics(run.path, files.stamp(run.path / "metrics.jsonl"))
    if not any(line.get("kind") == "train" for line in metrics):
        return Html("")
    rows = [*_judges(recipe, metrics, w), *_others(metrics, w)]
    heads = (tag("th", w.t(f"judged_view.{name}"), scope="col") for name in ("what", "course", "first", "newest"))
    table = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="jd-table")
    return join(
        [tag("h3", w.t("judged_view.title")), muted(w.t("judged_view.about")), table, *_answers(run, w), _pairs(run, w)]
    )


def _pairs(run: RunFolder, w: Wording) -> Html | None:
    """Return the button that makes a dataset of the run's best and worst answers; None before there is a pair."""
    if not files.stamp(run.path / judging.PAIRS):
        return None
    about = muted(w.t("judged_view.pairs_about"))
    button = tag("button", w.t("judged_view.pairs"), type="button", class_="lg-small", data_act="pairs",
                 data_run=run.id, id=f"judged-pairs-{run.id}")  # fmt: skip
    return join([about, button])


def _judges(recipe: Recipe, metrics: Sequence[JsonObject], w: Wording) -> Iterator[Html]:
    """Yield a row for each judge with its mean scores in per cent, where 100 % is the largest score, and its weight if
    that is not 1."""
    assert recipe.rewards
    for each in weighted.read(recipe.rewards.judges):
        name = w.t(f"judges.name_{each.judge.kind}")
        label = name if each.weight == 1 else w.t("judged_view.weighted", name=name, weight=each.weight)
        yield from _row(label, _values(metrics, f"rewards/{each.name}/mean"), lambda share: _percent(share, w), 1.0)


def _others(metrics: Sequence[JsonObject], w: Wording) -> Iterator[Html]:
    """Yield a row for each of SHARES, LENGTH and DISTANCE that was measured."""

    def metric_row(metric: str, key: str, shown: Callable[[float], str], most: float = 0.0) -> Iterator[Html]:
        """Yield the table's row of one metric; nothing if it was never measured. metric: its name in metrics.jsonl.
        key: of its label. shown: formats a value. most: top of the curve's scale; 0 for the largest value."""
        return _row(w.t(f"judged_view.{key}"), _values(metrics, metric), shown, most)

    for metric, key in SHARES:
        yield from metric_row(metric, key, lambda share: _percent(share, w), 1.0)
    yield from metric_row(*LENGTH, lambda count: format.grouped(w, round(count)))
    yield from metric_row(*DISTANCE, lambda nats: format.loss(w, nats))


def _percent(share: float, w: Wording) -> str:
    return w.t("judged_view.percent", percent=100 * share)


def _values(metrics: Sequence[JsonObject], name: str) -> list[float]:
    """Return the values of a metric, without lines that lack it."""
    return [float(value) for line in metrics if isinstance(value := line.get(name), int | float)]


def _row(label: str, values: Sequence[float], shown: Callable[[float], str], most: float) -> Iterator[Html]:
    """Yield one row of the table: label, small curve, first and newest value; nothing without a value. shown: formats a
    value. most: top of the curve's scale, which begins at 0; the largest value if that is larger or most is 0."""
    if values:
        cells = (tag("td", shown(values[at])) for at in (0, -1))
        yield tag("tr", tag("th", label, scope="row"), tag("td", _curve(values, most)), *cells)


def _curve(values: Sequence[float], most: float) -> Html:
    """Return a small curve from 0 to `most`, or to the largest value. The numbers beside it say the same."""
    most = max([most, *values, 1e-9])
    thinned = values[:: -(-len(values) // MAX_POINTS)]
    across = WIDTH / max(1, len(thinned) - 1)
    points = " ".join(
        f"{across * place:.1f},{HEIGHT - 1 - (HEIGHT - 2) * min(1.0, max(0.0, value) / most):.1f}"
        for place, value in enumerate(thinned)
    )
    line = tag("polyline", points=points)
    return tag("svg", line, viewBox=f"0 0 {WIDTH} {HEIGHT}", width=WIDTH, height=HEIGHT, aria_hidden="true")


@lru_cache(maxsize=4)
def _cached_metrics(path: Path, _stamp: object) -> list[JsonObject]:
    """Return all lines of a run's metrics.jsonl, cached. path: the run's folder. _stamp: of the file, so that a changed
    one is read again."""
    return RunFolder(path).all_metrics()


def _answers(run: RunFolder, w: Wording) -> Iterator[Html]:
    """Yield the best and the worst answer of the newest step, each below its question; one of them, if all got the
    same reward."""
    file = run.path / judging.ANSWERS
    lines = files.read_lines(file, max(0, file.stat().st_size - TAIL_BYTES) if file.exists() else 0).records
    known = [line for line in lines if all(isinstance(line.get(name), dict) for name in ("best", "worst"))]
    if not known:
        return
    questions = [str(line[name].get("question", "")) for line in known for name in ("best", "worst")]
    rewards = [known[-1][name].get("reward") for name in ("best", "worst")]
    for name in ("best", "worst") if rewards[0] != rewards[1] else ("alike",):
        shown = known[-1]["best" if name == "alike" else name]
        reward = shown.get("reward")
        head = w.t(f"judged_view.{name}", step=known[-1].get("step", 0))
        scored = w.t("judged_view.reward", value=format.loss(w, reward)) if isinstance(reward, int | float) else ""
        yield tag(
            "div",
            tag("p", tag("strong", head), " ", tag("span", scored, class_="lg-quiet")),
            tag(
                "p",
                without_frame(str(shown.get("question", "")), questions)[:MAX_TEXT],
                class_="jd-question",
                dir="auto",
            ),  # fmt: skip
            tag("p", str(shown.get("answer", ""))[:MAX_TEXT], class_="jd-answer", dir="auto"),
            class_="jd-one",
        )


def without_frame(question: str, questions: Sequence[str]) -> str:
    """Return a question without the lines that all questions begin and end with: those of the chat template."""
    if len(set(questions)) < 2:
        return question
    before = os.path.commonprefix(list(questions))
    after = os.path.commonprefix([one[::-1] for one in questions])[::-1]
    start = before.rfind("\n") + 1
    end = len(question) - len(after) + (after.find("\n") if "\n" in after else len(after))
    return re.sub(r"\s+$", "", question[start:end])
