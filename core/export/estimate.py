"""Estimates what an export needs before it begins: result size, disk, memory, and time from earlier exports on this PC.
No torch.

Sizes follow from the number of parameters; the time is that of a similar earlier export, or unknown.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.export.records import QUANTS, ExportKind, ExportResult, ExportStatus
from core.models.shapes.shape import ModelShape

# Bytes of a GGUF file per parameter, averaged over quantized matrices and the vectors and embeddings that stay larger,
# as llama.cpp writes models of 1B and more.
BYTES_A_PARAMETER = {"f16": 2.0, "bf16": 2.0, "q8_0": 1.07, "q6_k": 0.83, "q5_k_m": 0.72, "q4_k_m": 0.62}
# The same for rows whose length is no multiple of 256, the block size of these types: llama.cpp then uses larger types.
# Measured on SmolLM2-135M (rows of 576): 105, 112 and 138 MB.
BYTES_UNEVEN = BYTES_A_PARAMETER | {"q6_k": 1.03, "q5_k_m": 0.84, "q4_k_m": 0.79}
BLOCK = 256
MERGED = 2  # bytes of a merged folder per parameter
# Positions at which the verification compares the probabilities of all tokens, in float32, for two files.
MAX_POSITIONS = 384  # 230 MB at 150,000 words
# Memory to verify a whole model in float32, or layer by layer: the largest matrix as stored and in float32, and logits
# (core.export.verification).
WHOLE_A_PARAMETER, LAYER_A_PARAMETER, WORKER_BYTES = 4.6, 6, 1200 << 20
LOGITS_A_WORD = 12 * 1024
# The time of another model's export is used only if its size is within this factor.
NEAR = 4.0


@dataclass(frozen=True)
class ExportEstimate:
    """Needs of an export, in bytes.

    size: of the result; disk: additional space at the peak; memory: minimum with which it can be verified; seconds:
    None if no similar export was made on this PC.
    """

    size: int
    disk: int
    memory: int
    seconds: float | None


def gguf_disk(quant: str, parameters: int, words: int) -> int:
    """Return the bytes of disk that making a GGUF file needs at its peak: the merged folder and the 16-bit file
    together, or the 16-bit and the quantized file, whichever is more, and in addition the probabilities kept for
    comparison.

    parameters: numbers of the model; words: size of its vocabulary.
    """
    probabilities = 2 * 4 * MAX_POSITIONS * words
    return int(max(2 * MERGED * parameters, (2 + BYTES_A_PARAMETER[quant]) * parameters) + probabilities)


def for_adapter(size: int, done: Iterable[ExportResult]) -> ExportEstimate:
    """Return the estimate of an adapter's export: its size in bytes as result and as disk, no memory, and the seconds
    of the newest adapter export on this PC, None without one."""
    earlier = next((each for each in done if each.kind == "adapter"), None)
    return ExportEstimate(size, size, 0, earlier.seconds if earlier else None)


def for_model(
    kind: ExportKind, quant: str | None, base: str, shape: ModelShape, done: Iterable[ExportResult]
) -> ExportEstimate:
    """Estimate result size, disk and memory in bytes, and seconds (None without an earlier export) of a merged folder
    or a GGUF file. base: as recipes name it; done: exports on this PC, newest first. The size of an earlier export of
    the same base and type is taken as it is."""
    parameters = shape.params
    size, disk = int(bytes_a_parameter(quant, shape.hidden_size) * parameters), MERGED * parameters
    if kind == "gguf":
        disk = gguf_disk(quant or QUANTS[0], parameters, shape.vocab_size)
    largest = max(shape.vocab_size * shape.hidden_size, parameters // max(1, shape.num_hidden_layers))
    layered_bytes = LAYER_A_PARAMETER * largest + LOGITS_A_WORD * shape.vocab_size + WORKER_BYTES
    # The verification takes whichever way has room, so the smaller need is the minimum.
    memory = int(min(layered_bytes, WHOLE_A_PARAMETER * parameters + WORKER_BYTES))
    earlier = similar_export(done, kind, quant, base, parameters)
    if earlier is not None and (earlier[0].base, earlier[0].quant) == (base, quant):
        size = earlier[0].bytes
    return ExportEstimate(size, disk, memory, earlier[0].seconds * earlier[1] if earlier else None)


def bytes_a_parameter(quant: str | None, hidden_size: int = BLOCK) -> float:
    """Return the bytes of a parameter in a GGUF file of this type, or (None) in a merged model; more for the K types if
    hidden_size is no multiple of BLOCK."""
    return (BYTES_UNEVEN if hidden_size % BLOCK else BYTES_A_PARAMETER).get(quant or "", MERGED)


def similar_export(
    done: Iterable[ExportResult], kind: str, quant: str | None, base: str, parameters: int
) -> tuple[ExportResult, float] | None:
    """Return the newest similar export of this kind, and this one's expected time as a multiple of it; None without
    one. One of the same base (multiple 1) is preferred, else one of about the same size, and of those one of the same
    quantization."""
    # An export's time is taken to grow with its size, so the ratio of sizes is the multiple.
    same_kind = [
        (each, parameters * bytes_a_parameter(each.quant) / max(1, each.bytes)) for each in done if each.kind == kind
    ]
    same_base = [(each, 1.0) for each, _ in same_kind if each.base == base]
    near_size = [(each, times) for each, times in same_kind if 1 / NEAR <= times <= NEAR]
    ranked = sorted(same_base or near_size, key=lambda pair: pair[0].quant != quant)  # stable: newest first
    return ranked[0] if ranked else None


def seconds_left(
    status: ExportStatus, phases: Sequence[tuple[str, float]], times: float = 1.0
) -> tuple[float | None, float | None]:
    """Return the seconds left of the current phase, by its own pace (from 5 % done on), and of the export, by the
    (stage, seconds) of an earlier export's phases if the current one is among them.

    times: this export's time as a multiple of the earlier one's. None for what is not known.
    """
    spent = max(0.0, time.time() - status.phase_since)  # the PC's clock may have been put back
    done = status.fraction or 0.0
    phase_left = spent * (1 - done) / done if done > 0.05 and status.phase_since else None
    if status.phase >= len(phases) or phases[status.phase][0] != status.stage:
        return phase_left, None
    usual = max(0.0, times * phases[status.phase][1] - spent)
    rest = times * sum(seconds for _, seconds in phases[status.phase + 1 :])
    return phase_left, (usual if phase_left is None else phase_left) + rest
