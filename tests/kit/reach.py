"""The tests that a change can reach, nearest first, from the names that each definition of the project uses.

A node is a top-level function, class or constant of a module: ("core.files", "write"). It uses the nodes that its
source names, the modules whose names it holds as text (a process is started by `python -m core.training.worker`), the
fixtures that its parameters name, and the data files that it names. A test is as far from a change as the number of
modules between them. What no source names is missed: an attribute made by setattr, a file whose name is put together at
run time.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import pickle
import re
import subprocess
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml

from core.files import replace

Node = tuple[str, str]
PLACES = ("core", "webui", "launcher", "tests", "benchmarks", "tools")
OTHER_LANES = ("tests.card.", "tests.windows.")  # test --card and test --windows: in environments of their own
REST = ""  # statements of a module that define nothing: an `if`, a call
ALL = "*"  # every definition of a module
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Definition:
    """What the statements that define a name use. dump: their syntax, without places and comments."""

    names: set[tuple[str, ...]] = field(default_factory=set)  # ("files", "write") for files.write
    texts: set[str] = field(default_factory=set)
    parameters: set[str] = field(default_factory=set)
    fixture: str = ""  # the decorator that makes it one
    dump: str = ""

    def add(self, statement: ast.stmt) -> dict[str, Node]:
        """Add what statement uses, and return the names that its imports bind, which count as its module's."""
        aliases: dict[str, Node] = {}
        for node in ast.walk(statement):
            if isinstance(node, ast.Name | ast.Attribute):
                if names := dotted(node):
                    self.names.add(names)
            elif isinstance(node, ast.Constant):
                if isinstance(node.value, str):
                    self.texts.add(node.value)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                aliases |= bound_by(node)
        if isinstance(statement, FUNCTIONS):
            self.parameters |= {each.arg for each in [*statement.args.args, *statement.args.kwonlyargs]}
            self.fixture += " ".join(text for text in map(ast.unparse, statement.decorator_list) if "fixture" in text)
        return aliases


@dataclass
class Module:
    """One file: its definitions by name, and the names that its imports bind, each with the node or module it stands
    for."""

    name: str
    path: str
    definitions: dict[str, Definition] = field(default_factory=lambda: defaultdict(Definition))
    aliases: dict[str, Node] = field(default_factory=dict)

    @classmethod
    def parse(cls, path: str, source: str, with_dumps: bool = False) -> Module:
        module = cls(module_name(path), path)
        for statement in ast.parse(source).body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                module.aliases |= bound_by(statement)
                continue
            for name in defined_by(statement):
                module.aliases |= module.definitions[name].add(statement)
                module.definitions[name].dump += ast.dump(statement) if with_dumps else ""
        return module


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def bound_by(node: ast.Import | ast.ImportFrom) -> dict[str, Node]:
    if isinstance(node, ast.ImportFrom):
        return {alias.asname or alias.name: (node.module, alias.name) for alias in node.names} if node.module else {}
    return {alias.asname: (alias.name, ALL) for alias in node.names if alias.asname}


def defined_by(statement: ast.stmt) -> list[str]:
    if isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    names = [node.id for target in targets if target for node in ast.walk(target) if isinstance(node, ast.Name)]
    return names or [REST]


def dotted(node: ast.expr) -> tuple[str, ...]:
    """("a", "b", "c") for a.b.c, nothing for what does not begin with a name."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return (node.id, *reversed(parts)) if isinstance(node, ast.Name) else ()


def parsed_files(files: Sequence[Path], root: Path, kept_in: Path) -> list[Module]:
    """Return these files' modules. What was parsed is kept in the file kept_in by the text of each file, since parsing
    all of them takes four seconds."""
    gc.disable()  # two million nodes of syntax, which the collector would look through again and again
    try:
        own = Path(__file__).read_bytes()
        sources = {file.relative_to(root).as_posix(): file.read_bytes() for file in files}
        keys = {path: hashlib.sha256(own + path.encode() + source).digest() for path, source in sources.items()}
        try:
            kept = pickle.loads(kept_in.read_bytes())
        except (OSError, pickle.PickleError, EOFError, AttributeError, ImportError):  # none yet, or another version's
            kept = {}
        modules = {key: kept.get(key) or Module.parse(path, sources[path].decode()) for path, key in keys.items()}
        if modules.keys() != kept.keys():
            kept_in.parent.mkdir(parents=True, exist_ok=True)
            replace(kept_in, pickle.dumps(modules), lasting=False)
    finally:
        gc.enable()
    return [*modules.values()]


class Project:
    """The modules of a checkout, and which definitions use which."""

    def __init__(self, root: Path, kept_in: Path):
        """kept_in: the file in which parsed modules are kept from one run to the next."""
        self.root = root
        inside = (
            file for place in PLACES for file in sorted((root / place).rglob("*.py")) if ".cache" not in file.parts
        )
        self.modules = {module.name: module for module in parsed_files([*inside, root / "launch.py"], root, kept_in)}

    @cached_property
    def users(self) -> dict[Node, set[Node]]:
        """For each node the nodes that use it."""
        users: dict[Node, set[Node]] = defaultdict(set)
        for module in self.modules.values():
            fixtures = self._fixtures_of(module)
            for name in module.definitions:
                node = (module.name, name)
                for used in self._used_by(module, name, fixtures):
                    if used != node:
                        users[used].add(node)
                if name != REST:
                    users[module.name, REST].add(node)
                users[node].add((module.name, ALL))
            if module.name.endswith("__main__"):  # importing a module of commands adds them
                for used in set(module.aliases.values()):
                    users[self._resolved(*used)].add((module.name, REST))
        return users

    @cached_property
    def holders(self) -> dict[str, set[Node]]:
        """For each text the definitions that hold it."""
        holders: dict[str, set[Node]] = defaultdict(set)
        for module in self.modules.values():
            for name, definition in module.definitions.items():
                for text in definition.texts:
                    holders[text].add((module.name, name))
        return holders

    def _fixtures_of(self, module: Module) -> dict[str, tuple[Node, bool]]:
        """Return the fixtures that a test of module may name, and whether each is autouse: its own, and those of the
        conftest.py of its folder and the folders above."""
        if not module.name.startswith("tests."):
            return {}
        parts = module.name.split(".")
        folders = [".".join([*parts[:count], "conftest"]) for count in range(1, len(parts))]
        found: dict[str, tuple[Node, bool]] = {}
        for name in [*folders, module.name]:
            if name in self.modules:
                made = {
                    each: definition.fixture
                    for each, definition in self.modules[name].definitions.items()
                    if definition.fixture
                }
                # What tests/conftest.py applies to every test is how tests run here, not what they test.
                found |= {
                    each: ((name, each), "autouse=True" in mark and name != folders[0]) for each, mark in made.items()
                }
        return found

    def _used_by(self, module: Module, name: str, fixtures: dict[str, tuple[Node, bool]]) -> Iterator[Node]:
        definition = module.definitions[name]
        is_test = name.startswith("test_")
        for each, (node, always) in fixtures.items():
            if each in definition.parameters or each in definition.texts or (always and is_test):
                yield node
        for names in definition.names:
            yield from self._named(module, names)
        for text in definition.texts:
            yield from self._started(text)

    def _named(self, module: Module, names: tuple[str, ...]) -> Iterator[Node]:
        if names[0] in module.definitions:
            yield module.name, names[0]
        elif names[0] in module.aliases:
            yield self._resolved(*module.aliases[names[0]], *names[1:])

    def _resolved(self, module: str, name: str, *rest: str) -> Node:
        """Return the definition that `module.name.rest` means: through submodules and names that a module has by import
        itself."""
        inside = module if name == ALL else f"{module}.{name}"
        if inside in self.modules:
            return self._resolved(inside, *rest) if rest else (inside, ALL)
        known = self.modules.get(module)
        if known and name not in known.definitions and known.aliases.get(name, (module, name)) != (module, name):
            return self._resolved(*known.aliases[name], *rest)
        return module, name

    def _started(self, text: str) -> Iterator[Node]:
        """Yield the module that a process is started with, where text is its name."""
        for name in (f"{text}.__main__", text):
            if name in self.modules and (name != text or "." in text):
                yield name, ALL
                return

    def distances(self, changed: Mapping[Node, int]) -> dict[Node, int]:
        """Return every node that changed reaches, with the number of modules between; within a module a step costs
        nothing. changed: node -> the distance at which it begins."""
        distance = dict(changed)
        waiting = deque(sorted(distance, key=distance.__getitem__))
        while waiting:
            node = waiting.popleft()
            for user in self.users.get(node, ()):
                length = distance[node] + (user[0] != node[0])
                if length < distance.get(user, length + 1):
                    distance[user] = length
                    waiting.append(user) if user[0] != node[0] else waiting.appendleft(user)
        return distance

    def tests(self, changed: Mapping[Node, int]) -> dict[str, int]:
        """Return each test of the gate that changed reaches, as pytest names it without parameters, with its
        distance."""
        return {
            f"{self.modules[module].path}::{name}": length
            for (module, name), length in self.distances(changed).items()
            if name.startswith("test_")
            and re.match(r"tests\.(.*\.)?test_", module)
            and not module.startswith(OTHER_LANES)
            and module in self.modules
            and name in self.modules[module].definitions  # a test that was deleted is a change, but cannot be run
        }


class Change:
    """The difference between a commit and the files as they are now."""

    def __init__(self, project: Project, base: str):
        self.project, self.base = project, base
        listed = self._git("diff", "--name-only", "-z", "--no-renames", base) + self._git(
            "ls-files", "-o", "-z", "--exclude-standard"
        )
        self.paths = sorted({path for path in listed.split("\0") if path})

    def _git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=self.project.root, capture_output=True, check=True, encoding="utf-8"
        ).stdout

    def _before(self, path: str) -> str:
        done = subprocess.run(["git", "show", f"{self.base}:{path}"], cwd=self.project.root, capture_output=True)
        return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""

    def _now(self, path: str) -> str:
        file = self.project.root / path
        return file.read_text("utf-8", "replace") if file.is_file() else ""

    def nodes(self) -> dict[Node, int]:
        """Return 0 for each definition that differs, 1 for those that name a data file or a sentence that does."""
        nodes: dict[Node, int] = {}
        for path in self.paths:
            distance = 0 if path.endswith(".py") else 1
            nodes |= {node: min(distance, nodes.get(node, 1)) for node in self.of(path)}
        return nodes

    def of(self, path: str) -> set[Node]:
        """Return the definitions of a file that differ; of a data file or a catalogue those that name it or a differing
        sentence."""
        before, now = self._before(path), self._now(path)
        if path.endswith(".py"):
            return changed_definitions(path, before, now)
        holders = self.project.holders
        if "/locales/" not in path:
            return {node for name in names_of_file(path) for node in holders.get(name, ())}
        # A key that is put together at run time, f"page.{name}", is found by its last part.
        keys = changed_keys(path, before, now)
        return {node for key in keys for node in holders.get(key) or holders.get(key.rpartition(".")[2], ())}


def changed_definitions(path: str, before: str, now: str) -> set[Node]:
    """Return the definitions that differ in syntax, so that a comment or a line break changes nothing; every one that
    uses a changed import too."""
    try:
        old, new = Module.parse(path, before, with_dumps=True), Module.parse(path, now, with_dumps=True)
    except SyntaxError:
        return {(module_name(path), ALL)}
    names = {*old.definitions, *new.definitions}
    rebound = {name for name in {*old.aliases, *new.aliases} if old.aliases.get(name) != new.aliases.get(name)}
    return {
        (new.name, name)
        for name in names
        if old.definitions[name].dump != new.definitions[name].dump
        or rebound & {first for first, *_ in new.definitions[name].names}
    }


def changed_keys(path: str, before: str, now: str) -> set[str]:
    """Return the keys of a catalogue whose sentence differs. A file is named like the first part of its keys, or has a
    section for each."""
    section = "" if Path(path).parent.name == "locales" else f"{Path(path).stem}."
    old, new = (flat(yaml.safe_load(text) or {}) for text in (before, now))
    return {section + key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}


def flat(tree: dict) -> dict[str, str]:
    sentences = {}
    for key, value in tree.items():
        sentences |= (
            {f"{key}.{inner}": text for inner, text in flat(value).items()}
            if isinstance(value, dict)
            else {str(key): str(value)}
        )
    return sentences


def names_of_file(path: str) -> set[str]:
    """Return what code may call a data file: the end of its path, its name with or without its kind (a page of the
    docs: with), or the folder that is read whole."""
    parts = Path(path).parts
    stem = set() if path.endswith(".md") else {Path(path).stem}
    return {"/".join(parts[start:]) for start in range(len(parts))} | stem | {parts[-2] if len(parts) > 1 else path}
