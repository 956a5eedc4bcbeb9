"""The evaluation of a run on its page: one sentence and each contestant's share, with a link to its answers; and what
the Evaluate page shows in the same way (webui/pages/evaluate)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import gradio as gr

from core import files
from core.chat.comparison import ANSWERS, LEFT_OUT, Contestant
from core.chat.evaluation import model_judge, sets, votes
from core.chat.evaluation.evaluation import SetEvaluation
from core.chat.evaluation.of_run import JUDGE, lost_since, newest_evaluation_of, table_of
from core.chat.evaluation.table import Table
from core.files import JsonObject
from core.messages import Message, msg
from core.workspace.folder import Workspace
from webui.kit.drawn_part import drawn_part
from webui.kit.html import Html, bar, join, muted, notice, share_bar, tag
from webui.kit.wording import Wording
from webui.state.evaluating import RUN, SET, Choice, EvaluationProgress
from webui.state.services import Services
from webui.state.snapshot import RunRow

Result = tuple[Table | None, Message | None]  # with what was lost since the evaluation of an earlier run


def evaluation_view(services: Services, w: Wording, value: str | None, elem_id: str) -> gr.HTML:
    """Return the evaluation of one run as a component, with its buttons. value: a run id, "" for the run of the Train
    page, None for none."""

    def drawn_run(request: JsonObject) -> Html:
        """Return the evaluation of the run request["run"] as HTML; empty if there is no such run, or it cannot
        answer."""
        row = _row(services, request.get("run"))
        return drawn(services.workspace, row, services.evaluating.progress(), w) if row else Html("")

    def stop_or_start(request: JsonObject) -> JsonObject:
        """Stop the evaluation at work, of whichever run, if request["act"] is "stop"; else start one of the run
        request["run"] with all contestants. Returns {"notice": ""}, no text for the page.

        A run that is not there or cannot answer is ignored. Raises GarageError, only when starting, while a run trains,
        rows are written, or an evaluation is at work.
        """
        if request.get("act") == "stop":
            services.evaluating.stop()
        elif row := _row(services, request.get("run")):
            services.snapshots.refuse_while_in_use()
            services.evaluating.start(Choice(f"{RUN}{row.id}"))
        return {"notice": ""}

    return drawn_part(services, w, value, elem_id, drawn_run, stop_or_start)


def _row(services: Services, requested: object) -> RunRow | None:
    """Return the followed run if it has an adapter or a checkpoint and is not at work; else None. requested: from the
    browser, a run's id, or "" for the run that the Train page shows."""
    snapshot = services.snapshots.now()
    run_id, _ = snapshot.followed(requested)
    return next((row for row in snapshot.rows if row.id == run_id and row.can_chat), None)


def drawn(workspace: Workspace, row: RunRow, progress: EvaluationProgress, w: Wording) -> Html:
    """Return the section of a run: its progress, its result with a link to the answers, or the button with what is
    missing or went wrong."""
    mine = progress if progress.choice and progress.choice.run_id == row.id else EvaluationProgress()
    if mine.at_work:
        return join([_title(w), *at_work(mine, w)])
    evaluation = _newest(workspace, row.id, files.stamp(workspace.root / SetEvaluation.FOLDER))
    table, lost = result_of(workspace, evaluation)
    if table is not None and not table.evaluation.missing():
        title = (table.evaluation.lineup.test_set or ("",))[0]
        of_set = next((f"{SET}{one.name}" for one in sets.all_sets(workspace) if one.title == title), "")
        leads = {"data_page": "evaluate", "data_model": f"{RUN}{row.id}", "data_questions": of_set}
        link = tag(
            "button", w.t("evaluation_view.all"), type="button", class_="lg-small", id=f"ev-all-{row.id}", **leads
        )
        return join([_title(w), *summary(table, lost, w), link])
    missing = [] if table is None else [muted(w.t("evaluation_view.missing", count=len(table.evaluation.missing())))]
    error = [] if mine.error is None else [notice(w.render(mine.error), "warn")]
    about = muted(w.t("evaluation_view.about"))
    start = tag("button", w.t("evaluation_view.start"), type="button", class_="lg-small", data_act="start",
                data_run=row.id)  # fmt: skip
    return join([_title(w), about, *missing, *error, start])


def _title(w: Wording) -> Html:
    return tag("h3", w.t("evaluation_view.title"))


def at_work(progress: EvaluationProgress, w: Wording) -> list[Html]:
    """Return [a sentence on an evaluation's progress, a bar, the Stop button], while it prepares too."""
    values = {"done": progress.done, "total": progress.total}
    sentence = w.t("evaluation_view.answers", **values) if progress.total else w.t("evaluation_view.preparing")
    percent = round(100 * progress.done / progress.total) if progress.total else None
    stop = tag("button", w.t("chat_page.stop"), type="button", class_="lg-small", data_act="stop", id="ev-stop")
    return [muted(sentence), bar(sentence, percent), stop]


def summary(table: Table, lost: Message | None, w: Wording) -> Iterator[Html]:
    """Yield a finished evaluation as HTML: its conclusion in one sentence, a warning on questions lost since an earlier
    run, the share of right answers of each contestant (a warning if no question counts), and notes."""
    if conclusion := _conclusion(table):
        yield tag("p", w.render(conclusion), class_="ev-conclusion", role="status")
    if lost:
        yield notice(w.render(lost), "warn")
    if table.counted:
        yield tag("div", *(_share(table, place, w) for place in range(len(table.contestants))), class_="ev-shares")
    else:
        yield notice(w.t("evaluation_view.none_counted"), "warn")
    yield muted(w.text(*_notes(table, w)))


def _notes(table: Table, w: Wording) -> Iterator[str]:
    """Yield how answers were judged, then the notes, in which contestants have their names of this page."""
    kinds = dict.fromkeys((prompt.judge or table.judge).kind for prompt in table.evaluation.lineup.prompts)
    yield w.t("evaluation_view.judged", how=[msg(f"evaluation_view.judge_{kind}") for kind in kinds])
    if table.counted and not _is_graded(table):
        yield w.t("evaluation_view.lines")
    names = {one.label: name_of(one, w) for one in table.contestants}
    for note in table.notes():
        label = note.params.get("label")
        params = note.params | ({"label": names[label]} if label in names else {})
        yield w.render(note.model_copy(update={"params": params}))


def _is_graded(table: Table) -> bool:
    """True if any score is between 0 and 1."""
    return any(0 < score < 1 for at in range(len(table.contestants)) for score in table.scores(at))


def _share(table: Table, place: int, w: Wording) -> Html:
    """Return the bar of the contestant at `place`: its right answers with their 95 % interval, or its mean score if
    some are graded."""
    share, scores = table.share(place), table.scores(place)
    is_graded = _is_graded(table)
    mean = sum(scores) / len(scores)
    low, high = share.interval
    line = share_bar(mean, None if is_graded else share.interval)
    values = {"percent": round(100 * mean), "right": share.right, "count": share.count}
    text = w.t("evaluation_view.score" if is_graded else "evaluation_view.score_of", **values)
    about = "" if is_graded else w.t("evaluation_view.interval", low=round(100 * low), high=round(100 * high))
    kind = "ev-share lg-win-now" if place == table.tuned else "ev-share"
    return tag("div", tag("span", name_of(table.contestants[place], w)), line, tag("strong", text), class_=kind,
               title=about or None)  # fmt: skip


def name_of(one: Contestant, w: Wording) -> str:
    """Return a contestant's name: "Base model with examples"; of another run or a checkpoint its label."""
    if one.label.partition("+")[0] not in ("base", "tuned"):
        return one.label
    return name_in_words("+".join([one.column, *["prompt"] * bool(one.system), *["examples"] * bool(one.examples)]), w)


def name_in_words(word: str, w: Wording) -> str:
    """Return the name of a contestant's word: "base", "tuned", "base+examples" and so on."""
    return w.t(f"evaluation_view.who_{word.replace('+', '_')}")


def result_of(workspace: Workspace, evaluation: SetEvaluation | None) -> Result:
    """Return the table of an evaluation, and once it has all answers what was lost since that of an earlier run, each
    or None."""
    if evaluation is None:
        return None, None
    own = (evaluation.path / name for name in (ANSWERS, LEFT_OUT, JUDGE))
    written = *own, *(workspace.root / one.FILE for one in (votes, model_judge))
    return _cached_table(workspace, evaluation.id, tuple(map(files.stamp, written)))


@lru_cache(maxsize=8)
def _conclusion(table: Table) -> Message | None:
    """Return the sentence of a table, resampled once and not with each poll. None without one."""
    return table.conclusion()


@lru_cache(maxsize=32)
def _newest(workspace: Workspace, run_id: str, stamp: object) -> SetEvaluation | None:
    """Return the newest evaluation of a run, on whatever questions; None without one. stamp: of the folder of
    evaluations, so that a changed one is read again."""
    return newest_evaluation_of(workspace, run_id)


@lru_cache(maxsize=8)
def _cached_table(workspace: Workspace, evaluation_id: str, stamps: object) -> Result:
    """Return the table of an evaluation, and what was lost since an earlier run's; None for the table if the judge
    cannot be read, None for the loss until all answers are there. Computed again when stamps change."""
    table = table_of(SetEvaluation.open(workspace, evaluation_id))
    return table, None if table is None or table.evaluation.missing() else lost_since(workspace, table)
