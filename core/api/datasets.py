"""The data that a function is given: a file, a folder, an id of the workspace's store, or a dataset of the Hub."""

from __future__ import annotations

from pathlib import Path

from core.data.hub_sets import adding
from core.data.reading.choices import NO_CHOICES, Choices
from core.data.reading.suffixes import SUFFIXES
from core.data.sets import gathered
from core.data.shapes.roles import with_answer
from core.data.store import DatasetStore
from core.errors import DataError
from core.hub.sets.name import SetName
from core.presets import PRESETS
from core.recipe import Recipe
from core.workspace.folder import Workspace, expand


def dataset_store(space: Workspace) -> DatasetStore:
    """Return the store of the workspace's datasets, samples and library folders."""
    return DatasetStore(space.datasets, PRESETS, space.library_folders)


def dataset_id(space: Workspace, source: str, relative_to: Path, choices: Choices = NO_CHOICES) -> str:
    """Return source as an id of the store. Raises DataError.

    source: an id, a file or folder (also in relative_to), which is added first (the same file only once), or a
    downloaded dataset of the Hub.
    """
    if not source.strip():
        raise DataError("data.no_name")
    store = dataset_store(space)
    for candidate in (expand(source), relative_to / source):
        if candidate.is_file():
            return store.import_file(candidate, candidate.stem, choices).id
    try:
        store.path(source)
    except DataError:
        for candidate in (expand(source), relative_to / source):
            if candidate.is_dir():
                return gathered.add(store, [candidate], candidate.name, choices).id
        if Path(source).suffix.lower() in SUFFIXES or not SetName.looks_like(source):
            raise
        info = adding.find_added(store, SetName.parse(source))
        if info is None:
            raise DataError("hub_set.not_here", name=source) from None
        return info.id
    return source


def with_imported_data(space: Workspace, recipe: Recipe, relative_to: Path, answer: str = "") -> Recipe:
    """Return recipe with its dataset, imported if it is a file, as an id of the store, and its columns. answer: the
    column that a person named as the answer. Raises DataError as `dataset_id`."""
    data = recipe.data
    source = dataset_id(space, data.source, relative_to, Choices.from_data(data))
    data = data.model_copy(update={"source": source})
    if answer:
        report = dataset_store(space).report(source, data.format, Choices.from_data(data))
        data = data.model_copy(update={"columns": dict(with_answer(report.possible, answer, report.columns))})
    return recipe.model_copy(update={"data": data})
