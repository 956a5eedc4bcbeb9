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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from core.errors import ExportError
from core.export import proof, tensors
from core.export.llamacpp import child
from core.export.llamacpp.tools import RUNTIME_BUILD, Tools
from core.export.merge import Check
from core.export.proof import PromptResult, ProofPrompt, Work
from core.export.records import ExportCheck
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
    rows they are of. budget: positions of a row, at most."""

    def __init__(self, file: Path, budget: int):
        self._file, self._budget = file, budget
        file.write_bytes(b"")
        self.rows: list[dict[str, Any]] = []
        self.words = 0

    def __call__(self, probe: ProofPrompt, logits: torch.Tensor) -> None:
        """logits: (T, words) of probe.ids."""
        length = len(probe.ids) - 1
        step = max(1, math.ceil(length / self._budget))
        positions = sorted({probe.start - 1, *range(0, length, step)})
        logs = torch.log_softmax(logits[positions].double(), -1).float().cpu()
        self.words = logs.shape[-1]
        with open(self._file, "ab") as file:
            file.write(logs.contiguous().numpy().data)
        first = int(logits[probe.start - 1].argmax())
        row = {"ids": probe.ids, "start": probe.start, "learned": probe.learned, "positions": positions, "first": first}
        self.rows.append(row)


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


def judge_sixteen(
    asking: Asking,
    file: Path,
    expected: Sequence[PromptResult],
    keep: str | None,
    answers: int,
    lora: str | None = None,
) -> FileVerdict:
    """The verdict on the 16-bit file, compared with the adapter's own probabilities. A tokenizer that llama.cpp reads
    otherwise is a refusal, not a matter of degree: nothing further is made of that file. Raises ExportError."""
    asking.work.progress("asking_llamacpp", None)
    answer, method = asking.ask(file, "adapter.logs", keep, answers, lora), asking.work.method
    is_exact = method.by_layer or method.compute.dtype == torch.float32
    most = MOST_DIVERGENCE[file.stem] if is_exact else MOST_DIVERGENCE_IN_16_BIT
    losses = proof.mean_losses(expected, results_of(answer), "text")
    verdict = judge(answer, most, len(asking.work.probes) + len(AWKWARD), losses)
    if any(reason.key == "gguf.reason_ids" for reason in verdict.reasons):
        raise ExportError("gguf.other_ids", reason=verdict.reasons[0])
    return verdict


def judge_other(asking: Asking, file: Path, most: float, lora: str | None = None) -> FileVerdict:
    """The verdict on a file, compared with the 16-bit one."""
    asking.work.progress("asking_llamacpp", None)
    answer = asking.ask(file, "sixteen.logs", None, ANSWERS_SHOWN, lora)
    return judge(answer, most, len(asking.work.probes) + len(AWKWARD), None)


def results_of(answer: dict[str, Any]) -> list[PromptResult]:
    """Results of llama.cpp in the form of transformers' side; only the first rows were answered in words."""
    unasked: list[list[int]] = [[]] * len(answer["rows"])
    return [
        PromptResult(
            row["answer_loss"], row["answer_tokens"], row["text_loss"], row["text_tokens"], row["first"], greedy
        )
        for row, greedy in zip(answer["rows"], [*answer["greedy"], *unasked], strict=False)
    ]


def same_first_words(rows: Sequence[dict[str, Any]], kept: KeptProbabilities, quant: str) -> list[bool]:
    pairs = zip(rows, kept.rows, strict=True)
    return [f["first"] == e["first"] or f["first_log"] - f["expected_log"] <= NEAR_TIE[quant] for f, e in pairs]


def found_of(
    quant: str,
    asking: Asking,
    expected: Sequence[PromptResult],
    compared: tensors.Comparison | None,
    sixteen: FileVerdict,
    file: FileVerdict,
) -> ExportCheck:
    """The record in export.json. file: the verdict on what is handed out; sixteen: on what it was made of, or the
    same."""
    reasons = [*sixteen.reasons, *(() if file is sixteen else file.reasons)]
    if compared and compared.off:
        values = {"off": len(compared.off), "tensors": compared.tensors, "first": compared.off[0]}
        reasons.insert(0, msg("export.reason_tensors", **values))
    return proof.check_of(
        asking.work,
        expected,
        results_of(file.answer),
        same_first_words(file.answer["rows"], asking.kept, quant),
        compared,
        proof="llamacpp",
        prompts_read_alike=sum(file.answer["alike"][: len(asking.work.probes)]),
        passed=not reasons,
        compute=f"llama.cpp {file.answer.get('own') or RUNTIME_BUILD}",
        quant=quant,
        divergence=file.divergence,
        divergence_16=sixteen.divergence,
        reasons=tuple(reasons),
    )
