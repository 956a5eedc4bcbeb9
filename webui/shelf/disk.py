"""Models on this PC as rows of HTML: size, last use, the runs that use them, and what can be done with them. Pure
functions of models and a Wording."""

from __future__ import annotations

from collections.abc import Sequence

from core.models.on_disk import StoredModel
from webui.kit import format
from webui.kit.html import Html, join, placeholder, tag
from webui.kit.icons import icon
from webui.kit.wording import Wording

OPEN_ROWS, RUNS = 8, 3


def total(models: Sequence[StoredModel], free: str, w: Wording) -> str:
    """Return the number of models and their size in words, if there are any. free: the free space of their drive, "" if
    unknown."""
    key = "total_one" if len(models) == 1 else "total"
    size = format.bytes_used(w, sum(each.size for each in models))
    parts = [w.t(f"disk_view.{key}", count=len(models), size=size)] if models else []
    return " · ".join([*parts, *([w.t("disk_view.free", size=free)] if free else [])])


def rows(models: Sequence[StoredModel], w: Wording) -> Html:
    """Return the models as a list, those after OPEN_ROWS folded; a box with a sentence if there are none."""
    if not models:
        return placeholder(w.t("disk_view.none"))
    lines = [tag("li", row(each, w)) for each in models]
    more = None
    if len(lines) > OPEN_ROWS:
        summary = tag("summary", w.t("shelf_view.more", count=len(lines) - OPEN_ROWS))
        more = tag("details", summary, tag("ul", *lines[OPEN_ROWS:], class_="lg-models"), class_="lg-fold")
    return join([tag("ul", *lines[:OPEN_ROWS], class_="lg-models"), more])


def row(each: StoredModel, w: Wording) -> Html:
    """Return a model with its facts and its size; with the button that trains it if it is complete (else a badge), and
    the one that deletes it if it can be deleted."""
    facts = [
        w.t("disk_view.last_used", when=format.moment(w, each.last_used)),
        w.t(f"disk_view.store_{each.store}"),
        used_by(each, w),
    ]
    partly = tag("span", w.t("disk_view.incomplete"), class_="lg-badge lg-warn")
    name = tag("strong", format.model_name(each.id))
    quiet = tag("p", " · ".join(fact for fact in facts if fact), class_="lg-quiet")
    return join(
        [
            tag("div", name, None if each.is_complete else partly, quiet, class_="lg-model"),
            tag("span", format.bytes_used(w, each.size), class_="lg-model-size"),
            train(each.id, w) if each.is_complete else None,
            deletion(each, w) if each.can_delete else None,
        ]
    )


def train(id: str, w: Wording) -> Html:
    """Return the button that opens Train with a model of this PC."""
    label = f"{w.t('disk_view.train')}: {format.model_name(id)}"
    return tag("button", w.t("disk_view.train"), type="button", data_page="train", data_train=id, aria_label=label,
        class_="lg-small")  # fmt: skip


def deletion(each: StoredModel, w: Wording) -> Html:
    """Return the button that deletes a model of this PC, after a question."""
    label = w.t("disk_view.delete_one", model=each.id)
    return tag("button", icon("trash"), type="button", data_act="delete", data_kept=each.id, aria_label=label,
        title=label, data_sure=w.t("disk_view.sure", model=each.id), class_="ep-icon")  # fmt: skip


def used_by(each: StoredModel, w: Wording) -> str:
    """Return the runs that use a model in words: "used by pirates, club and 2 more", or "needed by" if one of them
    needs it; those that need it first. "" for none."""
    names = [use.run for use in sorted(each.uses, key=lambda use: not use.needs_it)]
    if not names:
        return ""
    listed = w.t("shelf_view.comma").join(names[:RUNS])
    if len(names) > RUNS:
        listed = w.t("disk_view.and_more", runs=listed, count=len(names) - RUNS)
    return w.t("disk_view.needed_by" if any(use.needs_it for use in each.uses) else "disk_view.used_by", runs=listed)
