"""Runs commands: with a line on the terminal, for their output, or in place of this program."""

import os
import sys
import time
from collections import namedtuple

from launcher import ROOT, WINDOWS
from launcher.progress import Progress
from launcher.sentences import language, say, say_text
from launcher.tools import environ_for, is_uv


class LoggedRun:
    """Runs a command with its output in the log, and one line on the terminal that ends with its duration; returns its
    exit status."""

    def __init__(self, log):
        self.log = log

    def __call__(self, command, label):
        start = time.monotonic()
        live = sys.stdout.isatty()
        print(one_row("  %s ..." % label) if live else "  %s ..." % label, end="", flush=True)
        os.makedirs(os.path.dirname(self.log), exist_ok=True)
        with open(self.log, "ab") as log:
            log.write(("\n$ " + " ".join(command) + "\n").encode())
            log.flush()
            process, progress, copier = begin(command, log, live)
            status = self.wait(process, progress, live and label, start, log.tell())
            if copier:
                copier.join(5)
        seconds = time.monotonic() - start
        end = say_text("step_done" if status == 0 else "step_failed", seconds="%.0f" % seconds)
        print("\r%s\r  %s ... %s" % (one_row(""), label, end) if live else " " + end, flush=True)
        return status

    def wait(self, process, progress, label, start, seen_from):
        """Wait for a process and return its exit status. On Ctrl-C it has 10 s to end, then is killed. label: of the
        line redrawn each second; empty for no line."""
        import subprocess

        try:
            while True:
                try:
                    return process.wait(1.0 if label else None)
                except subprocess.TimeoutExpired:
                    now = time.monotonic()
                    line = "  %.0f s %s ... %s" % (now - start, label, progress.describe(self.lines(seen_from), now))
                    print("\r" + one_row(line), end="", flush=True)
        except BaseException:
            print(flush=True)
            try:
                process.wait(10)  # it got the same Ctrl-C and tidies up
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                process.kill()
                process.wait()
            raise

    def lines(self, seen_from):
        """Return the log's lines from a byte offset on, at most the last 4,000 bytes; [] if it cannot be read."""
        try:
            with open(self.log, "rb") as file:
                file.seek(max(seen_from, os.path.getsize(self.log) - 4000))
                return file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return []


def begin(command, log, live):
    """Start a command; return (process, its Progress, the thread that fills the log or None).

    Its output goes into log; uv draws on a terminal of its own, if there is one to look at.
    """
    import subprocess

    progress, environ = Progress(), environ_for(command)
    if live and not WINDOWS and is_uv(command):
        import fcntl
        import pty
        import struct
        import termios
        import threading

        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 100, 120, 0, 0))  # rows enough for a bar a file
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environ)
        os.close(theirs)
        copier = threading.Thread(target=copy_from, args=(ours, log.name, progress), daemon=True)
        copier.start()
        return process, progress, copier
    return (
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environ),
        progress,
        None,
    )


def copy_from(terminal, log, progress):
    """Append all output of a pseudo-terminal to log, as progress draws it, until its other end closes."""
    with os.fdopen(terminal, "rb", 0) as drawn, open(log, "ab", 0) as file:
        rest = ""
        while True:
            try:
                new = drawn.read(65536)
            except OSError:  # Linux: the other end is closed
                return
            if not new:
                return
            text = rest + new.decode("utf-8", "replace")
            complete = text.rfind("\n") + 1 or (0 if len(text) < 8192 else len(text))
            rest = text[complete:]
            file.write(progress.draw(text[:complete]).encode())


def one_row(text):
    """Return text cut or filled to the width of the terminal, so that the next one can overwrite it. Chinese is two
    wide."""
    import shutil
    import unicodedata

    room, row = shutil.get_terminal_size().columns - 1, ""
    for letter in text:
        room -= 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if room < 0:
            return row
        row += letter
    return row + " " * room


# out: a command's stdout, None where it did not end well; why: then, in words; stderr: all that it said there.
Answer = namedtuple("Answer", "out why stderr")

CHECK_S = 600.0  # some 25,000 files and the first import of torch, which a virus scanner reads whole, from a hard disk


def ask(command, limit_s=180.0):
    """Run a command that prints little and return its Answer. limit_s: seconds it may take."""
    import subprocess

    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", timeout=limit_s,
            env=child_environ(),
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        stderr = late.stderr or ""
        stderr = stderr.decode("utf-8", "replace") if isinstance(stderr, bytes) else stderr
        return Answer(None, say_text("ended_late", seconds="%.0f" % limit_s), stderr)
    except OSError as error:
        return Answer(None, str(error), "")
    if done.returncode == 0:
        return Answer(done.stdout, None, done.stderr)
    return Answer(None, how_it_ended(done.returncode, done.stderr), done.stderr)


def how_it_ended(code, stderr):
    """Return the exit status (a crash as the system names it) and the last line of stderr."""
    last = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "")
    if code < 0:
        name = say_text("ended_signal", number=-code)
    else:  # Windows' own, as in 0xC0000005, an access violation, or 0xC0000135, a DLL that is missing
        name = say_text("ended_status", status="0x%08X" % code if code > 255 else code)
    return "%s: %s" % (name, last[:300]) if last else name


def child_environ():
    """Return the environment of all processes in .venv: our packages come from ROOT, whatever the current folder."""
    environ = dict(os.environ)
    earlier = environ.get("PYTHONPATH")
    environ["PYTHONPATH"] = ROOT + (os.pathsep + earlier if earlier else "")
    environ["PYTHONSAFEPATH"] = "1"  # a folder core or webui in the current folder must not hide ours
    environ.setdefault("PYTHONUTF8", "1")
    if WINDOWS:  # where no LANG says it
        environ.setdefault("LORA_GARAGE_LANG", language())
    return environ


def hand_over(environment, arguments):
    """Run .venv's Python with arguments: on Windows wait and return its exit status; elsewhere replace this process,
    and return (1) only if that fails."""
    command = [environment.python, *arguments]
    if not WINDOWS:
        sys.stdout.flush()
        try:
            os.execve(environment.python, command, child_environ())
        except OSError as error:
            say("cannot_start", to=sys.stderr, reason=error.strerror, python=environment.python)
            return 1
    import subprocess

    process = subprocess.Popen(command, env=child_environ())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the child got the same Ctrl-C and ends by itself
            continue
