"""The judges of a training by rewards as a table in the data step: their weights and options, and how they judge the
dataset's own answers. The browser changes the section `rewards` of the form (assets/judges.js)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import gradio as gr

from core.errors import JudgeError, RecipeError
from core.files import JsonObject
from core.judges import weighted
from core.judges.judge import judge
from core.judges.texts import words
from core.judges.weighted import WeightedJudge
from core.messages import as_typed
from core.reward_settings import Rewards
from webui.kit.html import Html, notice, tag
from webui.kit.theme import ASSETS
from webui.kit.wording import Wording

MIN_OWN_SHARE = 0.9  # of the dataset's own answers that a judge of content has to call right to be offered
TRIED = 20  # own answers that are judged
MAX_JUDGES = 8  # that can be chosen here
FULL_STOP = "[.!?。！？]$"
BY_CONTENT = ("number", "json", "exact", "contains", "similarity")
OPTIONS = {"length": ("most", "number"), "regex": ("pattern", "text")}  # of a kind of judge, with its kind of field
NUMBERS = (("num_generations", 2, 64, 1), ("max_completion_length", 1, 32768, 1), ("beta", 0, 100, 0.01))


def component() -> gr.HTML:
    """Return the element that shows the table of judges (`drawn`), with the script that answers it."""
    return gr.HTML("", js_on_load=(ASSETS / "judges.js").read_text("utf-8"), elem_id="comparing-message")


def drawn(given: object, proposed: JsonObject | None, answers: Sequence[str], w: Wording) -> Html:
    """Return the table of the judges, "" for anything that is no such section. given: the form's section `rewards`, any
    JSON; proposed: the section that suits the dataset; answers: of the dataset."""
    raw = given.get("judges") if isinstance(given, dict) else None
    if not isinstance(given, dict) or not isinstance(raw, list) or not all(isinstance(each, dict) for each in raw):
        return Html("")
    known = [_read(each) for each in raw]
    beta = weighted.usual_beta([one for one in known if one])
    heads = (tag("th", w.t(f"comparing.judge_{name}"), scope="col") for name in ("name", "weight", "own"))
    body = [_row(place, each, known[place], answers, len(raw), w) for place, each in enumerate(raw)]
    table = tag("table", tag("thead", tag("tr", *heads, tag("td"))), tag("tbody", *body), class_="lg-table")
    parts = [table, _adding(raw, proposed, answers, w) if len(raw) < MAX_JUDGES else None, _numbers(given, beta, w)]
    if beta and known and all(known):
        parts.append(notice(w.t("comparing.form_alone", beta=beta), "warn"))
    return tag("div", *parts, data_rewards=json.dumps(given))


def _read(given: Mapping[str, object]) -> WeightedJudge | None:
    """Return a judge of the section; None if it is not valid, which the plan says."""
    try:
        return weighted.read([given])[0]
    except RecipeError:
        return None


def own_share(one: WeightedJudge, answers: Sequence[str]) -> float | None:
    """Return the mean score, 0 to 1, that a judge gives the first TRIED answers of the dataset, each compared with
    itself as the expected answer; None without answers, or if it cannot judge one."""
    try:
        scores = [judge(one.judge, answer, answer).score for answer in answers[:TRIED]]
    except JudgeError:
        return None
    return sum(scores) / len(scores) if scores else None


def _row(
    place: int, given: Mapping[str, object], one: WeightedJudge | None, answers: Sequence[str], count: int, w: Wording
) -> Html:
    """Return a judge as a table row: its name, whether it looks at content or form, its option, its weight, the mean
    score of the dataset's own answers in per cent ("–" if unknown), and the button that removes it, disabled for the
    only judge."""
    kind = str(given.get("kind", "?"))
    name = w.t(f"judges.name_{kind}") if w.knows(f"judges.name_{kind}") else kind
    looks_at = w.t(f"comparing.judge_{'content' if one.reads_content else 'form'}") if one else None
    cells = [tag("strong", name), tag("span", looks_at, class_="lg-quiet") if looks_at else None]
    if kind in OPTIONS:
        option, type_ = OPTIONS[kind]
        label = w.t(f"comparing.judge_{option}")
        cells += [tag("span", label), _field(f"{option}-{place}", option, type_, label, given.get(option))]
    weight = _field(f"weight-{place}", "weight", "number", w.t("comparing.judge_weight_of", name=name),
                    given.get("weight", 1), min=0.1, max=100, step=0.1)  # fmt: skip
    share = own_share(one, answers) if one else None
    own = "–" if share is None else w.t("judged_view.percent", percent=100 * share)
    label = w.t("comparing.judge_remove", name=name)
    remove = tag("button", "×", type="button", class_="lg-small", data_remove=place, aria_label=label, title=label,
                 id=f"judge-remove-{place}", disabled=count == 1)  # fmt: skip
    return tag("tr", tag("td", *cells), tag("td", weight), tag("td", own), tag("td", remove), data_judge=place)


def _field(id: str, name: str, type_: str, label: str, value: object, **limits: float) -> Html:
    shown = value if isinstance(value, str | int | float) else ""
    return tag("input", type=type_, name_=name, value=shown, aria_label=label, title=label, placeholder=label,
               maxlength=1000, id=f"judge-{id}", **limits)  # fmt: skip


def _adding(
    raw: Sequence[Mapping[str, object]], proposed: JsonObject | None, answers: Sequence[str], w: Wording
) -> Html:
    """Return the list of judges that can be added: those by content that pass the own answers, then those by form; ""
    if none can."""
    options = [tag("option", w.t("comparing.judge_add"), value="")]
    present = [each.get("kind") for each in raw]
    for each in _offered(proposed, answers):
        one = _read(each)
        if one and (each["kind"] not in present or each["kind"] == "regex"):
            what = w.t(f"comparing.judge_{'content' if one.reads_content else 'form'}")
            name = w.t(f"judges.name_{one.judge.kind}")
            options.append(tag("option", f"{name} ({what})", value=json.dumps(each)))
    label = w.t("comparing.judge_add")
    return tag("select", *options, name_="add", id="judge-add", aria_label=label) if len(options) > 1 else Html("")


def _offered(proposed: JsonObject | None, answers: Sequence[str]) -> Iterator[JsonObject]:
    """Yield the judges to offer: proposed ones and those by content that accept the own answers, then those by form."""
    specs = [*(proposed or {"judges": []})["judges"], *({"kind": kind} for kind in BY_CONTENT)]
    for place, each in enumerate(specs):
        if each not in specs[:place] and (one := _read(each)) and (own_share(one, answers) or 0) > MIN_OWN_SHARE:
            yield each
    longest = max((len(words(answer)) for answer in answers), default=1)
    yield from ({"kind": "length", "most": 2 * max(1, longest)}, {"kind": "regex", "pattern": FULL_STOP})
    yield {"kind": "language"}


def _numbers(given: Mapping[str, object], beta: float, w: Wording) -> Html:
    """Return the number fields of training by rewards: answers for each question, tokens of an answer, and beta. An
    empty field follows the default, which it shows as its placeholder. beta: the default of its field."""
    fields = []
    for name, least, most, step in NUMBERS:
        usual = beta if name == "beta" else Rewards.model_fields[name].default
        value, label = given.get(name), w.t(f"comparing.rewards_{name}")
        field = tag("input", type="number", name_=name, value=value if isinstance(value, int | float) else "",
                    placeholder=as_typed(usual), min=least, max=most, step=step, id=f"judge-{name}")  # fmt: skip
        fields.append(tag("label", tag("span", label), field))
    return tag("div", *fields, class_="lg-judge-numbers")
