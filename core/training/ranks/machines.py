"""Ranks on other PCs, as rank 0 sees them: each connected by itself (`python launch.py join`), knows the secret
(core.system.linked), and has the same base.

One rank a PC, beside those of this one. What is computed, and what happens when one is lost, is as with ranks of this
PC. The lines are authenticated by the secret; Gloo's own traffic is neither encrypted nor signed: for a trusted
network. No torch at the top.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import RunError
from core.messages import Message, msg
from core.models import weights
from core.progress import RankUse
from core.recipe import Recipe
from core.runs.folder import RunFolder
from core.runs.reporter import Reporter
from core.system.linked import Entrance, Gathering, Link, parse
from core.system.machine import library_versions
from core.training.ranks.helpers import PATIENCE_S, RankError, Ranks
from core.training.ranks.meeting import Meeting

if TYPE_CHECKING:
    from core.training.ranks.group import RankGroup

ARRIVAL_S = 60.0  # for a PC that has connected, to identify itself
MOST_TOLD = 5  # refused attempts that are logged, so that repeated ones fill no file


class Guest:
    """A rank of another PC."""

    def __init__(self, link: Link):
        self.link = link

    def say(self, **values: Any) -> None:
        self.link.say(**values)

    def listen(self, hear: Callable[[Any], None], ended: Callable[[Any], None]) -> None:
        self.link.listen(hear, ended)

    def end(self, wait_s: float) -> None:
        self.link.end(over=True)


class RanksOfMachines(Ranks):
    """Those of this PC first, then one of each other."""

    def __init__(self, run: RunFolder, gathering: Gathering, reporter: Reporter, patience_s: float = PATIENCE_S):
        super().__init__(run.path, run.id, patience_s)
        self._run, self._gathering, self._reporter = run, gathering, reporter
        self.meeting: Meeting = Meeting(partial(self._tell, 0))
        self._entrance: Entrance | None = None
        self._turned_away = 0

    def begin(self, places: Sequence[Mapping[str, str]]) -> None:
        """Returns when all are connected. Raises LinkError if it cannot listen, RunError for a PC that does not match
        this one."""
        main = self._gathering.main
        self._entrance = Entrance(parse(main), self._gathering.secret, self._refused)
        self._reporter.stage("waiting_for_machines")
        self._run.log_event("decision", message=msg("machines.waiting", count=self._gathering.machines - 1, main=main))
        super().begin(places)
        for rank in range(self.size, self.size + self._gathering.machines - 1):
            self._add(rank, guest := Guest(self._arrival()))
            self._until(lambda rank=rank: rank in self._said, self._reporter.check, ARRIVAL_S)  # type: ignore[misc]
            self._welcome(guest, self._said[rank])
            self.host, self.end_s = guest.link.here, guest.link.silent_s + self.end_s
        self._entrance.close()

    def _arrival(self) -> Link:
        assert self._entrance
        while True:
            self._look(self._reporter.check)
            with suppress(queue.Empty):
                return self._entrance.arrived.get(timeout=0.1)

    def _refused(self, there: str) -> None:
        self._turned_away += 1
        if self._turned_away <= MOST_TOLD:
            self._reporter.warn(msg("machines.refused", host=there))

    def _welcome(self, guest: Guest, said: dict[str, Any]) -> None:
        there, here = dict(said.get("versions", {})), library_versions()
        for name, own in here.items():
            other = str(there.get(name))[:40]
            if _public(other) != _public(own):  # 2.13.0+cpu works with 2.13.0+cu130
                self._send_away(
                    guest, msg("machines.other_version", host=guest.link.there, name=name, there=other, here=own)
                )
        facts, model = self._run.facts(), self._run.recipe().model.id
        if said.get("data") and facts.data and facts.data.sha256 and said["data"] != facts.data.sha256:
            self._send_away(guest, msg("machines.other_data", host=guest.link.there, name=facts.data.name))
        if said.get("model") and said["model"] != model:
            self._send_away(
                guest, msg("machines.other_model", host=guest.link.there, there=str(said["model"])[:200], here=model)
            )
        device = {"host": guest.link.there, "device": str(said.get("device"))[:100]}
        self._run.log_event("decision", message=msg("machines.joined", **device))

    def _send_away(self, guest: Guest, why: Message) -> None:
        guest.link.end(refused=why.model_dump(mode="json"))
        raise RunError(why, msg("machines.alike"))

    def _hear(self, rank: int, said: dict[str, Any]) -> None:
        if "store" in said:
            self.meeting.heard(*said["store"])
            self._tell(rank, *said["store"])
        elif "gone" in said:  # its process, not the PC
            self._ended[rank] = int(said["gone"])
        else:
            super()._hear(rank, said)

    def _use_of(self, rank: int, said: RankUse) -> RankUse:
        child = self._children[rank]
        return said.model_copy(update={"host": child.link.there}) if isinstance(child, Guest) else said

    def _tell(self, source: int, key: str, value: str) -> None:
        for rank, child in self._children.items():
            if rank != source:
                child.say(store=[key, value])

    def _place(self, rank: int, recipe: Recipe, model_folder: Path) -> dict[str, Any]:
        if not isinstance(self._children[rank], Guest):
            return {"host": self.host}
        model = recipe.model
        return {"base": {"id": model.id, "revision": model.revision, "weights": weights.sampled(model_folder)}}

    def meet(self, group: Callable[[], RankGroup]) -> None:
        try:
            super().meet(group)
        except (RuntimeError, TimeoutError) as error:  # torch's, and our store's
            raise RankError(
                "machines.not_met", msg("machines.firewall"), reason=str(error).splitlines()[0][:200]
            ) from error

    def _gone(self, rank: int, code: int | str) -> RankError:
        child = self._children[rank]
        if isinstance(code, int) or not isinstance(child, Guest) or "failed" in self._said.get(rank, {}):
            return super()._gone(rank, code)
        facts = {"rank": rank, "ranks": self.size, "host": child.link.there}
        return RankError(f"machines.{code}", self._advice(rank), **facts)

    def _advice(self, rank: int) -> Message:
        return (
            msg("machines.without", run=self._run.id)
            if isinstance(self._children[rank], Guest)
            else super()._advice(rank)
        )

    def close(self) -> None:
        if self._entrance:
            self._entrance.close()
        super().close()


def _public(version: str) -> str:
    return version.partition("+")[0]
