"""Commands that are run: with a line on the terminal, to be answered, or in the place of this program."""

import os
import sys
import time
from collections import namedtuple

from launcher import ROOT, WINDOWS
from launcher.sentences import language, say, say_text


class LoggedRun:
    """Runs a command with its output in the log, and one line on the terminal that ends with how long it took."""

    def __init__(self, log):
        self.log, self.file, self.first = log, "", (0, 0, 0)  # when a file was first seen, at which byte, of how many

    def __call__(self, command, label):
        import subprocess

        start = time.monotonic()
        live = sys.stdout.isatty()
        print(one_row("  %s ..." % label) if live else "  %s ..." % label, end="", flush=True)
        os.makedirs(os.path.dirname(self.log), exist_ok=True)
        with open(self.log, "ab") as log:
            log.write(("\n$ " + " ".join(command) + "\n").encode())
            log.flush()
            seen_from = log.tell()
            environ = dict({"PIP_RESUME_RETRIES": "20"}, **os.environ)  # by an option, an older pip would refuse to start
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environ)
            try:
                while True:
                    try:
                        status = process.wait(1.0 if live else None)
                        break
                    except subprocess.TimeoutExpired:
                        seconds = "%.0f s" % (time.monotonic() - start)
                        print(
                            "\r" + one_row("  %s %s ... %s" % (seconds, label, self.newest_download(seen_from, time.monotonic()))),
                            end="",
                            flush=True,
                        )
            except BaseException:
                print(flush=True)
                try:
                    process.wait(10)  # pip got the same Ctrl-C and tidies up
                except (subprocess.TimeoutExpired, KeyboardInterrupt):
                    process.kill()
                    process.wait()
                raise
        seconds = time.monotonic() - start
        end = say_text("step_done" if status == 0 else "step_failed", seconds="%.0f" % seconds)
        print("\r%s\r  %s ... %s" % (one_row(""), label, end) if live else " " + end, flush=True)
        return status

    def newest_download(self, seen_from, now):
        """The file that pip is fetching, shortened to stay on one line; by its lines "Progress BYTES of BYTES" how far it is."""
        try:
            with open(self.log, "rb") as file:
                file.seek(max(seen_from, os.path.getsize(self.log) - 4000))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        done = total = 0
        for words in map(str.split, lines):
            if words[:1] == ["Downloading"] and len(words) > 1:
                self.file, done, total = words[1].rsplit("/", 1)[-1].split("-")[0], 0, 0
            elif words[:1] == ["Progress"] and len(words) == 4 and words[1].isdigit() and words[3].isdigit():
                done, total = int(words[1]), int(words[3])
        if done >= total:
            return self.file
        if self.first[2] != total:
            self.first = now, done, total
        since, begun, _ = self.first
        left = "%d:%02d" % divmod((total - done) * (now - since) / (done - begun), 60) if done > begun else "?"
        return say_text("how_far", file=self.file, done="%.0f" % (done / 1e6), total="%.0f" % (total / 1e6), left=left)


def one_row(text):
    """text cut or filled to the width of the terminal, so that the next one can overwrite it. Chinese is two wide."""
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
    """The Answer of a command that prints little. limit_s: seconds it may take."""
    import subprocess

    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", timeout=limit_s,
            env=child_environ(),
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        said = late.stderr or ""
        said = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
        return Answer(None, say_text("ended_late", seconds="%.0f" % limit_s), said)
    except OSError as error:
        return Answer(None, str(error), "")
    if done.returncode == 0:
        return Answer(done.stdout, None, done.stderr)
    return Answer(None, how_it_ended(done.returncode, done.stderr), done.stderr)


def how_it_ended(code, stderr):
    """Its exit status (a crash as the system names it) and the last line that it said."""
    last = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "")
    if code < 0:
        name = say_text("ended_signal", number=-code)
    else:  # Windows' own, as in 0xC0000005, an access violation, or 0xC0000135, a DLL that is missing
        name = say_text("ended_status", status="0x%08X" % code if code > 255 else code)
    return "%s: %s" % (name, last[:300]) if last else name


def child_environ():
    """The environment of all that runs in .venv: our packages come from ROOT, wherever the person stands."""
    environ = dict(os.environ)
    earlier = environ.get("PYTHONPATH")
    environ["PYTHONPATH"] = ROOT + (os.pathsep + earlier if earlier else "")
    environ["PYTHONSAFEPATH"] = "1"  # a folder called core or webui where the person stands must not hide ours
    environ.setdefault("PYTHONUTF8", "1")
    if WINDOWS:  # where no LANG says it
        environ.setdefault("LORA_GARAGE_LANG", language())
    return environ


def hand_over(environment, arguments):
    """Run .venv's Python with arguments; its exit status becomes ours."""
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
        except KeyboardInterrupt:  # the child was told by the same key; it says goodbye in its own time
            continue
