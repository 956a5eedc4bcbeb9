"""The title of a dataset, and its line in a list of choices."""

from __future__ import annotations

from core.data.sample_sets import sample_of
from core.data.sets.info import DatasetInfo
from webui.kit import format
from webui.kit.wording import Wording


def title(info: DatasetInfo, wording: Wording) -> str:
    """Return a dataset's title: of a sample in the page's language, else its name, else its id."""
    sample = sample_of(info.id)
    name = info.id.removeprefix("sample:")
    return wording.preset(sample.title, f"sample_{name}_title") if sample and sample.title else info.name or info.id


def choice(info: DatasetInfo, wording: Wording) -> tuple[str, str]:
    """Return (label, id) of a dataset for a list of choices. The label has its title, origin, and number of rows, or of
    bytes if it was not read yet."""
    size = (
        format.rows(wording, info.good_rows) if info.good_rows is not None else format.bytes_used(wording, info.bytes)
    )
    return wording.t(f"wizard.data_{info.origin}", name=title(info, wording), size=size), info.id
