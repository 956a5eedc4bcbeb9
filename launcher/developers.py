"""`python launch.py check` and `python launch.py test`, and a browser for the tests."""

import os

from launcher import ROOT, WINDOWS
from launcher.machine import is_root
from launcher.running import LoggedRun, ask, child_environ, hand_over
from launcher.sentences import say, say_text

# The first is Debian's, without a window, which needs two thirds of the CPU time for a page.
BROWSER_NAMES = (
    "chromium-headless-shell",
    "google-chrome",
    "google-chrome-stable",
    "chromium",
    "chromium-browser",
    "chrome",
)

BROWSER_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Google\Chrome\Application\chrome.exe",
)

PLAYWRIGHT_PATH = (
    "from playwright.sync_api import sync_playwright as p\nwith p() as x: print(x.chromium.executable_path)"
)


def find_browser(which, works):
    """Return an installed Chrome or Chromium that starts, else None."""
    for path in (*(which(name) for name in BROWSER_NAMES), *BROWSER_PLACES):
        if path and works(path):
            return path
    return None


def browser_works(path):
    """Return whether a browser exists and prints its version; on Windows, where that would open a window, whether it
    exists."""
    if not os.path.exists(path):
        return False
    return WINDOWS or ask([path, "--version"]).out is not None


def obtain_browser(environment, run):
    """Return (path, None), or (None, reason). Tries LORA_GARAGE_BROWSER alone if set; else an installed one,
    Playwright's own and Debian's package, which it installs."""
    import shutil

    chosen = os.environ.get("LORA_GARAGE_BROWSER")
    if chosen:
        return (chosen, None) if browser_works(chosen) else (None, say_text("browser_asked_missing", path=chosen))
    installed = find_browser(shutil.which, browser_works)
    if installed:
        return installed, None
    own = (ask([environment.python, "-c", PLAYWRIGHT_PATH]).out or "").strip()
    if own and browser_works(own):
        return own, None
    say("browser_wanted")
    install = [environment.python, "-m", "playwright", "install", "chromium"]
    if run(install, say_text("step_browser_playwright")) == 0 and own and browser_works(own):
        return own, None
    if shutil.which("apt-get") and is_root():
        run(["apt-get", "update", "-q"], say_text("step_apt_update"))
        command = [
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
            "-y",
            "-q",
            "chromium",
            "fonts-noto-cjk",
        ]
        run(command, say_text("step_browser_apt"))
        installed = find_browser(shutil.which, browser_works)
        if installed:
            return installed, None
        return None, say_text("browser_none_apt", log=environment.log)
    return None, say_text("browser_none")


def run_tests(environment, arguments):
    """Run the tests that arguments name in ROOT, with a browser if one can be had; return the exit status."""
    browser, reason = obtain_browser(environment, LoggedRun(environment.log))
    os.environ.pop("LORA_GARAGE_NO_BROWSER", None)
    if browser:
        os.environ["LORA_GARAGE_BROWSER"] = browser
        say("browser_is", path=browser)
    else:
        os.environ.pop("LORA_GARAGE_BROWSER", None)
        os.environ["LORA_GARAGE_NO_BROWSER"] = reason
        say("browser_missing", reason=reason)
    # pytest runs in ROOT; paths relative to the current folder are made absolute.
    arguments = [
        os.path.abspath(a) if os.path.exists(a.split("::")[0]) and not a.startswith("-") else a for a in arguments
    ]
    os.chdir(ROOT)
    if arguments == ["--full"]:
        return hand_over(environment, ["-m", "tests.full"])
    if "--changed" in arguments:
        return hand_over(environment, ["-m", "tests.changed", *(word for word in arguments if word != "--changed")])
    return hand_over(environment, ["-m", "pytest", *side_by_side(arguments), *arguments])


# Each in .venv's Python, in ROOT, the quickest first. The tests are those of the house itself: floors, catalogues.
CHECKS = {
    "ruff check": ("ruff", "check", "."),
    "ruff format": ("ruff", "format", "--check", "."),
    "mypy": ("mypy",),
    "the site of the docs": ("mkdocs", "build", "--strict"),
    "plain English": ("tools.plain_english",),
    "the tests' budgets": ("tests.kit.durations", "--check"),
    "the rules of the house": (
        "pytest",
        "-q",
        "--durations-min=5",
        "tests/unit/test_architecture.py",
        "tests/unit/test_words.py",
    ),
}


def run_checks(environment):
    """Run all of CHECKS in parallel and print them in their order; return 1 if any failed."""
    import subprocess
    import tempfile

    begun, failed = {}, []
    for name, command in CHECKS.items():
        output = tempfile.TemporaryFile()
        line = [environment.python, "-m", *command]
        begun[name] = (
            output,
            subprocess.Popen(line, cwd=ROOT, env=child_environ(), stdout=output, stderr=subprocess.STDOUT),
        )
    for name, (output, check) in begun.items():
        if check.wait():
            failed.append(name)
        output.seek(0)
        print("== " + name + "\n" + output.read().decode("utf-8", "replace").rstrip(), flush=True)
        output.close()
    print("== found something: " + ", ".join(failed) if failed else "== nothing found", flush=True)
    return 1 if failed else 0


def side_by_side(arguments):
    """Return pytest options for two processes, if all tests are run: most tests wait for other processes.

    Three on two cores were no faster (18:48 min), and pages answered up to nine times as late.
    """
    chosen = any(
        not a.startswith("-") or a.startswith(("-n", "-k", "-s", "--pdb", "--collect-only")) for a in arguments
    )
    return [] if chosen or (os.cpu_count() or 1) < 2 else ["-n", "2", "--dist", "worksteal"]
