"""One rank of a run, as torchrun's agent starts it: `python -m core.training.ranks.rank_process --workspace DIR [RUN]`.

Rank 0 is the run's worker (core.training.worker). The others have the base, the adapter and its optimizer; rows and
orders come from rank 0, and they write no file of the run. On another PC there is no RUN. Exit: 0 the run is over, 1
this rank failed, or rank 0 is gone; of a rank 0 that ended before it joined the others, that of core.training.worker.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from pathlib import Path

from core.errors import GarageError
from core.messages import terminal_language
from core.models import weights
from core.models.library import Models
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.ended import Failed
from core.system import cores, devices
from core.system.processes import exit_now, keep_freed_memory
from core.training import worker
from core.training.ranks.meeting import MEETING, report_failure
from core.workspace.folder import Workspace


def has_joined() -> bool:
    """Return whether this process has connected to the other ranks, that is, whether torch.distributed is initialized;
    torch is not imported for it."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.distributed.is_initialized()


def main() -> int:
    """Restrict this rank to its GPU and run it: rank 0 as the run's worker, another one by `follow`.

    Returns the exit status. That of rank 0 is 0 also after Pause or Stop if it had joined the others, since torchrun
    takes any other status for a failed rank.
    """
    cards = os.environ.get(devices.VISIBLE, "").split(",")
    if len(cards) > 1:  # before CUDA is used: each rank has one of the run's
        os.environ[devices.VISIBLE] = cards[int(os.environ["LOCAL_RANK"])]
    if os.environ["RANK"] == "0":
        code = worker.main()
        return 0 if code != 1 and has_joined() else code  # an error makes the agent end ranks that still wait
    parser = argparse.ArgumentParser(prog="core.training.ranks.rank_process")
    parser.add_argument("--workspace", required=True)
    parser.add_argument("run_id", nargs="?")
    arguments = parser.parse_args()
    cores.lower_priority()
    keep_freed_memory()
    workspace = Workspace.open(arguments.workspace)
    follow(workspace, Runs(workspace).get(arguments.run_id).path / MEETING if arguments.run_id else None)
    return 0


def follow(workspace: Workspace, meeting: Path | None) -> None:
    """Load the base and adapter that rank 0 names and compute what it orders until the run is over; on an error report
    it to rank 0 and exit with 1. meeting: the file where the ranks of one PC meet."""
    try:
        worker.read_libraries()
        import torch

        from core.engine import adapter, base_model, device
        from core.engine.variants import neftune, streaming
        from core.training.ranks.group import Ranks
        from core.training.ranks.step import SharedStep

        on_card = torch.cuda.is_available()
        ranks = Ranks.from_environment(on_card, meeting)
        order = ranks.meet()
        recipe = Recipe.model_validate(order["recipe"])
        compute, chosen = device.choose(order["dtype"]), recipe.adapter
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        torch.set_num_threads(max(1, min(torch.get_num_threads(), cores.usable() - recipe.train.spare_cores) // local))
        folder = Models(workspace).obtain(recipe.model.id, recipe.model.revision, lambda *_: None, lambda: None)
        if recipe.train.fsdp:
            ranks.take_part_in_exchanges(ranks.rank)
        load = streaming.load if recipe.train.fsdp else base_model.load_finite
        base, compute = load(folder, compute, chosen.method == "qlora", chosen.load_in_8bit)
        tuned = adapter.add(base, chosen, str(folder), None)
        step = SharedStep.on(ranks, weights.sampled_fingerprint(folder), tuned, recipe, compute, order["pad_token_id"])
        step.begin(recipe.train.seed)
        with neftune.noise(tuned, recipe.train.neftune_noise_alpha):
            step.follow()
    except Exception as error:  # noqa: BLE001 - whatever it was, rank 0 must know it and the log must have it
        failure = Failed.from_error(error, Path()).message
        report_failure(meeting, failure)
        if isinstance(error, GarageError):
            print(failure.render(terminal_language()), file=sys.stderr)
        else:
            traceback.print_exc()
        exit_now(1)


if __name__ == "__main__":
    exit_now(main())
