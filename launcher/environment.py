"""The folder .venv: where its interpreter is, its requirements, whether it is complete."""

import json
import os
import re
from collections import namedtuple

from launcher import WINDOWS

MARKER = ".lora-garage.json"

MARKER_VERSION = 1

Needs = namedtuple("Needs", "requirements test_requirements digest test_digest")


def read_needs(pyproject, constraints):
    """Return the requirements of pyproject.toml, and a digest of them together with the tested versions."""
    import hashlib
    import tomllib

    project = tomllib.loads(pyproject)["project"]
    extra = project.get("optional-dependencies", {}).get("test", [])

    def digest(requirements):
        value = json.dumps([MARKER_VERSION, sorted(requirements), constraints])
        return hashlib.sha256(value.encode()).hexdigest()[:16]

    return Needs(project["dependencies"], extra, digest(project["dependencies"]), digest(extra))


def name_of(requirement):
    return re.match(r"[\w.-]+", requirement).group()


def why_not_ready(marker, needs, base, nvidia, with_tests=False):
    """Return None if the environment may be used as it is, else the key of the reason.

    marker: written by the last complete install, None without one. base: real path of the environment's interpreter,
    None if it is gone. nvidia: whether a driver is there now.
    """
    if base is None:
        return "absent" if marker is None else "python_moved"
    if not isinstance(marker, dict) or marker.get("version") != MARKER_VERSION:
        return "unfinished"
    if marker.get("base") != base:
        return "python_moved"
    if marker.get("needs") != needs.digest:
        return "changed"
    if nvidia and not marker.get("nvidia"):
        return "new_card"
    if with_tests and marker.get("test") != needs.test_digest:
        return "tests_missing"
    return None


class Environment:
    """The folder .venv: where its interpreter is, whether it is complete."""

    def __init__(self, root):
        self.root = root
        self.folder = os.path.join(root, ".venv")
        self.python = os.path.join(self.folder, "Scripts" if WINDOWS else "bin", "python.exe" if WINDOWS else "python")
        self.marker_path = os.path.join(self.folder, MARKER)
        self.log = os.path.join(self.folder, "install.log")
        self.constraints = os.path.join(root, "constraints.txt")

    def needs(self):
        with open(os.path.join(self.root, "pyproject.toml"), encoding="utf-8") as file:
            pyproject = file.read()
        with open(self.constraints, encoding="utf-8") as file:
            return read_needs(pyproject, file.read())

    def version(self):
        """Return the program's version; core.__version__ is the same, but core is not imported here."""
        import tomllib

        with open(os.path.join(self.root, "pyproject.toml"), encoding="utf-8") as file:
            return tomllib.loads(file.read())["project"]["version"]

    def base(self):
        """Return the interpreter behind .venv (Windows copies it, so there its home folder), None if either is gone."""
        if not os.path.exists(self.python):  # follows the link: False too where the Python beneath was removed
            return None
        if not WINDOWS:
            return os.path.realpath(self.python)
        try:
            with open(os.path.join(self.folder, "pyvenv.cfg"), encoding="utf-8") as file:
                home = [line.split("=", 1)[1].strip() for line in file if line.split("=")[0].strip() == "home"]
        except OSError:
            return None
        return home[0] if home and os.path.exists(os.path.join(home[0], "python.exe")) else None

    def marker(self):
        """Return what the last complete install wrote; None if it is missing or no JSON."""
        try:
            with open(self.marker_path, encoding="utf-8") as file:
                return json.load(file)
        except (OSError, ValueError):
            return None

    def write_marker(self, value):
        aside = self.marker_path + ".part"
        with open(aside, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
        os.replace(aside, self.marker_path)

    def drop_marker(self):
        if os.path.exists(self.marker_path):
            os.remove(self.marker_path)
