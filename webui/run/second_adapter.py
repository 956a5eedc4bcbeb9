"""A second adapter in Chat: both adapters of one base at once, each at its own strength."""

from __future__ import annotations

import hashlib
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from core.chat.answer import STRENGTHS
from core.chat.client import ChatTarget
from core.chat.questions import target_of
from core.errors import ChatError
from core.export import combination
from core.runs.run_json import Combination, WeightedAdapter
from webui.kit.following import FollowingDropdown
from webui.kit.live import LAST, QUIET, LivePart
from webui.kit.panel import Panel
from webui.state.snapshot import RunRow

NONE = ""


class SecondAdapter(Panel):
    """The choice of a second adapter, its strength in percent, and how both are combined; the result can be kept."""

    def build(self, rows: tuple[RunRow, ...]) -> None:
        """Build the fields and connect those that are shown once a second adapter is chosen."""
        low, high = (round(100 * limit) for limit in STRENGTHS)
        run, strength, method, density = (
            self.w.named(f"second_adapter.{name}", f"chat-second-{name}")
            for name in ("run", "strength", "method", "density")
        )
        self.run = FollowingDropdown(self._choices(rows), value=NONE, **run)
        with gr.Column(visible=False) as how:
            self.strength = gr.Slider(low, high, value=100, step=5, **strength)
            self.method = gr.Radio(list(combination.METHODS), value=combination.METHODS[0], **method)
            self.density = gr.Slider(5, 100, value=50, step=5, visible=False, **density)
            self.kept = gr.Button(self.w.t("second_adapter.keep"), size="sm", elem_id="chat-second-keep")
            self.notice = gr.HTML("", elem_id="chat-second-notice")
        gr.on(
            [self.run.change, self.method.input],
            lambda second, chosen: (
                gr.update(visible=bool(second)),
                gr.update(visible=combination.uses_density(str(chosen))),
            ),
            [self.run, self.method],
            [how, self.density],
            **(QUIET | LAST),
        )

    @property
    def chosen(self) -> list[Component]:
        """The inputs of `combine` and `keep`, after target and strength."""
        return [self.run, self.strength, self.method, self.density]

    def part(self) -> LivePart:
        return LivePart(self.run, lambda context: gr.update(choices=self._choices(context.snapshot.rows)))

    def _choices(self, rows: tuple[RunRow, ...]) -> list[tuple[str, str]]:
        """Return (name, id) of the runs that can chat; first an entry for none."""
        return [(self.w.t("second_adapter.none"), NONE), *((row.name, row.id) for row in rows if row.can_chat)]

    def combine(self, target: ChatTarget, strength: float, *chosen: Any) -> tuple[ChatTarget, float]:
        """Return (target to load, its strength): the target itself without a second adapter, else both combined,
        written to the cache in place of the previous one, with strength 1. chosen: the id of the second run or NONE,
        its strength, PEFT's combination type, the density in percent. Strengths: 1 is as trained. Raises GarageError if
        the two cannot be combined."""
        how = self._how(target, strength, *chosen)
        if how is None:
            return target, strength
        first, second = how.adapters
        label = self.w.t("second_adapter.both", first=first.name, second=second.name, a=round(100 * strength),
            b=round(100 * second.weight))  # fmt: skip
        root = self.services.workspace.cache / "combined"
        stamps = [(Path(one.folder) / "adapter_model.safetensors").stat().st_mtime_ns for one in how.adapters]
        folder = root / hashlib.sha256(f"{how}{stamps}".encode()).hexdigest()[:20]
        if not folder.exists():
            # the previous one, which is loaded already or no longer needed
            shutil.rmtree(root, ignore_errors=True)
            combination.write(how, folder)
        return replace(target, adapter=folder, label=label), 1.0

    def keep(self, target: ChatTarget, strength: float, *chosen: Any) -> str:
        """Make a run of both adapters, and return a sentence with its name. Raises GarageError, also if no second
        adapter is chosen."""
        how = self._how(target, strength, *chosen)
        if how is None:
            raise ChatError("second_adapter.gone" if target.adapter else "second_adapter.no_first")
        return self.w.t("models_page.brought_in", name=combination.as_run(
            self.services.workspace, how, target.model_id).name)  # fmt: skip

    def _how(
        self, target: ChatTarget, strength: float, second: object, beside: float, method: object, density: object
    ) -> Combination | None:
        """Return the combination of target with a second run's adapter; None without a second one. Raises
        GarageError."""
        if not isinstance(second, str) or second == NONE:
            return None
        if second not in (row.id for row in self.services.snapshots.now().rows):
            raise ChatError("second_adapter.gone")
        other = target_of(self.services.runs.get(second))
        if target.adapter is None or other.adapter is None:
            raise ChatError("second_adapter.no_first")
        parts = [
            WeightedAdapter(folder=str(one.adapter), name=one.label.replace(", ", "@"), weight=float(weight))
            for one, weight in ((target, strength), (other, beside))
        ]
        share = float(density) / 100 if isinstance(density, int | float) else math.nan
        return Combination(adapters=parts, combination_type=str(method), density=share)
