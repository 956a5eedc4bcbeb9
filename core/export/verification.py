"""Verifies an export by one of four methods; export.json and the page name the one that was used.

bytes: an adapter is a copy, and its files are compared byte by byte. No model is loaded.
whole: a merged model is compared tensor by tensor with W + s * B @ A (core.export.tensors), then loaded and given the
same prompts as the adapter on the same 16-bit base, one model after the other.
layers: if no model fits into memory, the same tensors, and one forward pass of each model from disk, layer by layer
(core.export.layers); no answers are generated.
llamacpp: a GGUF file runs in real llama.cpp (core.export.llamacpp.judgement) and is compared with the same adapter.

A merged model passes if no tensor is off, the mean answer loss is within MAX_LOSS_GAP, the mean loss over whole rows
within MAX_TEXT_LOSS_GAP, the first token of every answer is the same (or all tensors are right), and its own tokenizer
and template read every prompt as the chat does. Greedy answers are kept so that the user can see differences. On the
CPU both models compute in float32 (exact for the stored 16-bit values), so that differences come from the export and
not from rounding on the way; on a GPU in 16 bit. Workers only (torch).
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
from core.files import JsonObject
from core.messages import msg

MAX_LOSS_GAP = 0.05  # nats, on the mean over all answer tokens
# Starter model, CPU, 2026-11-25: sound exports 0.001 (merged, bf16) to 0.023 (q8_0); one zeroed matrix 0.132.
MAX_TEXT_LOSS_GAP = 0.08
MAX_PROMPTS = 8
MAX_LENGTH = 1024  # tokens of a row
ANSWER_TOKENS = 32
# Above it the prompts take a processor most of an hour (8 rows of 1,024 tokens: 2 x 130 TFLOP at 8B).
MAX_PARAMETERS_ON_CPU = 2_000_000_000  # parameters
NEUTRAL = 3  # QUESTIONS to use if a run has no usable rows
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
    """A prompt and the answer on which the loss is measured.

    turns, tools: the conversation up to the answer; ids: (T,) with the answer; learned: (T,) True on answer tokens;
    start: position of the first answer token. Without an answer (start == T) the adapter's own is used.
    """

    turns: tuple[Turn, ...]
    ids: list[int]
    learned: list[bool]
    start: int
    tools: list[JsonObject] | None = None

    @property
    def has_answer(self) -> bool:
        """Return True if ids contain an answer after the prompt; else the adapter's own answer is to be used."""
        return len(self.ids) > self.start

    def answered(self, greedy: list[int]) -> ProofPrompt:
        """Return a copy of the prompt with a generated answer: its token ids are appended, and they alone are marked as
        answer tokens, on which the loss is measured."""
        return replace(self, ids=self.ids + greedy, learned=[False] * len(self.ids) + [True] * len(greedy))


@dataclass(frozen=True)
class PromptResult:
    """Losses and greedy answer of one model on one prompt."""

    loss_sum: float
    tokens: int
    text_loss_sum: float  # over every token of the row, the question's too
    text_tokens: int
    first_token: int
    greedy: list[int]


def prompts_of(rows: Sequence[JsonObject], tokenizer: Tokenizer, count: int = 0) -> tuple[list[ProofPrompt], bool]:
    """Return up to MAX_PROMPTS prompts with their answers from a run's rows ({"messages": [...]}), and True if at least
    one row gave one. Rows that do not fit are left out.

    Built-in questions, without an answer, follow until there are `count` prompts; if no row gave one, at least NEUTRAL
    of them.
    """
    prompts = [probe for row in rows if (probe := _prompt_from_row(row, tokenizer))][:MAX_PROMPTS]
    own = bool(prompts)
    for question in QUESTIONS[: max(0, max(count, 0 if own else NEUTRAL) - len(prompts))]:
        turns = ({"role": "user", "content": question},)
        ids = tokenizer.prompt(turns)
        prompts.append(ProofPrompt(turns, ids, [False] * len(ids), len(ids)))
    return prompts, own


def _prompt_from_row(row: JsonObject, tokenizer: Tokenizer) -> ProofPrompt | None:
    """Return the prompt for a row of the run; None if its last message is no answer, its last answer has no trained
    token, or it is longer than MAX_LENGTH."""
    try:
        example = Example.from_dict({"messages": row["messages"], "tools": row.get("tools")})
        turns = conversation(example)
        if not turns or turns[-1]["role"] != "assistant":
            return None
        encoded = tokenizer.encode_example(example, MAX_LENGTH)
    except (TypeError, KeyError, ValueError, TemplateError):
        return None
    answer_positions = [i for i, learned in enumerate(encoded.learned) if learned]
    if not answer_positions or encoded.cut:
        return None
    # The last answer alone: earlier ones are part of its prompt.
    start = answer_positions[-1]
    while start > 0 and encoded.learned[start - 1]:
        start -= 1
    return (
        ProofPrompt(tuple(turns[:-1]), encoded.input_ids, encoded.learned, start, row.get("tools")) if start else None
    )


@dataclass(frozen=True)
class Method:
    """The verification method: whole models or layer by layer, and the device."""

    compute: Compute
    by_layer: bool = False


def choose(base: Base, adapter: Path, in_float32: bool = False) -> Method:
    """Choose the device, dtype and way by the memory free now: the model on the GPU, or on the CPU if it is small
    enough to be fast, else layer by layer, else slowly on the CPU.

    Raises ExportError with both numbers if memory is too small for either. in_float32: also on a GPU, for a comparison
    with llama.cpp.
    """
    memory = psutil.virtual_memory().available
    # 2 bytes for each number, and what libraries and activations take beside them.
    model_bytes = base.parameters * 2.3 + (600 << 20)
    compute = device.choose()
    free = torch.cuda.mem_get_info()[0] if compute.on_card else 0
    # Values of a bfloat16 base may exceed the range of float16, in which GPUs before Ampere compute.
    use_float32 = in_float32 or (compute.dtype == torch.float16 and base.dtype != torch.float16)
    if free > (2 * model_bytes if use_float32 else model_bytes):
        return Method(replace(compute, dtype=torch.float32 if use_float32 else base.dtype))
    exact = Compute(torch.device("cpu"), torch.float32, msg("export.proof_on_cpu"))
    fits_in_float32 = memory > 2 * model_bytes
    if fits_in_float32 and base.parameters <= MAX_PARAMETERS_ON_CPU:
        return Method(exact)
    # Layer by layer only with an adapter whose factors are known by tensor, and weights that the files name as the
    # model does.
    layered_bytes = layers.need_bytes(base, adapter)
    if pairs.lora_pairs(base, adapter) is not None and not layers.missing(base.model, base):
        if memory > layered_bytes:
            compute = replace(compute, dtype=torch.float32) if free > layered_bytes else exact
            return Method(compute, by_layer=True)
        raise no_memory(layered_bytes, memory)
    if fits_in_float32:
        return Method(exact)
    if memory > model_bytes and device.on_cpu().dtype == torch.bfloat16:  # emulated, it would take five times as long
        return Method(replace(exact, dtype=base.dtype))
    raise no_memory(2 * model_bytes, memory)


def no_memory(need: float, free: float) -> ExportError:
    """Return the error that a verification lacks memory, with both numbers in GiB. need, free: bytes."""
    return ExportError("export.no_memory", need_gib=need / 2**30, free_gib=free / 2**30)


Report = Callable[[str, float | None], None]  # stage and fraction


def prove_copy(exported: Path, adapter: Path, rows: Sequence[JsonObject], progress: Report) -> ExportCheck:
    """Verify an exported adapter: each file equals the one in adapter, all numbers are finite, and transformers reads
    each prompt as the chat does."""
    progress("comparing", 0)
    tokenizer = Tokenizer(adapter)
    probes, own = prompts_of(rows, tokenizer)
    comparison = tensors.same_bytes(adapter, exported)
    alike = sum(_reads_alike(exported, probes, tokenizer))
    return ExportCheck(
        proof="bytes",
        tensors=comparison.tensors,
        tensors_off=comparison.off,
        prompts_read_alike=alike,
        prompts=len(probes),
        own_prompts=own,
        passed=not comparison.off and alike == len(probes),
    )


def prove(
    merged: Path, base: Base, adapter: Path, rows: Sequence[JsonObject], method: Method, progress: Report, check: Check
) -> ExportCheck:
    """Verify the folder merged, which was made from base and adapter, and return the record, whose `passed` is the
    verdict: tensors, losses, first tokens, and tokenized prompts."""
    work, expected, compared = expect(base, adapter, begin(adapter, rows, method, progress, check), merged)
    try:
        alike = sum(_reads_alike(merged, work.probes, work.tokenizer))
        results = _export_by_layer(merged, work) if method.by_layer else _export_results(merged, base, work)
        return judge(work, expected, results, alike, compared)
    finally:
        free_memory()  # mapped files too: Windows moves no folder in which a file is open


@dataclass(frozen=True)
class Work:
    """Settings and callbacks shared by all steps of a verification.

    own: the prompts come from rows of the run. keep: called with each prompt and the adapter's and the export's logits.
    """

    method: Method
    tokenizer: Tokenizer
    probes: Sequence[ProofPrompt]
    own: bool
    progress: Report
    check: Check
    keep: Callable[[ProofPrompt, torch.Tensor], None] = lambda probe, logits: None

    def begin_stage(self, stage: str) -> Progress:
        """Report that a stage begins; return a function that reports the share of it that is done, 0 to 1. Raises what
        check raises."""
        self.check()
        self.progress(stage, 0)
        return lambda done: self.progress(stage, done)


def begin(
    adapter: Path, rows: Sequence[JsonObject], method: Method, progress: Report, check: Check, count: int = 0
) -> Work:
    """Return the Work of a verification: the adapter's tokenizer, the prompts as `prompts_of` chooses them, method and
    callbacks; nothing is computed yet. For a computation layer by layer only as many prompts are taken as fit into one
    batch."""
    tokenizer = Tokenizer(adapter)
    probes, own = prompts_of(rows, tokenizer, count)
    return Work(method, tokenizer, first_batch(probes) if method.by_layer else probes, own, progress, check)


def expect(
    base: Base, adapter: Path, work: Work, merged: Path, rounded: bool = False
) -> tuple[Work, list[PromptResult], tensors.Comparison | None]:
    """Compute the results of the base with its adapter, and compare the tensors of merged with what they should be
    (None if the adapter cannot be mapped to tensors). Returns the work with prompts completed by the adapter's answers,
    too.

    rounded: each sum W + s * B @ A is rounded once to the type of the base's files, as in merged.
    """
    lora, compared = pairs.lora_pairs(base, adapter), None
    try:
        with tensors.Reader(base) as original:
            tuned = None if lora is None else tensors.Tuned(original, adapter, lora)
            if tuned:
                with tensors.MergedFolder(read_base(merged), base) as written:
                    compared = tensors.compare(tuned, written, work.begin_stage("comparing"), work.check)
            if work.method.by_layer:
                return work, _adapter_by_layer(original, adapter, work, tuned if rounded else None), compared
        probes, expected = _adapter_results(base, adapter, work, rounded)
        return replace(work, probes=probes), expected, compared
    finally:
        free_memory()


def judge(
    work: Work,
    expected: Sequence[PromptResult],
    actual: Sequence[PromptResult],
    read_alike: int,
    compared: tensors.Comparison | None,
) -> ExportCheck:
    """Return the record of a merged model's verification. It has passed if losses are within both bounds, all prompts
    are read alike, no tensor is off, and first tokens are equal or the tensors were compared. actual: transformers'
    results with it."""
    same_first = [e.first_token == a.first_token for e, a in zip(expected, actual, strict=True)]
    # Where every number of the files is known to be right, a word that was as likely as another may be the other by
    # rounding.
    words_match = all(same_first) or (compared is not None and not compared.off)
    answers, texts = mean_losses(expected, actual, "answer"), mean_losses(expected, actual, "text")
    # False also where a loss is not a number.
    close = abs(answers[0] - answers[1]) <= MAX_LOSS_GAP and abs(texts[0] - texts[1]) <= MAX_TEXT_LOSS_GAP
    return check_of(
        work,
        expected,
        actual,
        same_first,
        compared,
        proof="layers" if work.method.by_layer else "whole",
        prompts_read_alike=read_alike,
        passed=close and words_match and read_alike == len(work.probes) and not (compared and compared.off),
        compute=f"{work.method.compute.device.type} {work.method.compute.dtype_name}",
    )


def check_of(
    work: Work,
    expected: Sequence[PromptResult],
    actual: Sequence[PromptResult],
    equal: Sequence[bool],
    compared: tensors.Comparison | None,
    **more: Any,
) -> ExportCheck:
    """Build the record for export.json from both models' results: mean losses, equal first tokens, and the prompts
    whose decoded answers or first tokens differ.

    equal: for each prompt, whether the first tokens are the same. more: fields of this method alone. The answer losses
    are None if no prompt has an answer; prompts that only one model answered are no difference.
    """
    # Layer by layer no answers are generated: built-in questions then have only the loss of the question.
    # A loss of 0 over no token would look perfect, so it is left out.
    has_answers = any(e.tokens for e in expected)
    answers, texts = mean_losses(expected, actual, "answer"), mean_losses(expected, actual, "text")
    decoded = [[work.tokenizer.decode(each.greedy).strip() for each in side] for side in (expected, actual)]
    differences = [
        Difference(
            prompt=probe.turns[-1]["content"] if probe.turns else "",
            adapter=adapter_text,
            export=export_text,
            first_token_equal=same,
        )
        for probe, e, a, adapter_text, export_text, same in zip(
            work.probes, expected, actual, *decoded, equal, strict=True
        )
        if bool(e.greedy) == bool(a.greedy) and (adapter_text != export_text or not same)
    ]
    return ExportCheck(
        tensors=compared.tensors if compared else 0,
        tensors_off=compared.off if compared else (),
        mean_loss_adapter=_rounded_or_huge(answers[0]) if has_answers else None,
        mean_loss_export=_rounded_or_huge(answers[1]) if has_answers else None,
        mean_text_loss_adapter=_rounded_or_huge(texts[0]),
        mean_text_loss_export=_rounded_or_huge(texts[1]),
        first_tokens_equal=sum(equal),
        prompts=len(work.probes),
        own_prompts=work.own,
        differences=tuple(differences),
        **more,
    )


def mean_losses(expected: Sequence[PromptResult], actual: Sequence[PromptResult], part: str) -> tuple[float, float]:
    """Return the mean losses of the adapter and of the export, each summed and divided by the adapter's token count,
    over answer tokens ("answer") or all tokens of the rows ("text")."""
    if part == "answer":
        tokens = max(1, sum(e.tokens for e in expected))
        return sum(e.loss_sum for e in expected) / tokens, sum(a.loss_sum for a in actual) / tokens
    tokens = sum(e.text_tokens for e in expected)
    return sum(e.text_loss_sum for e in expected) / tokens, sum(a.text_loss_sum for a in actual) / tokens


def _rounded_or_huge(loss: float) -> float:
    """Return a loss rounded to 6 decimals; 1e9 for NaN or infinity, which JSON cannot hold."""
    return round(loss, 6) if math.isfinite(loss) else 1e9  # JSON has no NaN; no real loss comes near


# ---- prompting -----------------------------------------------------------------------------------
class _Cancelled(StoppingCriteria):
    """Stops a generation on cancel: an exception inside generate() would leave peft's hooks behind."""

    def __init__(self, check: Check):
        self._check = check

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        """Return True for each sequence if check raises StopRequested."""
        try:
            self._check()
            stop = False
        except StopRequested:
            stop = True
        return torch.full((input_ids.shape[0],), stop, device=input_ids.device, dtype=torch.bool)


@torch.inference_mode()
def answer(
    model: PreTrainedModel, probes: Sequence[ProofPrompt], tokenizer: Tokenizer, check: Check
) -> list[list[int]]:
    """Return greedy answers of up to ANSWER_TOKENS ids, the end token included, one for each probe; all in one batch,
    padded on the left."""
    width = max(probe.start for probe in probes)
    padding = [width - probe.start for probe in probes]
    pad_id, stops = tokenizer.pad_token_id, tokenizer.stop_ids
    prompts = [[pad_id] * p + probe.ids[: probe.start] for p, probe in zip(padding, probes, strict=True)]
    mask = [[0] * p + [1] * (width - p) for p in padding]
    generated = model.generate(
        input_ids=torch.tensor(prompts, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        generation_config=GenerationConfig(
            do_sample=False,
            max_new_tokens=ANSWER_TOKENS,
            use_cache=True,
            eos_token_id=sorted(stops) or None,
            pad_token_id=pad_id,
        ),
        stopping_criteria=StoppingCriteriaList([_Cancelled(check)]),
    )
    check()
    # Cut after the stop token: a row that ended early is filled up with padding.
    answers = generated[:, width:].tolist()
    return [next((ids[: i + 1] for i, token in enumerate(ids) if token in stops), ids) for ids in answers]


def _measure_all(
    model: PreTrainedModel, probes: Sequence[ProofPrompt], answers: Sequence[list[int]], progress: Progress, work: Work
) -> list[PromptResult]:
    """Return for each probe its losses on the probe's own ids and the likeliest first token of the answer, from one
    forward each; answers are only stored in the results."""
    results = []
    for probe, greedy in zip(probes, answers, strict=True):
        work.check()
        results.append(_measure(model, probe, greedy, work))
        progress(len(results) / len(probes))
    return results


@torch.inference_mode()
def _measure(model: PreTrainedModel, probe: ProofPrompt, greedy: list[int], work: Work) -> PromptResult:
    """Return the results of one prompt and its greedy answer by one pass through the model; work keeps its logits."""
    ids = torch.tensor([probe.ids], device=model.device)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
    work.keep(probe, logits)
    return _result(logits, probe, greedy)


def _result(logits: torch.Tensor, probe: ProofPrompt, greedy: list[int]) -> PromptResult:
    """Return the losses of a prompt's own ids, over trained tokens and over all, and the likeliest first token of its
    answer. logits: (T, vocabulary) of probe.ids."""
    # Each position predicts the next token.
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
# Each model is loaded in a function of its own, so that it is freed at the end: two may not fit into memory.
def _adapter_results(
    base: Base, adapter: Path, work: Work, rounded: bool
) -> tuple[list[ProofPrompt], list[PromptResult]]:
    """Return the prompts and the adapter's results; a prompt without an answer is completed by the adapter's own.
    rounded: merged and rounded as the files are."""
    progress = work.begin_stage("proving_adapter")
    compute = work.method.compute
    # First rounded as the export is, then widened exactly.
    model = _rounded(base, adapter, compute) if rounded else attach(_load(base.folder, compute, base.dtype), adapter)
    answers = answer(model, work.probes, work.tokenizer, work.check)
    probes = [p if p.has_answer else p.answered(ids) for p, ids in zip(work.probes, answers, strict=True)]
    return probes, _measure_all(model, probes, answers, progress, work)


def _export_results(merged: Path, base: Base, work: Work) -> list[PromptResult]:
    """Load the export, alone in memory, and return its results, answers included."""
    progress = work.begin_stage("proving_export")
    free_memory()
    model = _load(merged, work.method.compute, base.dtype)
    answers = answer(model, work.probes, work.tokenizer, work.check)
    return _measure_all(model, work.probes, answers, progress, work)


def free_memory() -> None:
    """Free the memory of models that are no longer referenced, also what torch keeps of the GPU's."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _load(folder: Path, compute: Compute, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Load a model in 16 bit or float32. dtype: what its weights are rounded to first; None: the computing type."""
    model = base_model.load(folder, replace(compute, dtype=dtype or compute.dtype), four_bit=False).to(compute.dtype)
    model.generation_config = GenerationConfig()  # a base's own sampling settings would only make generate() warn
    return model.eval()


@torch.no_grad()
def _rounded(base: Base, adapter: Path, compute: Compute) -> PreTrainedModel:
    """Return the base in eval mode with W + s * B @ A merged by peft in the computing type, each weight then rounded as
    the merged files are."""
    model = attach(_load(base.folder, compute), adapter).merge_and_unload()
    for name, parameter in model.named_parameters():
        stored = base.stored_names.get(name)
        parameter.copy_(parameter.to(base.written_as(stored) if stored else base.dtype))
    return model.eval()


# ---- layer by layer ------------------------------------------------------------------------------
def first_batch(probes: Sequence[ProofPrompt]) -> list[ProofPrompt]:
    """Return as many of the first probes as fit into one batch of layers.MAX_TOKENS; at least one."""
    chosen: list[ProofPrompt] = []
    for probe in probes:
        if chosen and (len(chosen) + 1) * max(len(p.ids) for p in [*chosen, probe]) > layers.MAX_TOKENS:
            break
        chosen.append(probe)
    return chosen


def _adapter_by_layer(
    original: tensors.Reader, adapter: Path, work: Work, tuned: tensors.Tuned | None
) -> list[PromptResult]:
    """Return the results of the adapter on its base, read from disk layer by layer.

    tuned: the source of W + s * B @ A, rounded as the merged files are; None: peft adds B @ A in the forward pass.
    """
    base = original.base
    model, names, extra = empty(base.folder), base.stored_names, dict[str, torch.Tensor]()
    if tuned is None:
        layers.add_adapter(model, adapter)
        extra = layers.adapter_tensors(model, tensors.read_all(adapter / "adapter_model.safetensors"))

    def merged_tensor(name: str) -> torch.Tensor:
        """Return a weight by its name in the model, rounded to the type in which a merged model stores it; with the
        adapter added if `tuned` changes it, else the base's own."""
        stored = names[name]
        if tuned and tuned.changes(stored):
            tensor = tuned.rows(stored, 0, base.tensors[stored].shape[0])
        else:
            tensor = original.tensor(stored)
        # rounded first, as the export is
        return tensor.to(base.written_as(stored)) if tensor.is_floating_point() else tensor

    return _forward_by_layer("layers_of_adapter", model, list(names), merged_tensor, extra, work)


def _export_by_layer(merged: Path, work: Work) -> list[PromptResult]:
    """Return the results of the model that the export's folder describes, read from disk layer by layer."""
    model, names = empty(merged), (written := read_base(merged)).stored_names
    with tensors.Reader(written) as reader:
        return _forward_by_layer(
            "layers_of_export", model, list(names), lambda name: reader.tensor(names[name]), {}, work
        )


def _forward_by_layer(
    stage: str,
    model: PreTrainedModel,
    names: Sequence[str],
    read: layers.Read,
    extra: dict[str, torch.Tensor],
    work: Work,
) -> list[PromptResult]:
    """Return the results, without generated answers, of one forward pass of all prompts by layer, and pass its logits
    to work.keep. names: the tensors that read can return, for the progress."""
    progress, requested, device = work.begin_stage(stage), set[str](), work.method.compute.device
    free_memory()

    def read_and_report(name: str) -> torch.Tensor:
        """Read a tensor, and report the share of those read so far. Raises what check raises."""
        work.check()
        requested.add(name)
        progress(len(requested) / len(names))
        return read(name)

    layers.read_by_layer(model, read_and_report, names, device, extra)
    all_logits = layers.logits(model, [probe.ids for probe in work.probes], device)
    for probe, logits in zip(work.probes, all_logits, strict=True):
        work.keep(probe, logits)
    return [_result(logits, probe, []) for logits, probe in zip(all_logits, work.probes, strict=True)]


def _reads_alike(exported: Path, probes: Sequence[ProofPrompt], tokenizer: Tokenizer) -> list[bool]:
    """Return for each probe whether transformers, with the export's own tokenizer and template, gives the same token
    ids as the chat."""
    exported_tokenizer = AutoTokenizer.from_pretrained(exported, local_files_only=True, trust_remote_code=False)
    encodings = [
        exported_tokenizer.apply_chat_template(
            tokenizer.template.dialect.messages(probe.turns),
            tools=probe.tools,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
        )
        for probe in probes
    ]
    return [
        list(encoding["input_ids"]) == tokenizer.prompt(probe.turns, probe.tools)
        for encoding, probe in zip(encodings, probes, strict=True)
    ]
