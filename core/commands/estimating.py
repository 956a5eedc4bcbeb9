"""`plan` and `estimate`: the recommended settings, and how much memory they need."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from core.advice.case import METHOD_NAMES, Advice
from core.advice.decisions import SETTINGS, value_of
from core.api import planning as api
from core.commands.terminal import (
    DryRunOption,
    JsonOption,
    WorkspaceOption,
    app,
    columns,
    in_words,
    print_json,
    say,
    say_finding,
)
from core.errors import RecipeError
from core.memory import arithmetic
from core.memory.documented import vram_table
from core.memory.setup import Setup
from core.messages import Message, in_language, msg, terminal_language
from core.models.library import Models, shape_of
from core.models.shapes.shape import ModelShape
from core.recipe import Adapter, clashes
from core.trial.dry_runs import DryRunState
from core.workspace.folder import Workspace

USUAL = Setup()  # defaults of the options


@app.command("plan")
def plan_command(
    model: Annotated[
        str, typer.Option(help="A known model, owner/name, a folder, a config.json, or a size such as 7B.")
    ],
    data: Annotated[
        str | None, typer.Option(help="A dataset or a file; its lengths decide max_length and more.")
    ] = None,
    goal: Annotated[str | None, typer.Option(help="What the model should improve at, e.g. style.")] = None,
    vram: Annotated[
        float | None, typer.Option(help="Plan for a GPU with this many GB of VRAM, as sold, instead of this PC.")
    ] = None,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recommend settings for a model on this PC or another GPU, with reasons, and whether they fit. Downloads no
    weights."""
    planned = api.plan(model, data, goal=goal, vram=vram, dry_run=dry_run, workspace=workspace)
    if planned.refusal:
        say(planned.refusal.message)
    if as_json:
        print_json(in_words(planned.as_json()))
        return
    language = terminal_language()
    for finding in planned.findings:
        say_finding(finding)
    lines = [*plan_page(planned.advice, language), "", source_of(planned.shape).render(language)]
    lines += dry_run_lines(planned.dry_run, planned.advice.arithmetic_gib, language) if planned.dry_run else []
    print("\n".join(lines))


def plan_page(advice: Advice, language: str) -> list[str]:
    """Return the recommendation as lines for a terminal in a language: verdict, reasons, memory, alternatives, the
    documented table."""

    def page_sentence(key: str, **params: object) -> str:
        """Return the page's sentence of this key (advise.page_...) in the language of the page."""
        return msg(f"advise.page_{key}", **params).render(language)

    adapter = advice.recipe.adapter
    layers = {"r": adapter.r, "lora_alpha": adapter.lora_alpha, "target_modules": adapter.target_modules}
    lines = [page_sentence("head", method=METHOD_NAMES[adapter.method], **layers)]
    lines += [reason.text.render(language) for reason in advice.reasons if reason.field in ("verdict", "budget")]
    if advice.warnings:
        lines += ["", page_sentence("warnings"), *(f"  ! {warning.render(language)}" for warning in advice.warnings)]
    lines += ["", page_sentence("why")]
    for reason in advice.reasons:
        if reason.field not in ("verdict", "budget"):
            value = value_of(advice.recipe, reason.field) if reason.field in SETTINGS else ""
            shown = f"{value:g}" if isinstance(value, float) else METHOD_NAMES.get(str(value), value)
            lines.append(f"  {reason.field} {shown}".rstrip() + f": {reason.text.render(language)}")
    lines += ["", page_sentence("memory")]
    if advice.estimate:
        rows = [msg("memory.row", gib=gib, what=msg(f"memory.{name}")) for name, gib in advice.estimate.terms.items()]
        lines += [row.render(language) for row in rows]
        lines.append(
            "  " + page_sentence("total", on_card=advice.estimate.on_card_gib, needed=advice.estimate.needed_gib)
        )
        if advice.correction:
            lines.append("  " + msg("probe.corrected", **advice.correction.model_dump()).render(language))
    else:
        lines.append("  " + page_sentence("total_unknown"))
    if advice.alternatives:
        lines += [
            "",
            page_sentence("alternatives"),
            *(f"  - {other.text.render(language)}" for other in advice.alternatives),
        ]
    table = vram_table()
    lines += [
        "",
        page_sentence("table", document=table.document(language)),
        "  " + columns(page_sentence("size"), page_sentence("full"), "LoRA", "QLoRA"),
    ]
    for row in table.rows:
        cells = (in_language(cell.shown, language) for cell in (row.full, row.lora, row.qlora))
        lines.append(
            "  " + columns(row.name, *cells, page_sentence("here") if row.name == advice.documented.row else "")
        )
    return lines + ([f"  {advice.documented.rule.render(language)}"] if advice.documented.rule else [])


@app.command()
def estimate(
    model: Annotated[str, typer.Option(help="A known model, owner/name, folder, config.json, or a size such as 7B.")],
    method: Annotated[Literal["lora", "qlora", "full"], typer.Option()] = "lora",
    r: Annotated[int, typer.Option("--r", min=1, max=4096, help="LoRA rank.")] = USUAL.r,
    target_modules: Annotated[
        str, typer.Option(help="all-linear, or module names separated by commas.")
    ] = USUAL.target_modules,
    per_device_train_batch_size: Annotated[
        int, typer.Option(min=1, max=4096, help="Rows at once.")
    ] = USUAL.per_device_train_batch_size,
    max_length: Annotated[
        int, typer.Option(min=1, max=10_000_000, help="Tokens of the longest example.")
    ] = USUAL.max_length,
    supervised_tokens: Annotated[
        int | None, typer.Option(min=0, max=10_000_000, help="Trained tokens per example, at most. Default: all.")
    ] = None,
    optim: Annotated[Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit"], typer.Option()] = USUAL.optim,
    gradient_checkpointing: bool = USUAL.gradient_checkpointing,
    loss: Annotated[
        Literal["supervised", "chunked", "full", "fused"] | None,
        typer.Option(
            help="Logits held at once: of trained tokens only (as in training), of a chunk, of all tokens, or none."
        ),
    ] = None,
    double_quant: Annotated[
        bool, typer.Option(help="QLoRA: quantize the scales of the 4-bit weights to 8 bits.")
    ] = True,
    adapter_dtype: Annotated[
        Literal["fp32", "bf16"], typer.Option(help="Dtype of adapter, gradients and states.")
    ] = "fp32",
    attention: Annotated[
        Literal["sdpa", "eager"], typer.Option(help="eager keeps the scores of all token pairs.")
    ] = "sdpa",
    dora: Annotated[bool, typer.Option("--dora", help="DoRA. (rsLoRA needs no more memory than LoRA.)")] = False,
    lora_dropout: Annotated[float, typer.Option(min=0, max=0.99, help="LoRA dropout.")] = 0.0,
    load_in_8bit: Annotated[bool, typer.Option("--load-in-8bit", help="LoRA on an 8-bit base (LLM.int8).")] = False,
    target_parameters: Annotated[
        Literal["none", "experts"], typer.Option(help="experts: also put adapters on routed experts.")
    ] = USUAL.target_parameters,
    offload_layers: Annotated[
        int, typer.Option(min=0, max=2048, help="Layers of the base model offloaded to RAM.")
    ] = 0,
    shards: Annotated[
        int,
        typer.Option(
            min=1, max=16, help="GPUs that share the base model (train.fsdp); the result is for each of them."
        ),
    ] = 1,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate the memory that training needs on a GPU; with --dry-run also count a training step. Loads no weights."""
    models = Models(Workspace.open(workspace))
    shape = shape_of(models, model)
    setup = Setup(
        method=method, r=r, target_modules=target_modules, max_length=max_length, optim=optim,
        per_device_train_batch_size=per_device_train_batch_size, supervised_tokens=supervised_tokens,
        gradient_checkpointing=gradient_checkpointing, loss=loss, double_quant=double_quant,
        adapter_dtype=adapter_dtype, attention=attention, use_dora=dora, lora_dropout=lora_dropout,
        load_in_8bit=load_in_8bit, target_parameters=target_parameters, offload_layers=offload_layers, shards=shards,
    )  # fmt: skip
    if problems := clashes(Adapter(use_dora=dora, lora_dropout=lora_dropout, target_parameters=target_parameters)):
        raise RecipeError("recipe.clashes", problems=problems)
    result = arithmetic.estimate(shape, setup)
    counted = api.counted_dry_run(models, model, setup) if dry_run else None
    if as_json:
        source = {"params": shape.params, "shape_source": shape.source, "shape": source_of(shape).model_dump()}
        numbers = result.model_dump(mode="json") | {"needed_gib": result.needed_gib}
        more = {"dry_run": api.dry_run_json(counted)} if counted else {}
        print_json(in_words({"model": model, **source, "setup": setup.model_dump(), **numbers, **more}))
        return
    language = terminal_language()
    print(
        msg("memory.heading", model=model, billion=shape.params_billion, million=result.trainable_params / 1e6).render(
            language
        )
    )
    print(source_of(shape).render(language))
    for name, gib in result.terms.items():
        print(msg("memory.row", gib=gib, what=msg(f"memory.{name}")).render(language))
    for name in ("idle_gib", "allocated_gib", "on_card_gib", "needed_gib"):
        what = msg(f"memory.{name}", percent=round(100 * result.margin))
        print(msg("memory.row", gib=getattr(result, name), what=what).render(language))
    for doubt in result.low_confidence:
        print(doubt.render(language))
    if counted:
        print("\n".join(dry_run_lines(counted, result.on_card_gib, language)))


def dry_run_lines(result: DryRunState, arithmetic_gib: float | None, language: str) -> list[str]:
    """Return a dry run as lines in a language: its memory, and how much it differs from the estimate. arithmetic_gib:
    the estimate for the GPU without it."""
    if result.answer is None:
        return [msg("dry_run.none", why=result.why or "-").render(language)]
    answer, counted = result.answer, result.answer.estimate
    place = {"where": answer.where, "operation": answer.operation}
    lines = [msg("dry_run.row", gib=counted.on_card_gib, allocated=counted.allocated_gib, **place)]
    if arithmetic_gib:
        difference = 100 * (counted.on_card_gib / arithmetic_gib - 1)
        lines.append(
            msg("dry_run.compared", difference=difference, layers=list(answer.layers_run), seconds=answer.seconds)
        )
    return [line.render(language) for line in lines]


def source_of(shape: ModelShape) -> Message:
    """Return a sentence on where the numbers of a shape come from; for a bare size, which model it is taken from."""
    if shape.stands_for:
        return msg("memory.source_size", model=shape.stands_for)
    if shape.held and shape.held.quantised:
        return msg("memory.source_quantised", method=shape.held.quantised, shape=shape.describe())
    return msg(f"memory.source_{shape.source}", shape=shape.describe())
