"""`python launch.py update`: installs a newer release. Nothing is checked or sent unless somebody asks, or has switched
it on.

FROM is the address of a release's description, as tools/release.py writes it: {"version", "file", "bytes", "sha256"};
the archive lies beside it. What the archive has takes the place of what is here; runs, settings, models and .venv are
not in it. The former version is kept in `.update.old`:
an update that breaks off is undone by itself, at the latest by the next start, and one that disappoints by `update
--undo`.
"""

import json
import os
import sys

from launcher import INSTALLED, WINDOWS
from launcher.install import CannotInstall, one_installer, try_lock
from launcher.sentences import say
from launcher.torch_build import parse_version

CHOICE, OLD, PART, DONE = ".updates.json", ".update.old", ".update.part", ".done"
TOP = "LoRA Garage/"
MOST_BYTES = 50_000_000  # a release has 2 MB
WAIT_S = 20.0
KEPT = ("workspace", ".venv", ".uv", CHOICE)
# cmd reads its script on while it runs, line by line: that one stays as it is.
NOT_ON_WINDOWS = "Start LoRA Garage.bat"


class CannotUpdate(Exception):
    def __init__(self, key, **values):
        super().__init__(key)
        self.key, self.values = key, values


def update(environment, arguments):
    """Exit status. arguments: [--check] [--undo] [--at-start on|off] [--from URL]"""
    words, wanted = list(arguments), {}
    for name in ("--from", "--at-start"):
        if name in words[:-1]:
            place = words.index(name)
            wanted[name] = words[place + 1]
            del words[place : place + 2]
    wrong = [word for word in words if word not in ("--check", "--undo")]
    if wrong or wanted.get("--at-start", "on") not in ("on", "off"):
        say("update_unknown", to=sys.stderr, found=(wrong or [wanted["--at-start"]])[0])
        return 2
    try:
        return run(environment, words, wanted)
    except (CannotUpdate, CannotInstall) as problem:
        say(problem.key, to=sys.stderr, **problem.values)
        return 1


def run(environment, words, wanted):
    if INSTALLED:
        raise CannotUpdate("update_by_its_tool", python=sys.executable)
    if os.path.exists(os.path.join(environment.root, ".git")):
        raise CannotUpdate("update_by_git")
    if "--undo" in words:
        if not os.path.exists(os.path.join(environment.root, OLD, DONE)):
            raise CannotUpdate("update_nothing_to_undo")
        require_idle(environment.root)
        put_back(environment.root)
        say("update_undone", version=environment.version())
        return 0
    choice = choose(environment.root, wanted)
    if wanted.get("--at-start") == "off":
        return 0
    found = newer(environment.version(), choice["from"])
    if found is None:
        say("update_newest", version=environment.version())
    elif "--check" in words or "--at-start" in wanted:
        say("update_there", version=found["version"], mine=environment.version())
    else:
        with one_installer(environment.root):  # no other start is at it, or takes it for one that was killed
            require_idle(environment.root)
            replace(environment, found, choice["from"])
        say("update_done", version=found["version"])
    return 0


def choose(root, wanted):
    """What was chosen before and now: from, at_start. Raises CannotUpdate where nobody ever said from where."""
    file = os.path.join(root, CHOICE)
    choice = chosen(root)
    if "--from" in wanted:
        choice["from"] = wanted["--from"]
    if "--at-start" in wanted:
        choice["at_start"] = wanted["--at-start"] == "on"
    if not str(choice.get("from", "")).startswith(("https://", "http://127.0.0.1:", "http://localhost:")):
        raise CannotUpdate("update_from_where", found=choice.get("from", "-"))
    with open(file + ".part", "w", encoding="utf-8") as opened:
        json.dump(choice, opened)
    os.replace(file + ".part", file)
    return choice


def chosen(root):
    try:
        with open(os.path.join(root, CHOICE), encoding="utf-8") as file:
            said = json.load(file)
        return said if isinstance(said, dict) else {}
    except (OSError, ValueError):
        return {}


def look_at_start(environment):
    """Where it was switched on: a line if a newer version is there. Never in the way of the start."""
    choice = chosen(environment.root)
    if choice.get("at_start") is True and choice.get("from"):
        try:
            found = newer(environment.version(), choice["from"], 3.0)
        except CannotUpdate:
            return
        if found:
            say("update_there", version=found["version"], mine=environment.version())


def newer(mine, address, wait_s=WAIT_S):
    """The description of the release at address if it is newer, else None. Raises CannotUpdate."""
    said = fetch(address, 100_000, wait_s)
    try:
        found = json.loads(said)
        version, name, sha256 = str(found["version"]), str(found["file"]), str(found["sha256"])
    except (ValueError, TypeError, KeyError):
        raise CannotUpdate("update_no_release", url=address) from None
    if not parse_version(version) or "/" in name or "\\" in name or len(sha256) != 64:
        raise CannotUpdate("update_no_release", url=address)
    return found if order(version) > order(mine) else None


def order(version):
    """0.2.0.dev0 comes before 0.2.0."""
    return parse_version(version), ".dev" not in version


def fetch(url, most, wait_s=WAIT_S):
    """Its bytes, at most `most`. Raises CannotUpdate."""
    import http.client
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=wait_s) as answer:
            said = answer.read(most + 1)
            missing = answer.length or 0  # http.client counts down
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise CannotUpdate("update_unreachable", url=url, reason=getattr(error, "reason", None) or error) from None
    if len(said) > most or missing:
        raise CannotUpdate("update_cut", url=url)
    return said


def require_idle(root):
    """Raises CannotUpdate while an app or a run of the workspace is at work."""
    workspace = os.environ.get("LORA_GARAGE_HOME") or os.path.join(root, "workspace")
    for name in ("app.lock", "gpu.lock"):
        try:
            with open(os.path.join(workspace, name), "r+") as file:
                if not try_lock(file):
                    raise CannotUpdate("update_busy")
        except FileNotFoundError:
            continue


def replace(environment, found, address):
    """Fetch, compare, unpack, put in place, try; what was here comes back where any of it fails."""
    import hashlib
    import shutil

    url = address.rpartition("/")[0] + "/" + found["file"]
    said = fetch(url, MOST_BYTES)
    sha256 = hashlib.sha256(said).hexdigest()
    if sha256 != found["sha256"].lower():
        raise CannotUpdate("update_wrong_hash", url=url, found=sha256, expected=found["sha256"])
    part = os.path.join(environment.root, PART)
    shutil.rmtree(part, ignore_errors=True)
    try:
        unpack(said, part, url)
        swap(environment.root, part)
        works(environment.root, found["version"])
    except (OSError, CannotUpdate) as error:
        if not os.path.exists(os.path.join(environment.root, OLD, DONE)):
            # else nothing was begun: that is of the update before
            put_back(environment.root)
        if isinstance(error, CannotUpdate):
            raise
        raise CannotUpdate("update_failed", reason=error.strerror or error) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    open(os.path.join(environment.root, OLD, DONE), "w").close()


def unpack(said, folder, url):
    """The archive's files below folder, with their modes. Raises CannotUpdate for one that is no release."""
    import io
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(said)) as archive:
            names = archive.namelist()
            inner = [name.removeprefix(TOP) for name in names]
            tops = {name.split("/")[0] for name in inner}
            foreign = [name for name in names if not name.startswith(TOP) or "\\" in name or ".." in name.split("/")]
            if foreign or tops & set(KEPT) or not {"launch.py", "launcher", "core", "webui", "pyproject.toml"} <= tops:
                raise CannotUpdate("update_no_release", url=url)
            for info, name in zip(archive.infolist(), inner, strict=True):
                target = os.path.join(folder, *name.split("/"))
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with open(target, "wb") as file:
                    file.write(archive.read(info))
                if info.external_attr >> 16 & 0o100:
                    os.chmod(target, 0o755)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, ValueError):
        raise CannotUpdate("update_no_release", url=url) from None


def swap(root, part):
    """launcher and launch.py last: what puts back an update that was killed is in them."""
    old = os.path.join(root, OLD)
    remove(old)
    os.makedirs(old)
    names = sorted(os.listdir(part), key=lambda name: (name == "launcher", name == "launch.py"))
    for name in names:
        if WINDOWS and name == NOT_ON_WINDOWS:
            continue
        if os.path.lexists(os.path.join(root, name)):
            os.rename(os.path.join(root, name), os.path.join(old, name))
        os.rename(os.path.join(part, name), os.path.join(root, name))


def works(root, version):
    """Raises CannotUpdate unless what is there now starts and says that it is this version."""
    import subprocess

    done = subprocess.run(
        [sys.executable, os.path.join(root, "launch.py"), "--version"], capture_output=True, text=True
    )
    if done.returncode or done.stdout.split()[-1:] != [version]:
        raise CannotUpdate("update_failed", reason=(done.stderr or done.stdout).strip()[-300:] or "-")


def put_back(root):
    """The former version, from .update.old; what came in its place goes."""
    old = os.path.join(root, OLD)
    if not os.path.isdir(old):
        return
    if os.path.exists(os.path.join(old, DONE)):
        os.remove(os.path.join(old, DONE))  # from here on mend ends what is begun
    for name in os.listdir(old):
        here = os.path.join(root, name)
        if os.path.isdir(here):
            remove(here)
        os.replace(os.path.join(old, name), here)
    remove(old)


def remove(folder):
    """From its place at once, or not at all."""
    import shutil

    if os.path.isdir(folder):
        shutil.rmtree(folder + ".removed", ignore_errors=True)
        os.rename(folder, folder + ".removed")
        shutil.rmtree(folder + ".removed", ignore_errors=True)


def mend(root):
    """Undo an update that was killed half-way, which no other process is at; whether there was one. At every start,
    which costs a look."""
    old = os.path.join(root, OLD)
    if not os.path.isdir(old) or os.path.exists(os.path.join(old, DONE)):
        return False
    with open(os.path.join(root, ".install.lock"), "a+") as file:
        if not try_lock(file):
            return False
        put_back(root)
    say("update_mended", to=sys.stderr)
    return True
