"""What an export needs, estimated before it begins: size of the result, disk, memory, and time by earlier ones on this
PC. No torch.

Sizes follow from the number of parameters; seconds are an earlier export's own, or there are none.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.export.records import QUANTS, ExportKind, ExportResult, ExportStatus
from core.models.shapes.shape import ModelShape

# Of the file, a parameter; quantised matrices and the vectors and embeddings that stay larger, as llama.cpp writes
# models of 1B up.
BYTES_A_PARAMETER = {"f16": 2.0, "bf16": 2.0, "q8_0": 1.07, "q6_k": 0.83, "q5_k_m": 0.72, "q4_k_m": 0.62}
# The same where rows are no multiple of 256 numbers long, which the small blocks of these types hold: llama.cpp then
# takes larger ones. Measured on SmolLM2-135M (rows of 576): 105, 112 and 138 MB.
BYTES_UNEVEN = BYTES_A_PARAMETER | {"q6_k": 1.03, "q5_k_m": 0.84, "q4_k_m": 0.79}
BLOCK = 256
# Of a merged folder, a parameter.
MERGED = 2
# Places in the texts of the proof at which the probabilities of all words are compared, in float32 and of two files.
MOST_POSITIONS = 384  # 230 MB at 150,000 words
# A model is asked whole in float32, or layer by layer: its largest matrix as it is stored and in float32, and logits
# (core.export.proof).
WHOLE_A_PARAMETER, LAYER_A_PARAMETER, WORKER_BYTES = 4.6, 6, 1200 << 20
LOGITS_A_WORD = 12 * 1024
# An export of another model says how long this one takes only where that is about as large.
NEAR = 4.0


@dataclass(frozen=True)
class Room:
    """size: of what is made; disk: beside what is there, at the worst moment; memory: with which it can be proven at
    all; in bytes.
    seconds: None where none like it was made on this PC."""

    size: int
    disk: int
    memory: int
    seconds: float | None


def gguf_disk(quant: str, parameters: int, words: int) -> int:
    """Disk at the most: merged and 16-bit beside each other, or 16-bit, quantised and the probabilities that are
    compared."""
    kept = 2 * 4 * MOST_POSITIONS * words
    return int(max(2 * MERGED * parameters, (2 + BYTES_A_PARAMETER[quant]) * parameters) + kept)


def of_adapter(size: int, done: Iterable[ExportResult]) -> Room:
    """size: of its files."""
    before = next((each for each in done if each.kind == "adapter"), None)
    return Room(size, size, 0, before.seconds if before else None)


def of_model(
    kind: ExportKind, quant: str | None, base: str, shape: ModelShape, done: Iterable[ExportResult], adapter: int = 0
) -> Room:
    """Of a merged folder or a GGUF file. base: as recipes name it; done: what was exported on this PC, newest first;
    adapter: bytes of its weights, which a LoRA in GGUF has in half as many, and to prove it the base becomes a file of
    16 bit."""
    parameters = shape.params
    size, disk = int(bytes_a_parameter(quant, shape.hidden_size) * parameters), MERGED * parameters
    if kind == "gguf":
        disk = gguf_disk(quant or QUANTS[0], parameters, shape.vocab_size)
    elif kind == "gguf-lora":
        size, disk = adapter // 2, gguf_disk("bf16", parameters, shape.vocab_size)
    largest = max(shape.vocab_size * shape.hidden_size, parameters // max(1, shape.num_hidden_layers))
    layered = LAYER_A_PARAMETER * largest + LOGITS_A_WORD * shape.vocab_size + WORKER_BYTES
    memory = int(min(layered, WHOLE_A_PARAMETER * parameters + WORKER_BYTES))
    like = before(done, kind, quant, base, parameters)
    if like is not None and (like[0].base, like[0].quant) == (base, quant):
        size = like[0].bytes
    return Room(size, disk, memory, like[0].seconds * like[1] if like else None)


def bytes_a_parameter(quant: str | None, hidden_size: int = BLOCK) -> float:
    return (BYTES_UNEVEN if hidden_size % BLOCK else BYTES_A_PARAMETER).get(quant or "", MERGED)


def before(
    done: Iterable[ExportResult], kind: str, quant: str | None, base: str, parameters: int
) -> tuple[ExportResult, float] | None:
    """The newest export that was made as this one will be, and how much longer this one takes: of the same base if
    there is one, else of one that is about as large. How a GGUF file is quantised hardly matters."""
    alike = [
        (each, parameters * bytes_a_parameter(each.quant) / max(1, each.bytes)) for each in done if each.kind == kind
    ]
    same = [(each, 1.0) for each, _ in alike if each.base == base]
    near = [(each, times) for each, times in alike if 1 / NEAR <= times <= NEAR]
    found = sorted(same or near, key=lambda pair: pair[0].quant != quant)  # stable: newest first
    return found[0] if found else None


def seconds_left(
    status: ExportStatus, phases: Sequence[tuple[str, float]], times: float = 1.0
) -> tuple[float | None, float | None]:
    """Of the phase that it is in, by its own pace, and of all, by the phases of an earlier export that took times as
    long; None each where it is not known."""
    spent = max(0.0, time.time() - status.phase_since)  # the PC's clock may have been put back
    done = status.fraction or 0.0
    of_phase = spent * (1 - done) / done if done > 0.05 and status.phase_since else None
    if status.phase >= len(phases) or phases[status.phase][0] != status.stage:
        return of_phase, None
    usual = max(0.0, times * phases[status.phase][1] - spent)
    rest = times * sum(seconds for _, seconds in phases[status.phase + 1 :])
    return of_phase, (usual if of_phase is None else of_phase) + rest
