"""Verifies in real llama.cpp that a GGUF file answers as the adapter does. Workers only (torch).

1. The merged tensors are compared with W + s * B @ A one by one (core.export.tensors).
2. The 16-bit file is compared with the base and its adapter in transformers, in float32, each sum rounded once as the
file's numbers are (without that rounding the starter's bf16 file is 7e-4 nats away, with it less than 1e-4): texts
become the same tokens, the token that ends a turn ends an answer, and at up to MAX_POSITIONS positions of the rows the
probabilities of all tokens are the same.
3. The quantized file is compared with the 16-bit one at the same positions, without the tenth that differs most: there,
rounding decides, and differently on each kind of processor.

Rows are the run's own, then built-in questions up to PROMPTS. A first token counts as different only if the adapter's
choice is further behind it than the type's own noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from core.data.tokenizer import Tokenizer
from core.errors import ExportError
from core.export import tensors, verification
from core.export.llamacpp import child
from core.export.llamacpp.tools import RUNTIME_BUILD, Tools
from core.export.merge import Check
from core.export.records import ExportCheck
from core.export.verification import PromptResult, ProofPrompt, Work
from core.files import JsonObject
from core.messages import Message, msg

PROMPTS = 20
# Kullback-Leibler divergence in nats: for a 16-bit file the mean over all positions, for a quantized file the mean over
# the closest nine tenths of them. llama.cpp rounds activations too (to bf16 beside bf16 weights, to 8 bits beside
# quantized ones), and rounding in another order changes a few positions a lot: one q8_0 file had means from 0.018 to
# 0.024 on five instruction sets, with trimmed means from 0.0053 to 0.0055. Computed in float32, the 16-bit file is less
# than 5e-6 from the adapter. Sound files of nine adapters, and the effect of damage: docs/export.md.
MAX_DIVERGENCE = {"f16": 5e-4, "bf16": 5e-4, "q8_0": 0.02, "q6_k": 0.05, "q5_k_m": 0.2, "q4_k_m": 0.2}
MAX_DIVERGENCE_IN_16_BIT = 0.02  # of the 16-bit file if the PC could compute the expected values only in bfloat16
# Largest difference in log probability at which another first token counts as a tie.
NEAR_TIE = {"f16": 0.02, "bf16": 0.1, "q8_0": 0.2, "q6_k": 0.3, "q5_k_m": 0.7, "q4_k_m": 0.7}
ANSWERS_SHOWN = 3  # answers generated for the user to read
# Texts on which pre-tokenizers differ: numbers, spaces, contractions, scripts, emoji, code, line ends, odd spaces.
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
    """Log probabilities of one model, appended to a file as its logits come (float32, one position after another), and
    their rows.

    budget: the largest number of positions of a row.
    """

    def __init__(self, file: Path, budget: int):
        """Empty the file, or create it, and begin without rows."""
        self._file, self._budget = file, budget
        file.write_bytes(b"")
        self.rows: list[JsonObject] = []
        self.words = 0

    def __call__(self, probe: ProofPrompt, logits: torch.Tensor) -> None:
        """Append the log probabilities of up to budget evenly spread positions of probe, and of the one before its
        answer, to the file, and their row with the likeliest first token to `rows`. logits: (T, words) of probe.ids."""
        length = len(probe.ids) - 1
        step = max(1, math.ceil(length / self._budget))
        # The one before the answer predicts its first token.
        positions = sorted({probe.start - 1, *range(0, length, step)})
        log_probs = torch.log_softmax(logits[positions].double(), -1).float().cpu()
        self.words = log_probs.shape[-1]
        with open(self._file, "ab") as file:
            file.write(log_probs.contiguous().numpy().data)
        first = int(logits[probe.start - 1].argmax())
        row = {"ids": probe.ids, "start": probe.start, "learned": probe.learned, "positions": positions, "first": first}
        self.rows.append(row)


@dataclass(frozen=True)
class LlamaPrompts:
    """Prompts and settings for questioning GGUF files in llama.cpp. folder: holds the files and the kept
    probabilities."""

    tools: Tools
    folder: Path
    log: Path
    check: Check
    work: Work
    kept: KeptProbabilities

    def ask(self, file: Path, against: str, keep: str | None, answers: int = 0) -> JsonObject:
        """Run llama.cpp on file in a process and return its results (`questions.ask`), reporting progress by finished
        rows. against: name of the kept probabilities to compare with; keep: name under which to keep this file's, or
        None. answers: the number of prompts to answer in words."""
        tokenizer = self.work.tokenizer
        texts = [tokenizer.template.render(p.turns, True, p.tools) for p in self.work.probes]
        prompts = [tokenizer.encode(text) for text in texts]
        longest = max(len(row["ids"]) for row in self.kept.rows)
        progress_file, total = self.folder / "counted", len(self.kept.rows) + answers
        progress_file.unlink(missing_ok=True)

        def check_and_report() -> None:
            """Report the share of finished rows and answers as progress; called while llama.cpp works. Raises what
            check raises, to end it."""
            self.check()
            if progress_file.exists():  # the model is loaded
                self.work.progress("asking_llamacpp", min(1.0, progress_file.stat().st_size / total))

        request = {
            "runtime": str(self.tools.runtime), "folder": str(self.folder), "file": file.name,
            "texts": [*texts, *AWKWARD], "prompts": [*prompts, *map(tokenizer.encode, AWKWARD)],
            "rows": self.kept.rows, "words": self.kept.words, "against": against, "keep": keep,
            "stops": [stop for stop in [stop_of(tokenizer)] if stop is not None],
            "length": longest + verification.ANSWER_TOKENS, "answer": verification.ANSWER_TOKENS, "answers": answers,
            "threads": psutil.cpu_count(logical=False) or 2,
            "counted": progress_file.name,
        }  # fmt: skip
        return child.ask("core.export.llamacpp.questions", request, self.folder, self.log, check_and_report, file.name)


def stop_of(tokenizer: Tokenizer) -> int | None:
    """Return the token that ends a turn in the training template, if that is one, else the end-of-text token; None
    without either."""
    ids = tokenizer.encode(tokenizer.template.stop) if tokenizer.template.stop else []
    return ids[0] if len(ids) == 1 else tokenizer.eos_token_id


@dataclass(frozen=True)
class FileVerdict:
    """The result for one file. reasons: why it fails, empty if it passes. notes: harmless differences from training."""

    divergence: float
    answer: JsonObject
    reasons: tuple[Message, ...]
    notes: tuple[Message, ...] = ()


def judge(answer: JsonObject, most: float, texts: int, losses: tuple[float, float] | None) -> FileVerdict:
    """Return the verdict on llama.cpp's answer on one file, with a reason for each failed test: text becomes other
    token ids, the end token does not end an answer, divergence above most, another loss. Only if llama.cpp itself knows
    the tokenizer (this app did not have to name it), other ids of awkward texts alone are a mere note.

    texts: how many were tokenized, the awkward ones last. most: the allowed divergence, for a quantized file over the
    closest nine tenths of the positions. losses: mean over whole rows of the adapter and of this file, for the 16-bit
    one; None for a quantized one.
    """
    reasons, notes = [], []
    different = [i for i, same in enumerate(answer["alike"]) if not same]
    # Differences in a tokenizer that llama.cpp knows by its hash affect every user of the model (b11739: Mistral's and
    # gpt-oss's letters with marks, and words in capitals after an accented one). The run's rows and plain questions,
    # and all texts of a tokenizer named by this app, must give the same ids.
    if different and not answer.get("named", True) and 0 <= texts - len(AWKWARD) <= different[0]:
        notes.append(msg("gguf.split_otherwise", odd=len(different), texts=len(AWKWARD)))
    elif (equal := sum(answer["alike"])) < texts:
        first = different[0]
        reasons.append(msg("gguf.reason_ids", alike=equal, texts=texts, first=first + 1))
    if not all(answer["ends"]):
        reasons.append(msg("gguf.reason_end"))
    divergence = float(answer["divergence" if losses else "closest_divergence"])
    if not divergence <= most:  # also if it is NaN
        key = "gguf.reason_divergence" if losses else "gguf.reason_quantised"
        reasons.append(msg(key, found=divergence, most=most))
    if losses and not abs(losses[0] - losses[1]) <= verification.MAX_TEXT_LOSS_GAP:
        reasons.append(msg("gguf.reason_loss", adapter=losses[0], export=losses[1]))
    return FileVerdict(divergence, answer, tuple(reasons), tuple(notes))


def judge_sixteen(
    prompts: LlamaPrompts, file: Path, expected: Sequence[PromptResult], keep: str | None, answers: int
) -> FileVerdict:
    """Ask llama.cpp about the 16-bit file and judge it by the adapter's own probabilities, more strictly if those were
    computed in float32.

    Raises ExportError if llama.cpp's tokenizer gives other ids: nothing further is made of that file.
    """
    prompts.work.progress("asking_llamacpp", None)
    answer, method = prompts.ask(file, "adapter.logs", keep, answers), prompts.work.method
    is_exact = method.by_layer or method.compute.dtype == torch.float32
    limit = MAX_DIVERGENCE[file.stem] if is_exact else MAX_DIVERGENCE_IN_16_BIT
    losses = verification.mean_losses(expected, results_of(answer), "text")
    verdict = judge(answer, limit, len(prompts.work.probes) + len(AWKWARD), losses)
    if any(reason.key == "gguf.reason_ids" for reason in verdict.reasons):
        raise ExportError("gguf.other_ids", reason=verdict.reasons[0])
    return verdict


def judge_other(prompts: LlamaPrompts, file: Path, most: float) -> FileVerdict:
    """Return the verdict on a file by the 16-bit file's probabilities. most: the largest divergence that passes."""
    prompts.work.progress("asking_llamacpp", None)
    answer = prompts.ask(file, "sixteen.logs", None, ANSWERS_SHOWN)
    return judge(answer, most, len(prompts.work.probes) + len(AWKWARD), None)


def results_of(answer: JsonObject) -> list[PromptResult]:
    """Convert llama.cpp's results to PromptResults; only the first rows have generated answers."""
    unasked: list[list[int]] = [[]] * len(answer["rows"])
    return [
        PromptResult(
            row["answer_loss"], row["answer_tokens"], row["text_loss"], row["text_tokens"], row["first"], greedy
        )
        for row, greedy in zip(answer["rows"], [*answer["greedy"], *unasked], strict=False)
    ]


def same_first_words(rows: Sequence[JsonObject], kept: KeptProbabilities, quant: str) -> list[bool]:
    """Return for each row whether the file's likeliest first token of the answer is the adapter's, or so nearly as
    likely as it that this counts as a tie (by NEAR_TIE of the quantization, in nats)."""
    pairs = zip(rows, kept.rows, strict=True)
    return [f["first"] == e["first"] or f["first_log"] - f["expected_log"] <= NEAR_TIE[quant] for f, e in pairs]


def check_record(
    quant: str,
    prompts: LlamaPrompts,
    expected: Sequence[PromptResult],
    compared: tensors.Comparison | None,
    sixteen: FileVerdict,
    file: FileVerdict,
) -> ExportCheck:
    """Return the record for export.json; it has passed if there is no reason against either file and no tensor is off.
    file: the verdict on the delivered file; sixteen: on the 16-bit file it was made from, or the same."""
    reasons = [*sixteen.reasons, *(() if file is sixteen else file.reasons)]
    if compared and compared.off:
        values = {"off": len(compared.off), "tensors": compared.tensors, "first": compared.off[0]}
        reasons.insert(0, msg("export.reason_tensors", **values))
    return verification.check_of(
        prompts.work,
        expected,
        results_of(file.answer),
        same_first_words(file.answer["rows"], prompts.kept, quant),
        compared,
        proof="llamacpp",
        prompts_read_alike=sum(file.answer["alike"][: len(prompts.work.probes)]),
        passed=not reasons,
        compute=f"llama.cpp {RUNTIME_BUILD}",
        quant=quant,
        divergence=file.divergence,
        divergence_16=sixteen.divergence,
        reasons=tuple(reasons),
    )
