"""Settings: this PC, where things lie, and what was kept here: presets and data sets of one's own."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from typing import Any

import gradio as gr

from core.errors import GarageError
from webui import format, hardware_view
from webui.language import PATHS
from webui.live import LivePart, shown
from webui.markup import Html, join, notice, tag
from webui.services import Services
from webui.wording import Wording

QUIET = {"show_progress": "hidden", "api_visibility": "private"}
VERSIONS = ("torch", "transformers", "peft", "bitsandbytes", "gradio")


class SettingsPage:
    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording

    def build(self) -> None:
        w = self.w
        with gr.Row(equal_height=False, elem_id="settings-columns"):
            with gr.Column(scale=6, min_width=320):
                with gr.Column(elem_classes="lg-card"):
                    gr.HTML(tag("h2", w.t("settings_page.this_pc")))
                    self.hardware = gr.HTML(self._hardware(), elem_id="hardware")
                with gr.Column(elem_classes="lg-card"):
                    gr.HTML(tag("h2", w.t("settings_page.places")))
                    self.places = gr.HTML(self._places(), elem_id="places")
            with gr.Column(scale=6, min_width=320):
                with gr.Column(elem_classes="lg-card"):
                    gr.HTML(tag("h2", w.t("settings_page.language")))
                    gr.HTML(self._languages(), elem_id="languages")
                with gr.Column(elem_classes="lg-card"):
                    gr.HTML(tag("h2", w.t("settings_page.presets")))
                    self.preset, self.delete_preset = self._kept("preset", self._preset_choices())
                with gr.Column(elem_classes="lg-card"):
                    gr.HTML(tag("h2", w.t("settings_page.datasets")))
                    self.dataset, self.delete_dataset = self._kept("dataset", self._dataset_choices())
                self.notice = gr.HTML("", visible=False, elem_id="settings-notice")

    def _kept(self, kind: str, choices: list[tuple[str, str]]) -> tuple[gr.Dropdown, gr.Button]:
        """A list and a button that deletes what is chosen in it; pressed twice, since it cannot be undone."""
        w = self.w
        chosen = gr.Dropdown(
            choices, value=None, label=w.t(f"settings_page.{kind}"), info=w.t(f"settings_page.{kind}_info"), elem_id=f"kept-{kind}"
        )
        return chosen, gr.Button(w.t("settings_page.delete"), size="sm", elem_id=f"delete-{kind}")

    def _preset_choices(self) -> list[tuple[str, str]]:
        return [(preset.title, preset.id) for preset in self.services.presets.list()]

    def _dataset_choices(self) -> list[tuple[str, str]]:
        return [(info.name, info.id) for info in self.services.datasets.list() if info.origin == "imported"]

    # ---- what follows the clock -----------------------------------------------------------------------------------
    def parts(self) -> list[LivePart]:
        return [LivePart(self.hardware, lambda look: gr.update(value=self._hardware()))]

    def _hardware(self) -> Html:
        return hardware_view.details(self.services.monitor.newest(), self.w)

    def _places(self) -> Html:
        w, workspace = self.w, self.services.workspace
        try:
            free = format.bytes_used(shutil.disk_usage(workspace.root).free)
        except OSError:
            free = w.t("settings_page.unknown")
        libraries = [tag("div", str(folder)) for folder in workspace.library_folders] or [w.t("settings_page.no_library")]
        pairs = [
            (w.t("settings_page.workspace"), str(workspace.root)),
            (w.t("settings_page.disk_free"), free),
            (w.t("settings_page.library"), join(libraries)),
            (w.t("settings_page.versions"), ", ".join(f"{name} {version(name)}" for name in VERSIONS)),
        ]
        facts = tag("dl", *(join([tag("dt", name), tag("dd", value)]) for name, value in pairs), class_="lg-facts")
        return join(
            [facts, tag("p", w.t("settings_page.library_how", file=str(workspace.root / "settings.yaml")), class_="lg-quiet")]
        )

    def _languages(self) -> Html:
        names = {"en": "English", "zh": "简体中文"}
        links = [
            tag(
                "li",
                tag(
                    "a",
                    names[code],
                    href=f"{path}?lang={code}",
                    lang="zh-CN" if code == "zh" else code,
                    aria_current="true" if code == self.w.language else None,
                ),
            )
            for code, path in PATHS.items()
        ]
        return join([tag("ul", *links, class_="lg-plain-list"), tag("p", self.w.t("settings_page.theme"), class_="lg-quiet")])

    # ---- wires ----------------------------------------------------------------------------------------------------
    def wire(self, page: gr.Blocks, tab: gr.Tab) -> None:
        lists = [self.preset, self.dataset]
        for arrived in (page.load, tab.select):
            arrived(self.fresh, None, [*lists, self.places], queue=False, **QUIET)
        outputs = [*lists, self.notice]
        self._wire_delete(self.delete_preset, self.preset, self.forget_preset, outputs)
        self._wire_delete(self.delete_dataset, self.dataset, self.forget_dataset, outputs)

    def _wire_delete(self, button: gr.Button, chosen: gr.Dropdown, forget: Any, outputs: list[Any]) -> None:
        sure = "(id) => id && !confirm(SURE) ? null : id".replace(
            "SURE", json.dumps(self.w.t("settings_page.sure"), ensure_ascii=False)
        )
        button.click(forget, [chosen], outputs, js=sure, **QUIET)

    def fresh(self) -> list[Any]:
        """Outputs: presets, data sets (their choices), places."""
        return [gr.update(choices=self._preset_choices()), gr.update(choices=self._dataset_choices()), self._places()]

    def forget_preset(self, preset_id: Any) -> list[Any]:
        """Inputs: preset. Outputs: presets, data sets, notice."""
        return self._forget(preset_id, self.services.presets.delete)

    def forget_dataset(self, dataset_id: Any) -> list[Any]:
        """Inputs: data set. Outputs: presets, data sets, notice."""
        return self._forget(dataset_id, self.services.datasets.delete)

    def _forget(self, chosen: Any, delete: Any) -> list[Any]:
        said = notice(self.w.t("settings_page.deleted"), "ok")
        if not isinstance(chosen, str) or not chosen:
            said = notice(self.w.t("settings_page.nothing_chosen"), "plain")
        else:
            try:
                delete(chosen)
            except GarageError as error:
                said = notice(self.w.of(error.text))
        presets, datasets = self._preset_choices(), self._dataset_choices()
        return [gr.update(choices=presets, value=None), gr.update(choices=datasets, value=None), shown(said)]
