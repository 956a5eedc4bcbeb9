"""Choices of an evaluation: the model, the questions, the contestants, and the judge, shown at work on five rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from core.chat.evaluation.table import option_of
from core.errors import GarageError, JudgeError
from core.files import JsonObject
from core.judges.judge import judge
from core.judges.specs import KINDS, JudgeSpec, ModelJudge
from core.models.library import ModelRef
from webui.kit import samples
from webui.kit.drawn_part import Options, select
from webui.kit.html import Html, join, muted, tag
from webui.kit.wording import Wording
from webui.pages.chat_choices import checkpoint_choices, target_choices
from webui.pages.evaluation.answers import MARKS
from webui.pages.evaluation.test_sets import every_set, set_name
from webui.run.evaluated import name_in_words
from webui.state.evaluating import BASE, DATA, RUN, SET, STRENGTHS, Choice, Ground
from webui.state.services import Services

SHOWN, MAX_CELL = 5, 160  # rows that show a judge; characters of a text in them
MAX_PROMPT = 20_000  # characters
OPTION_FIELDS = {"regex": "pattern", "number": "tolerance", "json": "schema", "model": "server"}  # of a kind of judge
PLACEHOLDERS = {"tolerance": "0.5", "server": "http://127.0.0.1:11434/v1"}
UNTRIED = ("person", "model")  # judges that cannot be shown at work


def choice_of(services: Services, fields: JsonObject, w: Wording) -> tuple[Choice, Options, Options]:
    """Return the choice from any JSON of a browser, with the lists of offered models and questions. A base model that
    is not on this PC is kept and added to the list; anything else that is not offered is replaced by the first, or left
    out."""
    models = model_options(services, w)
    model = str(fields.get("model"))
    if model not in [value for _, value in models]:
        model = _unlisted(model) or models[0][1]
    questions = question_options(services, model, w)
    if (chosen := fields.get("questions")) not in [value for _, value in questions]:
        chosen = questions[0][1] if questions else ""
    # A base model that is not on this PC, or a dataset as it is in Train, which may be the file of somebody else
    models += [] if model in [value for _, value in models] else [(model.removeprefix(BASE), model)]
    who = fields.get("who")
    texts = {name: text[:MAX_PROMPT] for name, text in fields.items() if isinstance(text, str)}
    choice = Choice(model, str(chosen), prompt=texts.get("prompt", ""))
    if (kind := texts.get("judge")) in KINDS:
        option, judge_model = texts.get(OPTION_FIELDS.get(kind, "")), texts.get("judge_model", "")
        choice = replace(choice, judge=kind, option=option, judge_model=judge_model)
    known = tuple(word for word in who if word in choice.offered) if isinstance(who, list) else ()
    also = str(fields.get("also") or "")
    also = also if also in [value for _, value in further_options(services, model, w)] else ""
    return replace(choice, who=known, also=also), models, questions


def further_options(services: Services, model: str, w: Wording) -> Options:
    """Return what can be compared besides: nothing, a run's checkpoints and strengths, the other runs."""
    own = checkpoint_choices(services, w, model)[1:]
    if model.startswith(RUN):
        own += [(w.t("evaluate_page.at_strength", percent=round(100 * float(part))), part) for part in STRENGTHS]
    others = [(label, id) for label, id in model_options(services, w) if id.startswith(RUN) and id != model]
    return [(w.t("evaluate_page.nothing_else"), ""), *((label, f"{model}@{name}") for label, name in own), *others]


def _unlisted(model: str) -> str:
    """Return base:<model> for a base model that is not in the list; "" for a run, or if its name cannot be one."""
    try:
        return f"{BASE}{ModelRef.parse(model.removeprefix(BASE)).id}" if model.startswith(BASE) else ""
    except GarageError:
        return ""


def model_options(services: Services, w: Wording) -> Options:
    """Return the runs that can answer, then the base models."""
    return [
        (label, id)
        for label, id in target_choices(services, w, services.snapshots.now().rows)
        if id.startswith((RUN, BASE))
    ]


def question_options(services: Services, model: str, w: Wording) -> Options:
    """Return a run's own held-out rows, or the datasets for a base model; then the test sets."""
    own: Options = [(w.t("evaluate_page.held_out"), "")]
    if not model.startswith(RUN):
        own = [
            (w.t("evaluate_page.of_data", name=samples.title(info, w)), f"{DATA}{info.id}")
            for info in services.datasets.list()
        ]
    return [*own, *((set_name(one, w), f"{SET}{one.name}") for one in every_set(services.workspace))]


def fields_of(choice: Choice, models: Options, questions: Options, w: Wording) -> Html:
    """Return the lists of models and questions, with those of the choice selected."""
    model = select("model", w.t("evaluate_page.model"), models, choice.model)
    return join([model, select("questions", w.t("evaluate_page.questions"), questions, choice.questions, choice.model)])


def details(
    choice: Choice, ground: Ground, spec: JudgeSpec | None, further: Options, is_first: bool, w: Wording
) -> Html:
    """Return contestants, judge and system prompt, in a fold that is open until there are answers.

    spec: None while the chosen judge lacks its option. further: of further_options. is_first: answers are missing yet,
    and the judge is shown at work on the dataset's own.
    """
    boxes = (
        tag(
            "label",
            tag("input", type="checkbox", name_="who", value=word, checked=not choice.who or word in choice.who),
            name_in_words(word, w),
            id=f"ep-who-{word.replace('+', '-')}",
        )
        for word in choice.offered
    )
    key = f"{choice.model}-{choice.questions}"
    prompt = tag("textarea", ground.system, name_="prompt", rows=4, maxlength=MAX_PROMPT, id=f"ep-prompt-{key}")
    parts = [
        tag("fieldset", tag("legend", w.t("evaluate_page.who")), *boxes, class_="ep-who"),
        select("also", w.t("evaluate_page.also"), further, choice.also, choice.model) if len(further) > 1 else None,
        *(
            _judge_fields(choice, ground, spec, key, w)
            if any(one.judge is None for one in ground.test_set.prompts)
            else ()
        ),
        *(_trial(ground, spec, w) if is_first and spec and spec.kind not in UNTRIED else ()),
        tag("label", tag("span", w.t("evaluate_page.prompt")), prompt, class_="ep-field", id="ep-prompt-field"),
    ]
    summary = tag("summary", w.t("evaluate_page.how"))
    return tag("details", summary, tag("div", *parts), class_="ep-how", open=is_first, id=f"ep-how-{key}")


def _judge_fields(choice: Choice, ground: Ground, spec: JudgeSpec | None, key: str, w: Wording) -> Iterator[Html]:
    """Yield the list of judges, and the fields of what the chosen one needs: a pattern, a tolerance, a schema, or a
    server with its model. spec: None while that is missing. key: part of the fields' ids."""
    proposed, chosen = ground.judge.kind, choice.judge or (spec or ground.judge).kind
    kinds = [(kind, w.t(f"evaluation_view.judge_{kind}")) for kind in dict.fromkeys([proposed, *KINDS])]
    options = [(w.t("evaluate_page.proposed", how=how) if kind == proposed else how, kind) for kind, how in kinds]
    yield select("judge", w.t("evaluate_page.right_if"), options, chosen, key, data_act="judge")
    values = {OPTION_FIELDS.get(chosen, ""): option_of(spec) if spec else choice.option or ""}
    values |= {"judge_model": spec.model if isinstance(spec, ModelJudge) else choice.judge_model}
    for name in [OPTION_FIELDS.get(chosen), "judge_model" if chosen == "model" else None]:
        if name:
            field = tag("input", type="text", name_=name, value=values[name], maxlength=MAX_PROMPT, data_act="judge",
                        placeholder=PLACEHOLDERS.get(name), autocomplete="off", id=f"ep-{name}-{key}")  # fmt: skip
            yield tag(
                "label", tag("span", w.t(f"evaluate_page.{name}")), field, class_="ep-field", id=f"ep-{name}-field"
            )


def _trial(ground: Ground, spec: JudgeSpec, w: Wording) -> Iterator[Html]:
    """Yield a table of the judge's verdicts on up to SHOWN questions: on the expected answer, and on that to another
    question. Nothing without expected answers."""
    expected = [one for one in ground.test_set.prompts if one.expected]
    if not expected:
        return
    head = ("question", "expected_answer", "other_answer")
    rows = []
    for place, prompt in enumerate(expected[:SHOWN]):
        others = (one.expected or "" for one in (*expected[place + 1 :], *expected[:place]))
        other = next((text for text in others if text.strip() != (prompt.expected or "").strip()), "")
        tried = [text for text in (prompt.expected, other) if text]
        verdicts = (_verdict(prompt.judge or spec, prompt.expected or "", text, w) for text in tried)
        rows.append(tag("tr", tag("th", prompt.question[:MAX_CELL], scope="row", dir="auto"), *verdicts))
    yield muted(w.t("evaluate_page.trial"))
    titles = (tag("th", w.t(f"evaluate_page.{name}"), scope="col") for name in head)
    yield tag("table", tag("thead", tag("tr", *titles)), tag("tbody", *rows), class_="ev-table ep-trial")


def _verdict(spec: JudgeSpec, expected: str, answer: str, w: Wording) -> Html:
    """Return a cell with the judge's outcome on an answer and, as its title, the reason; an answer that it cannot judge
    is marked so."""
    try:
        verdict = judge(spec, expected, answer)
        outcome, why = verdict.outcome, w.render(verdict.reason)
    except JudgeError as error:
        outcome, why = None, w.render(error.message)
    spoken = w.t(f"evaluation_view.{outcome or 'unjudged'}")
    mark = tag("span", MARKS[outcome], role="img", aria_label=spoken)
    text = tag("span", answer[:MAX_CELL], class_="ev-cell-text", dir="auto")
    return tag("td", mark, text, class_=f"ev-cell ev-{outcome}", title=why)
