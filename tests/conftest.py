"""Fixtures that many tests share. The starter model is made once and kept: LORA_GARAGE_TEST_STARTER names a ready
folder, else LORA_GARAGE_TEST_CACHE (default tests/.cache, never committed) holds a workspace that makes it."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import webui  # noqa: F401 - first, as gradio writes stubs of our classes beside them where it is not prepared
from core.models import starter
from core.system import gpu
from core.system.processes import worker_environment
from core.workspace.folder import Workspace
from tests.faults.table import FaultTable
from tests.kit import browser as kit
from tests.kit import sampling, tiny
from tests.kit.durations import Durations, SharedSetups, cache
from tests.kit.warm import KINDS, Elsewhere, Popen, Servers, may_fork, no_fsync

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Here a browser, an app and one or two torch processes share two cores: one thread each is fastest (docs/memory.md,
# measured here).
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module", autouse=True)
def nothing_waits_for_the_disk(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if HERE / "faults" not in request.path.parents:
            patch.setattr(os, "fsync", no_fsync)
        yield


@pytest.fixture(scope="module", autouse=True)
def swept() -> Iterator[None]:
    """Gradio leaves sockets and event loops to the collector; its warnings inside an ast.parse of a later test, or of
    pytest's own, break Python 3.11 (cpython issue 106905)."""
    yield
    settled()


def pytest_collection_finish() -> None:
    gc.enable()
    settled()


def settled() -> None:
    """What is alive now stays: libraries that were imported meanwhile, too, whose million objects no later collection
    need look through."""
    gc.collect()
    gc.freeze()


def environments() -> dict[str, dict[str, str]]:
    return {"torch": worker_environment(), "web": dict(os.environ), "commands": dict(os.environ)}


@pytest.fixture(scope="session", autouse=True)
def forked(pytestconfig: pytest.Config) -> Iterator[None]:
    """Workers and apps are forked from warm processes (tests/kit/warm); what a spawn itself is to show is marked
    `spawn`."""
    if not may_fork():
        yield
        return
    warm = getattr(pytestconfig, "workerinput", {}).get("warm")
    Popen.servers = Elsewhere(warm, environments()) if warm else Servers(environments())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", Popen)
        yield
    if isinstance(Popen.servers, Servers):
        Popen.servers.close()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """The processes of xdist fork from the same ones, which the process that prints has begun."""
    if may_fork():
        if SERVERS not in node.config.stash:
            node.config.stash[SERVERS] = Servers(environments())
        node.workerinput["warm"] = {kind: node.config.stash[SERVERS].begin(kind) for kind in KINDS}


def pytest_unconfigure(config: pytest.Config) -> None:
    if servers := config.stash.get(SERVERS, None):
        servers.close()


@pytest.fixture(autouse=True)
def real_spawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("spawn"):
        monkeypatch.setattr(subprocess, "Popen", Popen.__base__)


@pytest.fixture(scope="session")
def starter_folder() -> Path:
    """The converted starter model; downloads 93 MB the first time."""
    ready = os.environ.get("LORA_GARAGE_TEST_STARTER")
    if ready:
        return Path(ready)
    return starter.ensure(Workspace.open(cache()).models, lambda stage, progress: None, lambda: None)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, starter_folder: Path) -> Path:
    """Loads in a second, knows nothing (tests/kit/tiny)."""
    return tiny.make(tmp_path_factory.mktemp("library") / "tiny", starter_folder)


@pytest.fixture
def make_workspace(tmp_path: Path, starter_folder: Path) -> Callable[[], Workspace]:
    """Makes the test's own workspace, which has the starter model as links to its files (copies where links cannot
    be)."""

    return lambda: tiny.in_place_of_the_starter(Workspace.open(tmp_path / "workspace"), starter_folder)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty one."""
    return Workspace.open(tmp_path / "workspace")


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with kit.browser() as started:
        yield started


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full", action="store_true", help="also the long forms: every test marked full, and more rounds of others"
    )
    parser.addoption("--seed", type=int, help="which cases of long tests the gate runs (tests/kit/sampling)")
    parser.addoption("--fault-table", metavar="FILE", help="write the table of injected faults as a page of docs/")


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Whether this is `python launch.py test --full`: a test that repeats something asks it how often."""
    return bool(pytestconfig.getoption("--full"))


TABLE, SERVERS = pytest.StashKey[FaultTable](), pytest.StashKey[Servers]()
HERE = Path(__file__).parent
FOLDERS = ("unit", "model", "process", "faults", "browser", "windows", "card")


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # until all is collected: a tenth of the seconds in which libraries are imported
    config.stash[TABLE] = FaultTable()
    for folder in FOLDERS:
        config.addinivalue_line("markers", f"{folder}: lies in tests/{folder}")
    config.pluginmanager.register(SharedSetups())
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Durations())
    sampling.begin(config)


def pytest_report_header() -> str | None:
    return sampling.header()


@pytest.fixture(scope="session")
def faults(pytestconfig: pytest.Config) -> FaultTable:
    """Where a test says what it has injected, once it has seen that nothing was lost."""
    return pytestconfig.stash[TABLE]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of xdist hands its rows to the one that prints."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["faults"] = session.config.stash[TABLE].lines()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for what, into, times, lost in getattr(node, "workeroutput", {}).get("faults", ()):
        node.config.stash[TABLE].add(what, into, int(times.replace(",", "")), lost)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    table = config.stash[TABLE]
    if table.rows:
        terminalreporter.section("faults injected, and what was lost")
        terminalreporter.write_line("\n".join(table.shown()))
        if config.getoption("--fault-table"):
            table.write(Path(config.getoption("--fault-table")), bool(config.getoption("--full")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each test is marked by its folder; other marks name what a test needs. Where that is missing the test is skipped
    with the reason. `python launch.py test` says why there is no browser, where it could get none."""
    reason = os.environ.get("LORA_GARAGE_NO_BROWSER")
    if kit.chromium() is None:
        reason = reason or "no Chrome or Chromium found (LORA_GARAGE_BROWSER names one)"
    has_card = bool(gpu.probe().cards)
    # the longest first, so that two processes end together
    items.sort(key=lambda item: item.path.name != "test_journey.py")
    for item in items:
        if item.path.is_relative_to(HERE):  # a test of these hooks has them collect a folder of its own
            item.add_marker(item.path.relative_to(HERE).parts[0])
        if not config.getoption("--full") and item.get_closest_marker("full"):
            item.add_marker(pytest.mark.skip(reason="a long form: python launch.py test --full"))
        if not has_card and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no graphics card: NVML names none"))
        if reason and item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason=f"no browser: {reason}"))
    sampling.sample(config, items)
