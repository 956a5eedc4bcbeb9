"""What ships with a sample dataset: its title, what it teaches, and the settings it was tested with."""

from __future__ import annotations

from core.data.sample_sets import sample_of
from core.data.sets.info import DatasetInfo
from webui.kit import format
from webui.kit.wording import Wording


def title(info: DatasetInfo, wording: Wording) -> str:
    sample = sample_of(info.id)
    name = info.id.removeprefix("sample:")
    return wording.preset(sample.title, f"sample_{name}_title") if sample and sample.title else info.name or info.id


def choice(info: DatasetInfo, wording: Wording) -> tuple[str, str]:
    """(label, id) for a list: name, where it comes from, how many rows; unread files say their size."""
    size = (
        format.rows(wording, info.good_rows) if info.good_rows is not None else format.bytes_used(wording, info.bytes)
    )
    return wording.t(f"wizard.data_{info.origin}", name=title(info, wording), size=size), info.id
