"""Facts about a dataset: dataset.json of an imported one, and what lists and pages show of any."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from core import files
from core.data.reading.choices import NO_CHOICES, Choices
from core.data.sets.inspection import DataReport
from core.data.shapes.left_out import LeftOut
from core.files import JsonObject
from core.recipe import Format
from core.values import Frozen


class DatasetInfo(Frozen):
    """Contents of dataset.json, and what the page lists. For samples and library files rows and format are None until
    inspected."""

    v: int = 1
    id: str
    origin: Literal["imported", "sample", "library"] = "imported"
    name: str = Field(description="Name given by the person, made safe for one line on a screen.")
    format: Format | None = None
    columns: tuple[str, ...] = ()
    choices: Choices = Field(NO_CHOICES, description="Choices of how it is read.")
    rows: int | None = None
    good_rows: int | None = None
    validation: int | None = Field(
        None, description="Its own validation rows; None for a set that was added before such rows were recognized."
    )
    problems: int | None = Field(None, description="Number of errors and warnings.")
    left_out: tuple[LeftOut, ...] = Field((), description="Values of its rows that are not used, with counts.")
    sha256: str | None = None
    bytes: int = 0
    source_name: str = Field("", description="The file's own name.")
    imported: float | None = Field(None, description="Seconds since 1970, UTC.")
    version: int = Field(0, description="Current version of a changed dataset; 0 is the file as it was added.")
    origin_name: str = Field(
        "",
        description="Of a Hub dataset: owner/name:configuration:split, with [:rows] if only the first rows were added.",
    )
    revision: str = Field("", description="Commit of its files on the Hub.")
    licence: str = Field("", description='Licence in its card on the Hub; "" if there is none.')
    corrects: str = Field(
        "",
        description=(
            "Whose answers its rows correct: run:<id>, base:<model> or adapter:<folder> (core/chat/corrections)."
        ),
    )
    made: str = Field("", description="Id of the making whose rows it has (core/chat/making).")
    made_by: str = Field("", description="The model that wrote them.")


class Origin(Frozen):
    """The origin of a dataset from the Hub, of corrections, or of made rows, as DatasetInfo keeps it."""

    origin_name: str = ""
    revision: str = ""
    licence: str = ""
    corrects: str = ""
    made: str = ""
    made_by: str = ""


OWN = Origin()


def read_info(folder: Path) -> DatasetInfo | None:
    """Return the info in dataset.json; None if the import never finished or the file is damaged."""
    value = files.read_object(folder / "dataset.json")
    try:
        return DatasetInfo.model_validate(value | {"id": folder.name, "origin": "imported"})
    except ValidationError:
        return None


def facts_of(report: DataReport) -> JsonObject:
    """Return those fields of a DatasetInfo that a report knows, such as format, rows, sha256 and the number of
    problems, for updating one."""
    same = report.model_dump(
        include={"format", "columns", "rows", "good_rows", "validation", "sha256", "bytes", "left_out"}
    )
    return same | {"problems": report.problem_count}
