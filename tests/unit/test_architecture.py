"""The rules of the house: an import only goes to a lower floor, no circle anywhere, no torch where pages are served, a
size to hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from core.presets import PROJECT
from tests.kit.source import tree_of

# What may be loaded only inside a worker process. tokenizers is fine, transformers pulls torch in, and datasets pandas.
HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets"}

# From the ground up; rooms of one floor do not know each other. `core` and `webui` stand for the files that lie in no
# room.
FLOORS = (
    ("core",),
    ("core.workspace", "core.system", "core.judges"),
    ("core.hub",),
    ("core.models",),
    ("core.data", "core.memory"),
    ("core.engine", "core.runs"),
    ("core.advice", "core.chat", "core.export", "core.queue", "core.trial"),
    ("core.api", "core.training"),
    ("core.commands",),
    ("webui.state",),
    ("webui.kit",),
    ("webui.shelf", "webui.server"),
    ("webui.form",),
    ("webui.run",),
    ("webui.pages",),
    ("webui",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# The web process and the commands start these as processes and import none of them.
ONLY_IN_WORKERS = ("core.engine", "core.training", "core.api", "core.commands")
# Where heavy libraries may stand at the top of a module.
HEAVY_AT_TOP = re.compile(
    r"core\.(engine|training)\.(\w+\.)?\w+|core\.trial\.(dry_run|allocations)|core\.chat\.(duel|film)"
    r"|core\.export\.(merge|combine_worker|safetensors_file|pairs|verification|stored|tensors|layers)"
    r"|core\.export\.llamacpp\.(make|judgement)|core\.hub\.sets\.(library|transfer)"
)
READABLE = ("core/recipe.py", "core/data/conversation.py", "core/data/formats.py", "core/data/dialect.py",
    "core/data/template.py", "core/data/tokenizer.py", "core/data/labels.py", "core/data/row_order.py",
            "core/data/selection.py", "core/engine/*.py", "core/training/*.py", "core/runs/folder.py",
            "core/runs/states.py",
            "core/runs/reporter.py", "core/runs/checkpoints.py", "core/runs/health.py")  # fmt: skip
MAX_READABLE = 3_185  # statements, docstrings left out: an evening
LONGEST = 60  # lines of a function's body


def name_of(file: Path) -> str:
    parts = list(file.relative_to(PROJECT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for folder in ("core", "webui") for file in sorted((PROJECT / folder).rglob("*.py"))}
CORE = [file for name, file in FILES.items() if name.split(".")[0] == "core"]
WEBUI = [file for name, file in FILES.items() if name.split(".")[0] == "webui"]


def room_of(module: str) -> str:
    """The deepest folder below core or webui that the module lies in, one level down; "core" or "webui" for their own
    files."""
    parts = module.split(".")
    is_folder = FILES[module].name == "__init__.py"
    return ".".join(parts[:2]) if len(parts) > 2 or (len(parts) == 2 and is_folder) else parts[0]


def imports(tree: ast.AST | list[ast.stmt]) -> Iterator[str]:
    """Every module and every name of a module that is imported, lazily or for types alone too."""
    for node in tree if isinstance(tree, list) else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages(file: Path, top_level_only: bool = False) -> set[str]:
    tree = tree_of(file)
    return {name.split(".")[0] for name in imports(tree.body if top_level_only else tree)}


@cache
def arrows() -> dict[str, set[str]]:
    """Module -> modules of ours that it imports. `from core.queue import turns` is one of turns, not of the folder."""
    arrows_by_module: dict[str, set[str]] = defaultdict(set)
    for name, file in FILES.items():
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.ImportFrom) and node.module in FILES:
                inside = {f"{node.module}.{alias.name}" for alias in node.names}
                arrows_by_module[name] |= (inside & FILES.keys()) | ({node.module} if inside - FILES.keys() else set())
            elif isinstance(node, ast.Import):
                arrows_by_module[name] |= {alias.name for alias in node.names} & FILES.keys()
        arrows_by_module[name].discard(name)
    return arrows_by_module


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other: take away what imports nothing, and what nothing imports, until neither is
    left."""
    left = {node: set(wanted) for node, wanted in graph.items()}
    while True:
        wanted = {node for others in left.values() for node in others}
        gone = {node for node, others in left.items() if not others & left.keys() or node not in wanted}
        if not gone:
            return [sorted(left)] if left else []
        left = {node: others - gone for node, others in left.items() if node not in gone}


def test_there_is_a_house_to_look_at() -> None:
    """A rule that looks at nothing is kept by everybody."""
    assert len(CORE) > 100 and len(WEBUI) > 40 and sum(map(len, arrows().values())) > 500
    assert {room_of(module) for module in FILES} == set(FLOOR), "a room without a floor, or a floor without its room"
    assert any(HEAVY & packages(file, top_level_only=True) for file in CORE)


def test_an_import_only_goes_to_a_lower_floor() -> None:
    wrong = [
        f"{module} -> {imported}"
        for module, others in arrows().items()
        for imported in others
        if (here := room_of(module)) != (there := room_of(imported)) and FLOOR[here] <= FLOOR[there]
    ]
    assert wrong == []


def test_no_file_and_no_room_reaches_itself_again() -> None:
    """Lazy and typing imports counted."""
    rooms: dict[str, set[str]] = defaultdict(set)
    for module, others in arrows().items():
        rooms[room_of(module)] |= {room_of(other) for other in others} - {room_of(module)}
    assert circles(arrows()) == [] == circles(rooms)


def test_the_search_for_circles_finds_one() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}, "e": set()}) == [["b", "c"]]


def test_every_folder_says_what_it_holds_and_what_it_may_import() -> None:
    docs = {name: ast.get_docstring(tree_of(file)) or "" for name, file in FILES.items() if file.name == "__init__.py"}
    assert docs.keys() >= FLOOR.keys()
    assert [name for name, text in docs.items() if len(text) <= 60 or ("Import" not in text and "." in name)] == []


def test_core_knows_no_screen_and_no_launcher() -> None:
    assert [name_of(file) for file in CORE if packages(file) & {"gradio", "webui", "launch", "launcher"}] == []


def test_pages_import_no_heavy_library_and_none_of_the_rooms_of_workers() -> None:
    wrong = [name_of(file) for file in WEBUI if packages(file) & (HEAVY | {"launch", "launcher"})]
    wrong += [
        f"{m} -> {w}"
        for m, others in arrows().items()
        for w in others
        if m.startswith("webui") and room_of(w) in ONLY_IN_WORKERS
    ]
    assert wrong == []


def test_state_below_the_pages_knows_no_gradio() -> None:
    assert [name for name, file in FILES.items() if room_of(name) == "webui.state" and "gradio" in packages(file)] == []


def test_heavy_libraries_stand_at_the_top_of_worker_modules_only() -> None:
    heavy = [name for name, file in FILES.items() if packages(file, top_level_only=True) & HEAVY]
    assert heavy and [name for name in heavy if not HEAVY_AT_TOP.fullmatch(name)] == []


def test_launch_uses_the_standard_library_alone() -> None:
    needed = {name for file in (PROJECT / "launch.py", *(PROJECT / "launcher").glob("*.py")) for name in packages(file)}
    assert needed - {"launcher"} <= set(sys.stdlib_module_names)


def test_no_pool_of_processes_reads_data() -> None:
    """Under Windows' spawn a pool of `datasets` runs the app's main again; peers died of it (unsloth #4473)."""
    for name, file in FILES.items():
        tree = tree_of(file)
        keywords = {keyword.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords}
        assert not keywords & {"num_proc", "num_workers"} and "multiprocessing" not in packages(file), name


def test_presets_are_named_in_one_module() -> None:
    assert {name for name, file in FILES.items() if '"presets"' in file.read_text("utf-8")} == {"core.presets"}


def test_importing_every_page_module_loads_no_torch() -> None:
    modules = ", ".join(
        [*(name for name in FILES if name.startswith("webui.") and name != "webui.__main__"), "core.queue.supervisor"]
    )
    script = f"import sys, {modules}\nprint([m for m in {sorted(HEAVY)} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, timeout=120)
    assert result.stdout.strip() == "[]", result.stderr[-2000:]


def test_the_readable_path_is_an_evening(record_testsuite_property) -> None:
    """Recipe, data core, engine, training and run folder, in that order: what a contributor reads first."""
    files = {place: [*PROJECT.glob(place)] for place in READABLE}
    assert all(files.values()), files
    nodes = [node for each in files.values() for file in each for node in ast.walk(tree_of(file))]
    texts = [node for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    readable = sum(isinstance(node, ast.stmt) for node in nodes) - len(texts)
    record_testsuite_property("readable_statements", readable)
    print(f"\nreadable path {readable} of {MAX_READABLE} statements")
    assert readable <= MAX_READABLE


def test_a_function_fits_on_a_screen() -> None:
    """Its body, for the options of a command are a reference and stand above it."""
    long = [
        f"{name}:{node.lineno} {node.name}, {1 + node.end_lineno - node.body[0].lineno} lines"
        for name, file in FILES.items()
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.body[0].lineno >= LONGEST
    ]
    assert long == []


def test_a_class_has_a_name_of_its_own_in_the_whole_house() -> None:
    """`Told` was four things, `Wish` three: whoever searches for a name finds one."""
    classes = Counter(
        node.name for file in FILES.values() for node in tree_of(file).body if isinstance(node, ast.ClassDef)
    )
    assert len(classes) > 200 and [name for name, count in classes.items() if count > 1] == []
