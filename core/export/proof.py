"""Verifies an export. export.json and the page say which of three checks was made.

bytes: an adapter is a copy, and is compared as one. Nothing is loaded.
whole: a merged model is compared tensor by tensor with W + s * B @ A (core.export.tensors), then loaded again
and asked the same questions as the adapter on the same 16-bit base, one model after the other.
layers: where no model fits, the same tensors, and one forward of each through the disk, layer by layer
(core.export.layers); answers are not written then.
llamacpp: a GGUF file answers in real llama.cpp (core.export.llamacpp.judgement), held against the same adapter.

A merged model passes when no tensor is off, the mean answer loss is within MAX_LOSS_GAP, the mean loss over whole rows
within MAX_TEXT_LOSS_GAP, the first token of every answer is the same choice (or all tensors are right), and its own
tokenizer and template read every prompt as our chat does. Greedy answers are kept so that a person can see differences.
On the CPU both sides compute in float32 (the stored 16-bit values are exact in it), so that what differs is the export
and not rounding on the way; on a card in 16 bit. Workers only (torch).
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.nn import functional
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from core.data.conversation import Turn
from core.data.formats import Example
from core.data.tokenizer import Tokenizer, conversation
from core.engine import base_model, device
from core.engine.adapter import attach
from core.engine.device import Compute
from core.errors import ExportError, StopRequested, TemplateError
from core.export import layers, pairs, tensors
from core.export.merge import Check, Progress
from core.export.records import Difference, ExportCheck
from core.export.stored import Base, empty, read_base
from core.messages import msg

MAX_LOSS_GAP = 0.05  # nats, on the mean over all answer tokens
# Starter model, CPU, 2026-11-25: sound exports 0.001 (merged, bf16) to 0.023 (q8_0); one zeroed matrix 0.132.
MAX_TEXT_LOSS_GAP = 0.08
MAX_PROMPTS = 8
MAX_LENGTH = 1024  # tokens of a row that are looked at
ANSWER_TOKENS = 32
# Above it the questions take a processor the better part of an hour (8 rows of 1,024 tokens: 2 x 130 TFLOP at 8B).
MOST_WHOLE_ON_CPU = 2_000_000_000  # parameters
NEUTRAL = 3  # of QUESTIONS, where a run has no rows to ask
QUESTIONS = (
    "What is the capital of France?", "Tell me about horses.", "How do I boil an egg?", "Why is the sky blue?",
    "What is 7 times 8?", "Write a short poem about rain.", "Name three colours.", "Who wrote Hamlet?",
    "What is a computer?", "How far is the moon?", "Give me advice for an exam.", 'What does "naïve" mean?',
    'Translate "good morning" to German.', "List 5 animals.", "What year is it, 1999 or 2025?",
    "Explain gravity to a child.", "def add(a, b):", "How many days are in a week?", "Is tea healthy?",
    "你好，今天天气怎么样？",
)  # fmt: skip


@dataclass(frozen=True)
class ProofPrompt:
    """One question and the answer it is measured on.

    turns, tools: up to the question; ids: (T,) with the answer; learned: (T,) True on answer tokens; start: where the
    answer begins. Without an answer (start == T) the adapter's own becomes it.
    """

    turns: tuple[Turn, ...]
    ids: list[int]
    learned: list[bool]
    start: int
    tools: list[Any] | None = None

    @property
    def has_answer(self) -> bool:
        return len(self.ids) > self.start

    def answered(self, greedy: list[int]) -> ProofPrompt:
        return replace(self, ids=self.ids + greedy, learned=[False] * len(self.ids) + [True] * len(greedy))


@dataclass(frozen=True)
class PromptResult:
    """What a model made of a probe."""

    loss_sum: float
    tokens: int
    text_loss_sum: float  # over every token of the row, the question's too
    text_tokens: int
    first_token: int
    greedy: list[int]


def prompts_of(rows: Sequence[Any], tokenizer: Tokenizer, most: int = 0) -> tuple[list[ProofPrompt], bool]:
    """Up to MAX_PROMPTS probes from a run's rows ({"messages": [...]}), and whether there are any. most: filled up to
    so many with built-in questions; without rows of its own at least NEUTRAL of them are asked."""
    found = [probe for row in rows if (probe := _own(row, tokenizer))][:MAX_PROMPTS]
    own = bool(found)
    for question in QUESTIONS[: max(0, max(most, 0 if own else NEUTRAL) - len(found))]:
        turns = ({"role": "user", "content": question},)
        ids = tokenizer.prompt(turns)
        found.append(ProofPrompt(turns, ids, [False] * len(ids), len(ids)))
    return found, own


def _own(row: Any, tokenizer: Tokenizer) -> ProofPrompt | None:
    try:
        example = Example.from_dict({"messages": row["messages"], "tools": row.get("tools")})
        turns = conversation(example)
        if not turns or turns[-1]["role"] != "assistant":
            return None
        encoded = tokenizer.encode_example(example, MAX_LENGTH)
    except (TypeError, KeyError, ValueError, TemplateError):
        return None
    ends = [i for i, learned in enumerate(encoded.learned) if learned]
    if not ends or encoded.cut:
        return None
    start = ends[-1]
    while start > 0 and encoded.learned[start - 1]:
        start -= 1
    return (
        ProofPrompt(tuple(turns[:-1]), encoded.input_ids, encoded.learned, start, row.get("tools")) if start else None
    )


@dataclass(frozen=True)
class Method:
    """How an export is proven: whole models or layer by layer, and where."""

    compute: Compute
    by_layer: bool = False


def choose(base: Base, adapter: Path, in_float32: bool = False) -> Method:
    """Whole models where they fit and are quick, else layer by layer, by what is free now. Raises ExportError with both
    numbers where nothing is enough. in_float32: on a card too, where that is compared with llama.cpp's."""
    memory = psutil.virtual_memory().available
    whole = base.parameters * 2.3 + (600 << 20)
    compute = device.choose()
    free = torch.cuda.mem_get_info()[0] if compute.on_card else 0
    # Numbers of a bfloat16 base may lie beyond the float16 in which cards before Ampere compute.
    is_wide = in_float32 or (compute.dtype == torch.float16 and base.dtype != torch.float16)
    if free > (2 * whole if is_wide else whole):
        return Method(replace(compute, dtype=torch.float32 if is_wide else base.dtype))
    exact = Compute(torch.device("cpu"), torch.float32, msg("export.proof_on_cpu"))
    roomy = memory > 2 * whole
    if roomy and base.parameters <= MOST_WHOLE_ON_CPU:
        return Method(exact)
    layered = layers.need_bytes(base, adapter)
    if pairs.lora_pairs(base, adapter) is not None and not layers.missing(base.model, base):
        if memory > layered:
            compute = replace(compute, dtype=torch.float32) if free > layered else exact
            return Method(compute, by_layer=True)
        raise no_memory(layered, memory)
    if roomy:
        return Method(exact)
    if memory > whole and device.on_cpu().dtype == torch.bfloat16:  # emulated, it would take five times as long
        return Method(replace(exact, dtype=base.dtype))
    raise no_memory(2 * whole, memory)


def no_memory(need: float, free: float) -> ExportError:
    return ExportError("export.no_memory", need_gib=need / 2**30, free_gib=free / 2**30)


Report = Callable[[str, float | None], None]  # stage and fraction


def prove_copy(exported: Path, adapter: Path, rows: Sequence[Any], progress: Report) -> ExportCheck:
    """Of an adapter: exported is the folder that was copied from it."""
    progress("comparing", 0)
    tokenizer = Tokenizer(adapter)
    probes, own = prompts_of(rows, tokenizer)
    found = tensors.same_bytes(adapter, exported)
    alike = sum(_reads_alike(exported, probes, tokenizer))
    return ExportCheck(
        proof="bytes",
        tensors=found.tensors,
        tensors_off=found.off,
        prompts_read_alike=alike,
        prompts=len(probes),
        own_prompts=own,
        passed=not found.off and alike == len(probes),
    )


def prove(
    merged: Path, base: Base, adapter: Path, rows: Sequence[Any], method: Method, progress: Report, check: Check
) -> ExportCheck:
    """merged: the folder that was made from base and adapter."""
    work, expected, compared = expect(base, adapter, begin(adapter, rows, method, progress, check), merged)
    try:
        alike = sum(_reads_alike(merged, work.probes, work.tokenizer))
        found = _export_by_layer(merged, work) if method.by_layer else _of_export(merged, base, work)
        return judge(work, expected, found, alike, compared)
    finally:
        let_go()  # of what is mapped too: Windows moves no folder in which a file is open


@dataclass(frozen=True)
class Work:
    """What every step of a proof is done with. own: the probes are rows of the run."""

    method: Method
    tokenizer: Tokenizer
    probes: Sequence[ProofPrompt]
    own: bool
    progress: Report
    check: Check
    keep: Callable[[ProofPrompt, torch.Tensor], None] = lambda probe, logits: (
        None
    )  # called with the adapter's and the export's logits

    def of(self, stage: str) -> Progress:
        """To be called with how far this stage is."""
        self.check()
        self.progress(stage, 0)
        return lambda done: self.progress(stage, done)


def begin(adapter: Path, rows: Sequence[Any], method: Method, progress: Report, check: Check, most: int = 0) -> Work:
    """The questions, as `prompts_of`; layer by layer only as many as go through at once."""
    tokenizer = Tokenizer(adapter)
    probes, own = prompts_of(rows, tokenizer, most)
    return Work(method, tokenizer, few(probes) if method.by_layer else probes, own, progress, check)


def expect(
    base: Base, adapter: Path, work: Work, merged: Path | None, rounded: bool = False
) -> tuple[Work, list[PromptResult], tensors.Comparison | None]:
    """Results of the base with its adapter, and whether the tensors of merged are what they should be. rounded: each
    sum of both is rounded once to the type of the base's files, as those of merged are."""
    found_pairs, compared = pairs.lora_pairs(base, adapter) if merged else None, None
    try:
        with tensors.Reader(base) as original:
            tuned = None if found_pairs is None else tensors.Tuned(original, adapter, found_pairs)
            if tuned and merged:
                with tensors.MergedFolder(read_base(merged), base) as written:
                    compared = tensors.compare(tuned, written, work.of("comparing"), work.check)
            if work.method.by_layer:
                return work, _adapter_by_layer(original, adapter, work, tuned if rounded else None), compared
        probes, expected = _of_adapter(base, adapter, work, rounded)
        return replace(work, probes=probes), expected, compared
    finally:
        let_go()


def judge(
    work: Work,
    expected: Sequence[PromptResult],
    found: Sequence[PromptResult],
    alike: int,
    compared: tensors.Comparison | None,
) -> ExportCheck:
    """The check of a merged model; found: what transformers computed with it."""
    equal = [e.first_token == f.first_token for e, f in zip(expected, found, strict=True)]
    # Where every number of the files is known to be right, a word that was as likely as another may be the other by
    # rounding.
    words = all(equal) or (compared is not None and not compared.off)
    answers, texts = mean_losses(expected, found, "answer"), mean_losses(expected, found, "text")
    # False also where a loss is not a number.
    close = abs(answers[0] - answers[1]) <= MAX_LOSS_GAP and abs(texts[0] - texts[1]) <= MAX_TEXT_LOSS_GAP
    return check_of(
        work,
        expected,
        found,
        equal,
        compared,
        proof="layers" if work.method.by_layer else "whole",
        prompts_read_alike=alike,
        passed=close and words and alike == len(work.probes) and not (compared and compared.off),
        compute=f"{work.method.compute.device.type} {work.method.compute.dtype_name}",
    )


def check_of(
    work: Work,
    expected: Sequence[PromptResult],
    found: Sequence[PromptResult],
    equal: Sequence[bool],
    compared: tensors.Comparison | None,
    **more: Any,
) -> ExportCheck:
    """The record of both sides in export.json. equal: first words. more: fields that the kind of proof has of its
    own."""
    # Built-in questions have no answers where none are written: then the loss of the questions alone is compared.
    has_answers = any(e.tokens for e in expected)
    answers, texts = mean_losses(expected, found, "answer"), mean_losses(expected, found, "text")
    said = [[work.tokenizer.decode(each.greedy).strip() for each in side] for side in (expected, found)]
    differences = [
        Difference(
            prompt=probe.turns[-1]["content"] if probe.turns else "",
            adapter=mine,
            export=theirs,
            first_token_equal=same,
        )
        for probe, e, f, mine, theirs, same in zip(work.probes, expected, found, *said, equal, strict=True)
        if bool(e.greedy) == bool(f.greedy) and (mine != theirs or not same)
    ]
    return ExportCheck(
        tensors=compared.tensors if compared else 0,
        tensors_off=compared.off if compared else (),
        mean_loss_adapter=_finite(answers[0]) if has_answers else None,
        mean_loss_export=_finite(answers[1]) if has_answers else None,
        mean_text_loss_adapter=_finite(texts[0]),
        mean_text_loss_export=_finite(texts[1]),
        first_tokens_equal=sum(equal),
        prompts=len(work.probes),
        own_prompts=work.own,
        differences=tuple(differences),
        **more,
    )


def mean_losses(expected: Sequence[PromptResult], found: Sequence[PromptResult], of: str) -> tuple[float, float]:
    """Mean losses of the adapter and of the export, over all answer tokens ("answer") or whole rows ("text")."""
    if of == "answer":
        tokens = max(1, sum(e.tokens for e in expected))
        return sum(e.loss_sum for e in expected) / tokens, sum(f.loss_sum for f in found) / tokens
    tokens = sum(e.text_tokens for e in expected)
    return sum(e.text_loss_sum for e in expected) / tokens, sum(f.text_loss_sum for f in found) / tokens


def _finite(loss: float) -> float:
    return round(loss, 6) if math.isfinite(loss) else 1e9  # JSON has no NaN; no real loss comes near


# ---- asking --------------------------------------------------------------------------------------
class _Cancelled(StoppingCriteria):
    """Ends a generation softly: an exception inside generate() would leave peft's hooks behind."""

    def __init__(self, check: Check):
        self._check = check

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        try:
            self._check()
            stop = False
        except StopRequested:
            stop = True
        return torch.full((input_ids.shape[0],), stop, device=input_ids.device, dtype=torch.bool)


@torch.inference_mode()
def answer(model: Any, probes: Sequence[ProofPrompt], tokenizer: Tokenizer, check: Check) -> list[list[int]]:
    """Up to ANSWER_TOKENS ids for each probe, the likeliest each time; all in one batch, padded on the left."""
    width = max(probe.start for probe in probes)
    padding = [width - probe.start for probe in probes]
    pad, stops = tokenizer.pad_token_id, tokenizer.stop_ids
    prompts = [[pad] * p + probe.ids[: probe.start] for p, probe in zip(padding, probes, strict=True)]
    mask = [[0] * p + [1] * (width - p) for p in padding]
    out = model.generate(
        input_ids=torch.tensor(prompts, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        generation_config=GenerationConfig(
            do_sample=False,
            max_new_tokens=ANSWER_TOKENS,
            use_cache=True,
            eos_token_id=sorted(stops) or None,
            pad_token_id=pad,
        ),
        stopping_criteria=StoppingCriteriaList([_Cancelled(check)]),
    )
    check()
    # Up to the stop, with it: a row that ended early goes on with padding.
    written = out[:, width:].tolist()
    return [next((ids[: i + 1] for i, token in enumerate(ids) if token in stops), ids) for ids in written]


def _measure_all(
    model: Any, probes: Sequence[ProofPrompt], answers: Sequence[list[int]], progress: Progress, work: Work
) -> list[PromptResult]:
    asked = []
    for probe, greedy in zip(probes, answers, strict=True):
        work.check()
        asked.append(_measure(model, probe, greedy, work))
        progress(len(asked) / len(probes))
    return asked


@torch.inference_mode()
def _measure(model: Any, probe: ProofPrompt, greedy: list[int], work: Work) -> PromptResult:
    ids = torch.tensor([probe.ids], device=model.device)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
    work.keep(probe, logits)
    return _result(logits, probe, greedy)


def _result(logits: torch.Tensor, probe: ProofPrompt, greedy: list[int]) -> PromptResult:
    """logits: (T, vocabulary) of probe.ids."""
    losses = functional.cross_entropy(
        logits[:-1].float(), torch.tensor(probe.ids[1:], device=logits.device), reduction="none"
    )
    learned = torch.tensor(probe.learned[1:], device=logits.device)
    return PromptResult(
        loss_sum=float(losses[learned].sum()),
        tokens=int(learned.sum()),
        text_loss_sum=float(losses.sum()),
        text_tokens=len(losses),
        first_token=int(logits[probe.start - 1].argmax()),
        greedy=greedy,
    )


# ---- whole models --------------------------------------------------------------------------------
# Each in a function of its own, which no name of a model outlives: two of them do not fit where one does.
def _of_adapter(base: Base, adapter: Path, work: Work, rounded: bool) -> tuple[list[ProofPrompt], list[PromptResult]]:
    """Its own answer to each question becomes what a question without one is measured on."""
    progress = work.of("proving_adapter")
    compute = work.method.compute
    # First rounded as the export is, then widened exactly.
    model = _rounded(base, adapter, compute) if rounded else attach(_load(base.folder, compute, base.dtype), adapter)
    answers = answer(model, work.probes, work.tokenizer, work.check)
    asked = [p if p.has_answer else p.answered(said) for p, said in zip(work.probes, answers, strict=True)]
    return asked, _measure_all(model, asked, answers, progress, work)


def _of_export(merged: Path, base: Base, work: Work) -> list[PromptResult]:
    progress = work.of("proving_export")
    let_go()
    model = _load(merged, work.method.compute, base.dtype)
    answers = answer(model, work.probes, work.tokenizer, work.check)
    return _measure_all(model, work.probes, answers, progress, work)


def let_go() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _load(folder: Path, compute: Compute, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """A model in 16 bit or fp32. dtype: what its numbers are rounded to first; None: what is computed in."""
    model = base_model.load(folder, replace(compute, dtype=dtype or compute.dtype), four_bit=False).to(compute.dtype)
    model.generation_config = GenerationConfig()  # a base's own sampling settings would only make generate() warn
    return model.eval()


@torch.no_grad()
def _rounded(base: Base, adapter: Path, compute: Compute) -> Any:
    """W + s * B @ A by peft in float32 (or what a PC without that much memory computes in), then rounded as the merged
    files are."""
    model = attach(_load(base.folder, compute), adapter).merge_and_unload()
    for name, parameter in model.named_parameters():
        stored = base.stored_names.get(name)
        parameter.copy_(parameter.to(base.written_as(stored) if stored else base.dtype))
    return model.eval()


# ---- layer by layer ------------------------------------------------------------------------------
def few(probes: Sequence[ProofPrompt]) -> list[ProofPrompt]:
    """As many as go through in one batch; always one."""
    chosen: list[ProofPrompt] = []
    for probe in probes:
        if chosen and (len(chosen) + 1) * max(len(p.ids) for p in [*chosen, probe]) > layers.MOST_TOKENS:
            break
        chosen.append(probe)
    return chosen


def _adapter_by_layer(
    original: tensors.Reader, adapter: Path, work: Work, tuned: tensors.Tuned | None
) -> list[PromptResult]:
    """Results of the adapter on its base, read from disk layer by layer. tuned: W + s * B @ A, to be rounded as the
    merged files are; None: peft adds B @ A on the way."""
    base = original.base
    model, names, extra = empty(base.folder), base.stored_names, dict[str, torch.Tensor]()
    if tuned is None:
        layers.add_adapter(model, adapter)
        extra = layers.adapter_tensors(model, tensors.read_all(adapter / "adapter_model.safetensors"))

    def read(name: str) -> torch.Tensor:
        stored = names[name]
        if tuned and tuned.changes(stored):
            found = tuned.rows(stored, 0, base.tensors[stored].shape[0])
        else:
            found = original.whole(stored)
        # first rounded as the export is
        return found.to(base.written_as(stored)) if found.is_floating_point() else found

    return _forward_by_layer("layers_of_adapter", model, list(names), read, extra, work)


def _export_by_layer(merged: Path, work: Work) -> list[PromptResult]:
    """The model that the export itself describes."""
    model, names = empty(merged), (written := read_base(merged)).stored_names
    with tensors.Reader(written) as reader:
        return _forward_by_layer(
            "layers_of_export", model, list(names), lambda name: reader.whole(names[name]), {}, work
        )


def _forward_by_layer(
    stage: str,
    model: PreTrainedModel,
    names: Sequence[str],
    read: layers.Read,
    extra: dict[str, torch.Tensor],
    work: Work,
) -> list[PromptResult]:
    """names: of what read can give."""
    progress, asked, on = work.of(stage), set[str](), work.method.compute.device
    let_go()

    def noted(name: str) -> torch.Tensor:
        work.check()
        asked.add(name)
        progress(len(asked) / len(names))
        return read(name)

    layers.read_by_layer(model, noted, names, on, extra)
    rows = layers.logits(model, [probe.ids for probe in work.probes], on)
    for probe, found in zip(work.probes, rows, strict=True):
        work.keep(probe, found)
    return [_result(found, probe, []) for found, probe in zip(rows, work.probes, strict=True)]


def _reads_alike(exported: Path, probes: Sequence[ProofPrompt], ours: Tokenizer) -> list[bool]:
    """Whether the export's own tokenizer and template, as transformers reads them, give the ids of our chat."""
    theirs = AutoTokenizer.from_pretrained(exported, local_files_only=True, trust_remote_code=False)
    read = [
        theirs.apply_chat_template(
            ours.template.dialect.messages(probe.turns),
            tools=probe.tools,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
        )
        for probe in probes
    ]
    return [
        list(r["input_ids"]) == ours.prompt(probe.turns, probe.tools) for r, probe in zip(read, probes, strict=True)
    ]
