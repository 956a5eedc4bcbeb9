"""One app for all tests of a process, and one with a card of 8 GB (a fake driver library under the real pynvml). Each
test finds its workspace as new and may leave in it what it likes. What ends or restarts an app starts its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.files import remove_tree
from core.runs.all import Runs
from core.runs.states import BUSY
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit import nvml
from tests.kit.waits import wait_until

# as a person uses the app, beside runs and data sets
WRITTEN = ("evaluation", "recipes", "preferences.json", "line.json", "memory.jsonl", "making")


@pytest.fixture(scope="session")
def kept_app(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[kit.App]:
    """In all its languages where the long forms are asked for."""
    spoken = {"LORA_GARAGE_LANGUAGES": ""} if pytestconfig.getoption("--full") else {}
    app = kit.start_app(Workspace.open(tmp_path_factory.mktemp("shared") / "workspace").root, **spoken)
    yield app
    app.stop()


@pytest.fixture(scope="session")
def kept_card_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kit.App]:
    folder = tmp_path_factory.mktemp("card")
    environment = nvml.environment(nvml.compile(folder), nvml.write(folder / "cards.txt", nvml.EIGHT_GB))
    app = kit.start_app(Workspace.open(folder / "workspace").root, **environment)
    yield app
    app.stop()


@pytest.fixture
def app(kept_app: kit.App) -> Iterator[kit.App]:
    yield kept_app
    empty(Workspace.open(kept_app.workspace))


@pytest.fixture
def workspace(app: kit.App) -> Workspace:
    """The app's; without runs, data sets, presets and choices of a person."""
    return Workspace.open(app.workspace)


@pytest.fixture
def card_app(kept_card_app: kit.App, cards: Path) -> Iterator[kit.App]:
    yield kept_card_app
    nvml.write(cards, nvml.EIGHT_GB)
    empty(Workspace.open(kept_card_app.workspace))


@pytest.fixture
def cards(kept_card_app: kit.App) -> Path:
    """What the card of card_app tells (nvml.write)."""
    return kept_card_app.workspace.parent / "cards.txt"


@pytest.fixture
def serve(request: pytest.FixtureRequest) -> Callable[[bool], kit.App]:
    """serve(card): the app with a card of 8 GB, or the one without any driver."""
    return lambda card: request.getfixturevalue("card_app" if card else "app")


def empty(workspace: Workspace) -> None:
    """What a failed test left at work is stopped first."""
    runs = Runs(workspace)
    for run in runs.folders():
        if runs.status(run).state in BUSY:
            run.request("stop")
    wait_until(lambda: all(runs.status(run).state not in BUSY for run in runs.folders()), 60)
    for run in runs.folders():
        runs.delete(run)
    for folder in (*workspace.datasets.glob("[!.]*"), *workspace.exports.iterdir()):
        assert remove_tree(folder, 10)  # the app may answer a last look of the page that was closed
    for name in WRITTEN:
        path = workspace.root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
