"""Verifies a GGUF file: whether it answers as the adapter does, in real llama.cpp. Workers only (torch).

1. The merged tensors are compared with W + s * B @ A one by one (core.export.tensors).
2. The 16-bit file against the base with its adapter in transformers, in float32, each sum rounded once as the file's
   numbers are (without
   that rounding the starter's bf16 file is 7e-4 nats away, with it less than 1e-4): texts become the same tokens, the
   token that ends a turn ends an answer, and at up to MOST_POSITIONS places of the rows the probabilities of all words
   are the same.
3. The quantised file against the 16-bit one, by the same places, of which the tenth that differs most is left out:
   there, rounding
   decides, and on each kind of processor differently.

Rows are the run's own, then built-in questions up to PROMPTS. A first word counts as another only where the adapter's
own choice is further behind it than the type's own noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from core.engine import base_model
from core.engine.adapter import attach
from core.engine.device import Compute
from core.errors import ExportError
from core.export import pairs, proof, tensors
from core.export.llamacpp import child
from core.export.llamacpp.tools import RUNTIME_BUILD, Tools
from core.export.merge import Check
from core.export.proof import PromptResult, ProofPrompt, Work
from core.export.records import Difference, ExportCheck
from core.export.stored import Base, empty, read_base
from core.messages import Message, msg

PROMPTS = 20
# Kullback-Leibler divergence in nats: for a 16-bit file the mean over all positions, for a quantized file the mean over
# the closest nine tenths of them. llama.cpp rounds activations too (to bf16 beside bf16 weights, to 8 bits beside
# quantized ones), and rounding in another
# order changes a few positions a lot: one q8_0 file had means from 0.018 to 0.024 on five instruction sets, with
# trimmed means from 0.0053 to 0.0055. Computed in float32, the 16-bit file is less than 5e-6 from the adapter. Sound
# files of nine adapters, and what damage
# does: docs/export.md.
MOST_DIVERGENCE = {"f16": 5e-4, "bf16": 5e-4, "q8_0": 0.02, "q6_k": 0.05, "q5_k_m": 0.2, "q4_k_m": 0.2}
MOST_DIVERGENCE_IN_16_BIT = 0.02  # of the 16-bit file where the PC could only compute what is expected in bfloat16
# Of a first word that is nearly as likely as another, in the logarithm of its probability.
NEAR_TIE = {"f16": 0.02, "bf16": 0.1, "q8_0": 0.2, "q6_k": 0.3, "q5_k_m": 0.7, "q4_k_m": 0.7}
ANSWERS_SHOWN = 3  # that are written out, for a person to see
QUESTIONS = (
    "What is the capital of France?", "Tell me about horses.", "How do I boil an egg?", "Why is the sky blue?",
    "What is 7 times 8?",
    "Write a short poem about rain.", "Name three colours.", "Who wrote Hamlet?", "What is a computer?",
    "How far is the moon?",
    "Give me advice for an exam.", 'What does "naïve" mean?', 'Translate "good morning" to German.', "List 5 animals.",
    "What year is it, 1999 or 2025?", "Explain gravity to a child.", "def add(a, b):", "How many days are in a week?",
    "Is tea healthy?",
    "你好，今天天气怎么样？",
)  # fmt: skip
# Where pre-tokenizers part: numbers, spaces, contractions, scripts, emoji, code, line ends, odd spaces.
AWKWARD = (
    "In 2026, 1234567 people paid $3.50; 12 didn't.", "  two  spaces,\ttabs\t\tand\n\n\nline ends \n ",
    "I'LL we've THEY'RE it's can't",
    "naïve café ﬁne Straße İstanbul", "你好，世界！今天是2026年11月27日。",
    "こんにちは カタカナ 한국어 ไทย עברית العربية हिन्दी",
    "👩‍👩‍👧 🏴‍☠️ 🇩🇪 ✅",
    "def f(x):\n    return x**2  # 1e-5\r\n", "a\u00a0b\u200bc\u3000d\u2028e", "!!!???...---___===",
    "<b>&amp;</b> {{x}} [INST]", "ẞ ǆ ½ ² Ⅷ ①",
)  # fmt: skip


class KeptProbabilities:
    """Probabilities of one side, written to a file as its logits come (float32, a position after the other), and the
    rows they are of."""

    def __init__(self, file: Path, budget: int):
        self._file, self._budget = open(file, "wb"), budget
        self.rows: list[dict[str, Any]] = []
        self.words = 0

    def __call__(self, probe: ProofPrompt, logits: torch.Tensor) -> None:
        """logits: (T, words) of probe.ids."""
        length = len(probe.ids) - 1
        step = max(1, math.ceil(length / self._budget))
        positions = sorted({probe.start - 1, *range(0, length, step)})
        logs = torch.log_softmax(logits[positions].double(), -1).float().cpu()
        self.words = logs.shape[-1]
        self._file.write(logs.contiguous().numpy().data)
        first = int(logits[probe.start - 1].argmax())
        row = {"ids": probe.ids, "start": probe.start, "learned": probe.learned, "positions": positions, "first": first}
        self.rows.append(row)

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Asking:
    """What both files are asked, and where. folder: of the files and what is kept of them."""

    tools: Tools
    folder: Path
    log: Path
    check: Check
    work: Work
    kept: KeptProbabilities

    def ask(
        self, file: Path, against: str, keep: str | None, answers: int = 0, lora: str | None = None
    ) -> dict[str, Any]:
        """answers: how many of the questions it is to answer in words."""
        tokenizer = self.work.tokenizer
        texts = [tokenizer.template.render(p.turns, True, p.tools) for p in self.work.probes]
        prompts = [tokenizer.encode(text) for text in texts]
        longest = max(len(row["ids"]) for row in self.kept.rows)
        counted, total = self.folder / "counted", len(self.kept.rows) * (2 if lora else 1) + answers
        counted.unlink(missing_ok=True)

        def look() -> None:
            self.check()
            if counted.exists():  # the model is loaded
                self.work.progress("asking_llamacpp", min(1.0, counted.stat().st_size / total))

        request = {
            "do": "ask", **self.tools.runs_in, "folder": str(self.folder),
            "file": file.name if file.parent == self.folder else str(file), "lora": lora,
            "texts": [*texts, *AWKWARD], "prompts": [*prompts, *map(tokenizer.encode, AWKWARD)],
            "rows": self.kept.rows, "words": self.kept.words, "against": against, "keep": keep,
            "stops": [stop for stop in [stop_of(tokenizer)] if stop is not None],
            "length": longest + proof.ANSWER_TOKENS, "answer": proof.ANSWER_TOKENS, "answers": answers,
            "threads": child.threads(),
            "counted": counted.name,
        }  # fmt: skip
        return child.ask("core.export.llamacpp.questions", request, self.folder, self.log, look, file.name)


def stop_of(tokenizer: Any) -> int | None:
    """The token that ends a turn in the training template, or the one that ends a text."""
    ids = tokenizer.encode(tokenizer.template.stop) if tokenizer.template.stop else []
    return ids[0] if len(ids) == 1 else tokenizer.eos_token_id


def probes_of(rows: Sequence[Any], tokenizer: Any, by_layer: bool) -> tuple[list[ProofPrompt], bool]:
    """The run's own, then questions: PROMPTS in all. Layer by layer only as many as go through at once."""
    found, own = proof.prompts_of(rows, tokenizer)
    if not own:
        found = []
    for question in QUESTIONS[: PROMPTS - len(found)]:
        turns = ({"role": "user", "content": question},)
        ids = tokenizer.prompt(turns)
        found.append(ProofPrompt(turns, ids, [False] * len(ids), len(ids)))
    return (proof.few(found) if by_layer else found), own


def expect(
    base: Base, adapter: Path, merged: Path, work: Work, kept: KeptProbabilities
) -> tuple[Work, list[PromptResult], tensors.Comparison | None]:
    """What the base with its adapter says, and whether the merged tensors are what they should be."""
    found_pairs, compared = pairs.lora_pairs(base, adapter), None
    work = replace(work, keep=kept)
    try:
        with tensors.Reader(base) as original:
            if found_pairs is not None:
                tuned = tensors.Tuned(original, adapter, found_pairs)
                with tensors.MergedFolder(read_base(merged), base) as written:
                    compared = tensors.compare(tuned, written, work.of("comparing"), work.check)
                if work.method.by_layer:
                    return work, by_layer(tuned, work), compared
        asked, expected = whole(base, adapter, work)
        return replace(work, probes=asked), expected, compared
    finally:
        kept.close()
        proof.let_go()


def whole(base: Base, adapter: Path, work: Work) -> tuple[list[ProofPrompt], list[PromptResult]]:
    """Its own answer to each question becomes what a question without one is measured on."""
    progress = work.of("proving_adapter")
    model = rounded_model(base, adapter, work.method.compute)
    answers = proof.answer(model, work.probes, work.tokenizer, work.check)
    asked = [p if p.has_answer else p.answered(said) for p, said in zip(work.probes, answers, strict=True)]
    return asked, proof.measure_all(model, asked, answers, progress, work)


@torch.no_grad()
def rounded_model(base: Base, adapter: Path, compute: Compute) -> Any:
    """W + s * B @ A by peft in float32 (or what a PC without that much memory computes in), then rounded as the merged
    files are."""
    model = base_model.load(base.folder, compute, four_bit=False)
    model.generation_config = GenerationConfig()  # a base's own sampling settings would only make generate() warn
    model = attach(model, adapter).merge_and_unload()
    for name, parameter in model.named_parameters():
        stored = base.stored_names.get(name)
        parameter.copy_(parameter.to(base.written_as(stored) if stored else base.dtype))
    return model.eval()


def by_layer(tuned: tensors.Tuned, work: Work) -> list[PromptResult]:
    """As `rounded_model`, a layer at a time, from the disk."""
    base, names = tuned.base.base, tuned.base.base.stored_names

    def read(name: str) -> torch.Tensor:
        stored = names[name]
        found = (
            tuned.rows(stored, 0, base.tensors[stored].shape[0]) if tuned.changes(stored) else tuned.base.whole(stored)
        )
        return found.to(base.written_as(stored)) if found.is_floating_point() else found

    return proof.forward_by_layer("layers_of_adapter", empty(base.folder), list(names), read, {}, work)


@dataclass(frozen=True)
class FileVerdict:
    """What was found of one file. reasons: why it is not as it should be; none: it is. notes: where it is not as in
    training all the same."""

    divergence: float
    answer: dict[str, Any]
    reasons: tuple[Message, ...]
    notes: tuple[Message, ...] = ()


def judge(answer: dict[str, Any], most: float, texts: int, losses: tuple[float, float] | None) -> FileVerdict:
    """most: divergence, of a quantised file over the closest nine tenths of the positions. losses: mean over whole rows
    of the adapter and of this file, for the 16-bit one; None for a quantised one."""
    reasons, notes = [], []
    odd = [i for i, same in enumerate(answer["alike"]) if not same]
    # A tokenizer that llama.cpp knows by its hash it reads so for everybody (b11739: Mistral's and gpt-oss's letters
    # with marks, and words in capitals after an accented one); the run's rows and plain questions, and all of a
    # tokenizer that we have named, must be alike.
    if odd and not answer.get("named", True) and 0 <= texts - len(AWKWARD) <= odd[0]:
        notes.append(msg("gguf.split_otherwise", odd=len(odd), texts=len(AWKWARD)))
    elif (alike := sum(answer["alike"])) < texts:
        first = odd[0]
        reasons.append(msg("gguf.reason_ids", alike=alike, texts=texts, first=first + 1))
    if not all(answer["ends"]):
        reasons.append(msg("gguf.reason_end"))
    divergence = float(answer["divergence" if losses else "closest_divergence"])
    if not divergence <= most:  # also where it is not a number
        key = "gguf.reason_divergence" if losses else "gguf.reason_quantised"
        reasons.append(msg(key, found=divergence, most=most))
    if losses and not abs(losses[0] - losses[1]) <= proof.MAX_TEXT_LOSS_GAP:
        reasons.append(msg("gguf.reason_loss", adapter=losses[0], export=losses[1]))
    return FileVerdict(divergence, answer, tuple(reasons), tuple(notes))


def mean(rows: Sequence[dict[str, Any]], what: str) -> float | None:
    tokens = sum(row[f"{what}_tokens"] for row in rows)
    return sum(row[f"{what}_loss"] for row in rows) / tokens if tokens else None


def same_first_words(rows: Sequence[dict[str, Any]], kept: KeptProbabilities, quant: str) -> list[bool]:
    pairs = zip(rows, kept.rows, strict=True)
    return [f["first"] == e["first"] or f["first_log"] - f["expected_log"] <= NEAR_TIE[quant] for f, e in pairs]


def found_of(
    quant: str,
    work: Work,
    kept: KeptProbabilities,
    expected: Sequence[PromptResult],
    compared: tensors.Comparison | None,
    sixteen: FileVerdict,
    file: FileVerdict,
) -> ExportCheck:
    """What stands in export.json. file: the verdict on what is handed out; sixteen: on what it was made of, or the
    same."""
    rows = file.answer["rows"]
    equal = same_first_words(rows, kept, quant)
    answers = sum(e.tokens for e in expected)
    texts = sum(e.text_loss_sum for e in expected) / sum(e.text_tokens for e in expected)
    reasons = [*sixteen.reasons, *(() if file is sixteen else file.reasons)]
    if compared and compared.off:
        values = {"off": len(compared.off), "tensors": compared.tensors, "first": compared.off[0]}
        reasons.insert(0, msg("export.reason_tensors", **values))
    written = [work.tokenizer.decode(said).strip() for said in file.answer["greedy"]]
    differences = [
        Difference(prompt=p.turns[-1]["content"], adapter=mine, export=theirs, first_token_equal=same)
        for p, e, theirs, same in zip(work.probes, expected, written, equal, strict=False)
        if (mine := work.tokenizer.decode(e.greedy).strip()) != theirs and e.greedy
    ]
    own = len(work.probes)
    return ExportCheck(
        proof="llamacpp",
        tensors=compared.tensors if compared else 0,
        tensors_off=compared.off if compared else (),
        mean_loss_adapter=sum(e.loss_sum for e in expected) / answers if answers else None,
        mean_loss_export=mean(rows, "answer"),
        mean_text_loss_adapter=texts,
        mean_text_loss_export=mean(rows, "text"),
        first_tokens_equal=sum(equal),
        prompts_read_alike=sum(file.answer["alike"][:own]),
        prompts=own,
        own_prompts=work.own,
        passed=not reasons,
        differences=tuple(differences),
        compute=f"llama.cpp {file.answer.get('own') or RUNTIME_BUILD}",
        quant=quant,
        divergence=file.divergence,
        divergence_16=sixteen.divergence,
        reasons=tuple(reasons),
    )


def refuse_other_ids(verdict: FileVerdict) -> None:
    """A tokenizer that llama.cpp reads otherwise is a refusal, not a matter of degree: nothing further is made of that
    file."""
    if any(reason.key == "gguf.reason_ids" for reason in verdict.reasons):
        raise ExportError("gguf.other_ids", reason=verdict.reasons[0])
