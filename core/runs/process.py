"""The process of a run: who started it, and on which device. No torch.

run.json names who started it (launcher_pid, launcher_started): an app or a command that may end without a word while
the run goes on. A worker is alone once that process is gone and no app owns the workspace; an app that starts later
finds the worker and watches it, and the worker is not alone any more.

A run that was planned for a card never trains on another one, or on the processor, without a word: its worker asks here
before it fetches anything, and once more when it knows what torch found. Where another card is there it is offered: who
lets the run go on then has taken it.
"""

from __future__ import annotations

from core.errors import RunError
from core.messages import Message, msg
from core.presets import PRESETS
from core.recipe import Recipe
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts
from core.system import devices, processes
from core.system.gpu import Card, Nvidia
from core.workspace import owner, preferences
from core.workspace.folder import Workspace


class Launcher:
    """Asked by the reporter's watch with each heartbeat, never by the training itself."""

    def __init__(self, run: RunFolder, workspace: Workspace):
        self._run, self._workspace = run, workspace
        facts = run.facts()
        self._process = (facts.launcher_pid, facts.launcher_started)
        self._alone = False

    def look(self) -> None:
        """Write down that the worker is alone now, or is not any more; alone, it pauses where the person chose so."""
        alone = not processes.process_lives(*self._process) and not owner.app_lives(self._workspace)
        if alone == self._alone:
            return
        self._alone = alone
        if not alone:
            self._run.log_event("launcher", message=msg("launcher.back"))
            return
        choice = preferences.read(self._workspace).when_alone
        self._run.log_event("launcher", message=msg(f"launcher.alone_{choice}", pid=self._process[0]))
        if choice == "pause":
            self._run.ask("pause", by="alone")


def environment(run: RunFolder) -> dict[str, str]:
    """Of the process that trains run: what it was planned for, and nothing else. Where that cannot be had it finds this
    PC as it is, with what a person hides in it, and says what there is instead."""
    facts = run.facts()
    wanted = facts.wanted_device
    if wanted in (None, devices.CPU):  # a driver that hangs is not asked in vain
        return devices.environment_of(wanted, Nvidia())
    nvidia = devices.here()
    is_there = not missing(run, nvidia)
    return devices.environment_of(wanted, nvidia, recipe_of(run).train.ranks, facts.wanted_beside) if is_there else {}


def recipe_of(run: RunFolder) -> Recipe:
    """As it is trained now: with as many ranks as it was let go on with."""
    recipe, ranks = run.recipe(), run.facts().ranks
    if not ranks:
        return recipe
    now = {"ranks": ranks, "fsdp": recipe.train.fsdp and ranks > 1}  # one alone has nobody to hold a part
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=now)})


def missing(run: RunFolder, nvidia: Nvidia) -> dict[str, str]:
    """Of the cards that run is to have, those that cannot be used now: uuid to name."""
    facts = run.facts()
    of_run = [*_wanted(facts).items()][: recipe_of(run).train.ranks if facts.wanted_beside else 1]
    usable = {card.uuid for card in nvidia.cards if card.usable}
    return {uuid: name for uuid, name in of_run if uuid not in usable}


def environment_nearest(wanted: str | None) -> dict[str, str]:
    """Of what may be done on another device where wanted is not there: a chat, an export."""
    nvidia = devices.here()
    return devices.environment_of(devices.nearest(wanted, nvidia), nvidia)


def require_device(run: RunFolder) -> None:
    """Raises RunError where the card that run was planned for cannot be had, as far as can be told without torch."""
    facts, nvidia = run.facts(), devices.here()
    if not is_for_card(facts):
        return
    if facts.wanted_device and nvidia.error is not None:
        # a driver that was updated and not started anew: the card is in its place
        raise RunError("device.driver", msg("device.ask_doctor"), card=name_of(facts), reason=nvidia.error)
    for uuid, name in missing(run, nvidia).items():
        # off the bus, it does not tell who it is
        nameless = (card for card in nvidia.cards if card.lost and card.uuid is None)
        card = next((card for card in nvidia.cards if card.uuid == uuid), None) or next(nameless, None)
        why = card and devices.why_left_out(card.model_copy(update={"name": name}))
        raise _elsewhere(run, why or msg("device.gone", card=name), nvidia)
    build = devices.torch_build()
    if build and not build.knows_cards:
        raise RunError(
            "device.torch_without_cuda", msg("device.repair"), card=name_of(facts), torch=build.version or "?"
        )


def require_data(run: RunFolder, workspace: Workspace) -> None:
    """Raises RunError where the data is not what the run began with: its steps would be others."""
    data, source = run.facts().data, run.recipe().data.source
    # Here: a chat's worker reads this file before its pipe is laid aside, and the store brings numpy, which asks
    # Windows for that handle.
    from core.data.store import DatasetStore

    now = DatasetStore(workspace.datasets, PRESETS, workspace.library_folders).get(source).sha256
    if data and data.sha256 and run.checkpoints() and now != data.sha256:
        raise RunError("run.data_changed", data=source)


def keep_device(run: RunFolder, card: Card | None, on_card: bool) -> None:
    """Keep which card torch computes on. card: NVML's record of it, None where that is not known.

    Raises RunError where it is not what was planned.
    """
    facts = run.facts()
    if is_for_card(facts) and not on_card:
        raise RunError("device.not_used", msg("device.ask_doctor"), card=name_of(facts))
    if card is None:
        return
    if facts.wanted_device not in (None, card.uuid):
        raise _elsewhere(run, msg("device.gone", card=name_of(facts)), devices.here())
    if facts.device_uuid not in (None, card.uuid):
        run.log_event("warning", message=msg("device.another", then=facts.device_name or "?", now=card.name or "?"))
    run.add_facts(RunFacts(device_uuid=card.uuid, device_name=card.name))


def is_for_card(facts: RunFacts) -> bool:
    """An attempt of before the uuid was kept may have gone to the processor, and goes on there."""
    if facts.wanted_device is None:
        return facts.planned.budget.kind == "card" and facts.device != "cpu"
    return facts.wanted_device != devices.CPU


def name_of(facts: RunFacts) -> str:
    """Of the card that is wanted; its uuid where it was taken in place of another and never used."""
    planned, wanted = facts.planned.budget, facts.wanted_device
    if wanted is None or planned.card_uuid in (None, wanted):
        return planned.name or wanted or "?"
    return (facts.device_name if wanted == facts.device_uuid else None) or wanted


def _elsewhere(run: RunFolder, why: Message, nvidia: Nvidia) -> RunError:
    """why, with what there is instead: what is left of the run's own cards, else the best. That is kept as an offer."""
    left = _left(run.facts(), nvidia)
    best = devices.best_card(nvidia)
    instead = left or ({best.uuid: best.name or "?"} if best and best.uuid and not best.mig else {})
    run.add_facts(RunFacts(offered_device=next(iter(instead), None)))
    return RunError(why, msg("device.offer", card=", ".join(instead.values())) if instead else msg("device.plan_again"))


def _left(facts: RunFacts, nvidia: Nvidia) -> dict[str, str]:
    usable = {card.uuid for card in nvidia.cards if card.usable}
    return {uuid: name for uuid, name in _wanted(facts).items() if uuid in usable}


def _wanted(facts: RunFacts) -> dict[str, str]:
    return ({facts.wanted_device: name_of(facts)} if facts.wanted_device else {}) | facts.wanted_beside


def taken(facts: RunFacts, nvidia: Nvidia) -> RunFacts:
    """What changes when a run is let go on: what was offered is taken, unless the planned cards are there again."""
    if facts.offered_device is None:
        return RunFacts()
    left = _left(facts, nvidia)
    if len(left) == 1 + len(facts.wanted_beside):
        return RunFacts(offered_device=None)
    if not facts.wanted_beside:
        return RunFacts(wanted_device=facts.offered_device, offered_device=None)
    first, *others = left or {facts.offered_device: ""}
    return RunFacts(
        wanted_device=first,
        wanted_beside={uuid: left[uuid] for uuid in others},
        ranks=1 + len(others),
        offered_device=None,
    )


def elsewhere(facts: RunFacts, card: Card | None, on_card: bool) -> Message | None:
    """Of what may be done on another device, a chat or the proof of an export: that it is one, None where it is not.

    card: NVML's record of the one that is used; on_card: whether one is."""
    now = (card.name if card else None) or "?"
    if not on_card and is_for_card(facts):
        return msg("device.on_processor_instead", then=name_of(facts))
    if on_card and card and facts.wanted_device not in (None, devices.CPU, card.uuid):
        return msg("device.instead", then=name_of(facts), now=now)
    return None
