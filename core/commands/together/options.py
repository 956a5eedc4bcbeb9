"""`train` and `resume` with --machines: what the main PC says to the others, and to its own worker."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from core import COMMAND
from core.commands.terminal import apply_settings, say
from core.errors import RecipeError
from core.messages import msg
from core.recipe import Recipe
from core.system.linked import Gathering, key_of, new_secret, parse, written

SECRET = "LORA_GARAGE_SECRET"
MOST = 8  # PCs
MachinesOption = Annotated[int | None, typer.Option(help="Train on this many PCs together, including this one.")]
MainOption = Annotated[str | None, typer.Option(help="HOST:PORT at which the others reach the main PC.")]
RankOption = Annotated[int, typer.Option(help="Rank of this PC: 0 is the main PC, any other joins it.")]


def gathering(machines: int | None, main: str | None, rank: int, wanted: Recipe) -> Gathering | None:
    """Of the main PC; None for a run of one PC. Says what to type on the others. Raises RecipeError, LinkError."""
    if machines is None and main is None:
        if rank:
            raise RecipeError("machines.both", command=COMMAND)
        return None
    if machines is None or main is None:
        raise RecipeError("machines.both", command=COMMAND)
    if not 2 <= machines <= MOST or not 0 <= rank < machines:
        raise RecipeError("machines.bad_count", machines=machines, rank=rank, most=MOST)
    if wanted.train.fsdp:
        raise RecipeError("fsdp.machines")
    # As one PC would have it with as many ranks: what cannot be dealt, and too many of them.
    ranks = wanted.train.ranks + machines - 1
    Recipe.parse(
        apply_settings(wanted.model_dump(mode="json"), [f"train.ranks={ranks}"]), where=wanted.name or "--machines"
    )
    address = written(parse(main))
    secret = ""
    if not rank:
        secret = os.environ.pop(SECRET, "") or new_secret()
        key_of(secret)
    return Gathering(machines=machines, main=address, secret=secret)


def announce(found: Gathering) -> None:
    """On the terminal alone."""
    say(
        msg(
            "machines.type_there", command=f"{COMMAND} join {found.main}", count=found.machines - 1, secret=found.secret
        )
    )
