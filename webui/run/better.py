"""Quality of a run's answers, on its card: the sentences of core/runs/cards/better, read again when its files
change."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from core import files
from core.chat import comparison
from core.messages import Message
from core.runs import sample_answers, scenes
from core.runs.cards import better, tested
from core.runs.folder import RunFolder
from core.runs.states import State
from core.workspace.folder import Workspace
from webui.kit.html import Html, notice, share_bar, tag
from webui.kit.wording import Wording
from webui.state.snapshot import RunView

# Messages of core/runs/cards/better that count correct answers to held-out questions.
COUNTED = ("better.right_",)


def lines(view: RunView, w: Wording) -> list[Html]:
    """Return the results of a completed run's sample answers and blind tests; [] for a run that ended otherwise."""
    if view.row.status.state != State.COMPLETED:
        return []
    return [*_answer_lines(view, w), *_vote_lines(view, w)]


def _vote_lines(view: RunView, w: Wording) -> list[Html]:
    """Return [how often people preferred the tuned model in its blind test against its base], [] without decided
    votes."""
    run = Path(view.folder)
    workspace = Workspace(run.parents[1])
    stamps = tuple((file.parent.name, *files.stamp(file)) for file in comparison.vote_files(workspace))
    score = _cached_votes(workspace, run.name, stamps)
    if score is None or not (votes := votes_for(view.row.name, score, w)):
        return []
    return [tag("div", tag("h3", w.t("blind_duel.title")), *votes, class_="lg-better")]


def votes_for(name: str, score: comparison.Score, w: Wording) -> list[Html]:
    """Return the share of decided votes for the second of a blind test, called `name`, as a bar with its interval and
    as a sentence; [] without an interval."""
    if score.interval is None:
        return []
    low, high = (round(100 * end) for end in score.interval)
    won, percent = score.wins[1], round(100 * score.wins[1] / score.decided)
    bar = _bar("now", w.t("train_page.wins_votes"), won, score.decided, low, high)
    text = w.t("blind_duel.share", second=name, percent=percent, low=low, high=high)
    return [tag("div", bar, class_="lg-wins", aria_hidden="true"), tag("p", text, class_="lg-quiet")]


def _answer_lines(view: RunView, w: Wording) -> list[Html]:
    """Return what the answers to held-out questions show, before and after; nothing without such answers."""
    sentences = _sentences(
        view.folder,
        tuple(
            files.stamp(Path(view.folder) / name)
            for name in (scenes.FILE, better.FILE, sample_answers.FILE, tested.FILE, "run.json")
        ),
    )
    if not sentences:
        return []
    wins = [_wins(sentence, w) for sentence in sentences if sentence.key.startswith(COUNTED)]
    paragraphs = [
        notice(w.render(sentence), "warn")
        if sentence.key == tested.LOST
        else tag("p", w.render(sentence), class_="lg-quiet")
        for sentence in sentences
    ]
    return [tag("div", tag("h3", w.t("train_page.better")), *wins, *paragraphs, class_="lg-better")]


def _wins(counted: Message, w: Wording) -> Html:
    """Return correct answers after and before as two bars, each with its 95 % interval; the sentence below says the
    same."""
    count = counted.params["count"]
    rows = []
    for when in ("now", "before"):
        right, low, high = (counted.params[name] for name in (when, f"{when}_low", f"{when}_high"))
        rows.append(_bar(when, w.t(f"train_page.wins_{when}"), right, count, low, high))
    return tag("div", *rows, class_="lg-wins", aria_hidden="true")


def _bar(kind: str, label: str, part: int, count: int, low: int, high: int) -> Html:
    """Return `part` of count as a bar with its 95 % interval (low to high, in percent). kind: "now" or "before", its
    colour."""
    bar = share_bar(part / max(1, count), (low / 100, high / 100))
    return tag("div", tag("span", label), bar, tag("strong", f"{part} / {count}"), class_=f"lg-win lg-win-{kind}")


@lru_cache(maxsize=16)
def _cached_votes(workspace: Workspace, run: str, stamps: tuple[tuple[object, ...], ...]) -> comparison.Score | None:
    """Return the score of a finished run against its base, in their newest blind test with a decided vote; None without
    one. Cached until the stamps of the vote files change."""
    return comparison.votes_on_run(workspace, run)


@lru_cache(maxsize=16)
def _sentences(folder: str, stamps: tuple[tuple[int, ...], ...]) -> tuple[Message, ...]:
    """Return `better.sentences` of a run, read again when stamps of its files change."""
    return tuple(better.sentences(RunFolder(Path(folder))))
