"""The command line: `python launch.py COMMAND` runs `python -m core.commands COMMAND`.

`--json` prints one JSON object on stdout and nothing else. A bad argument, file, recipe or name gives one sentence on
stderr and exit status 2, never a traceback. Heavy libraries stay in the worker processes that the commands start.
"""

from __future__ import annotations

import os
import sys

import typer

from core import COMMAND
from core.commands import (  # noqa: F401 - importing them adds their commands
    agents,
    away,
    checkup,
    comparing,
    data,
    estimating,
    evaluating,
    hub_sets,
    making,
    models,
    running,
    serving,
    sets,
    taking,
    tools,
)
from core.commands.terminal import app, say
from core.errors import GarageError
from core.messages import msg


def main(arguments: list[str]) -> int:
    """Run a command and return its exit status; 130 after Ctrl-C, 0 if nobody reads its output any more. An error that
    a person can act on is printed as one sentence, with status 2."""
    try:
        return typer.main.get_command(app)(arguments, prog_name=COMMAND.split()[-1], standalone_mode=False) or 0
    except GarageError as error:
        say(error.message)
        return 2
    except typer.Exit as exit_:
        return exit_.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        say(msg("command.os_error", reason=error.strerror or str(error), file=error.filename or "-"))
        return 2
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's own: a bad option or argument
            raise
        say(msg("command.bad_argument", reason=error.format_message()))
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
