"""A plan as sentences and bars: pure functions of a FormResult and a Wording."""

from __future__ import annotations

from core.advice.case import Advice
from core.advice.run_doctor import COVERED_WARNINGS
from core.data.validation_split import validation_count
from core.memory.arithmetic import Estimate
from core.memory.budget import Budget
from core.memory.documented import TableMethod, VramTable
from core.trial.dry_runs import DryRunState
from webui.form.planner import FormResult
from webui.kit import correction, format
from webui.kit.format import METHODS, badge, free_memory, gib, grouped, method_name
from webui.kit.html import Html, join, notice, tag
from webui.kit.wording import Wording

# The terms of an estimate in the bar's groups, by what a person could change.
BAR = (
    ("model", ("weights", "dequantised")),
    ("adapter", ("adapter", "gradients", "optimizer")),
    ("work", ("activations", "logits", "drawing")),
    ("rest", ("workspace", "context", "slack")),
)
# Warnings that are shown elsewhere: as findings, and as the reason for the length.
SAID_ELSEWHERE = (*COVERED_WARNINGS, "advise.warn_estimated_lengths")
MAX_WARNINGS = 2  # beside the form; the others are in a fold


def verdict_line(advice: Advice, w: Wording) -> str:
    """Return the verdict with the needed and the free memory, such as "fits: 5.2 of 7.3 GiB". The needed memory
    includes the margin, except for a tight plan that only fits without it. The word alone if a number is unknown."""
    word = w.t(f"plan_view.verdict_{advice.verdict}")
    if advice.estimate is None or advice.budget.free_gib is None:
        return word
    needed, free = advice.estimate.needed_gib, advice.budget.free_gib
    if advice.verdict == "tight" and needed > free:  # "7.8 of 7.3" would look as if it did not fit
        return w.t(
            "plan_view.verdict_bare", verdict=word, needed=gib(w, advice.estimate.on_card_gib), free=gib(w, free)
        )
    return w.t("plan_view.verdict_numbers", verdict=word, needed=gib(w, needed), free=gib(w, free))


def steps_and_time(result: FormResult, w: Wording) -> list[str]:
    """Return [the planned steps, about how long they take if it is known]; [] without a plan or a number of steps."""
    if result.plan is None or result.plan.advice.planned_steps is None:
        return []
    parts = [w.t("plan_view.steps", steps=result.plan.advice.planned_steps)]
    if result.seconds is not None:
        parts.append(format.about(w, result.seconds))
    return parts


def card(result: FormResult, w: Wording) -> Html:
    """Return the plan: recommendation, verdict, memory by term, steps and time, tokens learned, the first MAX_WARNINGS
    warnings; without a plan the problem."""
    if result.plan is None:
        return (
            notice(w.render(result.problem))
            if result.problem
            else tag("p", w.t("plan_view.no_plan"), class_="lg-quiet")
        )
    advice = result.plan.advice
    read_unasked = {
        "offload_layers",
        *(["budget"] if advice.budget.ranks > 1 else []),
    }  # these reasons are always shown: their effect is large
    parts = [
        tag(
            "p",
            tag(
                "strong",
                w.t("plan_view.method_rank", method=method_name(result.plan.recipe.adapter), r=advice.recipe.adapter.r),
            ),
            badge(advice.verdict, w, is_plain=result.is_long),
            format.takes_long(result.seconds, w),
            class_="lg-plan-head",
        ),
        memory(advice.estimate, advice.budget, w),
        would_fit(advice, w),
        *(tag("p", w.render(reason.text)) for reason in advice.reasons if reason.field in read_unasked),
        dry_run_line(result.dry_run, advice, w),
        correction.corrected_line(advice.correction, w),
        time_line(result, w),
        notice(w.t("plan_view.long", time=format.about(w, result.seconds)), "warn") if result.is_long else None,
        learned_line(result, w),
        notice(w.render(result.note), "warn") if result.note else None,
        tag("p", w.t("plan_view.shape_unknown", why=w.render(result.shape_problem)), class_="lg-quiet")
        if result.shape_problem
        else None,
        *_warnings(advice, w)[:MAX_WARNINGS],
    ]
    return tag("div", join(parts), class_="lg-plan")


def _warnings(advice: Advice, w: Wording) -> list[Html]:
    """Return the plan's warnings as notices, except those in SAID_ELSEWHERE."""
    return [notice(w.render(warning), "warn") for warning in advice.warnings if warning.key not in SAID_ELSEWHERE]


def more(result: FormResult, table: VramTable, w: Wording) -> Html:
    """Return the folded details of a plan: other warnings, reasons, alternatives, the documented table; "" without a
    plan."""
    if result.plan is None:
        return Html("")
    advice = result.plan.advice
    others = _warnings(advice, w)[MAX_WARNINGS:]
    parts = [
        fold(w.t("plan_view.more_warnings", count=len(others)), *others) if others else None,
        reasons(advice, w),
        alternatives(advice, w),
        documented(advice, table, w),
    ]
    return tag("div", join(parts), class_="lg-plan")


def time_line(result: FormResult, w: Wording) -> Html | None:
    """Return steps and expected time, with the source of the pace, or why it is not known yet; None without a plan."""
    if result.plan is None:
        return None
    steps = result.plan.advice.planned_steps
    if steps is None:
        return tag("p", w.t("plan_view.steps_need_data"), class_="lg-quiet")
    if result.seconds is not None and result.pace is not None:
        about = w.t(
            "plan_view.time", steps=steps, time=format.about(w, result.seconds), source=w.render(result.pace.source)
        )
        return tag("p", about)
    if result.plan.advice.budget.planned:
        return tag("p", w.t("plan_view.time_elsewhere", steps=steps))
    return tag("p", w.t("plan_view.time_unknown", steps=steps))


def learned_line(result: FormResult, w: Wording) -> Html | None:
    """Return the number of rows to train and to validate on, and the share of tokens that is trained; None without plan
    or preview."""
    if result.plan is None or result.preview is None:
        return None
    counts = result.preview.counts_of(result.plan.recipe.data)
    exact = counts.learned_percent
    percent = exact if counts.exact else w.t("learned_view.about", number=exact)
    rows = counts.rows - counts.rows_dropped
    if (own := result.preview.facts().validation) is not None:
        trained, measured = grouped(w, max(0, rows - own)), grouped(w, own)
        return tag("p", w.t("plan_view.learned_own", rows=trained, held=measured, percent=percent))
    validation = validation_count(rows, result.plan.recipe.data.eval_fraction)
    if not validation:
        return tag("p", w.t("plan_view.learned_all", rows=grouped(w, rows), percent=percent))
    return tag(
        "p", w.t("plan_view.learned", rows=grouped(w, rows - validation), held=grouped(w, validation), percent=percent)
    )


def memory(estimate: Estimate | None, budget: Budget, w: Wording) -> Html | None:
    """Return a bar and legend of the estimated memory by purpose, margin included, against the free memory if that is
    known; the numbers beside it say the same. None without an estimate."""
    if estimate is None:
        return None
    groups = [(name, sum(estimate.terms.get(term, 0.0) for term in terms)) for name, terms in BAR]
    margin = estimate.needed_gib - estimate.on_card_gib
    free = budget.free_gib
    full = max(estimate.needed_gib, free or 0.0) or 1.0
    pieces = [*groups, ("margin", margin)]
    bar = [
        tag("div", class_=f"lg-mem-{name}", style=f"width:{100 * size / full:.2f}%")
        for name, size in pieces
        if size > 0
    ]
    if free is not None:
        bar.append(tag("div", class_="lg-mem-free", style=f"left:{min(100.0, 100 * free / full):.2f}%"))
    spoken = w.t(
        "plan_view.bar_spoken",
        needed=gib(w, estimate.needed_gib),
        free=gib(w, free) if free is not None else w.t("plan_view.unknown"),
    )
    names = {"rest": "plan_view.mem_rest_cpu"} if budget.kind == "cpu" else {}
    legend = [
        tag(
            "li",
            tag("i", class_=f"lg-mem-{name}", aria_hidden="true"),
            w.t(names.get(name, f"plan_view.mem_{name}"), gib=gib(w, size)),
        )
        for name, size in pieces
        if size >= 0.005
    ]
    place = free_memory(budget, w)
    return tag(
        "div",
        tag("p", w.t("plan_view.needs", needed=gib(w, estimate.needed_gib), place=place)),
        tag("div", *bar, class_="lg-mem", role="img", aria_label=spoken),
        tag("ul", *legend, class_="lg-mem-legend"),
    )


def reasons(advice: Advice, w: Wording) -> Html:
    """Return a fold with each setting's name and value, one line each; a press unfolds its reason and closes that of
    another."""
    lines, parts = [], (advice, advice.recipe.adapter, advice.recipe.train, advice.recipe.data)
    for reason in advice.reasons:
        own = (getattr(part, reason.field) for part in parts if hasattr(part, reason.field))
        value = value_of(next(own, None), w)
        name = w.t(f"plan_view.field_{reason.field}") if w.knows(f"plan_view.field_{reason.field}") else reason.field
        shown = w.t(f"plan_view.verdict_{value}") if reason.field == "verdict" else METHODS.get(value, value)
        line = tag("summary", name, tag("b", shown) if shown else None)
        lines.append(
            tag("details", line, tag("p", w.render(reason.text)), name_="plan-reason", class_="lg-fold lg-reason")
        )
    return fold(w.t("plan_view.why"), *lines, open_=True)


def value_of(value: object, w: Wording) -> str:
    """Return a number or a word; "" for anything else, which the reason's sentence names."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return ""
    return format.number(w, value) if isinstance(value, int | float) else value


def alternatives(advice: Advice, w: Wording) -> Html | None:
    """Return a fold with the plan's alternatives and their verdicts; None without any."""
    if not advice.alternatives:
        return None
    lines = [tag("li", badge(other.verdict, w), " ", w.render(other.text)) for other in advice.alternatives]
    return fold(w.t("plan_view.alternatives"), tag("ul", *lines, class_="lg-plain-list"))


def would_fit(advice: Advice, w: Wording) -> Html | None:
    """Return the changes that make a plan fit, at the top where they are read first; None without any, or unless it is
    tight or does not fit."""
    options = [tag("li", w.render(other.text)) for other in advice.alternatives if other.verdict == "fits"]
    if advice.verdict not in ("tight", "does_not_fit") or not options:
        return None
    return tag("div", tag("p", tag("strong", w.t("plan_view.would_fit"))), tag("ul", *options))


def documented(advice: Advice, table: VramTable, w: Wording) -> Html:
    """Return a fold with the VRAM table that the rules come from, with the row and the column that applied
    highlighted."""
    methods: tuple[TableMethod, ...] = ("full", "lora", "qlora")
    names = {"full": w.t("plan_view.full"), **METHODS}
    head = tag(
        "tr",
        tag("th", w.t("plan_view.size"), scope="col"),
        *(tag("th", names[method], scope="col") for method in methods),
    )
    body = []
    for row in table.rows:
        lit = row.name == advice.documented.row
        cells = [
            tag(
                "td",
                table.shown(row.name, method, w.language),
                class_="lg-lit-cell" if lit and method == advice.recipe.adapter.method else None,
            )
            for method in methods
        ]
        mark = tag("span", w.t("plan_view.this_row"), class_="lg-badge lg-active") if lit else None
        body.append(
            tag(
                "tr",
                tag("th", row.name, " " if lit else None, mark, scope="row"),
                *cells,
                class_="lg-lit" if lit else None,
            )
        )
    rule = w.render(advice.documented.rule) if advice.documented.rule else w.t("plan_view.no_row")
    return fold(
        w.t("plan_view.table"),
        tag(
            "div",
            tag("table", tag("thead", head), tag("tbody", *body), class_="lg-table"),
            class_="lg-scroll",
            tabindex=0,
            role="region",
            aria_label=w.t("plan_view.table"),
        ),
        tag("p", rule),
        tag(
            "p",
            w.t("plan_view.table_source", document=table.document(w.language), section=table.section(w.language)),
            class_="lg-quiet",
        ),
    )


def fold(title: str, *content: Html | None, open_: bool = False) -> Html:
    return tag("details", tag("summary", title), *content, class_="lg-fold", open=open_)


def dry_run_line(state: DryRunState | None, advice: Advice, w: Wording) -> Html | None:
    """Return a line if the dry run differs from the plan by more than the plan's margin, and a warning if it does not
    fit where the plan does; None otherwise."""
    if state is None or state.answer is None or advice.estimate is None:
        return None
    counted, free, on_card = state.answer.estimate, advice.budget.free_gib, advice.estimate.on_card_gib
    on_device, needed = counted.on_card_gib * advice.factor, counted.needed_gib * advice.factor
    parts = []
    if abs(on_device / on_card - 1) > advice.estimate.margin:
        text = w.t(
            "dry_run_view.counted", gib=gib(w, on_device), thumb=gib(w, on_card), where=w.render(state.answer.where)
        )
        parts.append(tag("p", text, class_="lg-quiet"))
    if advice.verdict == "fits" and free is not None and needed > free:
        parts.append(notice(w.t("dry_run_view.too_much", needed=gib(w, needed), free=gib(w, free)), "warn"))
    return join(parts) if parts else None
