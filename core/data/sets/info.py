"""Facts about a dataset: dataset.json of an imported one, and what lists and pages show of any."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from core import files
from core.data.reading.choices import NO_CHOICES, Choices
from core.data.sets.inspection import DataReport
from core.data.shapes.left_out import LeftOut
from core.recipe import Format
from core.values import Frozen


class DatasetInfo(Frozen):
    """Contents of dataset.json, and what the page lists. For samples and library files rows and format are None until
    inspected."""

    v: int = 1
    id: str
    origin: Literal["imported", "sample", "library"] = "imported"
    name: str = Field(description="As the person wrote it, made safe for one line on a screen.")
    format: Format | None = None
    columns: tuple[str, ...] = ()
    choices: Choices = Field(NO_CHOICES, description="What somebody said of how it is to be read.")
    rows: int | None = None
    good_rows: int | None = None
    problems: int | None = Field(None, description="Errors and warnings, counted.")
    left_out: tuple[LeftOut, ...] = Field((), description="What nothing reads in its rows, with the number of rows.")
    sha256: str | None = None
    bytes: int = 0
    source_name: str = Field("", description="The file's own name.")
    imported: float | None = Field(None, description="Seconds since 1970, UTC.")
    version: int = Field(0, description="Of a set that was changed; 0 is the file as it was added.")
    origin_name: str = Field(
        "",
        description="Of a hub's data set owner/name:configuration:split, with [:rows] where only the first were taken.",
    )
    revision: str = Field("", description="The commit of the hub that its files are of.")
    licence: str = Field("", description='As the hub\'s card names it; "" where it does not say.')
    corrects: str = Field(
        "",
        description=(
            "Whose answers its rows correct: run:<id>, base:<model> or adapter:<folder> (core/chat/corrections)."
        ),
    )


class Origin(Frozen):
    """The origin of a dataset from the Hub, or of corrections, as DatasetInfo keeps it."""

    origin_name: str = ""
    revision: str = ""
    licence: str = ""
    corrects: str = ""


OWN = Origin()


def read_info(folder: Path) -> DatasetInfo | None:
    """Return the info in dataset.json; None if the import never finished or the file is damaged."""
    value = files.read_object(folder / "dataset.json")
    try:
        return DatasetInfo.model_validate(value | {"id": folder.name, "origin": "imported"})
    except ValidationError:
        return None


def facts_of(report: DataReport) -> dict[str, Any]:
    same = report.model_dump(include={"format", "columns", "rows", "good_rows", "sha256", "bytes", "left_out"})
    return same | {"problems": report.problem_count}
