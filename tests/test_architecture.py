"""The rule of the house: launch -> webui -> core -> libraries, and no torch where pages are served."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from core.presets import PROJECT

# What may be loaded only inside a worker process. tokenizers and datasets are fine, transformers pulls torch in.
HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "accelerate"}
# Where they stand at the top of a module, which is then imported by workers only.
WORKERS = (
    "core.engine.", "core.training.", "core.trial.dry_run", "core.trial.allocations", "core.trial.pace_probe", "core.chat.duel",
    "core.export.merge", "core.export.proof", "core.export.gguf",
)  # fmt: skip
PROCESSES = ("core.training.worker", "core.chat.worker", "core.export.worker", "core.trial.dry_run_worker")
NOT_WORKERS = ("core.trial.dry_runs", "core.trial.dry_run_answer", "core.trial.dry_run_worker")


def imports(file: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(file.read_text("utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def packages(file: Path, **options: bool) -> set[str]:
    return {name.split(".")[0] for name in imports(file, **options)}


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(PROJECT).with_suffix("").parts)


def is_of_workers(module: str) -> bool:
    return module.startswith(WORKERS) and not module.startswith(NOT_WORKERS)


CORE = sorted((PROJECT / "core").rglob("*.py"))
WEBUI = sorted((PROJECT / "webui").rglob("*.py"))


@pytest.mark.parametrize("file", CORE, ids=name_of)
def test_core_knows_no_screen_and_no_launcher(file: Path) -> None:
    assert not packages(file) & {"gradio", "webui", "launch"}


@pytest.mark.parametrize("file", WEBUI, ids=name_of)
def test_pages_import_no_heavy_library_anywhere(file: Path) -> None:
    assert not packages(file) & HEAVY
    assert not packages(file) & {"launch"}


@pytest.mark.parametrize("file", CORE, ids=name_of)
def test_heavy_libraries_stand_at_the_top_of_worker_modules_only(file: Path) -> None:
    heavy = packages(file, top_level_only=True) & HEAVY
    assert not heavy or is_of_workers(name_of(file))


@pytest.mark.parametrize("file", [f for f in CORE + WEBUI if not is_of_workers(name_of(f))], ids=name_of)
def test_nothing_but_workers_imports_a_worker_module(file: Path) -> None:
    if name_of(file) not in PROCESSES:
        heavy = {name for name in imports(file, top_level_only=True) if is_of_workers(name + ".")}
        assert not {name for name in heavy if packages_at_top(name)}


def packages_at_top(module: str) -> set[str]:
    """Heavy libraries at the top of a module of ours; none for a name that is no module."""
    file = PROJECT / (module.replace(".", "/") + ".py")
    return packages(file, top_level_only=True) & HEAVY if file.exists() else set()


def test_launch_uses_the_standard_library_alone() -> None:
    assert packages(PROJECT / "launch.py") <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("file", CORE + WEBUI, ids=name_of)
def test_no_pool_of_processes_reads_data(file: Path) -> None:
    """Under Windows' spawn a pool of `datasets` runs the app's main again; peers died of it (unsloth #4473)."""
    tree = ast.parse(file.read_text("utf-8"))
    keywords = {keyword.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords}
    assert not keywords & {"num_proc", "num_workers"} and not packages(file) & {"multiprocessing", "concurrent.futures.process"}


def test_presets_are_named_in_one_module() -> None:
    assert {f.stem for f in CORE + WEBUI if '"presets"' in f.read_text("utf-8")} == {"presets"}


def test_importing_every_page_module_loads_no_torch() -> None:
    modules = ", ".join(
        [name_of(f) for f in WEBUI if not f.stem.startswith("__")]
        + ["core.queue.supervisor", "core.models.library", "core.models.hub"]
    )
    script = f"import sys, {modules}\nprint([m for m in {sorted(HEAVY)} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, timeout=120)
    assert result.stdout.strip() == "[]", result.stderr[-2000:]
