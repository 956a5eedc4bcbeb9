"""The parts of the app that pages use, created once at the start and passed to each page."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from core.chat.client import ChatClient
from core.chat.making.writers import LEASE
from core.data.hub_sets import adding
from core.data.preview import Previews
from core.data.store import DatasetStore
from core.export.exports import Exports
from core.export.hub.publishing import Publishing
from core.export.ollama.adding import OllamaAdder
from core.hub.download import Check, Report
from core.hub.downloads import Download, Downloads
from core.hub.token import HubToken
from core.messages import Message, msg
from core.models.library import Models
from core.presets import PRESETS
from core.queue.queue import Queue
from core.queue.supervisor import Supervisor
from core.queue.turns import Turns, busy
from core.runs import foreign
from core.runs.all import Runs
from core.system.machine import Monitor
from core.trial.dry_runs import DryRuns
from core.workspace.folder import Workspace
from core.workspace.writable import WriteWatch
from webui.state.curves import Curves
from webui.state.diagnoses import Diagnoses
from webui.state.evaluating import Evaluating
from webui.state.making import Makings
from webui.state.serving import Serving
from webui.state.snapshot import Snapshots
from webui.state.trying import Trying


@dataclass(frozen=True)
class Services:
    """The parts of the app that pages use, such as runs, datasets, queue and chat: created once at the start and passed
    to each page."""

    workspace: Workspace
    runs: Runs
    supervisor: Supervisor
    datasets: DatasetStore
    models: Models
    downloads: Downloads
    chat: ChatClient
    exports: Exports
    ollama: OllamaAdder
    publishing: Publishing
    curves: Curves
    snapshots: Snapshots
    previews: Previews
    monitor: Monitor
    dry_runs: DryRuns
    queue: Queue
    write_watch: WriteWatch
    diagnoses: Diagnoses
    hub_token: HubToken
    evaluating: Evaluating
    makings: Makings
    trying: Trying
    serving: Serving
    deleted: list[str] = field(default_factory=list)  # models deleted on any page since the app began

    @classmethod
    def open(cls, workspace: Workspace) -> Services:
        """Create everything that the page uses for a workspace, each part with the others that it needs; nothing is
        started."""
        runs, monitor = Runs(workspace), Monitor()
        dry_runs = DryRuns(lambda: busy(runs))
        chat, exports = ChatClient(workspace), Exports(workspace)

        def free_chat_and_dry_runs(why: Message) -> None:
            """Free the device for other work: end the process of the dry runs, and unload the chat's model. why: the
            reason, which Chat shows."""
            dry_runs.end_process()
            chat.unload(why)

        datasets, models = DatasetStore(workspace.datasets, PRESETS, workspace.library_folders), Models(workspace)
        makings = Makings(
            workspace,
            datasets,
            ChatClient(workspace, doing=LEASE),
            Queue(workspace),
            make_room=lambda: free_chat_and_dry_runs(msg("chat.unloaded_for_making")),
        )

        supervisor = Supervisor(
            workspace,
            before_start=lambda run: free_chat_and_dry_runs(msg("chat.unloaded_for_run", name=run.name)),
            turns=Turns(workspace, machine=monitor.newest, exporting=exports.has_live_worker, other=makings),
        )

        def adapter_as_run(row: Download, report: Report, check: Check) -> str:
            """Bring in a downloaded adapter as a run of the workspace, and return the run's name."""
            return foreign.from_hub(workspace, row.repo, row.revision, row.adapter or "", report, check).name

        curves, downloads = Curves(runs), models.downloads(partial(adding.add_part, datasets), adapter_as_run)
        return cls(
            workspace=workspace,
            runs=runs,
            supervisor=supervisor,
            datasets=datasets,
            models=models,
            downloads=downloads,
            chat=chat,
            exports=exports,
            ollama=OllamaAdder(),
            publishing=Publishing(workspace, runs),
            curves=curves,
            diagnoses=Diagnoses(curves),
            snapshots=Snapshots(runs, chat, exports, downloads, makings),
            previews=Previews(datasets, models),
            monitor=monitor,
            dry_runs=dry_runs,
            queue=supervisor.queue,
            write_watch=WriteWatch(workspace),
            hub_token=HubToken(),
            evaluating=Evaluating(workspace, datasets, chat),
            makings=makings,
            trying=Trying(runs, datasets, chat),
            serving=Serving(runs, chat),
        )

    def begin(self) -> None:
        """Start what the app that owns the workspace does: watching the hardware, supervising runs, downloading."""
        self.monitor.start()
        self.supervisor.start()
        self.downloads.begin()

    def close(self) -> None:
        """Stop all background work, pause the run that trains, wait for it, and free the device, as Ctrl-C does."""
        self.monitor.close()
        self.ollama.cancel()
        self.downloads.close()
        self.evaluating.stop()
        self.makings.stop()
        self.trying.stop()
        self.serving.stop()
        self.supervisor.close()
        self.dry_runs.end_process()
        self.chat.unload()
