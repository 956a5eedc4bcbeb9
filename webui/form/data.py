"""The data step: the dataset, problems by row, and a preview of the training examples."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from core.data.labels import LongExamples
from core.data.preview import Preview
from core.data.reading.choices import NO_CHOICES, Choices
from core.data.reading.file_rows import DEFAULT_LIMITS
from core.data.reading.yaml_rows import is_dataset
from core.data.sample_sets import sample_of
from core.data.sets.inspection import DataReport
from core.errors import DataError, GarageError
from core.messages import msg
from core.workspace import foreign_recipes
from webui.form import goal as goal_step
from webui.form import learned_view
from webui.form.comparing import READ_BY, Comparing
from webui.form.findings import PlanFindings, in_rows
from webui.form.handle import FormHandle
from webui.form.hub_set import view as hub_set
from webui.form.hub_set.panel import HubSetPanel
from webui.form.planner import Form, FormResult
from webui.form.reading.adding import Adding
from webui.form.reading.choices_part import ReadingPart
from webui.form.reading.importing import ImportPart
from webui.form.reading.recipe_reading import choices_for
from webui.form.reading.recipe_reading_part import RecipeReadingPart
from webui.kit import format, samples
from webui.kit.findings import count_line
from webui.kit.html import Html, join, notice, tag
from webui.kit.live import AT_ONCE, LAST, QUIET, Poller, Updates, mark
from webui.kit.wording import Wording
from webui.state.services import Services

SHOWN_PROBLEMS = 8
LOOK_IF_NEW = "(is_new) => { if (is_new?.length) loraGarageForm.look(); }"
FIRST = "sample:pirate_answers"  # chosen until a person chooses another
RECIPES, COMMANDS = (".yaml", ".yml"), ".sh"


def is_recipe(path: str) -> bool:
    """Return whether a dropped file is a recipe: any YAML file that does not hold rows, or a script with a command of
    TRL's."""
    file = Path(path)
    if file.suffix.lower() == COMMANDS:
        return foreign_recipes.command_line(file) is not None
    return path.lower().endswith(RECIPES) and not is_dataset(file, DEFAULT_LIMITS)


class DataStep:
    """The data step, and the drop zone at the top of the page."""

    def __init__(self, services: Services, wording: Wording):
        """Create the parts of the step: reading choices, import, comparison, findings, and the panel of hub
        datasets."""
        self.services, self.w = services, wording
        self.reading, self.recipe_reading = ReadingPart(services, wording), RecipeReadingPart(services, wording)
        self.importing, self.comparing = ImportPart(wording), Comparing(services, wording)
        self.adding = Adding(services, wording)
        self.findings = PlanFindings(wording, ("few_rows", "duplicates", "leakage", "near_leakage", "other_language"))
        self.hub_set = HubSetPanel(services, wording)

    def build_drop(self) -> None:
        """Build the drop zone for files, at the top of the page, with the import's progress and a notice."""
        self.file = gr.File(
            label=self.w.t("wizard.file"), file_count="multiple", height=90, elem_id="file", elem_classes="lg-drop"
        )
        self.importing.build()
        self.notice = gr.HTML("", elem_id="file-notice", visible=False)

    def build(self) -> None:
        """Build the step: the list of datasets, the hub's panel, reading choices, report, comparison, findings, and
        what would be learned with one row."""
        w = self.w
        self.data = gr.Radio(
            self.choices(), value=FIRST, label=w.t("wizard.data"), info=w.t("wizard.data_info"), elem_id="data"
        )
        self.shown_mark = gr.JSON(None, visible=False)  # the mark of the list that the page shows
        self.is_new = gr.JSON([], visible=False)  # not empty if the list had changed when the tab was opened
        self.hub_set.build()
        self.recipe_reading.build()
        self.reading.build()
        self.report = gr.HTML("", elem_id="data-report", visible=False)
        self.comparing.build()
        self.findings.build()
        self.left_out = gr.HTML("", elem_id="data-left-out", visible=False)
        with gr.Column(visible=False, elem_id="learned") as self.learned:
            self.counters = gr.HTML("", elem_id="learned-counters")
            self.row = gr.HTML("", elem_id="learned-row")
            with gr.Row(elem_classes="lg-tight", visible=False) as self.turning:
                self.before = gr.Button(w.t("wizard.row_before"), size="sm", elem_id="row-before")
                self.after = gr.Button(w.t("wizard.row_after"), size="sm", elem_id="row-after")
        self.row_at = gr.JSON(None, visible=False)  # (dataset, index of its row that is shown)
        self.next = gr.Button(w.t("wizard.next"), elem_id="next-data", elem_classes="lg-next")

    def wire(self, form: FormHandle, poller: Poller) -> None:
        """Connect the events of the step's parts."""
        self.findings.wire(form)
        self.hub_set.wire(form, self.data, poller)
        self.importing.wire()
        self.comparing.wire(form)
        self.recipe_reading.wire(form, self.data, self.choices, self.importing, self.notice)
        self.reading.wire(form, self.data, self.choices)

    def follow(self, tab: gr.Tab) -> None:
        """Show changes that were made to datasets on other tabs whenever this tab is opened."""
        outputs = [self.shown_mark, self.data, self.is_new]
        opened = tab.select(self.now, [self.shown_mark, self.data], outputs, **LAST, **AT_ONCE)
        opened.then(None, [self.is_new], None, js=LOOK_IF_NEW, **QUIET)

    def mark(self) -> list[str]:
        """Return a value that changes whenever a dataset is added, deleted or edited."""
        return [mark([(info.id, info.version, samples.choice(info, self.w)) for info in self.services.datasets.list()])]

    def now(self, shown: object, data: str | None) -> Updates:
        """Return the updates of `listed`, and a value for is_new: the new mark of the list of datasets, or [] if the
        list has not changed. Called when the tab is opened."""
        listed = self.listed(shown, data)
        return {self.is_new: listed.get(self.shown_mark, []), **listed}

    def listed(self, shown: object, data: str | None) -> Updates:
        """Return the updates of a changed list of datasets; {} for an unchanged one, as redrawing could lose a click.
        If the chosen dataset was deleted, the first sample is chosen. shown: shown_mark, None until the page has
        loaded."""
        now = self.mark()
        if shown is None or shown == now:
            return {}
        replacement = {} if not data or self.services.datasets.knows(data) else {"value": FIRST}
        return {self.shown_mark: now, self.data: gr.update(choices=self.choices(), **replacement)}

    def choices(self) -> list[tuple[str, str]]:
        return [samples.choice(info, self.w) for info in self.services.datasets.list()]

    def summary(self, form: Form, result: FormResult) -> tuple[str, str]:
        """Return the chosen dataset's title, and its number of rows and problems. The first is the error if the dataset
        cannot be read, or a sentence that none is chosen; the second is "" then."""
        data = form.data
        if not isinstance(data, str) or not data:
            return self.w.t("wizard.no_data_yet"), ""
        try:
            info = self.services.datasets.get(data)
            report = self.services.datasets.report(data, choices=choices_for(data, form.answers.reading))
        except GarageError as error:
            return self.w.render(error.message), ""
        good, rows = report.good_rows, report.rows
        size = format.rows(self.w, rows) if good == rows else self.w.t("wizard.rows_of", good=good, rows=rows)
        problems = count_line(result.findings, self.findings.ids, self.w)
        return samples.title(info, self.w), " · ".join(part for part in (size, problems) if part)

    def report_of(self, data: object, choices: Choices = NO_CHOICES, result: FormResult | None = None) -> Html:
        """Return a dataset's description, format and number of rows, notes, findings, and its first problems by row;
        the error if it cannot be read, "" without one.

        result: of the form; duplicates are left out here if its findings name them.
        """
        w = self.w
        if not isinstance(data, str) or not data:
            return Html("")
        try:
            report, info = self.services.datasets.report(data, choices=choices), self.services.datasets.get(data)
        except DataError as error:
            return notice(w.render(error.message))
        sample = sample_of(data)
        description_key = f"sample_{data.removeprefix('sample:')}_description"
        about = w.preset(sample.description, description_key) if sample and sample.description else None
        form = w.t(f"wizard.format_{report.format}")
        lines = [
            tag("p", about) if about else None,
            tag("p", w.t("wizard.report", format=form, good=report.good_rows, rows=report.rows)),
            hub_set.origin(info, w),
            *(tag("p", w.render(note), class_="lg-quiet") for note in report.notes),
            *self._left_out(report),
            *in_rows(_without_duplicates(report) if result and _tells_of_duplicates(result) else report, w),
        ]
        if count := report.problem_count - report.duplicates:
            first = [problem for problem in report.problems if problem.text.key != "data.duplicate"][:SHOWN_PROBLEMS]
            lines.append(tag("p", tag("strong", w.t("wizard.problems", count=count))))
            lines.append(tag("ul", *(tag("li", w.render(problem.sentence)) for problem in first)))
            if count > len(first):
                lines.append(tag("p", w.t("wizard.more_problems", count=count - len(first)), class_="lg-quiet"))
        return tag("div", join(lines), class_="lg-report")

    def _left_out(self, report: DataReport) -> list[Html]:
        """Return [a list of the parts of the rows that no format reads, and what is needed to use them], or []. Worse
        answers are left to Comparing."""
        w = self.w
        left_out = [left for left in report.left_out if left.why.key not in READ_BY]
        if not left_out:
            return []
        first = left_out[:SHOWN_PROBLEMS]
        lines = (msg("left_out.line", what=left.what, count=left.count, why=left.why) for left in first)
        more = len(left_out) - len(first)
        return [
            tag("p", tag("strong", w.t("wizard.rows_left_out"))),
            tag("ul", *(tag("li", w.render(line)) for line in lines), class_="lg-left-out"),
            *([tag("p", w.t("wizard.more_problems", count=more), class_="lg-quiet")] if more else []),
        ]

    def counters_of(self, preview: Preview, max_length: int, long_examples: LongExamples, overlap: int = 0) -> Html:
        """Return the counts of what is trained with these limits, refused rows, notes on the framing, and the histogram
        of lengths."""
        w = self.w
        return join(
            [
                tag("h2", w.t("wizard.learned")),
                learned_view.counters(preview.counts(max_length, long_examples, overlap), w),
                *(notice(w.render(sentence), "warn") for sentence in preview.refused.messages(preview.counted)),
                *(tag("p", w.render(note), class_="lg-framing") for note in preview.notes),
                learned_view.histogram(preview, max_length, w),
            ]
        )

    def row_shown(self, row_at: object, data: object) -> int:
        """Return the index of the row that is shown, from row_at [dataset, index]; 0 if that is for another dataset or
        no such pair."""
        return (
            row_at[1]
            if isinstance(row_at, list) and len(row_at) == 2 and row_at[0] == data and isinstance(row_at[1], int)
            else 0
        )

    def turn_row(self, way: int, row_at: object, data: object) -> list[object]:
        """Return row_at for the row before (way -1) or after (1) the one that is shown."""
        return [data, self.row_shown(row_at, data) + way]

    def row_of(
        self, preview: Preview, index: int, max_length: int, long_examples: LongExamples, overlap: int = 0
    ) -> Html:
        """Return one row with its tokens marked, counting on around both ends of the rows; the error if it cannot be
        read, a notice without the model's tokenizer, "" if the dataset was deleted."""
        try:
            return learned_view.row(
                preview.row(index % max(1, len(preview.rows)), max_length, long_examples, overlap), self.w
            )
        except GarageError as error:
            return notice(self.w.render(error.message))
        except OSError:  # the dataset was deleted meanwhile; another look follows
            return Html("")


def _tells_of_duplicates(result: FormResult) -> bool:
    """Return whether the button that leaves duplicates out is shown, or was used."""
    leaves_out = result.plan is not None and result.plan.recipe.data.deduplicate
    return leaves_out or any(finding.id == "duplicates" for finding in result.findings)


def _without_duplicates(report: DataReport) -> DataReport:
    """Return the report without its findings of repeated rows."""
    findings = (finding for finding in report.findings if finding.id not in ("repeated", "near_repeated"))
    return report.model_copy(update={"findings": tuple(findings)})


def sample_for(goal: object) -> str:
    """Return the id of a goal's sample dataset; FIRST, the app's default sample, for a goal without one or an unknown
    goal. goal: its id, as the form has it."""
    preset = goal_step.chosen(goal)
    return preset.sample if preset is not None and preset.sample else FIRST


def goal_for(data: object, goal: object) -> str | None:
    """Return the goal of a sample dataset if the chosen goal does not suit it; None to keep the goal. Both are ids."""
    sample = sample_of(data) if isinstance(data, str) else None
    if sample is None or sample.goal is None or sample_for(goal) == data:
        return None
    return sample.goal
