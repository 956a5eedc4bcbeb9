"""Records of an export on disk: its request (request.json), progress (status.json) and result (export.json). No
torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from core import files
from core.messages import Message, msg
from core.values import Frozen

ExportKind = Literal["adapter", "merged", "gguf"]
# Targets that the user can choose. ollama and lmstudio are gguf, which always comes with a Modelfile; for lmstudio the
# file is then put into LM Studio's folder.
KINDS: dict[str, ExportKind] = {
    "adapter": "adapter",
    "merged": "merged",
    "gguf": "gguf",
    "ollama": "gguf",
    "lmstudio": "gguf",
}
QUANTS = ("q4_k_m", "q5_k_m", "q6_k", "q8_0", "f16", "bf16")
MAX_STRENGTH = 4.0
LONGEST_MERGED = "out/model-00001-of-00004.safetensors"  # the longest path in build/, for Windows' limit
State = Literal["starting", "running", "done", "failed", "cancelled"]
# Stages with a text under `export.stage_`; the others (a model being downloaded) have theirs under `stage.`.
STAGES = frozenset({"starting", "copying", "fetching_tools", "merging", "comparing", "proving_adapter",
    "proving_export",
                    "layers_of_adapter", "layers_of_export", "publishing", "asking_hub", "sending", "committing",
                    "converting_gguf", "quantising", "asking_llamacpp"})  # fmt: skip


class ExportRequest(Frozen):
    """The worker's order: request.json."""

    v: int = 1
    workspace: str
    run: str
    kind: ExportKind
    quant: str | None = None
    checkpoint: str | None = None
    keep_unproven: bool = False
    strength: float = 1.0

    @property
    def name(self) -> str:
        """The folder's name. It contains checkpoint and strength, so that such an export never replaces the
        plain one."""
        strength = f"x{self.strength:g}" if self.strength != 1 else None
        return "-".join(filter(None, (self.run, self.checkpoint, self.kind, self.quant, strength)))


class Difference(Frozen):
    """A prompt whose greedy answers or first tokens differ."""

    prompt: str
    adapter: str
    export: str
    first_token_equal: bool


Proof = Literal["bytes", "whole", "layers", "llamacpp"]


class ExportCheck(Frozen):
    """The result of a verification; core.export.verification describes the methods.

    Losses in nats, of the export and of the adapter on the same 16-bit base: mean over all answer tokens, and over all
    tokens of the same rows (`text`), which shows damage that answers learned by heart hide. None if nothing was
    measured: for an adapter, and for answers that had to be generated first.
    """

    proof: Proof = "whole"
    tensors: int = 0  # compared one by one; 0 in records of older versions, which did not compare them
    tensors_off: tuple[str, ...] = ()
    mean_loss_adapter: float | None = None
    mean_loss_export: float | None = None
    mean_text_loss_adapter: float | None = None
    mean_text_loss_export: float | None = None
    first_tokens_equal: int | None = None
    prompts_read_alike: int  # the export's own tokenizer and template give the training's token ids
    prompts: int
    own_prompts: bool  # the prompts are rows of the run; else built-in questions
    passed: bool
    differences: tuple[Difference, ...] = ()
    compute: str = ""  # device and dtype of both sides, or the build of llama.cpp
    # For llama.cpp: the quantization, the divergence (nats) of the file from the 16-bit file that it was made of, and
    # that of the 16-bit file from the adapter.
    quant: str | None = None
    divergence: float | None = None
    divergence_16: float | None = None
    reasons: tuple[Message, ...] = ()  # why a verification in llama.cpp failed

    @property
    def summary(self) -> Message:
        """Return a sentence with the results of this method (tensors, losses, first tokens, other answers), without the
        verdict."""
        if self.proof == "llamacpp":
            return msg("export.found", found=self._llamacpp_results())
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
        """The quantization as people write it, "Q4_K_M"; "" if it is none."""
        return (self.quant or "").upper()

    def _llamacpp_results(self) -> list[Message]:
        """The parts of a sentence such as "Q4_K_M: 19 of 20 first words as the adapter's; loss 0.04 higher"."""
        pair = (self.mean_loss_adapter, self.mean_loss_export)
        adapter, export = (self.mean_text_loss_adapter, self.mean_text_loss_export) if None in pair else pair
        more = (export or 0.0) - (adapter or 0.0)
        values = {"quant": self.type_text, "equal": self.first_tokens_equal, "prompts": self.prompts}
        parts = [msg("gguf.found_words", **values)]
        parts.append(msg("gguf.found_higher" if more >= 0 else "gguf.found_lower", loss=abs(more)))
        if self.tensors:
            parts.append(
                msg("export.found_tensors", right=max(0, self.tensors - len(self.tensors_off)), tensors=self.tensors)
            )
        return [*parts, msg("gguf.found_where", compute=self.compute)]


def shown_loss(loss: float | None) -> float | str:
    """Return a loss for a message, "?" in place of one that was not measured."""
    return "?" if loss is None else loss


class ExportResult(Frozen):
    """A finished export: export.json."""

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
        """The GGUF file, "" without one."""
        return next((name for name in self.files if name.endswith(".gguf")), "")


class ExportStatus(Frozen):
    """Progress of an export: status.json.

    fraction: done share of the stage, or None if unknown; phase: number of the stage, from 0; phase_since: when it
    began.
    """

    v: int = 1
    state: State = "starting"
    stage: str = "starting"
    fraction: float | None = None
    message: Message | None = None
    busy: bool = False  # failed only because another process holds the device
    check: ExportCheck | None = None  # the results, also of a failed verification
    pid: int | None = None
    since: float = 0.0
    phase: int = 0
    phase_since: float = 0.0
    awake: Message | None = None  # whether this PC may go to sleep meanwhile

    @property
    def active(self) -> bool:
        """True until the export has ended in any way."""
        return self.state in ("starting", "running")

    @property
    def stage_text(self) -> Message:
        """Return the message that names the present stage: one of an export's own stages, else one of a download or
        another job."""
        return Message(key=f"export.stage_{self.stage}" if self.stage in STAGES else f"stage.{self.stage}")


def read_result(folder: Path) -> ExportResult | None:
    """Return the record of the finished export in folder; None if it is missing or damaged."""
    return files.read_model(ExportResult, folder / "export.json")
