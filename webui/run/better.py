"""On a run's card: whether it answers better, or only differently; core/runs/cards/better's sentences, read again when
its files change."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from core import files
from core.messages import Message
from core.runs import frames, scenes
from core.runs.cards import better
from core.runs.folder import RunFolder
from core.runs.states import State
from webui.kit.html import Html, tag
from webui.kit.wording import Wording
from webui.state.snapshot import RunView


def lines(view: RunView, w: Wording) -> list[Html]:
    """Of a run that came to its end with a film; else nothing."""
    if view.row.status.state != State.COMPLETED:
        return []
    said = _said(
        view.folder,
        tuple(files.stamp(Path(view.folder) / name) for name in (scenes.FILE, better.FILE, frames.FILE, "run.json")),
    )
    told = [tag("p", w.of(sentence)) for sentence in said]
    return [tag("div", tag("p", tag("strong", w.t("train_page.better"))), *told, class_="lg-better")] if told else []


@lru_cache(maxsize=16)
def _said(folder: str, stamps: tuple[tuple[int, ...], ...]) -> tuple[Message, ...]:
    return tuple(better.sentences(RunFolder(Path(folder))))
