"""pip and uv as commands, and the options that carry a person's pip settings over to uv.

uv downloads many files at once and needs no Debian package to make an environment. pip resumes an interrupted download,
which uv (0.13) restarts: so the one file of gigabytes, a torch with CUDA from PyTorch's own index, is always pip's.
"""

import os
import sys
from pathlib import Path

from launcher import ROOT, WINDOWS
from launcher.torch_build import WHEEL_INDEX

BY_PIP = "LORA_GARAGE_INSTALLER"  # "pip": although there is a uv
BASE_PYTHON = getattr(sys, "_base_executable", None) or sys.executable  # not the one of .venv, which may have to go


class Pip:
    tries = 3

    def __init__(self, python):
        self.python, self.bar = python, "off"

    def make(self, folder):
        return [BASE_PYTHON, "-m", "venv", folder]

    def install(self, requirements, index=None, constraints=None, anew=False):
        """Return the command. index: to use instead of pip's own; anew: reinstall only these, although they are
        installed."""
        more = ["--index-url", index] if index else []
        more += ["-c", constraints] if constraints else []
        more += ["--force-reinstall", "--no-deps"] if anew else []
        return self.command("install", "--progress-bar", self.bar, *more, *requirements)

    def remove(self, package):
        return self.command("uninstall", "-y", package)

    def command(self, verb, *rest):
        return [self.python, "-m", "pip", verb, "--disable-pip-version-check", "--no-input", *rest]


class Uv:
    tries = 1  # uv retries each file itself; then pip is tried

    def __init__(self, program, python):
        self.program, self.python = program, python

    def make(self, folder):
        # The log lies in it already.
        return [self.program, "venv", "--project", ROOT, "--allow-existing", "--python", BASE_PYTHON, folder]

    def install(self, requirements, index=None, constraints=None, anew=False):
        backend = index and index.startswith(WHEEL_INDEX) and index[len(WHEEL_INDEX) :]
        more = ["--torch-backend", backend] if backend else ["--default-index", index] if index else []
        # uv (0.4 to 0.12) splits a path at a space
        more += ["-c", Path(constraints).as_uri()] if constraints else []
        more += ["--reinstall", "--no-deps", "--no-cache"] if anew else []  # its cache links the same damaged files
        return [self.program, "pip", "install", "--project", ROOT, "--python", self.python, *more, *requirements]

    def remove(self, package):
        return [self.program, "pip", "uninstall", "--project", ROOT, "--python", self.python, package]


def find_uv(environ=os.environ):
    """Return the path of uv: the one that runs us, in PATH, in our folder, or of the Python that runs us. None without
    one, or if LORA_GARAGE_INSTALLER is pip."""
    import shutil
    import sysconfig

    if environ.get(BY_PIP, "").strip().lower() == "pip":
        return None
    name = "uv.exe" if WINDOWS else "uv"
    places = (os.path.join(ROOT, ".uv", name), os.path.join(sysconfig.get_path("scripts"), name))
    candidates = (environ.get("UV"), shutil.which("uv"), *places)
    return next((path for path in candidates if path and os.path.isfile(path)), None)


def is_uv(command):
    return os.path.basename(command[0]).lower() in ("uv", "uv.exe")


def environ_for(command, environ=os.environ):
    """Return the environment of a command of pip or uv; what environ sets stays."""
    if not is_uv(command):
        return dict({"PIP_RESUME_RETRIES": "20"}, **environ)  # by an option, an older pip would refuse to start
    return dict(uv_settings(pip_settings(environ)), **environ)


# pip's settings by uv's names, because uv ignores pip's. Mirrors and company certificates are often configured for pip.
SAME = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
}


def uv_settings(settings):
    """Return the environment variables by which uv does what pip's settings say."""
    # certificates: those of the system, as pip does
    variables = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1", "UV_HTTP_RETRIES": "2"}
    for name, value in settings.items():
        separator = "," if name == "find-links" else " "
        variables[SAME[name]] = separator.join(value.split())
    if "extra-index-url" in settings:
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip: the newest of all indexes
    home = os.path.expanduser("~")
    if os.path.exists(home) and os.stat(home).st_dev != os.stat(ROOT).st_dev:
        # where its cache is: a copy on another drive
        variables["UV_CACHE_DIR"] = os.path.join(ROOT, ".uv", "cache")
    return variables


def pip_settings(environ=os.environ):
    """Return pip's settings that uv has too, from its files and, above them, the environment."""
    import configparser

    home = os.path.expanduser("~")
    if WINDOWS:
        files = [os.path.join(environ.get("APPDATA", home), "pip", "pip.ini"), os.path.join(home, "pip", "pip.ini")]
        files.insert(0, os.path.join(environ.get("PROGRAMDATA", home), "pip", "pip.ini"))
    else:
        config = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
        own = [
            os.path.join(home, ".pip"),
            os.path.join(home, "Library", "Application Support", "pip"),
            os.path.join(config, "pip"),
        ]
        files = [os.path.join(folder, "pip.conf") for folder in ("/etc", "/etc/xdg/pip", *own)]
    parser = configparser.RawConfigParser()
    for file in (*files, environ.get("PIP_CONFIG_FILE", "")):
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):  # pip will say what is wrong with it
            continue
    settings = {}
    for name in SAME:
        for section in ("global", "install"):
            if parser.has_option(section, name):
                settings[name] = parser.get(section, name)
        settings[name] = environ.get("PIP_" + name.upper().replace("-", "_")) or settings.get(name)
    return {name: value for name, value in settings.items() if value and value.strip()}
