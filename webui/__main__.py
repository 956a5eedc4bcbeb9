"""`python -m webui`: serve the page on this PC and open the browser. Exit 0 after Ctrl-C, 2 for what cannot be."""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import threading
import webbrowser

from core import writable
from core.errors import GarageError
from core.text import terminal_language
from core.workspace import Workspace
from webui.wording import Wording

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class _Refusal(Exception):
    """One sentence for stderr; exit status 2."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise _Refusal(Wording(terminal_language()).t("page.bad_argument", reason=message))


def main(arguments: list[str] | None = None) -> int:
    w = Wording(terminal_language())
    try:
        options = parse(arguments, w)
        workspace = Workspace.open(options.workspace)
        writable.require(workspace)
        check_port(options.host, options.port, w)
        return serve(options, workspace, w)
    except _Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 2
    except GarageError as error:
        print(w.of(error.text), file=sys.stderr)
        return 2


def parse(arguments: list[str] | None, w: Wording) -> argparse.Namespace:
    parser = _Parser(prog="webui", description="LoRA Garage's page, on this PC only.")
    parser.add_argument("--host", default="127.0.0.1", help="only loopback addresses are served")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--workspace", default=None, help="folder for data, models, runs and exports")
    parser.add_argument("--no-browser", action="store_true", help="do not open the browser")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="ask for a name and a password")
    options = parser.parse_args(arguments)
    if options.host not in LOOPBACK:
        raise _Refusal(w.t("page.host_refused", host=options.host))
    if not 1 <= options.port <= 65535:
        raise _Refusal(w.t("page.port_refused", port=options.port))
    if options.auth is not None:
        user, colon, password = options.auth.partition(":")
        if not colon or not user or not password:
            raise _Refusal(w.t("page.auth_refused"))
        options.auth = (user, password)
    return options


def check_port(host: str, port: int, w: Wording) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        if sys.platform != "win32":  # there it would allow two servers on one port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise _Refusal(w.t("page.port_taken", port=port, reason=error.strerror or str(error))) from error


def serve(options: argparse.Namespace, workspace: Workspace, w: Wording) -> int:
    """Until Ctrl-C or SIGTERM; then what trains is asked to pause, and waited for."""
    over = threading.Event()
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, frame: over.set())
    from webui.app import launch  # gradio, which takes most of the start
    from webui.services import Services

    services = Services.open(workspace)
    try:
        services.begin()
    except OSError as error:
        raise _Refusal(w.t("workspace.cannot_make", folder=workspace.root, reason=error.strerror or error)) from error
    try:
        demo, url = launch(services, options.port, options.host, options.auth)
    except OSError as error:
        services.close()
        raise _Refusal(w.t("page.port_taken", port=options.port, reason=error.strerror or str(error))) from error
    print(w.t("page.ready", url=url), flush=True)
    if refusal := services.owner.refusal:
        print(w.of(refusal), flush=True)
    if not options.no_browser:
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
    while not over.wait(0.5):  # a plain wait() cannot be interrupted on Windows
        pass
    print(w.t("page.stopping"), flush=True)
    services.close()
    demo.close(verbose=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
