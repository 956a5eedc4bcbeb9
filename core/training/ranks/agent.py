"""torchrun's agent on a PC: starts the ranks of a run there, and ends all of them if one fails. No torch at the top.

`python -m core.training.ranks.agent --workspace DIR --ranks N` is the agent of another PC.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from filelock import Timeout

from core.errors import GarageError, RunError
from core.messages import msg, terminal_language
from core.recipe import Recipe
from core.runs import process as run_process
from core.runs.ended import Failed
from core.runs.folder import RunFolder
from core.runs.reporter import EXIT, Reporter
from core.runs.states import BUSY, State
from core.system import devices
from core.system.lines import end_with_parent
from core.system.nodes import Nodes, host_and_port
from core.system.processes import exit_now, kill_children
from core.training.ranks.meeting import (
    AGENT,
    ENDED,
    MEET_S,
    MEETING,
    RankError,
    connection_error,
    ip_of,
    is_rank,
    reported_failure,
    store,
)
from core.workspace.folder import Workspace

if TYPE_CHECKING:
    from torch.distributed import Store
    from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousParameters

SAVE_S = 120  # for rank 0 to save a checkpoint once another rank is gone
LEAVE_S = 30.0  # for the other PCs, once the run is over; torchrun would wait five minutes for one that is gone


def is_needed(run: RunFolder) -> bool:
    """True if this process, a run's worker, has to start the run's ranks: the recipe asks for several, or our own
    environment variables (`Nodes`) make this PC one of several. False in a rank that our agent started, and if the
    recipe cannot be read; the variables of another launcher (RANK, WORLD_SIZE) do not count."""
    if is_rank():
        return False
    with suppress(GarageError):  # the worker reports the error in the recipe
        return run_process.recipe_of(run).train.ranks > 1 or Nodes.from_environment() is not None
    return False


def carry_out(run: RunFolder, workspace: Workspace) -> int:
    """Run the ranks of a run on the main PC and wait for their end; return the exit status of the run's state (EXIT). A
    failure that the ranks have not recorded becomes the run's end."""
    recipe, nodes = run_process.recipe_of(run), Nodes.from_environment()
    meeting = run.path / MEETING
    meeting.unlink(missing_ok=True)
    failure: Any = None
    states = frozenset({State.QUEUED})  # no rank has begun
    try:
        if run_process.is_for_card(run.facts()):
            require_cards(recipe)
        if nodes:
            require_own(nodes.endpoint)
        nodes = nodes or Nodes(count=1, endpoint="127.0.0.1:1")  # no port: they meet in a file
        meeting_store = _store(nodes, meeting)
        _start(recipe.train.ranks, nodes, meeting_store, ["--workspace", str(workspace.root), run.id])
    except Exception as error:  # noqa: BLE001 - whatever torch raises, the person must see it
        failure = error
    if type(failure).__name__ == "ChildFailedError":  # rank 0 writes the end, unless the agent ended it for another's
        first, _ = failure.get_first_failure()
        gone = RankError("ranks.gone", msg("ranks.fewer"), ranks=recipe.train.ranks)
        failure, states = (reported_failure(meeting_store, recipe.train.ranks) or gone) if first else None, BUSY
    with suppress(OSError):  # Windows, while it is still open: the next attempt removes it
        meeting.unlink(missing_ok=True)
    if failure:
        _record_failure(run, failure, states)
    return EXIT.get(run.status().state, 1)


def require_cards(recipe: Recipe) -> None:
    """Raise RunError if the variable that names the GPUs for this process (devices.VISIBLE) has fewer of them than the
    run has ranks."""
    cards = [card for card in os.environ.get(devices.VISIBLE, "").split(",") if card]
    if len(cards) < recipe.train.ranks:
        raise RunError("ranks.too_few_cards", msg("ranks.fewer"), ranks=recipe.train.ranks, cards=len(cards))


def require_own(endpoint: str) -> None:
    """Raise RunError unless the address (host:port) is this PC's: torch would try to reach another for an hour."""
    host, port = host_and_port(endpoint)
    own = {
        ip_of(each.address)
        for of_interface in psutil.net_if_addrs().values()
        for each in of_interface
        if each.family in (socket.AF_INET, socket.AF_INET6)
    }
    with suppress(OSError, UnicodeError):
        addresses = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        if any(each.is_loopback or each in own for each in (ip_of(str(address[0])) for *_, address in addresses)):
            return
    raise RunError("nodes.not_here", address=endpoint)


def _store(nodes: Nodes, meeting: Path) -> Store:
    """Return the store where the ranks meet: the file `meeting` on one PC, else the main PC's, for which it waits."""
    host, port = host_and_port(nodes.endpoint)
    return store(host, int(port), nodes.count, str(meeting), nodes.rank == 0, MEET_S)


def _start(ranks: int, nodes: Nodes, meeting_store: Store, arguments: list[str]) -> None:
    """Start the ranks of this PC by torchrun's launcher, with these arguments, and wait for their end; child processes
    left are killed. Raises torch's errors: ChildFailedError for a rank that failed."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.rendezvous import rendezvous_handler_registry
    from torch.distributed.launcher import api

    os.environ |= {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SAVE_S), AGENT: str(os.getpid())}
    with suppress(ValueError):  # registered already
        rendezvous_handler_registry.register("ranks", _rendezvous)
    api.LocalElasticAgent = partial(api.LocalElasticAgent, exit_barrier_timeout=LEAVE_S)
    config = api.LaunchConfig(
        min_nodes=nodes.count, max_nodes=nodes.count, nproc_per_node=ranks, run_id="ranks", rdzv_backend="ranks",
        rdzv_endpoint=nodes.endpoint, rdzv_configs={"rank": nodes.rank, "store": meeting_store},
        max_restarts=0, logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
    )  # fmt: skip
    config.signals_to_handle = "SIGTERM,SIGINT"  # the others do not exist on Windows
    try:
        api.elastic_launch(config, sys.executable)("-m", "core.training.ranks.rank_process", *arguments)
    finally:  # on Windows, where torchrun has ended no rank
        psutil.wait_procs(psutil.Process().children(recursive=True), timeout=SAVE_S)
        kill_children()


def _rendezvous(parameters: RendezvousParameters) -> RendezvousHandler:
    """Return torchrun's static rendezvous, with the store of the parameters instead of its own; on Windows also change
    how the launcher ends ranks."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler
    from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

    class Rendezvous(StaticTCPRendezvous):
        def get_backend(self) -> str:
            """Return the name under which this rendezvous is registered at torchrun, "ranks"."""
            return "ranks"

    host, port = host_and_port(parameters.endpoint)
    rank, nodes, meeting_store = parameters.config["rank"], parameters.max_nodes, parameters.config["store"]
    rendezvous = Rendezvous(host, int(port), rank, nodes, parameters.run_id, MEET_S)
    rendezvous._store = meeting_store
    if os.name == "nt":  # its Ctrl-C has no effect there, and its next attempt would end rank 0 while it saves
        SubprocessHandler.close = lambda handler, death_sig=None: meeting_store.set(ENDED, "")
    return rendezvous


def _record_failure(run: RunFolder, error: Exception, states: frozenset[State]) -> None:
    """Write that the run failed with this error, if it is in one of these states and no worker holds its lock (waits up
    to 10 seconds for it); else do nothing. An error other than a RunError is reported as a failed connection, with
    advice on the firewall."""
    with suppress(Timeout), run.lock().acquire(timeout=10), Reporter(run) as reporter:
        if run.status().state in states:
            reporter.end(Failed.from_error(connection_error(error), run.path))


def main() -> int:
    """Start this PC's ranks of a run that another PC leads, wait for their end, and return the exit status.

    0 if all ranks ended well; 1 if a rank failed, which has reported why, or after any other error, such as a main PC
    that was not reached, which is printed. The command line gives --workspace and --ranks (how many on this PC),
    environment variables the rest (`Nodes`).
    """
    parser = argparse.ArgumentParser(prog="core.training.ranks.agent")
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--ranks", type=int, required=True)
    arguments, nodes = parser.parse_args(), Nodes.from_environment()
    assert nodes
    end_with_parent()
    try:
        _start(arguments.ranks, nodes, _store(nodes, Path()), ["--workspace", arguments.workspace])
    except Exception as error:  # noqa: BLE001 - a rank that failed has reported why; other errors of torch are printed
        if type(error).__name__ != "ChildFailedError":
            print(connection_error(error).message.render(terminal_language()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    exit_now(main())
