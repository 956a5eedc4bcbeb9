"""The records of an export: its request, its progress, its result: request.json, status.json, export.json. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from core import files
from core.messages import Message, msg
from core.values import Frozen

ExportKind = Literal["adapter", "merged", "gguf", "gguf-lora"]
# What can be asked for; ollama is gguf: both come with a Modelfile. lmstudio is gguf too, and the file is then given to
# LM Studio.
KINDS: dict[str, ExportKind] = {"adapter": "adapter", "merged": "merged", "gguf": "gguf", "ollama": "gguf",
    "lmstudio": "gguf",
                                "gguf-lora": "gguf-lora"}  # fmt: skip
QUANTS = ("q4_k_m", "q5_k_m", "q6_k", "q8_0", "f16", "bf16")
# How the name of a file begins that holds what a model sees or hears by; LM Studio and llama.cpp know it by that.
MMPROJ = "mmproj-"
GGUF_KINDS = ("gguf", "gguf-lora")
MOST_STRENGTH = 4.0
LONGEST_MERGED = "out/model-00001-of-00004.safetensors"
State = Literal["starting", "running", "done", "failed", "cancelled"]
# Stages of the worker's own; the others (a model being fetched) have their sentence under `stage.`.
STAGES = frozenset({"starting", "copying", "copying_base", "fetching_tools", "merging", "comparing", "proving_adapter",
    "proving_export",
                    "layers_of_adapter", "layers_of_export", "publishing", "asking_hub", "sending", "committing",
                    "converting_gguf", "unpacking_gguf", "quantising", "asking_llamacpp"})  # fmt: skip


class ExportRequest(Frozen):
    """What is asked of the worker: request.json."""

    v: int = 1
    workspace: str
    run: str
    kind: ExportKind
    quant: str | None = None
    checkpoint: str | None = None
    keep_unproven: bool = False
    strength: float = 1.0
    base_gguf: str | None = None  # of a LoRA in GGUF: the person's own file of the base, which it is to go with

    @property
    def name(self) -> str:
        """The folder's name. A checkpoint is part of it, so that it never replaces the export of the whole run; so is a
        strength."""
        strength = f"x{self.strength:g}" if self.strength != 1 else None
        return "-".join(filter(None, (self.run, self.checkpoint, self.kind, self.quant, strength)))


class Difference(Frozen):
    """A prompt whose greedy answers, or first tokens, are not the same."""

    prompt: str
    adapter: str
    export: str
    first_token_equal: bool


Proof = Literal["bytes", "whole", "layers", "llamacpp"]


class ExportCheck(Frozen):
    """What the proof found (core.export.proof says which there are). Losses in nats, of the export and of the adapter
    on the same 16-bit base: mean over all answer tokens, and over all tokens of the same rows (`text`), where damage
    shows that answers learned by heart hide. None where nothing was asked: an adapter, and answers that had to be
    written first."""

    proof: Proof = "whole"
    tensors: int = 0  # compared one by one; 0 in what was exported before there was such a comparison
    tensors_off: tuple[str, ...] = ()
    mean_loss_adapter: float | None = None
    mean_loss_export: float | None = None
    mean_text_loss_adapter: float | None = None
    mean_text_loss_export: float | None = None
    first_tokens_equal: int | None = None
    prompts_read_alike: int  # the export's own tokenizer and template give the training's token ids
    prompts: int
    own_prompts: bool  # rows of the run's data; else built-in questions
    passed: bool
    differences: tuple[Difference, ...] = ()
    compute: str = ""  # device and dtype of both sides, or the build of llama.cpp
    # Of a proof in llama.cpp, with the divergence (nats) of the file from the 16-bit file that it was made of, and of
    # that one from the adapter.
    quant: str | None = None
    divergence: float | None = None
    divergence_16: float | None = None
    reasons: tuple[Message, ...] = ()  # why a proof in llama.cpp failed

    @property
    def found(self) -> Message:
        """Which proof was made and what it found, without the verdict."""
        if self.proof == "llamacpp":
            return msg("export.found", found=self._found_in_llamacpp())
        parts = []
        if self.tensors:
            key = "export.found_copy" if self.proof == "bytes" else "export.found_tensors"
            parts.append(msg(key, right=max(0, self.tensors - len(self.tensors_off)), tensors=self.tensors))
        if self.mean_loss_adapter is not None:
            losses = {"export": shown_loss(self.mean_loss_export), "adapter": shown_loss(self.mean_loss_adapter)}
            parts.append(msg("export.found_losses", **losses))
        if self.first_tokens_equal is not None:
            parts.append(msg("export.found_words", equal=self.first_tokens_equal, prompts=self.prompts))
        if self.proof == "layers":
            parts.append(msg("export.found_by_layer"))
        elif self.proof == "whole":
            key = "export.found_difference" if len(self.differences) == 1 else "export.found_differences"
            parts.append(msg(key, different=len(self.differences)))
        return msg("export.found", found=parts)

    @property
    def type_text(self) -> str:
        return {"lora": "LoRA"}.get(self.quant or "", (self.quant or "").upper())

    def _found_in_llamacpp(self) -> list[Message]:
        """ "Q4_K_M: 19 of 20 first words as the adapter's; loss 0.04 higher"."""
        more = more_loss(self)
        values = {"quant": self.type_text, "equal": self.first_tokens_equal, "prompts": self.prompts}
        parts = [msg("gguf.found_words", **values)]
        parts.append(msg("gguf.found_higher" if more >= 0 else "gguf.found_lower", loss=abs(more)))
        if self.tensors:
            parts.append(
                msg("export.found_tensors", right=max(0, self.tensors - len(self.tensors_off)), tensors=self.tensors)
            )
        return [*parts, msg("gguf.found_where", compute=self.compute)]


def more_loss(check: ExportCheck) -> float:
    """Of a proof in llama.cpp: how much higher its loss is than the adapter's, on the answers where there are any."""
    if check.mean_loss_adapter is not None and check.mean_loss_export is not None:
        return check.mean_loss_export - check.mean_loss_adapter
    return (check.mean_text_loss_export or 0.0) - (check.mean_text_loss_adapter or 0.0)


def shown_loss(loss: float | None) -> float | str:
    return "?" if loss is None else loss


class ExportResult(Frozen):
    """export.json of a finished export."""

    v: int = 1
    name: str
    run: str
    run_name: str
    kind: ExportKind
    quant: str | None = None
    checkpoint: str | None = None
    strength: float = 1.0
    base: str
    dtype: str
    files: dict[str, int]  # name: bytes
    check: ExportCheck
    notes: tuple[Message, ...] = ()
    ollama_name: str | None = None
    created: float
    seconds: float
    phases: tuple[tuple[str, float], ...] = ()  # stages in their order, with their seconds

    @property
    def bytes(self) -> int:
        return sum(self.files.values())

    @property
    def gguf(self) -> str:
        """The file that a program opens, "" where there is none; what the model sees by lies beside it."""
        return next((name for name in self.files if name.endswith(".gguf") and not name.startswith(MMPROJ)), "")

    @property
    def mmproj(self) -> str:
        return next((name for name in self.files if name.startswith(MMPROJ)), "")


class ExportStatus(Frozen):
    """status.json: how far an export is. fraction: of this stage, or None where it cannot be told; phase: which stage
    that is, from 0, and phase_since when it began."""

    v: int = 1
    state: State = "starting"
    stage: str = "starting"
    fraction: float | None = None
    message: Message | None = None
    busy: bool = False  # failed only because somebody else holds the device
    check: ExportCheck | None = None  # the numbers, also of a proof that failed
    pid: int | None = None
    since: float = 0.0
    phase: int = 0
    phase_since: float = 0.0
    awake: Message | None = None  # whether this PC may fall asleep under it

    @property
    def active(self) -> bool:
        return self.state in ("starting", "running")

    @property
    def stage_text(self) -> Message:
        return Message(key=f"export.stage_{self.stage}" if self.stage in STAGES else f"stage.{self.stage}")


def read_result(folder: Path) -> ExportResult | None:
    return files.read_model(ExportResult, folder / "export.json")
