"""A zip with all that a borrowed PC needs to train one recipe; the trained run is a folder to copy home.

NAME/recipe.yaml, NAME/workspace/datasets (the set, in the version that the recipe names), NAME/app (this app, with
constraints.txt, the tested versions) and NAME/bootstrap.sh. For a continued run also NAME/workspace/runs (the parent's
adapter) and NAME/parent.txt (its id); for a rented GPU sky.yaml (SkyPilot) and docker.sh.

No account, key or price is handled here. The base model is not packed: the other PC downloads it from the hub.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from core import INSTALLED, files
from core.data.store import DatasetStore
from core.errors import RunError
from core.files import writing
from core.models.library import ModelRef
from core.presets import PRESETS, PROJECT
from core.recipe import Recipe, to_yaml
from core.runs import further
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts
from core.workspace.names import slug

APP = (
    "core",
    "webui",
    PRESETS.name,
    "packaging/uv.txt",
    "launch.py",
    "launcher",
    "start.sh",
    "pyproject.toml",
    "constraints.txt",
    "LICENSE",
    "README.md",
)
SKY = """# In this folder, with SkyPilot and a cloud account: train, bring the run home, give the machine back.
#   sky launch -c lora-garage sky.yaml
#   rsync -rP lora-garage:sky_workdir/trained/ YOUR_WORKSPACE/runs/
#   sky down lora-garage
"""
DOCKER = """#!/bin/sh
# In this folder, on a machine with Docker and NVIDIA's container toolkit. Leaves the run in trained/.
docker run --rm --gpus all --shm-size 8g -v "$PWD":/job -w /job python:3.12-slim sh bootstrap.sh
"""
NOT_OURS = {"__pycache__", ".DS_Store"}


def pack(recipe: Recipe, store: DatasetStore, target: Path, parent: RunFolder | None = None) -> str:
    """Write the zip (recipe, data, parent's adapter, app and start scripts) to target and return the name of its top
    folder. Raises RunError for an installed app or a model that only this PC has, DataError.

    recipe: with an id of store as its data.source, its version settled. parent: a run whose adapter the training starts
    from.
    """
    if INSTALLED:
        raise RunError("away.no_source")
    if ModelRef.parse(recipe.model.id).kind == "library":
        raise RunError("away.model_here_only", model=recipe.model.id)
    top = slug(recipe.name or "run")
    source = recipe.data.source
    with new_archive(target) as archive:
        if source.startswith("library:"):  # a file of a folder that only this PC has
            file = store.path(source)
            archive.write(file, f"{top}/data/{file.name}")
            recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": f"data/{file.name}"})})
        elif not source.startswith("sample:"):  # those come with the app
            _add_set(archive, f"{top}/workspace/datasets/{source}", store, source)
        if parent:
            _add_parent(archive, top, parent)
        archive.writestr(f"{top}/recipe.yaml", recipe.dump())
        archive.writestr(_script(f"{top}/bootstrap.sh"), Path(__file__).with_name("bootstrap.sh").read_text("utf-8"))
        archive.writestr(f"{top}/sky.yaml", sky_task(recipe.train.ranks))
        archive.writestr(_script(f"{top}/docker.sh"), DOCKER)
        for part in APP:
            _add_app(archive, f"{top}/app/{part}", PROJECT / part)
    return top


@contextlib.contextmanager
def new_archive(target: Path) -> Iterator[zipfile.ZipFile]:
    """Context manager: a zip for writing that appears under its name only when complete. Raises RunError if target
    exists or cannot be written."""
    if target.exists():
        raise RunError("away.exists", file=target)
    aside = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    with writing(target.parent):
        try:
            with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
                yield archive
            files.rename(aside, target)
        finally:
            aside.unlink(missing_ok=True)


def _script(name: str) -> zipfile.ZipInfo:
    """Return a zip entry of this name whose file can be executed once it is unpacked."""
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o100755 << 16
    return info


def _add_set(archive: zipfile.ZipFile, place: str, store: DatasetStore, id: str) -> None:
    """Add the data set's file as imported, and its versions; caches are made anew elsewhere."""
    source = store.path(id)
    for path in sorted(source.parent.iterdir()):
        if path.name in ("dataset.json", source.name) or re.fullmatch(r"(edits|written)-.*\.jsonl", path.name):
            archive.write(path, f"{place}/{path.name}")


def _add_parent(archive: zipfile.ZipFile, top: str, parent: RunFolder) -> None:
    """Add the files of a run that `train --from` needs (core/runs/further), without its rows and with few facts, and
    parent.txt with its id. Raises RunError, RecipeError."""
    recipe, facts = further.check(parent), parent.facts()
    place = f"{top}/workspace/runs/{parent.id}"
    kept = RunFacts(
        name=parent.name, created=facts.created, launcher="command",
        template=facts.template, model_folder=facts.model_folder, adapter_step=facts.adapter_step,
    )  # fmt: skip
    archive.writestr(f"{top}/parent.txt", f"{parent.id}\n")
    archive.writestr(f"{place}/recipe.yaml", recipe.dump())
    archive.writestr(f"{place}/run.json", json.dumps(kept.set_fields()))
    for name in ("state.json", "metrics.jsonl", *(f"adapter/{file}" for file in further.FILES)):
        if (parent.path / name).exists():
            archive.write(parent.path / name, f"{place}/{name}")


def sky_task(cards: int) -> str:
    """Return the text of a SkyPilot task file (docs.skypilot.co, task YAML) that trains on this number of GPUs; the
    comments above the task name the commands that use it."""
    return SKY + to_yaml(
        {
            "name": "lora-garage",
            "resources": {"accelerators": {name: cards for name in ("A10G", "L4", "RTX4090")}, "disk_size": 100},
            "workdir": ".",
            "run": "sh bootstrap.sh\n",
        }
    )


def _add_app(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    """Add the app's file, or the files of a folder, under this name, without caches and what is not the app's."""
    if path.is_file():
        archive.write(path, name)
        return
    with writing(path):
        for file in sorted(path.rglob("*")):
            if file.is_file() and not NOT_OURS & set(file.parts) and file.suffix != ".pyc":
                archive.write(file, f"{name}/{file.relative_to(path).as_posix()}")
