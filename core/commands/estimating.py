"""`plan` and `estimate`: what is recommended, and how much memory it needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from core.advice import run_doctor
from core.advice.case import METHOD_NAMES, SETTINGS, Advice, Grounds, all_holes, value_of
from core.advice.recommend import recommend
from core.advice.run_doctor import Planned
from core.commands.data import dataset_id, dataset_store
from core.commands.terminal import DryRunOption, JsonOption, WorkspaceOption, app, columns, in_words, print_json, say_finding
from core.data.facts import DataFacts
from core.errors import ModelError
from core.memory.arithmetic import Setup
from core.memory.record import Corrections, MemoryRecord, Rig
from core.messages import Message, msg, terminal_language
from core.models.shapes import ModelShape
from core.queue.turns import busy
from core.runs.all import Runs
from core.system.machine import Machine
from core.trial.dry_runs import DryRuns, Looked
from core.workspace.folder import Workspace

if TYPE_CHECKING:
    from core.data.preview import Preview

USUAL = Setup()  # what an option is where it is left out


# ---- what fits --------------------------------------------------------------------------------------------------------
@app.command("plan")
def plan_command(
    model: Annotated[str, typer.Option(help="A known model, owner/name, a folder, a config.json, or a size such as 7B.")],
    data: Annotated[str | None, typer.Option(help="A data set or a file; its lengths decide max_length and more.")] = None,
    goal: Annotated[str | None, typer.Option(help="What the model should become better at, such as style.")] = None,
    vram: Annotated[float | None, typer.Option(help="Plan for a card of so many GB, as sold, instead of this PC.")] = None,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """What to train a model with on a card, why, and whether it fits; its weights are not downloaded."""
    import platform

    from core.advice.goals import goal_of
    from core.memory import budget
    from core.models.library import Models, shape_of
    from core.system.machine import this_machine

    space = Workspace.open(workspace)
    wanted = goal_of(goal) if goal else None
    machine = this_machine()
    memory = budget.of_machine(machine) if vram is None else budget.planned(vram, platform.system())
    shape, seen = shape_of(Models(space), model), plan_preview(space, model, data) if data else None
    corrections = corrections_here(space, machine, model) if vram is None else None
    counts = plan_facts(space, model, seen) if seen else None
    advice = recommend(all_holes(wanted.id if wanted else None), Grounds(memory, shape, counts, corrections))
    findings = run_doctor.before(Planned.of(advice.recipe, advice, seen)) if seen else []
    counted = counted_dry_run(Models(space), model, advice.setup) if dry_run else None
    if as_json:
        found = [finding.model_dump(mode="json") for finding in findings]
        more = {"findings": found} | ({"dry_run": dry_run_json(counted)} if counted else {})
        print_json(in_words(plan_json(advice) | more))
    else:
        for finding in findings:
            say_finding(finding)
        lines = [*plan_page(advice, terminal_language()), "", source_of(shape).render(terminal_language())]
        print("\n".join(lines + (dry_run_lines(counted, advice.arithmetic_gib, terminal_language()) if counted else [])))


def corrections_here(space: Workspace, machine: Machine, model: str) -> Corrections:
    """What runs on this PC measured of model, and of others."""
    from core.memory import budget
    from core.models.library import Models

    return MemoryRecord(space).corrections(Rig.of(machine, budget.best_card(machine)), Models(space).hub_id(model))


def plan_preview(space: Workspace, model: str, data: str) -> Preview:
    """data under model's tokenizer; what has none (a bare size, a config.json) borrows the starter's."""
    from core.data.preview import Previews
    from core.models.library import Models

    models, source = Models(space), dataset_id(space, data, Path.cwd())
    return Previews(dataset_store(space), models).of(source, tokenizer_id(models, model) or "starter")


def plan_facts(space: Workspace, model: str, seen: Preview) -> DataFacts:
    """Token counts of seen; guessed where the tokenizer was borrowed."""
    from core.models.library import Models

    facts = seen.facts()
    borrowed = tokenizer_id(Models(space), model) is None
    return facts.model_copy(update={"exact": False, "estimated": True}) if borrowed else facts


def tokenizer_id(models: Any, model: str) -> str | None:
    """The id of the model whose tokenizer is model's own; None for a bare size or a config.json."""
    from core.models.library import ModelRef

    try:
        return ModelRef.parse(models.hub_id(model)).id
    except ModelError:
        return None


def plan_json(advice: Advice) -> dict[str, Any]:
    """The fields that `plan --json` promises (docs/design.md, section 7)."""
    promised = {
        "method", "r", "lora_alpha", "target_modules", "max_length", "micro_batch", "gradient_accumulation", "learning_rate",
        "num_train_epochs", "planned_steps", "verdict", "reasons", "alternatives", "warnings", "documented", "budget",
    }  # fmt: skip
    value = {name: said for name, said in advice.as_json().items() if name in promised}
    terms = {"trainable_params", "idle_gib", "allocated_gib", "on_card_gib", "terms"}
    return value | {"estimate": advice.estimate.model_dump(mode="json", include=terms) if advice.estimate else None}


def plan_page(advice: Advice, language: str) -> list[str]:
    """The recommendation as lines for a terminal: verdict, reasons, memory, what else was weighed, the documented table."""
    from core.memory.documented import vram_table

    def said(key: str, **params: Any) -> str:
        return msg(f"advise.page_{key}", **params).render(language)

    adapter = advice.recipe.adapter
    layers = {"r": adapter.r, "lora_alpha": adapter.lora_alpha, "target_modules": adapter.target_modules}
    lines = [said("head", method=METHOD_NAMES[adapter.method], **layers)]
    lines += [reason.text.render(language) for reason in advice.reasons if reason.field in ("verdict", "budget")]
    if advice.warnings:
        lines += ["", said("warnings"), *(f"  ! {warning.render(language)}" for warning in advice.warnings)]
    lines += ["", said("why")]
    for reason in advice.reasons:
        if reason.field not in ("verdict", "budget"):
            value = value_of(advice.recipe, reason.field) if reason.field in SETTINGS else ""
            shown = f"{value:g}" if isinstance(value, float) else METHOD_NAMES.get(str(value), value)
            lines.append(f"  {reason.field} {shown}".rstrip() + f": {reason.text.render(language)}")
    lines += ["", said("memory")]
    if advice.estimate:
        rows = [msg("memory.row", gib=gib, what=msg(f"memory.{name}")) for name, gib in advice.estimate.terms.items()]
        lines += [row.render(language) for row in rows]
        lines.append("  " + said("total", on_card=advice.estimate.on_card_gib, needed=advice.estimate.needed_gib))
        if advice.correction:
            lines.append("  " + msg("probe.corrected", **advice.correction.model_dump()).render(language))
    else:
        lines.append("  " + said("total_unknown"))
    if advice.alternatives:
        lines += ["", said("alternatives"), *(f"  - {other.text.render(language)}" for other in advice.alternatives)]
    table = vram_table()
    lines += ["", said("table", document=table.document(language)), "  " + columns(said("size"), said("full"), "LoRA", "QLoRA")]
    for row in table.rows:
        cells = (cell.shown[language] for cell in (row.full, row.lora, row.qlora))
        lines.append("  " + columns(row.name, *cells, said("here") if row.name == advice.documented.row else ""))
    return lines + ([f"  {advice.documented.rule.render(language)}"] if advice.documented.rule else [])


@app.command()
def estimate(
    model: Annotated[str, typer.Option(help="An id, a hub name, a folder, a config.json, a GGUF file, or a size such as 7B.")],
    method: Annotated[Literal["lora", "qlora", "full"], typer.Option()] = "lora",
    r: Annotated[int, typer.Option("--r", min=1, max=4096, help="Rank of the adapter.")] = USUAL.r,
    target_modules: Annotated[str, typer.Option(help="all-linear, or names with commas.")] = USUAL.target_modules,
    micro_batch: Annotated[int, typer.Option(min=1, max=4096, help="Rows computed at once.")] = USUAL.micro_batch,
    max_length: Annotated[int, typer.Option(min=1, max=10_000_000, help="Tokens of the longest row.")] = USUAL.max_length,
    supervised_tokens: Annotated[
        int | None, typer.Option(min=0, max=10_000_000, help="The most that one row learns; left out: all of it.")
    ] = None,
    optim: Annotated[Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit"], typer.Option()] = USUAL.optim,
    gradient_checkpointing: bool = USUAL.gradient_checkpointing,
    loss: Annotated[
        Literal["supervised", "chunked", "full", "fused"] | None,
        typer.Option(help="Logits of the learned tokens alone (what is trained with), in pieces, all at once, or never."),
    ] = None,
    double_quant: Annotated[bool, typer.Option(help="QLoRA: scales of the 4-bit weights in 8 bit.")] = True,
    adapter_dtype: Annotated[Literal["fp32", "bf16"], typer.Option(help="Type of adapter, gradients and torch's states.")] = "fp32",
    attention: Annotated[Literal["sdpa", "eager"], typer.Option(help="eager makes scores of every pair of tokens.")] = "sdpa",
    dora: Annotated[bool, typer.Option("--dora", help="DoRA. rsLoRA changes a factor and no memory.")] = False,
    lora_dropout: Annotated[float, typer.Option(min=0, max=0.99)] = 0.0,
    load_in_8bit: Annotated[bool, typer.Option("--load-in-8bit", help="LoRA on a base in 8 bit (LLM.int8).")] = False,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """How much memory a training would need on a card: the arithmetic, and with --dry-run the step itself; nothing is loaded."""
    from core.memory.arithmetic import estimate as memory_of
    from core.models.library import Models, shape_of

    models = Models(Workspace.open(workspace))
    shape = shape_of(models, model)
    setup = Setup(
        method=method, r=r, target_modules=target_modules, micro_batch=micro_batch, max_length=max_length, optim=optim,
        supervised_tokens=supervised_tokens, gradient_checkpointing=gradient_checkpointing, loss=loss, double_quant=double_quant,
        adapter_dtype=adapter_dtype, attention=attention, use_dora=dora, lora_dropout=lora_dropout,
        load_in_8bit=load_in_8bit,
    )  # fmt: skip
    result = memory_of(shape, setup)
    counted = counted_dry_run(models, model, setup) if dry_run else None
    if as_json:
        value = estimate_json(model, shape, setup, result) | ({"dry_run": dry_run_json(counted)} if counted else {})
        print_json(in_words(value))
        return
    language = terminal_language()
    print(msg("memory.heading", model=model, billion=shape.params_billion, million=result.trainable_params / 1e6).render(language))
    print(source_of(shape).render(language))
    for name, gib in result.terms.items():
        print(msg("memory.row", gib=gib, what=msg(f"memory.{name}")).render(language))
    totals = ("idle_gib", "allocated_gib", "on_card_gib", "needed_gib")
    for name in totals:
        what = msg(f"memory.{name}", percent=round(100 * result.margin))
        print(msg("memory.row", gib=getattr(result, name), what=what).render(language))
    for doubt in result.low_confidence:
        print(doubt.render(language))
    if counted:
        print("\n".join(dry_run_lines(counted, result.on_card_gib, language)))


def counted_dry_run(models: Any, model: str, setup: Any) -> Looked:
    """The dry run of a setup, or why there is none; waits for it."""
    from core.models.library import config_of
    from core.trial.dry_runs import Question

    runs = DryRuns(lambda: busy(Runs(models.workspace)))
    try:
        return runs.wait(Question(config=config_of(models, model), setup=setup))
    finally:
        runs.rest()


def dry_run_json(found: Looked) -> dict[str, Any]:
    """What `dry_run` holds: the fields of `estimate`, where the peak was, and how it was found; or why there is none."""
    if found.answer is None:
        return {"why": found.why.model_dump() if found.why else None}
    answer = found.answer
    numbers = answer.estimate.model_dump(
        mode="json", include={"trainable_params", "idle_gib", "allocated_gib", "on_card_gib", "terms"}
    )
    at_peak = {"place": answer.place, "layer": answer.layer, "operation": answer.operation}
    return numbers | {"at_peak": at_peak, "layers_run": list(answer.layers_run), "seconds": answer.seconds}


def dry_run_lines(found: Looked, arithmetic_gib: float | None, language: str) -> list[str]:
    """arithmetic_gib: on the card, by the arithmetic alone."""
    if found.answer is None:
        return [msg("dry_run.none", why=found.why or "-").render(language)]
    answer, counted = found.answer, found.answer.estimate
    place = {"where": answer.where, "operation": answer.operation}
    lines = [msg("dry_run.row", gib=counted.on_card_gib, allocated=counted.allocated_gib, **place)]
    if arithmetic_gib:
        difference = 100 * (counted.on_card_gib / arithmetic_gib - 1)
        lines.append(msg("dry_run.compared", difference=difference, layers=list(answer.layers_run), seconds=answer.seconds))
    return [line.render(language) for line in lines]


def estimate_json(model: str, shape: Any, setup: Any, result: Any) -> dict[str, Any]:
    """The fields that `estimate --json` promises (docs/design.md, section 7), and what they were counted from."""
    counted = {"params": shape.params, "shape_source": shape.source, "shape": source_of(shape).model_dump()}
    numbers = result.model_dump(mode="json") | {"needed_gib": result.needed_gib}
    return {"model": model, **counted, "setup": setup.model_dump(), **numbers}


def source_of(shape: ModelShape) -> Message:
    """Where the numbers of a shape come from, as a sentence; for a bare size, which model stands for it."""
    if shape.stands_for:
        return msg("memory.source_size", model=shape.stands_for)
    if shape.held and shape.held.quantised:
        return msg("memory.source_quantised", method=shape.held.quantised, shape=shape.describe())
    return msg(f"memory.source_{shape.source}", shape=shape.describe())
