"""The web process's log, logs/app.log in the workspace, for when the terminal is closed.

Three files of 1 MiB at most, the newest without a number. The terminal still shows warnings and tracebacks. The file
has no secrets and nothing that a person typed: of an exception it has the type and the place, and the message only for
MESSAGES_KEPT, whose texts come from the system or a program and not from data. The hub token, the door's key, password
and cookie are removed from every record as well.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import Any

from core import __version__
from core.hub.token import NAME, OLD_NAME

LARGEST, MORE_FILES = 1 << 20, 2  # bytes a file; files besides the newest
MIN_SECRET = 4  # characters: a shorter password occurs within other words, and its removal would reveal it
MESSAGES_KEPT = (OSError, ImportError, AttributeError, NameError, TypeError, MemoryError)
TOKENS = re.compile(r"\bhf_\w{4,}|(?<=[?&]key=)[^\s&\"']+|(?<=[Bb]earer )\S+")

log = logging.getLogger("lora_garage")
Secrets = Callable[[], Iterable[str]]


def begin(file: Path, secrets: Secrets = lambda: ()) -> logging.Handler:
    """Write the log, with uncaught exceptions, to file (warnings also to the terminal) from now on, in place of all
    other handlers, and return the file's handler. secrets: called at each record, returns texts to remove. Raises
    OSError if the file cannot be made."""
    file.parent.mkdir(exist_ok=True)
    to_file = _File(file, maxBytes=LARGEST, backupCount=MORE_FILES, encoding="utf-8", errors="backslashreplace")
    to_file.setFormatter(_WithoutSecrets(secrets))
    to_terminal = logging.StreamHandler()
    to_terminal.setLevel(logging.WARNING)
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    root.handlers[:] = [to_file, to_terminal]
    log.setLevel(logging.INFO)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    log.info(
        "LoRA Garage %s, Python %s, %s, process %d",
        __version__,
        platform.python_version(),
        platform.platform(),
        os.getpid(),
    )
    return to_file


def _uncaught(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
    """Log an exception that nothing has caught; Ctrl-C and exits are left to Python."""
    if error is None or issubclass(kind, KeyboardInterrupt | SystemExit):
        sys.__excepthook__(kind, error or kind(), where)
    else:
        log.critical("not caught by anything", exc_info=(kind, error, where))


class _WithoutSecrets(logging.Formatter):
    """Formats a record for the log file: secrets become "***", and an exception has its type and places, but a message
    only if it is one of MESSAGES_KEPT."""

    def __init__(self, secrets: Secrets):
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text with every secret and everything that looks like a token replaced by "***"."""
        cached, record.exc_text = (
            record.exc_text,
            None,
        )  # the terminal's text of the exception, which stays on the record
        text = super().format(record)
        record.exc_text = cached
        tokens = (os.environ.get(NAME, ""), os.environ.get(OLD_NAME, ""))
        for secret in sorted({*tokens, *self._secrets()}, key=len, reverse=True):
            if len(secret) >= MIN_SECRET:
                text = text.replace(secret, "***")
        return TOKENS.sub("***", text)

    def formatException(self, ei: Any) -> str:
        """Return the places and types of an exception and its causes, as Python prints them: the first cause first, the
        exception itself last."""
        chain: list[BaseException] = []
        error: BaseException | None = ei[1]
        while error is not None and error not in chain:
            chain.append(error)
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\n".join(self._one(error) for error in reversed(chain))

    @staticmethod
    def _one(error: BaseException) -> str:
        """Return the places of one exception, then its type, with its message only for MESSAGES_KEPT."""
        places = [
            f"  {place.filename}:{place.lineno} in {place.name}" for place in traceback.extract_tb(error.__traceback__)
        ]
        message = f": {error}" if isinstance(error, MESSAGES_KEPT) else ""
        return "\n".join([*places, f"{type(error).__module__}.{type(error).__qualname__}{message}"])


class _File(RotatingFileHandler):
    """A log file that reports a full or missing disk once, instead of adding a traceback for each record."""

    _reported = False

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        """Return whether the record would make the file larger than allowed, in bytes: the library counts the record's
        characters, and a Chinese one has three bytes."""
        if self.stream is None:
            self.stream = self._open()
        size = self.stream.tell()
        more = len((self.format(record) + os.linesep).encode("utf-8", "backslashreplace"))
        return size > 0 and size + more > self.maxBytes

    def handleError(self, record: logging.LogRecord) -> None:
        """Print an OSError of writing the log on the terminal, once; treat other errors as logging does."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._reported:
            self._reported = True
            print(f"{self.baseFilename}: {error.strerror or error}", file=sys.stderr)
