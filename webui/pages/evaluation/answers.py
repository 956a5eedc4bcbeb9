"""The table of questions and contestants of a finished evaluation, in colours, with filters; a row opened shows every
answer and why it was judged so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from core.chat.evaluation.table import Table
from core.judges.judge import Outcome, label_in
from core.judges.specs import LabelJudge
from core.judges.texts import comparable
from webui.kit.html import Html, join, tag
from webui.kit.wording import Wording
from webui.run.evaluated import name_of

MAX_TEXT = 4000  # characters of a question or an answer
MAX_CELL = 80  # characters of an answer in the table
MAX_LABELS = 12  # of a table of confusions
AT_ONCE = 100  # rows, before "Show more"
MARKS: dict[Outcome | None, str] = {"right": "✓", "partly": "~", "wrong": "✗", None: "?"}
VOTES: tuple[Outcome, ...] = ("right", "wrong")
FILTERS = ("all", "differ", "tuned_wrong", "base_right", "wrong")


def answers(table: Table, chosen: dict[str, str], w: Wording) -> Iterator[Html]:
    """Yield the filters and the table of those questions that the chosen filter shows, of all if it shows none: the
    first AT_ONCE, with a button for more. chosen: filter, row (the opened one) and more (how often more rows were
    requested), as any texts of a browser."""
    numbers = range(len(table.evaluation.lineup.prompts))
    kinds = {number: _kinds(table, number) for number in numbers}
    filter = chosen["filter"] if chosen["filter"] in FILTERS else "all"
    matching = [number for number in numbers if filter in kinds[number]]
    if not matching:
        filter, matching = "all", list(numbers)
    shown = AT_ONCE * (1 + (int(chosen["more"]) if chosen["more"].isdecimal() and len(chosen["more"]) < 3 else 0))
    yield tag("div", *_filters(kinds, filter, w), class_="ev-filters", role="group",
              aria_label=w.t("evaluation_view.rows"))  # fmt: skip
    head = tag("tr", tag("th", w.t("evaluate_page.question"), scope="col"),
               *(tag("th", name_of(one, w), scope="col") for one in table.contestants))  # fmt: skip
    rows = join(part for number in matching[:shown] for part in _row(table, number, str(number) == chosen["row"], w))
    yield tag("table", tag("thead", head), tag("tbody", rows), class_="ev-table")
    if len(matching) > shown:
        more = w.t("evaluate_page.more", count=min(AT_ONCE, len(matching) - shown))
        yield tag("button", more, type="button", class_="lg-small", data_set="more", data_value=shown // AT_ONCE)


def confusions(table: Table, w: Wording) -> Html | None:
    """Return a table of which labels the fine-tuned model, or without one the first contestant, gave for which; None
    where the judge has no labels, or more than MAX_LABELS."""
    spec, place = table.judge, table.tuned or 0
    if not isinstance(spec, LabelJudge) or len(spec.labels) > MAX_LABELS:
        return None
    labels = {comparable(label): label for label in spec.labels}
    counts = Counter[tuple[str | None, str | None]]()
    for number in table.counted:
        expected = labels.get(comparable(table.evaluation.lineup.prompts[number].expected or ""))
        counts[expected, label_in(spec, table.answers[number, place].text)] += 1
    given = [*spec.labels, *([None] if any(label is None for _, label in counts) else [])]
    head = (tag("th", w.t("evaluate_page.no_label") if label is None else label, scope="col") for label in given)
    rows = (
        tag(
            "tr",
            tag("th", expected, scope="row"),
            *(_count(counts[expected, label], expected == label) for label in given),
        )
        for expected in spec.labels
    )
    corner = tag("td", w.t("evaluate_page.label_corner"), class_="ev-why")
    body = tag("table", tag("thead", tag("tr", corner, *head)), tag("tbody", *rows), class_="ev-table")
    title = w.t("evaluate_page.confusions", name=name_of(table.contestants[place], w))
    scrolls = tag("div", body, class_="lg-scroll", tabindex=0, role="region", aria_label=title)
    return tag("details", tag("summary", title), scrolls, class_="ep-how", id="ep-confusions")


def _count(count: int, is_right: bool) -> Html:
    """Return a cell with a count, coloured by is_right unless it is 0."""
    kind = "" if not count else "ev-right" if is_right else "ev-wrong"
    return tag("td", str(count), class_=f"ev-cell {kind}".strip())


def _filters(kinds: dict[int, set[str]], chosen: str, w: Wording) -> Iterator[Html]:
    """Yield a button for each filter that shows any row. kinds: the filters of each row. chosen: the pressed one."""
    for name in FILTERS:
        if count := sum(name in each for each in kinds.values()):
            text = f"{w.t(f'evaluation_view.filter_{name}')} {count}"
            yield tag("button", text, type="button", data_set="filter", data_value=name, id=f"ev-filter-{name}",
                      aria_pressed=str(name == chosen).lower())  # fmt: skip


def _kinds(table: Table, number: int) -> set[str]:
    """Return the FILTERS that show row `number`; only "all" while an answer is not judged."""
    verdicts = [table.verdicts.get((number, place)) for place in range(len(table.contestants))]
    outcomes = [verdict.outcome if verdict else None for verdict in verdicts]
    if None in outcomes:
        return {"all"}
    base = [outcome for outcome, one in zip(outcomes, table.contestants, strict=True) if one.column == "base"]
    is_true = {
        "differ": len(set(outcomes)) > 1,
        "tuned_wrong": table.tuned is not None and outcomes[table.tuned] != "right",
        "base_right": table.tuned is not None and "right" in base,
        "wrong": "right" not in outcomes,
    }
    return {"all", *(name for name, shows in is_true.items() if shows)}


def _row(table: Table, number: int, is_open: bool, w: Wording) -> Iterator[Html]:
    """Yield a table row of question `number` with the outcome and text of each contestant, and if is_open a second one
    with all of its answers."""
    prompt = table.evaluation.lineup.prompts[number]
    cells = []
    for place, one in enumerate(table.contestants):
        verdict, answer = table.verdicts.get((number, place)), table.answers.get((number, place))
        outcome = verdict.outcome if verdict else None
        outcome_words = w.t(f"evaluation_view.{outcome or 'unjudged'}")
        spoken = f"{name_of(one, w)}: {outcome_words}"
        mark = tag("span", MARKS[outcome], role="img", aria_label=spoken, title=spoken)
        text = " ".join(answer.text.split())[:MAX_CELL] if answer else ""
        cells.append(tag("td", mark, tag("span", text, class_="ev-cell-text", dir="auto", aria_hidden="true"),
                         class_=f"ev-cell ev-{outcome}"))  # fmt: skip
    question = tag("span", prompt.question[:MAX_TEXT], class_="ev-question", dir="auto")
    open_ = tag("button", question, type="button", id=f"ev-open-{number}", data_set="row", data_value=number,
                aria_expanded=str(is_open).lower())  # fmt: skip
    doubt = None if number in table.counted else tag("span", w.t("evaluate_page.not_counted"), class_="lg-badge")
    kind = "ev-row ev-opened" if is_open else "ev-row"
    yield tag("tr", tag("th", open_, doubt, scope="row"), *cells, class_=kind, id=f"ev-row-{number}")
    if is_open:
        opened = tag("td", *_opened(table, number, w), colspan=1 + len(cells))
        yield tag("tr", opened, class_="ev-answers", id=f"ev-answers-{number}")


def _opened(table: Table, number: int, w: Wording) -> Iterator[Html]:
    """Yield the expected answer, and each contestant's with its outcome and the reason."""
    prompt = table.evaluation.lineup.prompts[number]
    if prompt.expected:
        yield tag("div", tag("b", w.t("evaluation_view.expected")), _text(prompt.expected), class_="ev-answer")
    for place, one in enumerate(table.contestants):
        verdict, answer = table.verdicts.get((number, place)), table.answers.get((number, place))
        outcome = verdict.outcome if verdict else None
        why = w.render(verdict.reason if verdict else table.failures.get((number, place)))
        name = tag("b", tag("span", MARKS[outcome], class_=f"ev-{outcome}", aria_hidden="true"), name_of(one, w))
        reason = tag("span", why, class_="ev-why") if why else None
        votes = _votes(table, number, place, w) if answer else None
        text_and_votes = tag("span", _text(answer.text if answer else ""), reason, votes)
        yield tag("div", name, text_and_votes, class_="ev-answer")


def _votes(table: Table, number: int, place: int, w: Wording) -> Html:
    """Return the buttons of a person's vote on the answer of contestant `place` to question `number`; of a fine-tuned
    one (of any, without one) also that which keeps it as a test."""
    at = {"data_number": number, "data_place": place}
    vote = table.votes.get((number, place))
    buttons = [
        tag("button", f"{MARKS[outcome]} {w.t(f'evaluate_page.vote_{outcome}')}", type="button", data_act="vote",
            data_verdict=outcome, aria_pressed=str(vote == outcome).lower(), class_=f"ev-vote ev-{outcome}", **at)
        for outcome in VOTES
    ]  # fmt: skip
    if table.contestants[place].column == "tuned" or table.tuned is None:
        bad = w.t("evaluate_page.bad")
        buttons.append(tag("button", bad, type="button", class_="ev-vote", data_act="bad", **at))
    return tag("span", *buttons, class_="ev-votes", role="group", aria_label=w.t("evaluate_page.your_vote"))


def _text(text: str) -> Html:
    """Return the first MAX_TEXT characters of an answer; "…" for an empty one."""
    return tag("span", text[:MAX_TEXT].strip() or "…", class_="ev-text", dir="auto")
