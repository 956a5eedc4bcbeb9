"""Train: choose a model, data and method on the left; what the run is doing on the right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from core import plan
from core.errors import BusyError, DataError, GarageError
from core.models import ModelRef
from core.presets import sample_of
from core.recipe import Recipe
from core.run_folder import RunFolder
from core.states import BUSY, State, may_stop
from webui import format, run_panel, samples
from webui.live import LivePart, Look, Pulse
from webui.live_chart import live_chart
from webui.markup import Html, join, notice, tag
from webui.services import Services
from webui.wording import Wording, field_of

RANKS = (4, 8, 16)
# The folded settings, as section and field of a recipe; defaults, limits and help come from there.
MORE = (
    ("train", "learning_rate"),
    ("train", "num_train_epochs"),
    ("train", "max_steps"),
    ("train", "per_device_train_batch_size"),
    ("data", "max_length"),
    ("train", "seed"),
)
SHOWN_PROBLEMS = 8
CONTROL = {"show_progress": "hidden", "concurrency_limit": 1, "concurrency_id": "control", "api_visibility": "private"}


@dataclass(frozen=True)
class Form:
    """The answers of the form as they arrived: any JSON may be in them until `recipe` has looked."""

    model: Any
    data: Any
    method: Any
    r: Any
    more: tuple[Any, ...]
    name: Any


class FormError(GarageError):
    """Something in the form is missing or cannot be; shown beside the Start button."""


def settings_for(dataset_id: str | None) -> dict[str, Any]:
    """What the form starts from for a data set: the recipe's defaults, and a sample's own settings over them."""
    values = {"r": field_of("adapter", "r").default} | {name: field_of(section, name).default for section, name in MORE}
    sample = sample_of(dataset_id)
    if sample:
        values |= {name: value for name, value in {**sample.adapter, **sample.train}.items() if name in values}
    return values


def recipe_of(form: Form) -> Recipe:
    """The recipe that a form asks for. Raises GarageError for what is missing or cannot be."""
    if not isinstance(form.data, str) or not form.data:
        raise FormError("train_page.missing_data")
    if not isinstance(form.model, str) or not form.model.strip():
        raise FormError("train_page.missing_model")
    model = form.model.strip()
    ModelRef.parse(model)
    sample = sample_of(form.data)
    adapter = dict(sample.adapter) if sample else {}
    if adapter.get("r") != form.r:
        adapter.pop("lora_alpha", None)  # it belonged to the sample's own rank
    value: dict[str, Any] = {
        "name": form.name if isinstance(form.name, str) else "",
        "goal": sample.goal if sample else None,
        "model": {"id": model},
        "data": {"source": form.data},
        "adapter": adapter | {"method": form.method, "r": form.r},
        "train": dict(sample.train) if sample else {},
    }
    for (section, name), given in zip(MORE, form.more, strict=True):
        value[section][name] = number_for(section, name, given)
    if value["train"]["max_steps"] == 0:
        value["train"]["max_steps"] = -1
    return Recipe.parse(value, where="form")


def number_for(section: str, name: str, given: Any) -> int | float:
    """given as the field wants it. Raises FormError naming the limits; an emptied field means its default."""
    field = field_of(section, name)
    if given is None:
        return field.default
    low, high, low_counts = limits(section, name)
    whole = field.annotation is int
    good = isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)
    if good and (low < given or (low_counts and given == low)) and given <= high and (not whole or given == int(given)):
        return int(given) if whole else float(given)
    shown = format.number(given) if isinstance(given, int | float) else str(given)[:40]
    key = "train_page.bad_whole_number" if whole else "train_page.bad_number"
    raise FormError(key, field=f"{name}", found=shown, low=format.number(low), high=format.number(high))


def limits(section: str, name: str) -> tuple[float, float, bool]:
    """(lowest, highest, whether the lowest itself is allowed) of a numeric field."""
    low, high, low_counts = -math.inf, math.inf, True
    for rule in field_of(section, name).metadata:
        if getattr(rule, "ge", None) is not None:
            low, low_counts = rule.ge, True
        if getattr(rule, "gt", None) is not None:
            low, low_counts = rule.gt, False
        if getattr(rule, "le", None) is not None:
            high = rule.le
        if getattr(rule, "lt", None) is not None:
            high = rule.lt - 1
    return low, high, low_counts


class TrainPage:
    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording

    # ---- widgets --------------------------------------------------------------------------------------------------
    def build(self) -> None:
        w = self.w
        self.intro = gr.HTML(tag("p", w.t("train_page.intro"), class_="lg-quiet"), elem_id="train-intro")
        with gr.Row(elem_id="train-columns", equal_height=False) as self.columns:
            with gr.Column(scale=5, min_width=320, elem_id="form-column") as self.form_column:
                self._build_form()
            with gr.Column(scale=6, min_width=320, elem_id="run-column"):
                self._build_run()

    def _build_form(self) -> None:
        w = self.w
        with gr.Column(elem_classes="lg-card"):
            gr.HTML(tag("h2", w.t("train_page.step_model")))
            self.model = gr.Dropdown(
                self._model_choices(),
                value="starter",
                allow_custom_value=True,
                label=w.t("train_page.model"),
                info=w.t("train_page.model_info"),
                elem_id="model",
            )
            self.model_note = gr.HTML("", elem_id="model-note", visible=False)
        with gr.Column(elem_classes="lg-card"):
            gr.HTML(tag("h2", w.t("train_page.step_data")))
            self.data = gr.Radio(
                self._data_choices(), value=None, label=w.t("train_page.data"), info=w.t("train_page.data_info"), elem_id="data"
            )
            self.file = gr.File(label=w.t("train_page.file"), height=90, elem_id="file")
            self.report = gr.HTML("", elem_id="data-report", visible=False)
        with gr.Column(elem_classes="lg-card"):
            gr.HTML(tag("h2", w.t("train_page.step_method")))
            self.method = gr.Radio(
                [(w.t("train_page.lora"), "lora"), (w.t("train_page.qlora"), "qlora")],
                value="lora",
                label=w.t("train_page.method"),
                info=w.t("train_page.method_info"),
                elem_id="method",
            )
            self.r = gr.Radio(
                [(str(r), r) for r in RANKS],
                value=8,
                label=w.t("train_page.field_r"),
                info=w.setting_help("adapter", "r"),
                elem_id="rank",
            )
            with gr.Accordion(w.t("train_page.more"), open=False, elem_id="more-settings"):
                self.more = [
                    gr.Number(
                        field_of(section, name).default,
                        label=self._label(name),
                        info=w.setting_help(section, name),
                        elem_id=f"setting-{name}",
                    )
                    for section, name in MORE
                ]
        with gr.Column(elem_classes="lg-card"):
            gr.HTML(tag("h2", w.t("train_page.step_start")))
            self.name = gr.Textbox(
                label=w.t("train_page.name"), info=w.t("train_page.name_info"), max_lines=1, max_length=60, elem_id="run-name"
            )
            self.start = gr.Button(w.t("train_page.start"), variant="primary", size="lg", elem_id="start")
            self.start_notice = gr.HTML("", elem_id="start-notice", visible=False)
        self.applied = gr.State(settings_for(None))

    def _build_run(self) -> None:
        w = self.w
        with gr.Column(elem_classes="lg-card"):
            gr.HTML(tag("h2", w.t("train_page.run")))
            self.run_notice = gr.HTML("", elem_id="run-notice", visible=False)
            self.card = gr.HTML(run_panel.empty(w), elem_id="run-card")
            self.stop = gr.Button(w.t("train_page.stop"), variant="stop", visible=False, elem_id="stop")
            with gr.Row(visible=False, elem_id="run-actions") as self.actions:
                self.open_chat = gr.Button(w.t("train_page.open_chat"), variant="primary", elem_id="run-open-chat")
            with gr.Column(visible=False, elem_id="run-chart") as self.chart_column:
                self.chart = live_chart(self.services, w, "", "live-chart")
            with gr.Accordion(
                w.t("train_page.run_settings"), open=False, visible=False, elem_id="run-settings-fold"
            ) as self.settings_fold:
                self.settings = gr.HTML("", elem_id="run-settings")
            with gr.Accordion(w.t("train_page.story"), open=False, visible=False, elem_id="run-story-fold") as self.story_fold:
                self.story = gr.HTML("", elem_id="run-story")

    # ---- what follows the clock -----------------------------------------------------------------------------------
    def parts(self) -> list[LivePart]:
        return [
            LivePart(self.intro, lambda look: gr.update(visible=look.moment.busy is None)),
            LivePart(self.form_column, lambda look: gr.update(visible=look.moment.busy is None)),
            LivePart(self.columns, lambda look: gr.update(elem_classes=["lg-has-run"] if look.moment.shown else [])),
            LivePart(self.card, self._card),
            LivePart(self.stop, self._stop_button),
            LivePart(self.chart_column, lambda look: gr.update(visible=look.moment.shown is not None)),
            LivePart(self.actions, lambda look: gr.update(visible=bool(look.moment.shown and look.moment.shown.row.can_chat))),
            LivePart(self.settings, lambda look: self._about(look, run_panel.settings)),
            LivePart(self.settings_fold, lambda look: gr.update(visible=look.moment.shown is not None)),
            LivePart(self.story, lambda look: self._about(look, run_panel.story)),
            LivePart(self.story_fold, lambda look: gr.update(visible=look.moment.shown is not None)),
        ]

    def _card(self, look: Look) -> dict[str, Any]:
        shown = look.moment.shown
        return gr.update(value=run_panel.card(shown, self.w) if shown else run_panel.empty(self.w))

    def _about(self, look: Look, show: Any) -> dict[str, Any]:
        return gr.update(value=show(look.moment.shown, self.w) if look.moment.shown else "")

    def _stop_button(self, look: Look) -> dict[str, Any]:
        """Says what it would do now; cannot be pressed where there is nothing to stop any more."""
        busy = look.moment.busy
        if busy is None:
            return gr.update(visible=False, interactive=False, value=self.w.t("train_page.stop"))
        state = busy.status.state
        key = {State.RUNNING: "stop", State.STOPPING: "stop_under_way"}.get(state, "stop_before_training")
        return gr.update(visible=True, interactive=may_stop(state), value=self.w.t(f"train_page.{key}"))

    # ---- wires ----------------------------------------------------------------------------------------------------
    def wire(self, page: gr.Blocks, pulse: Pulse) -> None:
        fields = [self.r, *self.more]
        self.data.change(
            self.choose_data, [self.data, self.applied, *fields], [self.report, self.applied, *fields],
            show_progress="hidden", trigger_mode="always_last", api_visibility="private",
        )  # fmt: skip
        self.file.upload(
            self.add_file,
            [self.file],
            [self.file, self.data, self.report],
            show_progress="minimal",
            concurrency_limit=2,
            api_visibility="private",
        )
        self.model.change(
            self.check_model, [self.model], [self.model_note], show_progress="hidden", queue=False, api_visibility="private"
        )
        pulse.after(
            self.start.click(
                self.begin,
                [self.model, self.data, self.method, self.r, *self.more, self.name],
                [self.start_notice, self.run_notice, self.name],
                **CONTROL,
            )
        )
        pulse.after(self.stop.click(self.stop_run, None, [self.run_notice], **CONTROL))
        page.load(self.fresh_choices, None, [self.model, self.data], show_progress="hidden", queue=False, api_visibility="private")

    def fresh_choices(self) -> tuple[Any, ...]:
        """Outputs: model, data. What was added since the app started."""
        return gr.update(choices=self._model_choices()), gr.update(choices=self._data_choices())

    def check_model(self, model: Any) -> Any:
        """Inputs: model. Outputs: model_note."""
        try:
            ref = ModelRef.parse(model.strip() if isinstance(model, str) and model.strip() else "starter")
        except GarageError as error:
            return shown(notice(self.w.of(error.text)))
        known = model in self.services.models.choices()
        return shown(notice(self.w.t("train_page.will_download"), "plain") if ref.kind == "hub" and not known else "")

    def choose_data(self, dataset_id: Any, applied: dict[str, Any], *values: Any) -> list[Any]:
        """Inputs: data, applied, r, more... Outputs: report, applied, r, more... A setting that was edited stays."""
        wanted = settings_for(dataset_id if isinstance(dataset_id, str) else None)
        changes = [
            gr.update(value=wanted[name]) if value == applied.get(name) and wanted[name] != value else gr.skip()
            for name, value in zip(wanted, values, strict=True)
        ]
        return [shown(self.report_of(dataset_id)), wanted, *changes]

    def add_file(self, path: str | None) -> tuple[Any, ...]:
        """Inputs: file. Outputs: file (emptied), data (with the new set chosen), report."""
        if not path:
            return gr.skip(), gr.skip(), gr.skip()
        given = Path(path)
        try:
            info = self.services.datasets.import_file(given, given.stem)
        except DataError as error:
            return gr.update(value=None), gr.skip(), shown(notice(self.w.of(error.text)))
        finally:
            given.unlink(missing_ok=True)  # gradio's own copy; ours is in the store
        return gr.update(value=None), gr.update(choices=self._data_choices(), value=info.id), shown(self.report_of(info.id))

    def begin(self, *answers: Any) -> tuple[Any, ...]:
        """Inputs: the form. Outputs: start_notice, run_notice, name. Two Starts at once give one run."""
        model, data, method, r, *rest = answers
        form = Form(model, data, method, r, tuple(rest[:-1]), rest[-1])
        try:
            self._submit(form)
        except BusyError as error:
            sentence = notice(self.w.of(error.text), "warn")
            return shown(sentence), shown(sentence), gr.skip()
        except GarageError as error:
            return shown(notice(self.w.of(error.text))), gr.skip(), gr.skip()
        return shown(""), shown(""), ""

    def _submit(self, form: Form) -> RunFolder:
        from core import gpu  # asks the driver, which takes a moment

        recipe = recipe_of(form)
        info = self.services.datasets.get(recipe.data.source)
        report = self.services.datasets.report(info.id)
        name = samples.title(info, self.w)
        resolved = plan.resolve(recipe, name, gpu.has_card())
        facts = {
            "data": {
                "id": info.id,
                "name": name if info.origin != "sample" else info.id,
                "sha256": report.sha256,
                "rows": report.rows,
            }
        }
        return self.services.supervisor.submit(resolved, facts)

    def stop_run(self) -> Any:
        """Outputs: run_notice. Stops whatever is at work; there is at most one."""
        busy = self.services.moments.now(fresh=True).busy
        if busy is None or busy.status.state not in BUSY:
            return shown(notice(self.w.t("train_page.nothing_to_stop"), "plain"))
        try:
            self.services.supervisor.stop(self.services.runs.get(busy.id))
        except GarageError as error:
            return shown(notice(self.w.of(error.text), "plain"))
        return shown("")

    # ---- words ----------------------------------------------------------------------------------------------------
    def _label(self, name: str) -> str:
        """The field's name in words, and as people search for it."""
        words = self.w.t(f"train_page.field_{name}")
        return words if words.lower() == name else f"{words} ({name})"

    def _model_choices(self) -> list[tuple[str, str]]:
        names = {"starter": self.w.t("train_page.starter")}
        return [(names.get(model) or run_panel.model_name(model, self.w), model) for model in self.services.models.choices()]

    def _data_choices(self) -> list[tuple[str, str]]:
        return [samples.choice(info, self.w) for info in self.services.datasets.list()]

    def report_of(self, dataset_id: Any) -> Html:
        """What is in a data set and what is wrong with it, by row."""
        w = self.w
        if not isinstance(dataset_id, str) or not dataset_id:
            return Html("")
        try:
            report = self.services.datasets.report(dataset_id)
        except DataError as error:
            return notice(w.of(error.text))
        sample = sample_of(dataset_id)
        about = sample.description.get(w.language) if sample else None
        lines = [
            tag("p", about) if about else None,
            tag(
                "p",
                w.t("train_page.report", format=w.t(f"train_page.format_{report.format}"), good=report.good_rows, rows=report.rows),
            ),
            *(tag("p", w.of(note), class_="lg-quiet") for note in report.notes),
        ]
        if report.problem_count:
            first = report.problems[:SHOWN_PROBLEMS]
            lines.append(tag("p", tag("strong", w.t("train_page.problems", count=report.problem_count))))
            lines.append(tag("ul", *(tag("li", w.of(problem.sentence)) for problem in first)))
            if report.problem_count > len(first):
                lines.append(tag("p", w.t("train_page.more_problems", count=report.problem_count - len(first)), class_="lg-quiet"))
        return tag("div", join(lines), class_="lg-report")


def shown(value: str) -> dict[str, Any]:
    """An HTML component takes no room while it has nothing to say."""
    return gr.update(value=value, visible=bool(value))
