"""A second adapter in Chat: both adapters of one base at once, each at its own strength."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace

import gradio as gr

from core.chat.answer import STRENGTHS
from core.chat.client import ChatTarget
from core.chat.questions import target_of
from core.errors import ChatError, ModelError
from core.export import weighted_sum
from core.export.weighted_sum import WeightedAdapter
from webui.kit.following import FollowingDropdown
from webui.kit.live import LivePart
from webui.kit.panel import Panel
from webui.state.snapshot import RunRow

NONE = ""


class SecondAdapter(Panel):
    """The choice of a second adapter and of its strength, in percent."""

    def build(self, rows: tuple[RunRow, ...]) -> None:
        low, high = (round(100 * limit) for limit in STRENGTHS)
        run, strength = (self.w.named(f"second_adapter.{name}", f"chat-second-{name}") for name in ("run", "strength"))
        self.run = FollowingDropdown(self._choices(rows), value=NONE, **run)
        self.strength = gr.Slider(low, high, value=100, step=5, **strength)

    def part(self) -> LivePart:
        return LivePart(self.run, lambda context: gr.update(choices=self._choices(context.snapshot.rows)))

    def _choices(self, rows: tuple[RunRow, ...]) -> list[tuple[str, str]]:
        """Return (name, id) of the runs that can chat; first an entry for none."""
        return [(self.w.t("second_adapter.none"), NONE), *((row.name, row.id) for row in rows if row.can_chat)]

    def combine(
        self, target: ChatTarget, strength: float, second: object, second_strength: float
    ) -> tuple[ChatTarget, float]:
        """Return (target to load, its strength): the target itself without a second adapter, else the weighted sum of
        both, written to the cache (which holds one sum) with strength 1. second: the id of its run, or NONE. Strengths:
        1 is as trained. Raises GarageError if the two cannot be added."""
        if not isinstance(second, str) or second == NONE:
            return target, strength
        if second not in (row.id for row in self.services.snapshots.now().rows):
            raise ChatError("second_adapter.gone")
        other = target_of(self.services.runs.get(second))
        if target.adapter is None or other.adapter is None:
            raise ChatError("second_adapter.no_first")
        parts = WeightedAdapter(target.adapter, strength), WeightedAdapter(other.adapter, second_strength)
        label = self.w.t("second_adapter.both", first=target.label, second=other.label, a=round(100 * strength),
            b=round(100 * second_strength))  # fmt: skip
        root = self.services.workspace.cache / "summed"
        stamps = [(part.folder / "adapter_model.safetensors").stat().st_mtime_ns for part in parts]
        folder = root / hashlib.sha256(f"{parts}{stamps}".encode()).hexdigest()[:20]
        try:
            if not folder.exists():
                # the previous sum, which is loaded already or no longer needed
                shutil.rmtree(root, ignore_errors=True)
                weighted_sum.write(parts, folder)
        except OSError as error:
            raise ModelError("summed.cannot_write", folder=str(folder), reason=error.strerror or str(error)) from error
        return replace(target, adapter=folder, label=label), 1.0
