"""The proof of an export: it is loaded again and asked the same questions as the adapter on the same 16-bit base.

It passes when the mean answer loss is within MAX_LOSS_GAP, the mean loss over whole rows within MAX_TEXT_LOSS_GAP, the
first token of every answer is the same choice, and the export's own tokenizer and template read every prompt as our chat
does. Why whole rows too: answers learned by heart hide damage (one zeroed matrix: 0.002 -> 0.017, on the starter model).
Greedy answers are kept so that a person can see differences. On the CPU both sides compute in float32 (the stored 16-bit values are exact in it), so that what differs
is the export and not rounding on the way; on a card in 16 bit. Workers only (torch).
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GgufConfig,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from core.data.formats import Example
from core.data.tokenizer import Tokenizer
from core.engine import base_model, device
from core.engine.adapter import attach
from core.engine.device import Compute
from core.errors import ExportError, StopRequested, TemplateError
from core.export.exports import Difference, ExportCheck
from core.export.merge import Base, Check, Progress
from core.messages import msg

MAX_LOSS_GAP = 0.05  # nats, on the mean over all answer tokens
# Starter model, CPU, 2026-11-25: sound exports 0.001 (merged, bf16) to 0.023 (q8_0); one zeroed matrix 0.132.
MAX_TEXT_LOSS_GAP = 0.08
MAX_PROMPTS = 8
MAX_LENGTH = 1024  # tokens of a row that are looked at
ANSWER_TOKENS = 32
NEUTRAL = ("What is the capital of France?", "Tell me about horses.", "How do I boil an egg?")


@dataclass(frozen=True)
class ProofPrompt:
    """One question and the answer it is measured on.

    turns: up to the question; ids: (T,) with the answer; learned: (T,) True on answer tokens; start: where the answer
    begins. Without an answer (start == T) the adapter's own becomes it.
    """

    turns: tuple[dict[str, str], ...]
    ids: list[int]
    learned: list[bool]
    start: int

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


def prompts_of(rows: Sequence[Any], tokenizer: Tokenizer) -> tuple[list[ProofPrompt], bool]:
    """Up to MAX_PROMPTS probes from a run's rows ({"messages": [...]}); without any, neutral questions. (probes, own)."""
    own = [probe for row in rows if (probe := _own(row, tokenizer))]
    if own:
        return own[:MAX_PROMPTS], True
    neutral = []
    for question in NEUTRAL:
        turns = ({"role": "user", "content": question},)
        ids = tokenizer.prompt(turns)
        neutral.append(ProofPrompt(turns, ids, [False] * len(ids), len(ids)))
    return neutral, False


def _own(row: Any, tokenizer: Tokenizer) -> ProofPrompt | None:
    try:
        turns = [{"role": str(m["role"]), "content": str(m["content"])} for m in row["messages"]]
        if not turns or turns[-1]["role"] != "assistant":
            return None
        encoded = tokenizer.encode_example(Example.from_dict({"messages": turns}), MAX_LENGTH)
    except (TypeError, KeyError, ValueError, TemplateError):
        return None
    ends = [i for i, learned in enumerate(encoded.learned) if learned]
    if not ends or encoded.cut:
        return None
    start = ends[-1]
    while start > 0 and encoded.learned[start - 1]:
        start -= 1
    return ProofPrompt(tuple(turns[:-1]), encoded.input_ids, encoded.learned, start) if start else None


def choose_compute(base: Base, gguf: bool) -> Compute:
    """Card or CPU, float32 or 16 bit, by what is free now. Raises ExportError with both numbers where nothing is enough."""
    memory = psutil.virtual_memory().available
    need = base.parameters * 2.3 + (600 << 20)
    # transformers reads a GGUF into float32 before it casts.
    least = base.parameters * 4.6 + (600 << 20) if gguf else need
    compute = device.choose()
    if compute.on_card and torch.cuda.mem_get_info()[0] > need and (not gguf or memory > least):
        return replace(compute, dtype=base.dtype if compute.dtype != torch.float16 else torch.float16)
    cpu = Compute(torch.device("cpu"), torch.float32, msg("export.proof_on_cpu"))
    if memory > need * 2:
        return cpu
    if memory > least:
        return replace(cpu, dtype=base.dtype)
    raise ExportError("export.no_memory", need_gib=f"{least / 2**30:.1f}", free_gib=f"{memory / 2**30:.1f}")


def prove(
    kind: str,
    exported: Path,
    base: Base,
    adapter: Path,
    rows: Sequence[Any],
    compute: Compute,
    progress: Callable[[str, float], None],
    check: Check,
) -> ExportCheck:
    """exported: the folder, or the .gguf file, that was made from adapter. progress: called with stage and fraction."""
    tokenizer = Tokenizer(adapter)
    probes, own = prompts_of(rows, tokenizer)
    progress("proving_adapter", 0)
    with _loaded(lambda: _adapter_on_base(base, adapter, compute), check) as model:
        answers = answer(model, probes, tokenizer, check)
        probes = [p if p.has_answer else p.answered(said) for p, said in zip(probes, answers, strict=True)]
        expected = _measure_all(model, probes, answers, lambda done: progress("proving_adapter", done), check)
    progress("proving_export", 0)
    alike = sum(_reads_alike(kind, exported, probes, tokenizer))
    with _loaded(lambda: _exported(kind, exported, base, compute), check) as model:
        answers = answer(model, probes, tokenizer, check)
        found = _measure_all(model, probes, answers, lambda done: progress("proving_export", done), check)
    return judge(probes, expected, found, alike, own, tokenizer, compute)


def judge(
    probes: Sequence[ProofPrompt],
    expected: Sequence[PromptResult],
    found: Sequence[PromptResult],
    alike: int,
    own: bool,
    tokenizer: Tokenizer,
    compute: Compute,
) -> ExportCheck:
    losses = [sum(a.loss_sum for a in side) / sum(a.tokens for a in side) for side in (expected, found)]
    texts = [sum(a.text_loss_sum for a in side) / sum(a.text_tokens for a in side) for side in (expected, found)]
    equal = [e.first_token == f.first_token for e, f in zip(expected, found, strict=True)]
    # False also where a loss is not a number.
    close = abs(losses[0] - losses[1]) <= MAX_LOSS_GAP and abs(texts[0] - texts[1]) <= MAX_TEXT_LOSS_GAP
    differences = [
        Difference(
            prompt=probe.turns[-1]["content"] if probe.turns else "",
            adapter=tokenizer.decode(e.greedy).strip(),
            export=tokenizer.decode(f.greedy).strip(),
            first_token_equal=same,
        )
        for probe, e, f, same in zip(probes, expected, found, equal, strict=True)
        if e.greedy != f.greedy or not same
    ]
    return ExportCheck(
        mean_loss_adapter=_finite(losses[0]),
        mean_loss_export=_finite(losses[1]),
        mean_text_loss_adapter=_finite(texts[0]),
        mean_text_loss_export=_finite(texts[1]),
        first_tokens_equal=sum(equal),
        prompts_read_alike=alike,
        prompts=len(probes),
        own_prompts=own,
        passed=close and all(equal) and alike == len(probes),
        differences=tuple(differences),
        compute=f"{compute.device.type} {compute.dtype_name}",
    )


def _finite(loss: float) -> float:
    return round(loss, 6) if math.isfinite(loss) else 1e9  # JSON has no NaN; no real loss comes near


# ---- asking -----------------------------------------------------------------------------------------------------------
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
    model: Any, probes: Sequence[ProofPrompt], answers: Sequence[list[int]], progress: Progress, check: Check
) -> list[PromptResult]:
    asked = []
    for probe, greedy in zip(probes, answers, strict=True):
        check()
        asked.append(_measure(model, probe, greedy))
        progress(len(asked) / len(probes))
    return asked


@torch.inference_mode()
def _measure(model: Any, probe: ProofPrompt, greedy: list[int]) -> PromptResult:
    ids = torch.tensor([probe.ids], device=model.device)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
    losses = functional.cross_entropy(logits[:-1].float(), ids[0, 1:], reduction="none")
    learned = torch.tensor(probe.learned[1:], device=model.device)
    return PromptResult(
        loss_sum=float(losses[learned].sum()),
        tokens=int(learned.sum()),
        text_loss_sum=float(losses.sum()),
        text_tokens=len(losses),
        first_token=int(logits[probe.start - 1].argmax()),
        greedy=greedy,
    )


# ---- loading ----------------------------------------------------------------------------------------------------------
@contextmanager
def _loaded(load: Callable[[], Any], check: Check) -> Iterator[Any]:
    check()
    model = load()
    check()
    try:
        yield model
    finally:
        del model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _adapter_on_base(base: Base, adapter: Path, compute: Compute) -> Any:
    sixteen_bit = replace(compute, dtype=base.dtype)  # first rounded as the export is, then widened exactly
    model = base_model.load(base.folder, sixteen_bit, False, base.own_code).to(compute.dtype)
    model.generation_config = GenerationConfig()  # a base's own sampling settings would only make generate() warn
    return attach(model, adapter)


def _exported(kind: str, exported: Path, base: Base, compute: Compute) -> PreTrainedModel:
    if kind == "adapter":
        return _adapter_on_base(base, exported, compute)
    if kind == "merged":
        model = base_model.load(exported, replace(compute, dtype=base.dtype), four_bit=False).to(compute.dtype)
    else:
        model = AutoModelForCausalLM.from_pretrained(
            exported.parent,
            gguf_file=exported.name,
            quantization_config=GgufConfig(dequantize=True),  # else it calls itself quantised and refuses half of itself
            dtype=compute.dtype,
            attn_implementation="sdpa",
            local_files_only=True,
        ).to(compute.device)
    model.generation_config = GenerationConfig()
    return model.eval()


def _reads_alike(kind: str, exported: Path, probes: Sequence[ProofPrompt], ours: Tokenizer) -> list[bool]:
    """Whether the export's own tokenizer and template, as transformers reads them, give the ids of our chat."""
    where = {"gguf_file": exported.name} if kind == "gguf" else {}
    folder = exported.parent if kind == "gguf" else exported
    theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **where)
    read = [
        theirs.apply_chat_template(list(probe.turns), add_generation_prompt=True, tokenize=True, return_dict=True)
        for probe in probes
    ]
    return [list(r["input_ids"]) == ours.prompt(probe.turns) for r, probe in zip(read, probes, strict=True)]
