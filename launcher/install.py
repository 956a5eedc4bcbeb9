"""Completes .venv, with one line of output per step."""

import json
import os
import sys
import time
from contextlib import contextmanager

from launcher import NEWEST_TESTED, WINDOWS
from launcher.environment import MARKER_VERSION, name_of, why_not_ready
from launcher.machine import has_nvidia_driver, machine_facts
from launcher.running import CHECK_S, LoggedRun, ask
from launcher.sentences import say, say_text
from launcher.tools import BASE_PYTHON, Pip, Uv, is_uv
from launcher.torch_build import (
    BY_THE_PROCESSOR,
    CPU_BY_YOU,
    build_name,
    choose_torch,
    installed_torch_tag,
    must_remove,
    parse_version,
    torch_beside_card,
)


class CannotInstall(Exception):
    """Carries the key and values of the sentence that says what to do. fix: the key of a second one, if the first does
    not."""

    def __init__(self, key, fix=None, **values):
        super().__init__(key)
        self.key, self.fix, self.values = key, fix, values


class UvFailed(Exception):
    """Carries uv's last line; pip is tried next."""


# Runs in .venv: packages whose files are missing or cut short, by the sizes in their own RECORD; then torch.
# Only code is checked: gradio rewrites its .pyi files at each start.
CHECK_PROGRAM = r"""
import importlib.metadata as m, json, os, sys
code, broken = (".py", ".so", ".pyd", ".dll", ".dylib"), []
for d in m.distributions():
    files = d.files
    if files is None or d.version is None:
        broken.append(None); continue
    for f in files:
        if f.size and f.suffix in code:
            try: good = os.path.getsize(f.locate()) == f.size
            except OSError: good = False
            if not good: broken.append(d.metadata["Name"] + "==" + d.version); break
torch = {}
if not broken:
    try:
        import torch
        torch = {"version": torch.__version__, "cuda": torch.version.cuda, "hip": getattr(torch.version, "hip", None)}
    except Exception as e:
        torch = {"error": (str(e) or type(e).__name__)[:300]}
print(json.dumps({"broken": [b for b in broken if b], "torch": torch}))
"""


class Installer:
    """Completes an Environment, in steps of one line each.

    run(command, label) -> exit status, its output appended to the log; ask(command, limit_s) -> Answer. Both are
    parameters, so that a test can replace pip and uv. facts.uv: path of uv; without it, or if it fails, pip does all.
    """

    def __init__(self, environment, run, ask, say, facts):
        self.env, self.run, self.ask, self.say, self.facts = environment, run, ask, say, facts
        self.by_pip = Pip(environment.python)
        self.tool = Uv(facts.uv, environment.python) if facts.uv else self.by_pip

    def install(self, reason, needs, with_tests):
        """Install what is missing. Raises CannotInstall; writes the marker only when everything is there."""
        start = time.monotonic()
        marker = self.env.marker() or {}
        with_tests = with_tests or bool(marker.get("test"))
        works = self.still_works()
        if not works and self.tool is self.by_pip:
            self.need_venv()
        only_tests = reason == "tests_missing" and works
        stays_cpu = reason != "repair" and bool(marker.get("cpu"))
        choice = None if only_tests else self.choose(reason, needs, stays_cpu)
        if only_tests:
            self.say("because_tests_missing", folder=self.env.folder)
        self.env.drop_marker()
        if self.tool is self.by_pip:
            self.say("without_uv")
        try:
            choice = self.fetch(choice, needs, with_tests, works)
            torch = self.check(choice)
        except UvFailed as problem:
            self.say("uv_failed", reason=problem)
            self.tool = self.by_pip
            if not self.still_works():
                self.need_venv()
            choice = self.fetch(choice, needs, with_tests, self.still_works())
            torch = self.check(choice)
        key = torch_beside_card(torch.get("cuda"), torch.get("hip"), self.facts.driver)
        self.say(
            key, torch=torch.get("version"), cuda=torch.get("cuda"), hip=torch.get("hip"), driver=self.facts.driver
        )
        self.env.write_marker(
            {
                "version": MARKER_VERSION,
                "needs": needs.digest,
                "test": needs.test_digest if with_tests else None,
                "python": "%d.%d.%d" % sys.version_info[:3],
                "base": self.env.base(),
                "build": choice.build if choice else marker.get("build"),
                "torch": torch.get("version"),
                "nvidia": self.facts.nvidia,
                "cpu": choice.reason[0] == CPU_BY_YOU if choice else marker.get("cpu"),
            }
        )
        self.say("ready", seconds="%.0f" % (time.monotonic() - start))

    def fetch(self, choice, needs, with_tests, works):
        """Create the environment and install all packages; return the final choice.

        choice: None if only the tests' packages are missing.
        """
        if choice:
            if not works:
                self.make_environment()
            self.sweep_half_installed()
            if self.tool is self.by_pip or (choice.cuda and choice.index_url):
                # From 25.2 on pip resumes an interrupted download; older versions restart one of 3 GB each time.
                if self.run(self.tool.install(["pip>=25.2"]), say_text("step_pip")) == 0:
                    self.by_pip.bar = "raw"  # unknown to older versions; LoggedRun parses its lines
            choice = self.install_torch(choice, needs)
            label = say_text("step_packages", count=len(set(map(name_of, needs.requirements))))
            self.do(label, self.tool.install(needs.requirements, constraints=self.env.constraints))
        if with_tests:
            self.do(
                say_text("step_tests"), self.tool.install(needs.test_requirements, constraints=self.env.constraints)
            )
        return choice

    def choose(self, reason, needs, stays_cpu):
        """Return the build of torch for this PC after saying why; it has an index that answers. Raises CannotInstall
        for no build, an unreachable index that a GPU needs, an obstacle, or a full disk."""
        facts = self.facts
        environ = dict({"LORA_GARAGE_TORCH_INDEX": "cpu"}, **facts.environ) if stays_cpu else facts.environ
        choice = choose_torch(facts.system, facts.machine, facts.driver, facts.amd, environ, facts.cards)
        self.say("because_" + reason, folder=self.env.folder)
        if choice.build == "none":
            raise CannotInstall(choice.reason[0], **choice.reason[1])
        self.say(choice.reason[0], **choice.reason[1])
        if choice.left_out:
            self.say("card_left_out", cards=", ".join(choice.left_out))
        # a build that is installed already is not fetched from torch's index
        has_it = choice.cuda and choice.build == installed_torch_tag(self.env.folder)
        problem = facts.index_problem(choice.index_url) if choice.index_url and not has_it else None
        if problem and choice.cuda:
            raise CannotInstall("card_index_unreachable", index=choice.index_url, reason=problem)
        if problem:
            choice = self.from_pypi(choice, say_text("index_unreachable", index=choice.index_url, reason=problem))
        for obstacle in facts.obstacles(self.env.root):  # before gigabytes arrive
            raise CannotInstall(obstacle.key, obstacle.fix, **obstacle.values)
        if reason == "absent":
            self.say("will_do", packages=len(set(map(name_of, needs.requirements))), megabytes=choice.megabytes + 220)
            self.need_disk(choice)
        return choice

    def from_pypi(self, choice, why):
        """Print why, and return the choice with PyPI's build instead."""
        self.say("fall_back", reason=why)
        # On Linux PyPI's torch is the CUDA build whatever the card, unless pip is told of another place.
        megabytes = 3000 if self.facts.system == "Linux" else 120
        return choice._replace(index_url=None, build="pypi", megabytes=megabytes)

    def need_disk(self, choice):
        """Raise CannotInstall if a drive surely has too little space for the downloads; say so if it may have."""
        import shutil
        import tempfile

        needed_gb = (2.5 if choice.megabytes < 1000 else 9.0) + choice.megabytes / 1000
        places = [(self.env.root, needed_gb)]
        temporary = tempfile.gettempdir()  # where pip puts what it downloads, often on another drive
        if os.stat(temporary).st_dev != os.stat(self.env.root).st_dev:
            places.append((temporary, choice.megabytes / 1000 + 0.3))
        for folder, gb in places:
            free_gb = shutil.disk_usage(folder).free / 1e9
            # PyPI's torch may be small (a local wheel): stop only if the space is surely too little.
            if free_gb < min(gb, 3.0 if folder == self.env.root or choice.index_url else 0.3):
                raise CannotInstall("disk_full", free="%.1f" % free_gb, needed="%.0f" % gb, folder=folder)
            if free_gb < gb:
                self.say("disk_tight", free="%.1f" % free_gb, needed="%.0f" % gb, folder=folder)

    def still_works(self):
        """Return whether .venv's interpreter starts and has pip (if by ensurepip), which uv does not need.

        It no longer does once the Python beneath is of another version.
        """
        checks = (
            [["-c", "import encodings"]]
            if self.tool is not self.by_pip
            else [["-c", "import pip"], ["-m", "ensurepip"]]
        )
        return os.path.exists(self.env.python) and any(
            self.ask([self.env.python, *what]).out is not None for what in checks
        )

    def need_venv(self):
        """Raise CannotInstall if Python lacks venv or ensurepip."""
        import importlib.util

        if not all(getattr(importlib.util.find_spec(name), "origin", None) for name in ("ensurepip", "venv")):
            raise CannotInstall("no_venv", command=apt_line(self.facts.root_user))

    def make_environment(self):
        """Make the virtual environment anew. Raises CannotInstall, or UvFailed if uv cannot make it."""
        import shutil

        if os.path.isdir(self.env.folder):
            self.say("removing_old", folder=self.env.folder)
            shutil.rmtree(self.env.folder, ignore_errors=True)
        try:
            os.makedirs(self.env.folder, exist_ok=True)
        except OSError as error:
            raise CannotInstall("cannot_write", folder=self.env.root, reason=error.strerror or error) from None
        if self.run(self.tool.make(self.env.folder), say_text("step_venv")):
            if self.tool is not self.by_pip:
                raise UvFailed(last_line(read_from(self.env.log, 0)))
            raise CannotInstall("venv_failed", log=self.env.log)

    def sweep_half_installed(self):
        """Remove what a killed pip leaves: ~folders of an unfinished uninstall, .dist-info without the RECORD written
        last."""
        import glob
        import shutil

        for pattern in ("Lib/site-packages", "lib/python*/site-packages"):
            for folder in glob.glob(os.path.join(self.env.folder, pattern)):
                for name in os.listdir(folder):
                    path = os.path.join(folder, name)
                    recordless = name.endswith(".dist-info") and not os.path.exists(os.path.join(path, "RECORD"))
                    if name.startswith("~") or recordless:
                        shutil.rmtree(path, ignore_errors=True)

    def install_torch(self, choice, needs):
        """Install torch from the chosen index, or PyPI's where that fails and no GPU needs it; return the choice that
        was installed. Raises CannotInstall."""
        needed = [need for need in needs.requirements if name_of(need) == "torch"]
        tag = installed_torch_tag(self.env.folder)
        if must_remove(tag, choice):
            self.do(say_text("step_remove_torch", tag=tag or "PyPI"), self.tool.remove("torch"))
        label = say_text("step_torch", build=say_text(build_name(choice.build)), megabytes=choice.megabytes)
        if choice.index_url:
            tool = self.by_pip if choice.cuda else self.tool
            if tool is not self.tool:
                self.say("torch_by_pip")
            try:
                self.do(label, tool.install(needed, index=choice.index_url), tool.tries)
                return choice
            except CannotInstall as problem:
                if problem.key != "pip_failed":
                    raise
                if choice.cuda:  # PyPI's may not be able to use the card
                    raise CannotInstall("card_torch_failed", index=choice.index_url, log=self.env.log) from None
            choice = self.from_pypi(choice, say_text("index_failed", index=choice.index_url, log=self.env.log))
        beside = (
            self.cpu_builds(needed) if self.facts.system == "Linux" and choice.reason[0] in BY_THE_PROCESSOR else []
        )
        if beside:  # a tenth of what PyPI has for Linux, which brings CUDA along
            choice, needed = choice._replace(build="cpu", megabytes=200), [*needed, "torch==" + beside[0]]
        label = say_text("step_torch", build=say_text(build_name(choice.build)), megabytes=choice.megabytes)
        self.do(label, self.tool.install(needed))
        return choice

    def cpu_builds(self, needed):
        """Return the versions of torch that pip finds marked +cpu, newest first: in PIP_FIND_LINKS, or in a custom
        index."""
        import re

        pip = self.by_pip if self.tool is self.by_pip else Pip(BASE_PYTHON)  # uv lists none
        listed = self.ask(pip.command("index", "versions", "torch")).out or ""
        least = parse_version(needed[0].partition(">=")[2])
        return [
            version
            for version in re.findall(r"[\d.]+\+cpu\b", listed)
            if parse_version(version.partition("+")[0]) >= least
        ]

    def check(self, choice):
        """Return torch's version and CUDA, after reinstalling packages whose files differ from their RECORD. Raises
        CannotInstall if they still do, or if torch cannot be imported."""
        for attempt in (1, 2):
            self.say("step_check")
            answer = self.ask([self.env.python, "-c", CHECK_PROGRAM], CHECK_S)
            if answer.why:
                self.keep(answer)
            result = json.loads(answer.out) if answer.out else {"broken": [], "torch": {"error": answer.why}}
            if not result["broken"]:
                break
            if attempt == 1:
                self.reinstall(result["broken"], choice)
        else:
            raise CannotInstall("broken_packages", packages=", ".join(result["broken"]), folder=self.env.folder)
        if "error" in result["torch"]:
            raise CannotInstall("torch_does_not_load", reason=result["torch"]["error"], log=self.env.log)
        return result["torch"]

    def reinstall(self, packages, choice):
        """Install packages again. choice: where torch comes from, None for pip's own index."""
        label = say_text("step_repair", packages=", ".join(packages))
        of_torch = [package for package in packages if choice and choice.index_url and package.startswith("torch==")]
        for some, index in (
            (of_torch, choice and choice.index_url),
            ([one for one in packages if one not in of_torch], None),
        ):
            if some:
                self.do(label, self.tool.install(some, index=index, anew=True))

    def keep(self, answer):
        """Append all output of a failed check to the log."""
        os.makedirs(os.path.dirname(self.env.log), exist_ok=True)
        with open(self.env.log, "a", encoding="utf-8", newline="\n") as log:
            log.write("\n%s\n%s\n" % (answer.why, answer.stderr))

    def do(self, label, command, tries=None):
        """Run a command, repeated as often as its tool tries, unless its output names a cause that repeating does not
        cure.

        Raises CannotInstall, for uv UvFailed.
        """
        line, tries = label, tries or self.tool.tries
        for attempt in range(1, tries + 1):
            begun = size_of(self.env.log)
            if self.run(command, line) == 0:
                return
            words = read_from(self.env.log, begun)
            cause = cause_of(words)
            if cause:
                raise CannotInstall(cause, step=label, folder=self.env.root, log=self.env.log)
            line = say_text("step_again", step=label, attempt=attempt + 1, tries=tries)
        if is_uv(command):
            raise UvFailed(last_line(words))
        raise CannotInstall("pip_failed", step=label, log=self.env.log)


# errors that print the last lines of the log
WITH_LOG = ("venv_failed", "pip_failed", "pip_disk_full", "pip_path_too_long", "card_torch_failed")

# Signs of each cause in the output of pip, Python and Windows (localized, but with its number).
CAUSES = (
    ("pip_path_too_long", ("Windows Long Path support", "[WinError 206]")),
    ("pip_disk_full", ("[Errno 28]", "[WinError 112]", "No space left on device")),
)


def cause_of(output):
    """Return the key of the reason why pip failed, None if its output names no known one."""
    return next((key for key, words in CAUSES if any(word in output for word in words)), None)


def last_line(output):
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "?")[:300]


def size_of(file):
    return os.path.getsize(file) if os.path.exists(file) else 0


def read_from(file, begin):
    if not os.path.exists(file):
        return ""
    with open(file, "rb") as opened:
        opened.seek(begin)
        return opened.read().decode("utf-8", "replace")


def apt_line(root_user):
    package = "python%d.%d-venv" % sys.version_info[:2]
    return ("apt install " if root_user else "sudo apt install ") + package


@contextmanager
def one_installer(root):
    """Let a second start wait until the first has installed. The system frees the lock if that one dies. Raises
    CannotInstall if root cannot be written."""
    try:
        file = open(os.path.join(root, ".install.lock"), "a+")  # noqa: SIM115 - closed below
    except OSError as error:
        raise CannotInstall("cannot_write", folder=root, reason=error.strerror or error) from None
    with file:
        if not try_lock(file):
            say("waiting_for_other")
            while not try_lock(file):
                time.sleep(0.5)
        yield


def try_lock(file):
    """Lock an open file without waiting; return whether this process has it now."""
    try:
        if WINDOWS:
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False


def ensure_environment(environment, with_tests=False, repair=False):
    """Complete .venv if needed. Returns False if that failed, after printing the reason; but True if only the torch of
    a new GPU could not be downloaded."""
    needs = environment.needs()

    why = None

    def reason():
        return why_not_ready(environment.marker(), needs, environment.base(), has_nvidia_driver(), with_tests)

    if not repair and reason() is None:
        return True
    if sys.version_info[:2] > NEWEST_TESTED:
        say("python_untested", found="%d.%d" % sys.version_info[:2])
    try:
        with one_installer(environment.root):
            why = reason()
            if repair and why not in ("absent", "python_moved"):
                why = "repair"
            if why:
                Installer(environment, LoggedRun(environment.log), ask, say, machine_facts()).install(
                    why, needs, with_tests
                )
        return True
    except CannotInstall as problem:
        for key in filter(None, (problem.key, problem.fix)):
            say(key, to=sys.stderr, **problem.values)
        if problem.key in WITH_LOG:
            print_tail(environment.log)
        # A new GPU whose torch cannot be downloaded now: nothing was changed, and all works as before.
        return why == "new_card" and reason() == why
    except KeyboardInterrupt:
        say("interrupted", to=sys.stderr)
    return False


def print_tail(log, lines=15):
    """Print the last lines of a log to stderr, without pip's progress; nothing if it cannot be read."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            output = [line for line in file if not line.startswith("Progress ")]
        print("".join("    " + line for line in output[-lines:]), file=sys.stderr)
    except OSError:
        pass
