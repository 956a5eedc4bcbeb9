"""`python -m webui`: serves the page and opens the browser. Exit 0 after Ctrl-C, 2 if it cannot start.

If the workspace is open in another app, it opens the page of that app instead, and exits with 0.

It serves this PC only, unless --host opens it to the network: then behind a door (webui/server/door) with the password
of --auth, or a key that is printed in the address.
"""

from __future__ import annotations

import argparse
import errno
import logging
import signal
import socket
import sys
import threading
import webbrowser

from core.errors import GarageError
from core.messages import terminal_language
from core.system.processes import share_one_heap
from core.system.reach import Reach
from core.workspace import writable
from core.workspace.folder import Workspace
from core.workspace.owner import Ownership
from webui.kit.wording import Wording
from webui.server import log
from webui.server.door import MIN_PASSWORD, Doorkeeper, DoorSecret
from webui.server.gradio import without_proxy


class _Refusal(Exception):
    """One sentence for stderr; exit status 2."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        """Raise _Refusal for a bad argument, where argparse would print its usage and exit.

        The sentence, in the terminal's language, quotes argparse's own message; `main` prints it and returns 2.
        """
        raise _Refusal(Wording(terminal_language()).t("page.bad_argument", reason=message))


def main(arguments: list[str] | None = None) -> int:
    """Run the page for these arguments; return the exit status, 2 (with the reason on stderr) if it cannot start."""
    share_one_heap()
    w = Wording(terminal_language())
    try:
        options = parse(arguments, w)
        workspace = Workspace.open(options.workspace)
        writable.require(workspace)
        return open_or_serve(options, workspace, w)
    except _Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 2
    except GarageError as error:
        print(w.render(error.message), file=sys.stderr)
        return 2


def parse(arguments: list[str] | None, w: Wording) -> argparse.Namespace:
    """Return the options, with reach and secret. Raises _Refusal for an invalid host, port or password."""
    parser = _Parser(prog="webui", description="LoRA Garage's page.")
    parser.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0 or an address of this PC: others may come in, with a key"
    )
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--workspace", default=None, help="folder for data, models, runs and exports")
    parser.add_argument("--no-browser", action="store_true", help="do not open the browser")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="ask for this name and password instead of a key")
    options = parser.parse_args(arguments)
    try:
        options.reach = Reach.from_host(options.host)
    except (OSError, ValueError) as error:
        raise _Refusal(w.t("page.host_refused", host=options.host, reason=_error_reason(error))) from error
    if not 1 <= options.port <= 65535:
        raise _Refusal(w.t("page.port_refused", port=options.port))
    options.secret = secret_of(options.auth, options.reach, w)
    return options


def secret_of(auth: str | None, reach: Reach, w: Wording) -> DoorSecret | None:
    """Return the secret that opens the door, or None for no door. auth: USER:PASSWORD of --auth; without it a new key
    is generated if others can reach the page. Raises _Refusal if user or password is missing, or the password is too
    short for a page that others reach."""
    if auth is None:
        return None if reach.is_this_pc_only else DoorSecret.generate()
    user, colon, password = auth.partition(":")
    if not colon or not user or not password:
        raise _Refusal(w.t("page.auth_refused"))
    if len(password) < MIN_PASSWORD and not reach.is_this_pc_only:
        raise _Refusal(w.t("page.password_short", found=len(password), least=MIN_PASSWORD))
    return DoorSecret(user, password)


def open_or_serve(options: argparse.Namespace, workspace: Workspace, w: Wording) -> int:
    """Serve the page until it ends, or in the browser open that of another app which has the workspace; return the exit
    status. Raises _Refusal."""
    ownership, url = Ownership(workspace), f"http://{options.reach.local}:{options.port}/"
    try:
        other = ownership.claim(url)
    except OSError as error:
        raise _Refusal(w.t("workspace.cannot_make", folder=workspace.root, reason=_error_reason(error))) from error
    if other:
        print(w.t("page.already_open", url=other.address), flush=True)
        if not options.no_browser:
            webbrowser.open(other.address)
        return 0
    try:
        check_port(options.reach, options.port, w)
        return serve(options, workspace, ownership, url, w)
    finally:
        ownership.release()


def check_port(reach: Reach, port: int, w: Wording) -> None:
    """Raise _Refusal, with the reason, unless the port can be opened at that host."""
    error = refused(reach, port)
    if error is None:
        return
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) or isinstance(error, socket.gaierror):
        raise _Refusal(w.t("page.host_refused", host=reach.host, reason=_error_reason(error))) from error
    raise port_taken(reach, port, error, w) from error


def refused(reach: Reach, port: int) -> OSError | None:
    """Return the error that prevents listening on the port at reach's host; None if there is none."""
    family = socket.AF_INET6 if ":" in reach.host else socket.AF_INET
    with socket.socket(family) as probe:
        if sys.platform != "win32":  # there it would allow two servers on one port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((reach.host, port))
        except OSError as error:
            return error
    return None


def port_taken(reach: Reach, port: int, error: OSError, w: Wording) -> _Refusal:
    """Return the refusal for a port that cannot be used, which suggests the next free port above it, else one below it;
    8080 if none of about 200 is free.

    error: why the port could not be opened.
    """
    others = (*range(port + 1, min(port + 100, 65536)), *range(max(1024, port - 100), port))
    free = next((other for other in others if refused(reach, other) is None), 8080)
    return _Refusal(w.t("page.port_taken", port=port, reason=_error_reason(error), free=free))


def _error_reason(error: Exception) -> str:
    """Return the system's words for an error, such as "Permission denied"; the error's own text if it has none."""
    return getattr(error, "strerror", None) or str(error)


def serve(options: argparse.Namespace, workspace: Workspace, ownership: Ownership, url: str, w: Wording) -> int:
    """Serve the page, open the browser (except with --no-browser) and print its addresses; wait until Ctrl-C or
    SIGTERM, then pause the run that trains, wait for it and return 0. url: of this PC, without the key. Raises _Refusal
    if the log cannot be written, or the port is taken."""
    over = threading.Event()
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, frame: over.set())
    with without_proxy():
        from webui.app import launch  # imports gradio, which takes most of the start
    from webui.state.services import Services

    reach, keeper = options.reach, None
    if options.secret is not None:
        keeper = Doorkeeper(options.secret, options.port)
    try:
        to_file = log.begin(workspace.log, keeper.secrets if keeper else tuple)
    except OSError as error:
        raise _Refusal(
            w.t("workspace.cannot_make", folder=workspace.log.parent, reason=_error_reason(error))
        ) from error
    services = Services.open(workspace)
    services.begin()
    try:
        with without_proxy():
            demo = launch(services, options.port, reach, keeper)
    except OSError as error:
        services.close()
        raise port_taken(reach, options.port, error, w) from error
    # Only now, because uvicorn's settings detach its logger. Its list of requests is not logged.
    logging.getLogger("uvicorn").addHandler(to_file)
    log.log.info("serving %s", url)
    urls = [url, *(f"http://{address}:{options.port}/" for address in reach.remote)]
    local, *remote = map(keeper.address, urls) if keeper else urls
    print(w.t("page.ready", url=local), flush=True)
    if remote:
        print(w.t("page.other_devices", url=remote[0]), flush=True)
    if remote[1:]:
        print(w.t("page.other_addresses", addresses=remote[1:]), flush=True)
    if not options.no_browser:
        ours = keeper.ticket(url) if keeper and options.secret.user is None else url
        threading.Thread(target=webbrowser.open, args=(ours,), daemon=True).start()
    while not over.wait(0.5):  # a plain wait() cannot be interrupted on Windows
        pass
    print(w.t("page.stopping"), flush=True)
    ownership.close_page()
    services.close()
    demo.close(verbose=False)
    log.log.info("ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
