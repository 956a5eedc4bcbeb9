"""Everything a page may ask of the app, made once by whoever starts it and handed in."""

from __future__ import annotations

from dataclasses import dataclass

from core.chat_client import ChatClient
from core.datasets_store import DatasetStore
from core.export import Exports
from core.hardware import Monitor
from core.models import Models
from core.pace import Probe
from core.presets import PRESETS
from core.preview import Previews
from core.runs import Runs
from core.supervisor import Supervisor
from core.text import text
from core.turns import Turns
from core.user_presets import UserPresets
from core.workspace import Workspace
from webui.curves import Curves
from webui.moment import Moments


@dataclass(frozen=True)
class Services:
    workspace: Workspace
    runs: Runs
    supervisor: Supervisor
    datasets: DatasetStore
    models: Models
    chat: ChatClient
    exports: Exports
    curves: Curves
    moments: Moments
    previews: Previews
    presets: UserPresets
    monitor: Monitor
    pace_probe: Probe

    @classmethod
    def open(cls, workspace: Workspace) -> Services:
        runs, chat, exports = Runs(workspace), ChatClient(workspace), Exports(workspace)
        monitor = Monitor()
        supervisor = Supervisor(
            workspace,
            before_start=lambda run: chat.unload(text("chat.unloaded_for_run", name=run.name)),
            turns=Turns(workspace, machine=monitor.newest),
        )
        datasets, models = DatasetStore(workspace.datasets, PRESETS, workspace.library_folders), Models(workspace)
        return cls(
            workspace=workspace,
            runs=runs,
            supervisor=supervisor,
            datasets=datasets,
            models=models,
            chat=chat,
            exports=exports,
            curves=Curves(runs),
            moments=Moments(runs, chat, exports),
            previews=Previews(datasets, models),
            presets=UserPresets(workspace.recipes),
            monitor=monitor,
            pace_probe=Probe(workspace, monitor.newest),
        )

    def close(self) -> None:
        """For Ctrl-C: ask what trains to pause, wait for it, free the device."""
        self.monitor.close()
        self.supervisor.close()
        self.chat.unload()
