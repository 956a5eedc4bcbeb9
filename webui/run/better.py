"""On a run's card: whether it answers better, or only differently; core/runs/cards/better's sentences, read again when
its files change."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from core import files
from core.messages import Message
from core.runs import sample_answers, scenes
from core.runs.cards import better
from core.runs.folder import RunFolder
from core.runs.states import State
from webui.kit.html import Html, tag
from webui.kit.wording import Wording
from webui.state.snapshot import RunView

# Of core/runs/cards/better: how many held-out questions were answered rightly.
COUNTED = ("better.checked_", "better.same_base", "better.same_parent")


def lines(view: RunView, w: Wording) -> list[Html]:
    """Of a run that came to its end with a film; else nothing."""
    if view.row.status.state != State.COMPLETED:
        return []
    said = _said(
        view.folder,
        tuple(
            files.stamp(Path(view.folder) / name)
            for name in (scenes.FILE, better.FILE, sample_answers.FILE, "run.json")
        ),
    )
    if not said:
        return []
    wins = [_wins(sentence, w) for sentence in said if sentence.key.startswith(COUNTED)]
    told = [tag("p", w.of(sentence), class_="lg-quiet") for sentence in said]
    return [tag("div", tag("h3", w.t("train_page.better")), *wins, *told, class_="lg-better")]


def _wins(counted: Message, w: Wording) -> Html:
    """Right answers after and before as two bars, each with its 95 % interval; the sentence below says the same."""
    count = counted.params["count"]
    rows = []
    for when in ("now", "before"):
        right, low, high = (counted.params[name] for name in (when, f"{when}_low", f"{when}_high"))
        rows.append(
            tag(
                "div",
                tag("span", w.t(f"train_page.wins_{when}")),
                tag(
                    "span",
                    tag("i", style=f"width:{round(100 * right / max(1, count))}%"),
                    tag("b", style=f"left:{low}%;width:{max(0, high - low)}%"),
                    class_="lg-win-bar",
                ),
                tag("strong", f"{right} / {count}"),
                class_=f"lg-win lg-win-{when}",
            )
        )
    return tag("div", *rows, class_="lg-wins", aria_hidden="true")


@lru_cache(maxsize=16)
def _said(folder: str, stamps: tuple[tuple[int, ...], ...]) -> tuple[Message, ...]:
    return tuple(better.sentences(RunFolder(Path(folder))))
