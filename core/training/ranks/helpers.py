"""Rank 0's side of the others: starts them, tells them in lines what to compute, and notices when one ends, fails or no
longer responds.

To end a rank, its stdin is closed (on a stop, a pause, a failure or the death of rank 0), and it exits at once. No
torch at the
top: a worker imports this before it needs torch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from core.errors import RunError
from core.messages import Message, msg
from core.progress import RankUse
from core.recipe import Recipe
from core.runs import process as run_process
from core.runs.folder import RunFolder
from core.system import devices
from core.system.lines import Child
from core.training.ranks.meeting import Meeting

if TYPE_CHECKING:
    from core.training.ranks.group import RankGroup

MEETING = "ranks.store"  # in the run folder: where the ranks of one PC find each other
POLL_S = 0.001
END_S = 2.0  # for a rank that is told to leave
LOAD_S = 3600.0  # longest silence while a base loads from a slow disk
PATIENCE_S = 600.0  # and in a step, beyond ten times what rank 0's part took


class RankError(RunError):
    """A rank failed, ended or no longer responds; rank 0 has everything that was learned."""


def environments(run: RunFolder, size: int) -> list[dict[str, str]]:
    """For the other ranks: one GPU each, of those the worker was started with. Raises RunError if they are too few."""
    if not run_process.is_for_card(run.facts()):
        return [{}] * (size - 1)
    cards = os.environ.get(devices.VISIBLE, "").split(",")
    if len(cards) < size:
        raise RunError("ranks.too_few_cards", msg("ranks.fewer"), ranks=size, cards=len(cards))
    return [{devices.VISIBLE: card} for card in cards[1:size]]


class Spoken(Protocol):
    """A rank as rank 0 sees it: a process of this PC (core.system.lines), or of another (ranks/machines)."""

    def say(self, **values: Any) -> None: ...
    def listen(self, hear: Callable[[Any], None], ended: Callable[[Any], None]) -> None: ...
    def end(self, wait_s: float) -> None: ...


class Ranks:
    """Use close. group: once they have met. host: rank 0's address for torch.distributed."""

    group: RankGroup
    host = "127.0.0.1"
    end_s = END_S

    def __init__(self, folder: Path, name: str, patience_s: float = PATIENCE_S):
        """name: shown in their command lines, to tell which run they belong to."""
        self._store, self._name, self.patience_s = folder / MEETING, name, patience_s
        self.meeting: Path | Meeting = self._store
        self._children: dict[int, Spoken] = {}
        self._said: dict[int, dict[str, Any]] = {}
        self._ended: dict[int, int | str] = {}
        self.use: dict[int, RankUse] = {}  # the latest measurement of each rank
        self.tell: Callable[[tuple[RankUse, ...]], None] = lambda use: None
        self.decided: Callable[[Message], None] = lambda message: None  # for the run's events
        self._step = 0

    def begin(self, places: Sequence[Mapping[str, str]]) -> None:
        self._store.unlink(missing_ok=True)
        for rank, environment in enumerate(places, 1):
            self._add(rank, Child("core.training.ranks.worker", self._name, log=2, environment=environment))

    def _add(self, rank: int, child: Spoken) -> None:
        self._children[rank] = child
        child.listen(partial(self._hear, rank), partial(self._ended.__setitem__, rank))

    def _hear(self, rank: int, said: dict[str, Any]) -> None:
        if "use" in said:
            self.use[rank] = self._use_of(rank, RankUse.model_validate(said["use"]))
        self._said[rank] = said

    def _use_of(self, rank: int, said: RankUse) -> RankUse:
        return said

    @property
    def size(self) -> int:
        return 1 + len(self._children)

    @property
    def _others(self) -> range:
        return range(1, self.size)

    def load(
        self, recipe: Recipe, model_folder: Path, own_code: bool, dtype: str, pad_token_id: int, threads: int
    ) -> None:
        """Let them load the base while rank 0 does."""
        what = {
            "recipe": recipe.model_dump(mode="json"),
            "model_folder": str(model_folder),
            "own_code": own_code,
            "dtype": dtype,
        }
        for rank, child in self._children.items():
            place = {"rank": rank, "size": self.size, "threads": threads, **self._place(rank, recipe, model_folder)}
            child.say(**what, **place, pad_token_id=pad_token_id)

    def _place(self, rank: int, recipe: Recipe, model_folder: Path) -> dict[str, Any]:
        """How a rank finds the others."""
        return {"meeting": str(self.meeting)}

    def all_ready(self, parameters: int, check: Callable[[], None]) -> None:
        self._until(lambda: all("ready" in self._said.get(rank, {}) for rank in self._children), check, LOAD_S)
        for rank, said in self._said.items():
            if said["ready"] != parameters:
                raise RankError("ranks.differ", rank=rank, found=said["ready"], expected=parameters)

    def assemble(self, check: Callable[[], None]) -> None:
        """All have imported their libraries; they meet before they load the base (core/engine/variants/fsdp)."""
        self._until(lambda: len(self._said) == len(self._children), check, LOAD_S)
        self.tell_all(meet=True)

    def in_turn(self, check: Callable[[], None]) -> None:
        """Ranks load one after another, so that RAM never holds the base twice."""
        for rank, child in self._children.items():
            child.say(turn=True)
            self._until(lambda rank=rank: "ready" in self._said[rank], check, LOAD_S)  # type: ignore[misc]

    def meet(self, group: Callable[[], RankGroup]) -> None:
        """Create the group of all ranks."""
        self.group = group()

    def order(self, of_ranks: Sequence[Any], **order: Any) -> None:
        """Tell each rank what to compute; of_ranks[0] is rank 0's own part."""
        self._step += 1
        for rank, child in self._children.items():
            child.say(number=self._step, parts=of_ranks[rank], **order)

    def tell_all(self, **order: Any) -> None:
        for child in self._children.values():
            child.say(**order)

    def gather(self, layer: int) -> None:
        """Let the others join a gather that only rank 0 needs (core/engine/variants/fsdp)."""
        self.tell_all(gather=layer)

    def wait(self, work: Any, check: Callable[[], None], seconds: float = 0.0) -> None:
        """Wait for a transfer. seconds: what rank 0's part took. Raises RankError, and what check raises."""
        self._until(work.is_completed, check, self.patience_s + 10 * seconds)
        try:
            work.wait()
        except RuntimeError:  # Gloo: the closed connection is noticed before the peer's end
            self._until(lambda: False, check, self.end_s)

    def answers(self, check: Callable[[], None], seconds: float = 0.0) -> list[dict[str, Any]]:
        """Every rank's answer to the last order, once all have answered. Raises as `wait` does."""
        self._until(
            lambda: all(self._said.get(rank, {}).get("done") == self._step for rank in self._others),
            check,
            self.patience_s + 10 * seconds,
        )
        return [self._said[rank] for rank in self._others]

    def _until(self, is_done: Callable[[], bool], check: Callable[[], None], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not is_done():
            self._look(check)
            if time.monotonic() > end:
                silent = [rank for rank, said in self._said.items() if said.get("done") != self._step] or [
                    *self._children
                ]
                raise RankError(
                    "ranks.silent", self._advice(silent[0]), rank=silent[0], ranks=self.size, seconds=round(seconds)
                )
            time.sleep(POLL_S)

    def _look(self, check: Callable[[], None]) -> None:
        for rank, code in dict(self._ended).items():
            raise self._gone(rank, code)
        check()

    def _gone(self, rank: int, code: int | str) -> RankError:
        reason = self._said.get(rank, {}).get("failed")
        what = {"reason": Message.model_validate(reason)} if reason else {"code": code}
        return RankError(
            "ranks.failed" if reason else "ranks.gone", self._advice(rank), rank=rank, ranks=self.size, **what
        )

    def _advice(self, rank: int) -> Message:
        return msg("ranks.fewer")

    def close(self) -> None:
        for child in self._children.values():
            child.end(0)
        with suppress(OSError):  # Windows, while it is still open: the next attempt removes it
            self._store.unlink(missing_ok=True)
