"""The evaluation of a run on its page: one sentence, each contestant's share, and the rows, to be filtered and opened.

The server makes the HTML, in which questions and answers are escaped; the page asks for it and gets it if it has
changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache

import gradio as gr

from core import files
from core.chat.comparison import ANSWERS, LEFT_OUT, Contestant
from core.chat.evaluation.evaluation import SetEvaluation
from core.chat.evaluation.of_run import JUDGE, lost_since, newest, table_of
from core.chat.evaluation.table import Table
from core.errors import GarageError
from core.files import JsonObject
from core.judges.judge import Outcome
from core.messages import Message, msg
from core.workspace.folder import Workspace
from webui.kit.html import Html, bar, join, muted, notice, tag
from webui.kit.theme import ASSETS
from webui.kit.wording import Wording
from webui.state.evaluating import EvaluationProgress
from webui.state.services import Services
from webui.state.snapshot import RunRow

POLL_MS, IDLE_POLL_MS = 1000, 4000
MAX_TEXT = 2000  # characters of a question or an answer
MARKS: dict[Outcome | None, str] = {"right": "✓", "partly": "~", "wrong": "✗", None: "?"}
FILTERS = ("all", "wrong", "won", "lost")
TEMPLATE = "<section class='ev-body' aria-live='polite'></section><div class='ev-said'></div>"


def evaluation_view(services: Services, w: Wording, value: str | None, elem_id: str) -> gr.HTML:
    """value: as of film_strip: a run id, "" for the run of the Train page, None for none."""

    def evaluation(request: object) -> JsonObject:
        """Return what a run's page shows, for any JSON from a browser; request["mark"]: of what it has."""
        request = request if isinstance(request, dict) else {}
        row = _row(services, request.get("run"))
        progress = services.evaluating.progress()
        html = "" if row is None else drawn(services.workspace, row, progress, w)
        mark = hashlib.blake2b(html.encode("utf-8", "replace"), digest_size=8).hexdigest()
        wait = {"wait_ms": POLL_MS if progress.at_work else IDLE_POLL_MS, "mark": mark}
        return wait if request.get("mark") == mark else wait | {"html": html}

    def press(request: object) -> JsonObject:
        """Start or stop the evaluation of a run, for any JSON from a browser; return a refusal's sentence as HTML."""
        request = request if isinstance(request, dict) else {}
        try:
            if request.get("act") == "stop":
                services.evaluating.stop()
            elif row := _row(services, request.get("run")):
                services.snapshots.refuse_while_training()
                services.evaluating.start(services.runs.get(row.id))
        except GarageError as error:
            return {"said": notice(w.render(error.message))}
        return {"said": ""}

    return gr.HTML(
        value=value,
        html_template=TEMPLATE,
        css_template=(ASSETS / "evaluated.css").read_text("utf-8"),
        js_on_load=(ASSETS / "evaluated.js").read_text("utf-8"),
        server_functions=[evaluation, press],
        apply_default_css=False,
        elem_id=elem_id,
    )


def _row(services: Services, requested: object) -> RunRow | None:
    """Return the run that a page shows, if it can answer."""
    snapshot = services.snapshots.now()
    run_id, _ = snapshot.followed(requested)
    return next((row for row in snapshot.rows if row.id == run_id and row.can_chat), None)


def drawn(workspace: Workspace, row: RunRow, progress: EvaluationProgress, w: Wording) -> Html:
    """Return the section of a run: its progress, its result, or the button."""
    mine = progress if progress.run == row.id else EvaluationProgress()
    if mine.at_work:
        return join([_title(w), *_at_work(mine, w)])
    table, lost = _newest_table(workspace, row.id)
    if table is not None and not table.evaluation.missing():
        return join([_title(w), *result(table, lost, w)])
    missing = [] if table is None else [muted(w.t("evaluation_view.missing", count=len(table.evaluation.missing())))]
    error = [] if mine.error is None else [notice(w.render(mine.error), "warn")]
    about = muted(w.t("evaluation_view.about"))
    return join([_title(w), about, *missing, *error, _button("start", row.id, w.t("evaluation_view.start"))])


def _title(w: Wording) -> Html:
    return tag("h3", w.t("evaluation_view.title"))


def _button(act: str, run_id: str, label: str) -> Html:
    return tag("button", label, type="button", class_="lg-small", data_act=act, data_run=run_id)


def _at_work(progress: EvaluationProgress, w: Wording) -> list[Html]:
    values = {"done": progress.done, "total": progress.total}
    sentence = w.t("evaluation_view.answers", **values) if progress.total else w.t("evaluation_view.preparing")
    percent = round(100 * progress.done / progress.total) if progress.total else None
    return [muted(sentence), bar(sentence, percent), _button("stop", progress.run, w.t("chat_page.stop"))]


def result(table: Table, lost: Message | None, w: Wording) -> Iterator[Html]:
    """Yield the sentence, what was lost, the shares, the notes, the filters and the rows of a finished evaluation."""
    if conclusion := table.conclusion():
        yield tag("p", w.render(conclusion), class_="ev-conclusion")
    if lost:
        yield notice(w.render(lost), "warn")
    yield tag("div", *(_share(table, place, w) for place in range(len(table.contestants))), class_="ev-shares")
    yield from (muted(sentence) for sentence in _notes(table, w))
    kinds = {number: _kinds(table, number) for number in range(len(table.evaluation.lineup.prompts))}
    chips = _filters(list(kinds.values()), w)
    filters = tag("div", *chips, class_="ev-filters", role="group", aria_label=w.t("evaluation_view.rows"))
    rows = (_row_of(table, number, each, w) for number, each in kinds.items())
    listed = tag("div", *rows, class_="ev-rows", data_show="all")
    yield tag("details", tag("summary", w.t("evaluation_view.rows")), filters, listed, class_="ev-all")


def _notes(table: Table, w: Wording) -> Iterator[str]:
    """Yield how answers were judged, then the notes, in which contestants have their names of this page."""
    kinds = dict.fromkeys((prompt.judge or table.judge).kind for prompt in table.evaluation.lineup.prompts)
    yield w.t("evaluation_view.judged", how=[msg(f"evaluation_view.judge_{kind}") for kind in kinds])
    names = {one.label: name_of(one, w) for one in table.contestants}
    for note in table.notes():
        label = note.params.get("label")
        params = note.params | ({"label": names[label]} if label in names else {})
        yield w.render(note.model_copy(update={"params": params}))


def _filters(kinds: list[set[str]], w: Wording) -> Iterator[Html]:
    """Yield a button for each filter that shows any row."""
    for name in FILTERS:
        if count := len(kinds) if name == "all" else sum(name in each for each in kinds):
            text = f"{w.t(f'evaluation_view.filter_{name}')} {count}"
            yield tag("button", text, type="button", data_show=name, aria_pressed=str(name == "all").lower())


def _share(table: Table, place: int, w: Wording) -> Html:
    """Return a contestant's bar: its right answers with their 95 % interval, or its mean score if some are graded."""
    share, scores = table.share(place), table.scores(place)
    is_graded = any(0 < score < 1 for at in range(len(table.contestants)) for score in table.scores(at))
    mean = sum(scores) / len(scores) if scores else 0.0
    low, high = share.interval
    span = None if is_graded else tag("b", style=f"left:{round(100 * low)}%;width:{round(100 * (high - low))}%")
    line = tag("span", tag("i", style=f"width:{round(100 * mean)}%"), span, class_="lg-win-bar", aria_hidden="true")
    text = w.t("evaluation_view.score", percent=round(100 * mean)) if is_graded else f"{share.right} / {share.count}"
    about = "" if is_graded else w.t("evaluation_view.interval", low=round(100 * low), high=round(100 * high))
    kind = "ev-share lg-win-now" if place == table.tuned else "ev-share"
    return tag("div", tag("span", name_of(table.contestants[place], w)), line, tag("strong", text), class_=kind,
               title=about or None)  # fmt: skip


def name_of(one: Contestant, w: Wording) -> str:
    """Return a contestant's name: "Base model with examples"."""
    extra = "_".join(filter(None, ["prompt" if one.system else "", "examples" if one.examples else ""]))
    return w.t(f"evaluation_view.who_{one.column}{'_' if extra else ''}{extra}")


def _kinds(table: Table, number: int) -> set[str]:
    """Return the filters that show a row: all wrong; fine-tuning right and no other (won), or wrong and another right
    (lost). None of them while an answer is not judged."""
    outcomes = [table.verdicts.get((number, place)) for place in range(len(table.contestants))]
    is_right = [verdict is not None and verdict.outcome == "right" for verdict in outcomes]
    kinds = set() if any(is_right) or None in outcomes else {"wrong"}
    if table.tuned is not None and None not in outcomes:
        others = [is_right[place] for place, one in enumerate(table.contestants) if one.column == "base"]
        kinds |= {"won"} if is_right[table.tuned] and not any(others) else set()
        kinds |= {"lost"} if not is_right[table.tuned] and any(others) else set()
    return kinds


def _row_of(table: Table, number: int, kinds: set[str], w: Wording) -> Html:
    """Return a row: the question with a mark for each contestant; opened, what was expected, the answers and why."""
    prompt, marks, parts = table.evaluation.lineup.prompts[number], [], []
    if prompt.expected:
        parts.append(_answer(w.t("evaluation_view.expected"), None, prompt.expected, ""))
    for place, one in enumerate(table.contestants):
        verdict, answer = table.verdicts.get((number, place)), table.answers.get((number, place))
        outcome = verdict.outcome if verdict else None
        name = name_of(one, w)
        spoken = f"{name}: {w.t(f'evaluation_view.{outcome}')}" if outcome else name
        marks.append(tag("span", MARKS[outcome], class_=f"ev-{outcome}", title=spoken, role="img", aria_label=spoken))
        why = verdict.reason if verdict else table.failures.get((number, place))
        parts.append(_answer(name, outcome, answer.text if answer else "", w.render(why)))
    question = tag("span", prompt.question[:MAX_TEXT], class_="ev-question", dir="auto")
    summary = tag("summary", question, tag("span", *marks, class_="ev-marks"))
    return tag("details", summary, *parts, class_=" ".join(["ev-row", *(f"ev-is-{kind}" for kind in sorted(kinds))]))


def _answer(name: str, outcome: Outcome | None, text: str, why: str) -> Html:
    words = tag("span", text[:MAX_TEXT].strip() or "…", class_="ev-text", dir="auto")
    mark = tag("span", MARKS[outcome], class_=f"ev-{outcome}", aria_hidden="true") if outcome else None
    return tag("p", tag("b", mark, name), tag("span", words, _why(why)), class_="ev-answer")


def _why(sentence: str) -> Html | None:
    """Return a reason behind an answer; None without one."""
    return tag("span", sentence, class_="ev-why") if sentence else None


def _newest_table(workspace: Workspace, run_id: str) -> tuple[Table | None, Message | None]:
    """Return the newest evaluation of a run, and what was lost since that of an earlier run."""
    evaluation = _newest(workspace, run_id, files.stamp(workspace.root / SetEvaluation.FOLDER))
    if evaluation is None:
        return None, None
    return _table(
        workspace, evaluation.id, tuple(files.stamp(evaluation.path / name) for name in (ANSWERS, LEFT_OUT, JUDGE))
    )


@lru_cache(maxsize=32)
def _newest(workspace: Workspace, run_id: str, stamp: object) -> SetEvaluation | None:
    return newest(workspace, run_id)


@lru_cache(maxsize=8)
def _table(workspace: Workspace, evaluation_id: str, stamps: object) -> tuple[Table | None, Message | None]:
    table = table_of(SetEvaluation.open(workspace, evaluation_id))
    return table, None if table is None or table.evaluation.missing() else lost_since(workspace, table)
