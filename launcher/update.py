"""`python launch.py update`: installs a newer release. Nothing is checked or sent unless requested or switched on.

FROM is the address of a release's description, as tools/release.py writes it: {"version", "file", "bytes", "sha256"};
the archive lies beside it. The archive's files replace those here; runs, settings, models and .venv are not in it. The
former version is kept in `.update.old`: an interrupted update is undone by itself, at the latest by the next start, and
a bad one by `update --undo`.
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
MAX_BYTES = 50_000_000  # a release has 2 MB
WAIT_S = 20.0
KEPT = ("workspace", ".venv", ".uv", CHOICE)
# cmd reads its script line by line while it runs, so that file is not replaced.
NOT_ON_WINDOWS = "Start LoRA Garage.bat"


class CannotUpdate(Exception):
    def __init__(self, key, **values):
        super().__init__(key)
        self.key, self.values = key, values


def update(environment, arguments):
    """Run the command and return the exit status. arguments: [--check] [--undo] [--at-start on|off] [--from URL]"""
    words, options = list(arguments), {}
    for name in ("--from", "--at-start"):
        if name in words[:-1]:
            place = words.index(name)
            options[name] = words[place + 1]
            del words[place : place + 2]
    wrong = [word for word in words if word not in ("--check", "--undo")]
    if wrong or options.get("--at-start", "on") not in ("on", "off"):
        say("update_unknown", to=sys.stderr, found=(wrong or [options["--at-start"]])[0])
        return 2
    try:
        return run(environment, words, options)
    except (CannotUpdate, CannotInstall) as problem:
        say(problem.key, to=sys.stderr, **problem.values)
        return 1


def run(environment, words, options):
    """Carry out the command `update`; return the exit status. Raises CannotUpdate."""
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
    choice = choose(environment.root, options)
    if options.get("--at-start") == "off":
        return 0
    release = newer(environment.version(), choice["from"])
    if release is None:
        say("update_newest", version=environment.version())
    elif "--check" in words or "--at-start" in options:
        say("update_there", version=release["version"], mine=environment.version())
    else:
        with one_installer(environment.root):  # so that no other start interferes, or mistakes it for a killed update
            require_idle(environment.root)
            replace(environment, release, choice["from"])
        say("update_done", version=release["version"])
    return 0


def choose(root, options):
    """Store and return the settings of updates: from, at_start. Raises CannotUpdate without an https address (or one of
    this PC) from options or earlier."""
    file = os.path.join(root, CHOICE)
    choice = chosen(root)
    if "--from" in options:
        choice["from"] = options["--from"]
    if "--at-start" in options:
        choice["at_start"] = options["--at-start"] == "on"
    if not str(choice.get("from", "")).startswith(("https://", "http://127.0.0.1:", "http://localhost:")):
        raise CannotUpdate("update_from_where", found=choice.get("from", "-"))
    with open(file + ".part", "w", encoding="utf-8") as opened:
        json.dump(choice, opened)
    os.replace(file + ".part", file)
    return choice


def chosen(root):
    """Return the choices about updates that were made here; {} without any, or for a damaged file."""
    try:
        with open(os.path.join(root, CHOICE), encoding="utf-8") as file:
            choice = json.load(file)
        return choice if isinstance(choice, dict) else {}
    except (OSError, ValueError):
        return {}


def look_at_start(environment):
    """Print a line if a newer version exists and checking was switched on. Never delays or prevents the start."""
    choice = chosen(environment.root)
    if choice.get("at_start") is True and choice.get("from"):
        try:
            release = newer(environment.version(), choice["from"], 3.0)
        except CannotUpdate:
            return
        if release:
            say("update_there", version=release["version"], mine=environment.version())


def newer(mine, address, wait_s=WAIT_S):
    """Return the description of the release at address if it is newer, else None. Raises CannotUpdate."""
    content = fetch(address, 100_000, wait_s)
    try:
        release = json.loads(content)
        version, name, sha256 = str(release["version"]), str(release["file"]), str(release["sha256"])
    except (ValueError, TypeError, KeyError):
        raise CannotUpdate("update_no_release", url=address) from None
    if not parse_version(version) or "/" in name or "\\" in name or len(sha256) != 64:
        raise CannotUpdate("update_no_release", url=address)
    return release if order(version) > order(mine) else None


def order(version):
    """Return a sort key, in which 0.2.0.dev0 comes before 0.2.0."""
    return parse_version(version), ".dev" not in version


def fetch(url, most, wait_s=WAIT_S):
    """Return the content of url. Raises CannotUpdate if it has more than `most` bytes, or is cut or unreachable."""
    import http.client
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=wait_s) as answer:
            content = answer.read(most + 1)
            missing = answer.length or 0  # http.client counts down
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise CannotUpdate("update_unreachable", url=url, reason=getattr(error, "reason", None) or error) from None
    if len(content) > most or missing:
        raise CannotUpdate("update_cut", url=url)
    return content


def require_idle(root):
    """Raise CannotUpdate while an app or a run of the workspace is at work."""
    workspace = os.environ.get("LORA_GARAGE_HOME") or os.path.join(root, "workspace")
    for name in ("app.lock", "gpu.lock"):
        try:
            with open(os.path.join(workspace, name), "r+") as file:
                if not try_lock(file):
                    raise CannotUpdate("update_busy")
        except FileNotFoundError:
            continue


def replace(environment, release, address):
    """Download, compare, unpack, install and try a release; on any error the former version returns."""
    import hashlib
    import shutil

    url = address.rpartition("/")[0] + "/" + release["file"]
    content = fetch(url, MAX_BYTES)
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != release["sha256"].lower():
        raise CannotUpdate("update_wrong_hash", url=url, found=sha256, expected=release["sha256"])
    part = os.path.join(environment.root, PART)
    shutil.rmtree(part, ignore_errors=True)
    try:
        unpack(content, part, url)
        swap(environment.root, part)
        check_start(environment.root, release["version"])
    except (OSError, CannotUpdate) as error:
        if not os.path.exists(os.path.join(environment.root, OLD, DONE)):
            # DONE marks the previous update: this one has not begun
            put_back(environment.root)
        if isinstance(error, CannotUpdate):
            raise
        raise CannotUpdate("update_failed", reason=error.strerror or error) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    open(os.path.join(environment.root, OLD, DONE), "w").close()


def unpack(content, folder, url):
    """Write the archive's files below folder, with their modes. Raises CannotUpdate if it is not a release."""
    import io
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
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
    """Move the new files into place, launcher and launch.py last: they contain the code that undoes a killed update."""
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


def check_start(root, version):
    """Raise CannotUpdate unless the installed program starts and reports this version."""
    import subprocess

    done = subprocess.run(
        [sys.executable, os.path.join(root, "launch.py"), "--version"], capture_output=True, text=True
    )
    if done.returncode or done.stdout.split()[-1:] != [version]:
        raise CannotUpdate("update_failed", reason=(done.stderr or done.stdout).strip()[-300:] or "-")


def put_back(root):
    """Restore the former version from .update.old, and delete what replaced it."""
    old = os.path.join(root, OLD)
    if not os.path.isdir(old):
        return
    if os.path.exists(os.path.join(old, DONE)):
        os.remove(os.path.join(old, DONE))  # from here on `mend` completes this
    for name in os.listdir(old):
        place = os.path.join(root, name)
        if os.path.isdir(place):
            remove(place)
        os.replace(os.path.join(old, name), place)
    remove(old)


def remove(folder):
    """Delete a folder; it leaves its place at once, or not at all."""
    import shutil

    if os.path.isdir(folder):
        shutil.rmtree(folder + ".removed", ignore_errors=True)
        os.rename(folder, folder + ".removed")
        shutil.rmtree(folder + ".removed", ignore_errors=True)


def mend(root):
    """Undo an update that was killed half-way and that no other process continues; return whether there was one.

    Called at every start, which costs a look.
    """
    old = os.path.join(root, OLD)
    if not os.path.isdir(old) or os.path.exists(os.path.join(old, DONE)):
        return False
    with open(os.path.join(root, ".install.lock"), "a+") as file:
        if not try_lock(file):
            return False
        put_back(root)
    say("update_mended", to=sys.stderr)
    return True
