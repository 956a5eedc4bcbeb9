"""`python launch.py uninstall`."""

import os
import sys

from launcher import INSTALLED
from launcher.sentences import say, say_text


def uninstall(environment, arguments):
    """List what was installed into this folder, ask, and remove it; the folder itself, runs, data and models stay
    unless requested. Returns the exit status."""
    import shutil

    if INSTALLED:
        say("uninstall_by_its_tool", python=sys.executable)
        return 2
    wrong = [word for word in arguments if word not in ("--workspace", "--models", "--yes")]
    if wrong:
        say("uninstall_unknown", to=sys.stderr, found=wrong[0])
        return 2
    home = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache"), "huggingface")
    cache = os.path.expanduser(os.environ.get("HF_HUB_CACHE") or os.path.join(os.environ.get("HF_HOME") or home, "hub"))
    own = {
        os.path.join(environment.root, name): True
        for name in (".venv", ".uv", ".uv.part", ".install.lock", ".update.old", ".update.part", ".updates.json")
    }
    workspace = os.environ.get("LORA_GARAGE_HOME") or os.path.join(environment.root, "workspace")
    places = {**own, workspace: "--workspace" in arguments, cache: "--models" in arguments}
    places = {path: goes for path, goes in places.items() if os.path.lexists(path)}
    for path, goes in places.items():
        say("uninstall_goes" if goes else "uninstall_stays", path=path, gb="%.2f" % (bytes_below(path) / 1e9))
    going = [path for path, goes in places.items() if goes]
    if not going:
        say("uninstall_nothing")
        return 0
    if "--yes" not in arguments:
        if not sys.stdin.isatty():
            say("uninstall_ask_first", to=sys.stderr)
            return 2
        if input(say_text("uninstall_sure") + " ").strip().lower() not in ("y", "yes", "是"):
            say("uninstall_kept")
            return 1
    status = 0
    for path in going:
        try:  # renamed first: where a file of it is in use, Windows refuses that, and nothing is half removed
            os.rename(path, path + ".removed")
            if os.path.isdir(path + ".removed") and not os.path.islink(path + ".removed"):
                shutil.rmtree(path + ".removed")
            else:
                os.unlink(path + ".removed")
        except OSError as error:
            say("uninstall_failed", to=sys.stderr, path=path, reason=error.strerror or error)
            status = 1
    if status == 0:
        say("uninstall_done", folder=environment.root)
    return status


def bytes_below(path):
    if os.path.islink(path) or not os.path.isdir(path):
        return os.lstat(path).st_size
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(path) for name in names)
