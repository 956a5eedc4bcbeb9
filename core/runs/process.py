"""The process of a run: which process started it, and on which device it computes. No torch.

run.json names who started it (launcher_pid, launcher_started): an app or a command, which may end while the run
continues. A worker is alone once that process has ended and no app owns the workspace; an app that starts later adopts
the worker, which is then no longer alone.

A run that was planned for a GPU never trains on another one, or on the CPU, silently: its worker checks the device here
before it downloads anything, and again when torch has chosen one. If another GPU is present it is offered; resuming the
run accepts the offer.
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
from core.workspace import owner
from core.workspace.folder import Workspace


class Launcher:
    """Watches the process that started the run. Called with each heartbeat of the reporter, never by the training
    itself."""

    def __init__(self, run: RunFolder, workspace: Workspace):
        self._run, self._workspace = run, workspace
        facts = run.facts()
        self._process = (facts.launcher_pid, facts.launcher_started)
        self._alone = False

    def look(self) -> None:
        """Check whether the process that started the run, or any app on this workspace, still lives, and log an event
        when that changes."""
        alone = not processes.process_lives(*self._process) and not owner.app_lives(self._workspace)
        if alone == self._alone:
            return
        self._alone = alone
        message = msg("launcher.alone", pid=self._process[0]) if alone else msg("launcher.back")
        self._run.log_event("launcher", message=message)


def environment(run: RunFolder) -> dict[str, str]:
    """Return the environment variables for the process that trains run, which make only its planned GPUs visible.

    If a planned GPU is missing, nothing is hidden beyond what the person hides, so that the worker can report what
    there is instead.
    """
    facts = run.facts()
    planned = facts.wanted_device
    if planned in (None, devices.CPU):  # no query: the driver may hang
        return devices.environment_of(planned, Nvidia())
    nvidia = devices.read_cards()
    is_there = not missing_cards(run, nvidia)
    return devices.environment_of(planned, nvidia, recipe_of(run).train.ranks, facts.wanted_beside) if is_there else {}


def recipe_of(run: RunFolder) -> Recipe:
    """Return the recipe as it is trained now: with the number of ranks that the run was resumed with."""
    recipe, ranks = run.recipe(), run.facts().ranks
    if not ranks:
        return recipe
    now = {"ranks": ranks, "fsdp": recipe.train.fsdp and ranks > 1}  # a single rank cannot shard
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=now)})


def missing_cards(run: RunFolder, nvidia: Nvidia) -> dict[str, str]:
    """Return the planned GPUs of the run's ranks that cannot be used now, as uuid to name."""
    facts = run.facts()
    of_run = [*_names_of_planned_cards(facts).items()][: recipe_of(run).train.ranks if facts.wanted_beside else 1]
    usable = {card.uuid for card in nvidia.cards if card.usable}
    return {uuid: name for uuid, name in of_run if uuid not in usable}


def environment_nearest(device: str | None) -> dict[str, str]:
    """Return the variables to add to the environment of a chat or an export, so that it runs on `device`, or on the
    nearest present one if that is missing."""
    nvidia = devices.read_cards()
    return devices.environment_of(devices.available_or_best(device, nvidia), nvidia)


def require_device(run: RunFolder) -> None:
    """Raise RunError if a GPU that run was planned for cannot be used (driver, missing or broken GPU, torch without
    CUDA), with an offer of another, as far as can be seen without torch."""
    facts, nvidia = run.facts(), devices.read_cards()
    if not is_for_card(facts):
        return
    if facts.wanted_device and nvidia.error is not None:
        # e.g. a driver updated without a restart: the GPU itself is present
        raise RunError("device.driver", msg("device.ask_doctor"), card=name_of(facts), reason=nvidia.error)
    for uuid, name in missing_cards(run, nvidia).items():
        # a GPU off the bus has no uuid
        nameless = (card for card in nvidia.cards if card.lost and card.uuid is None)
        card = next((card for card in nvidia.cards if card.uuid == uuid), None) or next(nameless, None)
        why = card and devices.why_left_out(card.model_copy(update={"name": name}))
        raise _other_device_error(run, why or msg("device.gone", card=name), nvidia)
    build = devices.torch_build()
    if build and not build.knows_cards:
        raise RunError(
            "device.torch_without_cuda", msg("device.repair"), card=name_of(facts), torch=build.version or "?"
        )


def require_data(run: RunFolder, workspace: Workspace) -> None:
    """Raise RunError if the data's SHA-256 differs from that which the run began with and there are checkpoints: its
    steps would be different ones."""
    data, source = run.facts().data, run.recipe().data.source
    # Imported here: a chat's worker imports this file before it moves its stdin pipe away, and the store imports numpy,
    # which queries that handle on Windows.
    from core.data.store import DatasetStore

    now = DatasetStore(workspace.datasets, PRESETS, workspace.library_folders).get(source).sha256
    if data and data.sha256 and run.checkpoints() and now != data.sha256:
        raise RunError("run.data_changed", data=source)


def keep_device(run: RunFolder, card: Card | None, on_card: bool) -> None:
    """Record the GPU that torch computes on, with a warning in the log if it is another than before. card: NVML's
    record of it, None if unknown.

    Raises RunError if it is not the planned one.
    """
    facts = run.facts()
    if is_for_card(facts) and not on_card:
        raise RunError("device.not_used", msg("device.ask_doctor"), card=name_of(facts))
    if card is None:
        return
    if facts.wanted_device not in (None, card.uuid):
        raise _other_device_error(run, msg("device.gone", card=name_of(facts)), devices.read_cards())
    if facts.device_uuid not in (None, card.uuid):
        run.log_event("warning", message=msg("device.another", then=facts.device_name or "?", now=card.name or "?"))
    run.add_facts(RunFacts(device_uuid=card.uuid, device_name=card.name))


def is_for_card(facts: RunFacts) -> bool:
    """Return whether the run was planned for a GPU.

    Runs of older versions, judged by their budget, whose GPU was not recorded, may have gone to the CPU, and stay
    there.
    """
    if facts.wanted_device is None:
        return facts.planned.budget.kind == "card" and facts.device != "cpu"
    return facts.wanted_device != devices.CPU


def name_of(facts: RunFacts) -> str:
    """Return the name of the planned GPU; its uuid if it replaced another one and was never used."""
    planned, device = facts.planned.budget, facts.wanted_device
    if device is None or planned.card_uuid in (None, device):
        return planned.name or device or "?"
    return (facts.device_name if device == facts.device_uuid else None) or device


def _other_device_error(run: RunFolder, why: Message, nvidia: Nvidia) -> RunError:
    """Return an error with the reason `why` and the best replacement: the run's remaining GPUs, else the best other
    one.

    The replacement is recorded in run.json as an offer.
    """
    left = _names_of_usable_planned_cards(run.facts(), nvidia)
    best = devices.best_card(nvidia)
    instead = left or ({best.uuid: best.name or "?"} if best and best.uuid and not best.mig else {})
    run.add_facts(RunFacts(offered_device=next(iter(instead), None)))
    return RunError(why, msg("device.offer", card=", ".join(instead.values())) if instead else msg("device.plan_again"))


def _names_of_usable_planned_cards(facts: RunFacts, nvidia: Nvidia) -> dict[str, str]:
    """Return the names, by uuid, of those planned GPUs of a run that can be used now."""
    usable = {card.uuid for card in nvidia.cards if card.usable}
    return {uuid: name for uuid, name in _names_of_planned_cards(facts).items() if uuid in usable}


def _names_of_planned_cards(facts: RunFacts) -> dict[str, str]:
    """Return the names of the planned GPUs by uuid; {} if none was named."""
    return ({facts.wanted_device: name_of(facts)} if facts.wanted_device else {}) | facts.wanted_beside


def accept_offer(facts: RunFacts, nvidia: Nvidia) -> RunFacts:
    """Return the facts that change when a run is resumed: device and number of ranks become the offered GPUs, unless
    the planned ones are back; the offer is cleared."""
    if facts.offered_device is None:
        return RunFacts()
    left = _names_of_usable_planned_cards(facts, nvidia)
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


def other_device_notice(facts: RunFacts, card: Card | None, on_card: bool) -> Message | None:
    """Return a notice that a chat or the check of an export runs on the CPU or on another GPU although the run was
    planned for a GPU; None if it runs on that GPU, if the run was planned for the CPU, or if the GPU in use or the
    planned one is unknown.

    card: NVML's record of the GPU in use, None if unknown; on_card: whether a GPU is used.
    """
    now = (card.name if card else None) or "?"
    if not on_card and is_for_card(facts):
        return msg("device.on_processor_instead", then=name_of(facts))
    if on_card and card and facts.wanted_device not in (None, devices.CPU, card.uuid):
        return msg("device.instead", then=name_of(facts), now=now)
    return None
