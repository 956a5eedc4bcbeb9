"""run.json: the facts of a run beside its recipe and state, from its plan to the adapter that was kept.

Made by `Runs.create` with what the form or the command knows; from then on its one writer is the holder of run.lock, by
`RunFolder.add_facts`: the worker while it lives, else the supervisor or the command that lets the run go on. It is
replaced whole, so a crash leaves the old file complete, beside at most a hidden `.run.json.tmp-*`.

`v` is 1 and may be missing. Keys of a later version stay in the file when others are written. A value of another type
than said here reads as absent: a page must not fall over one damaged number.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from core.messages import Message

_FROM_FILE = {"from_file": True}  # the context in which anything may stand where a value is expected


class _Part(BaseModel):
    """Said by our own code it takes exactly its fields; read from a file it takes what is right and keeps what it does
    not know."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    @classmethod
    def of(cls, value: Any) -> Self:
        """What a file holds. Never raises."""
        return cls.model_validate(value if isinstance(value, dict) else {}, context=_FROM_FILE)

    @field_validator("*", mode="wrap")
    @classmethod
    def _absent_where_damaged(cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        try:
            return handler(value)
        except ValidationError:
            if info.context is None or info.field_name is None:
                raise
            return cls.model_fields[info.field_name].get_default(call_default_factory=True)

    @model_validator(mode="before")
    @classmethod
    def _no_key_misspelt(cls, value: Any, info: ValidationInfo) -> Any:
        if info.context is None and isinstance(value, dict) and (unknown := value.keys() - cls.model_fields.keys()):
            raise ValueError(f"no fact of {cls.__name__}: {', '.join(sorted(unknown))}")
        return value


class TrainedOn(_Part):
    """The data set. sha256: of its file, which a run that goes on compares; rows: that can be read; version: of a set
    that was changed since it was added."""

    id: str = ""
    name: str = ""
    sha256: str = ""
    rows: int | None = None
    version: int = 0


class Parent(_Part):
    """The run whose adapter this one trains further. step: of that adapter; eval_loss: measured until there; template:
    its chat template's fingerprint."""

    run: str = ""
    name: str = ""
    step: int = 0
    eval_loss: float | None = None
    template: str | None = None


class MemoryFacts(_Part):
    """The longest batch, tried before the first step (core/training/memory/probe). planned_gib: of the plan, for its
    max_length; arithmetic_gib: for this very batch, predicted_gib: the same corrected by factor, known from so many
    runs; learned: of the tokens; measured_gib: None where it did not fit; peak_gib: of the whole run, where it was
    more."""

    planned_gib: float | None = None
    arithmetic_gib: float | None = None
    predicted_gib: float | None = None
    factor: float | None = None
    runs: int = 0
    limit_gib: float | None = None
    rows: int | None = None
    tokens: int | None = None
    learned: int | None = None
    allocated_gib: float | None = None
    reserved_gib: float | None = None
    card_used_gib: float | None = None
    seconds: float | None = None
    measured_gib: float | None = None
    peak_gib: float | None = None


class TimeFacts(_Part):
    """said: of the whole training, after so many steps of an attempt. took: all attempts so far, a killed one up to its
    last checkpoint."""

    after_steps: int | None = None
    said_seconds: float | None = None
    took_seconds: float | None = None


class Spill(_Part):
    """Memory that overflows, while it does (core/runs/spill). over_gib: how much is in the wrong memory, as far as can
    be told.
    slower: times the usual time of a step."""

    kind: Literal["shared_memory", "disk"]
    over_gib: float
    slower: float
    step: int


class EstimateFacts(_Part):
    on_card_gib: float | None = None


class BudgetFacts(_Part):
    kind: Literal["card", "cpu"] | None = None
    name: str | None = None
    card_uuid: str | None = None
    equal_cards: int = 0
    equal_free_gib: float | None = None


class AdviceFacts(_Part):
    """Of `advice`, what is read again. usual_rate: of learning, for a model of this size; budget: what it was planned
    for."""

    usual_rate: float | None = Field(None, gt=0, lt=1)
    estimate: EstimateFacts = EstimateFacts()
    budget: BudgetFacts = BudgetFacts()


class RunFacts(_Part):
    """In the order in which they become known. launcher: "app", or "command" with its process; advice: as it was when
    the run was planned (core/advice); wanted_device: a card's uuid or "cpu"; wanted_beside: of several cards the
    others, uuid to name; offered_device: a card's, in place of one that is gone, taken by who lets the run go on;
    ranks: where the run goes on with others than its recipe's; memory_limit_gib: that the run may have, where it is to
    have less than there is; probe_rows: that an export is proven with; device, dtype: computed on and in, and why,
    device_uuid and device_name of the card; base_weights, template: their fingerprints;
    enable_thinking: whether its prompts ask the model to think, as most of what was learned; eval_steps, save_steps:
    resolved; peak_memory_bytes: torch's, or the process's; adapter_step: of the adapter that was kept,
    adapter_is_best: whether that is the best measured."""

    v: int = 1
    name: str = ""
    created: float = Field(0.0, ge=0)  # seconds since 1970
    launcher: str = ""
    launcher_pid: int | None = None
    launcher_started: float | None = None
    # a word of its worker's command line, of one that had waited for a run (core/queue/standby)
    worker_mark: str | None = None
    data: TrainedOn | None = None
    advice: dict[str, Any] | None = None
    wanted_device: str | None = None
    wanted_beside: dict[str, str] = {}
    offered_device: str | None = None
    ranks: int | None = None
    predicted_seconds: float | None = None
    memory_limit_gib: float | None = Field(None, gt=0)
    parent: Parent | None = None
    probe_rows: list[dict[str, Any]] = []
    enable_thinking: bool | None = None
    dtype: str | None = None
    device: str | None = None
    device_uuid: str | None = None
    device_name: str | None = None
    dtype_reason: Message | None = None
    torch_compile: bool | None = None  # whether compiled functions are used; None where that was not tried
    trainable_params: int | None = None
    model_folder: str | None = None
    base_weights: str | None = None
    template: str | None = None
    rows_trained: int | None = None
    rows_measured: int | None = None
    versions: dict[str, str] | None = None
    python: str | None = None
    total_steps: int | None = None
    eval_steps: int | None = None
    save_steps: int | None = None
    memory: MemoryFacts | None = None
    time: TimeFacts | None = None
    spill: Spill | None = None
    best_checkpoint: str | None = None
    best_eval_loss: float | None = None
    peak_memory_bytes: int | None = None
    adapter_step: int | None = None
    adapter_is_best: bool | None = None

    @property
    def planned(self) -> AdviceFacts:
        return AdviceFacts.of(self.advice)

    def given(self) -> dict[str, Any]:
        """As JSON has it: what was said, None too, and nothing of what was not."""
        return self.model_dump(mode="json", exclude_unset=True)
