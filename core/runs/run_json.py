"""Contents of run.json: the facts of a run beside its recipe and state, from its plan to the adapter that was kept.

`Runs.create` writes it with what the form or the command knows; from then on only the holder of run.lock changes it, by
`RunFolder.add_facts`: the worker while it lives, else the supervisor or the command that resumes the run. It is
replaced as a whole, so a crash leaves the old file complete, beside at most a hidden `.run.json.tmp-*`.

`v` is 1 and may be missing. Unknown keys (of later versions) are preserved. A value of the wrong type reads as absent:
a page must not fail because of one damaged number.
"""

from __future__ import annotations

from typing import Literal, Self

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

from core.files import JsonObject
from core.messages import Message

_FROM_FILE = {"from_file": True}  # validation context for files, in which any value may be damaged


class _Part(BaseModel):
    """Base of the models in run.json: strict when built by code, lenient when read from a file."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Parse a value of a file. Damaged fields take their defaults, unknown keys are kept. Never raises."""
        return cls.model_validate(value if isinstance(value, dict) else {}, context=_FROM_FILE)

    @field_validator("*", mode="wrap")
    @classmethod
    def _absent_where_damaged(
        cls, value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> object:
        """Give an invalid field its default when a file is read (with a context); elsewhere raise as usual."""
        try:
            return handler(value)
        except ValidationError:
            if info.context is None or info.field_name is None:
                raise
            return cls.model_fields[info.field_name].get_default(call_default_factory=True)

    @model_validator(mode="before")
    @classmethod
    def _no_key_misspelt(cls, value: object, info: ValidationInfo) -> object:
        """Raise ValueError for an unknown key, unless it is of a file."""
        if info.context is None and isinstance(value, dict) and (unknown := value.keys() - cls.model_fields.keys()):
            raise ValueError(f"no fact of {cls.__name__}: {', '.join(sorted(unknown))}")
        return value


class TrainedOn(_Part):
    """The data set of a run.

    sha256: of its file, compared when the run is resumed; rows: those that can be read; version: of an edited set;
    made_by: the model that wrote its rows from documents (core/chat/making), "" if none did.
    """

    id: str = ""
    name: str = ""
    sha256: str = ""
    rows: int | None = None
    version: int = 0
    made_by: str = ""


class Parent(_Part):
    """The run whose adapter this one continues to train.

    step: of that adapter; eval_loss: measured up to that step; template: fingerprint of its chat template.
    """

    run: str = ""
    name: str = ""
    step: int = 0
    eval_loss: float | None = None
    template: str | None = None


class MemoryFacts(_Part):
    """Memory of the longest batch, tried before the first step (core/training/memory/probe).

    planned_gib: of the plan, for its max_length; arithmetic_gib: the estimate for this very batch, predicted_gib: the
    same times `factor`, which is known from `runs` earlier runs; learned: trained tokens; measured_gib: None if it did
    not fit; peak_gib: of the whole run, if that was more.
    """

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
    """Predicted and real time of the training.

    said_seconds: predicted for the whole training after `after_steps` steps of an attempt. took_seconds: of all
    attempts so far, a killed one up to its last checkpoint.
    """

    after_steps: int | None = None
    said_seconds: float | None = None
    took_seconds: float | None = None


class Spill(_Part):
    """An overflow of memory while it lasts (core/runs/spill).

    over_gib: memory in the slower place, as far as can be told. slower: times the usual time of a step.
    """

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
    """The parts of `advice` that are read again.

    usual_rate: learning rate for a model of this size; budget: the device of the plan.
    """

    usual_rate: float | None = Field(None, gt=0, lt=1)
    estimate: EstimateFacts = EstimateFacts()
    budget: BudgetFacts = BudgetFacts()


class WeightedAdapter(_Part):
    """An adapter of a combination: its folder, its name (a run's, with @checkpoint), its weight."""

    folder: str = ""
    name: str = ""
    weight: float = Field(1.0, allow_inf_nan=True)


class Combination(_Part):
    """Adapters that are combined into one, with the arguments of PEFT's `add_weighted_adapter`. seed: of dare."""

    adapters: list[WeightedAdapter] = []
    combination_type: str = "cat"
    density: float = Field(0.5, allow_inf_nan=True)
    majority_sign_method: str = "total"
    svd_rank: int | None = None
    seed: int = Field(0, ge=0, lt=2**63)


class RunFacts(_Part):
    """All facts of a run, in the order in which they become known.

    launcher: "app", or "command" with its process; brought_from: where an adapter that was trained elsewhere comes from
    (core/runs/foreign), or combined: how it was made of others (core/export/combination); not_further: its settings
    that training here does not have; advice: as of the plan (core/advice); wanted_device: a GPU's uuid or "cpu";
    wanted_beside: the others of several GPUs, uuid to name; offered_device: a GPU in place of a missing one, accepted
    by resuming the run; ranks: if the run continues with others than its recipe's; memory_limit_gib: if the run may use
    less than there is; probe_rows: rows to check an export with; device, dtype: computed on and in, and dtype_reason;
    device_uuid and device_name of the GPU; base_weights, template: fingerprints; enable_thinking: whether prompts ask
    the model to think, as most of the trained rows do; eval_steps, save_steps: resolved; peak_memory_bytes: torch's, or
    the process's; adapter_step: of the adapter that was kept, adapter_is_best: whether that is the best measured one.
    """

    v: int = 1
    name: str = ""
    created: float = Field(0.0, ge=0)  # seconds since 1970
    launcher: str = ""
    launcher_pid: int | None = None
    launcher_started: float | None = None
    data: TrainedOn | None = None
    brought_from: str = ""
    combined: Combination | None = None
    not_further: list[str] = []
    advice: JsonObject | None = None
    wanted_device: str | None = None
    wanted_beside: dict[str, str] = {}
    offered_device: str | None = None
    ranks: int | None = None
    predicted_seconds: float | None = None
    memory_limit_gib: float | None = Field(None, gt=0)
    parent: Parent | None = None
    probe_rows: list[JsonObject] = []
    enable_thinking: bool | None = None
    dtype: str | None = None
    device: str | None = None
    device_uuid: str | None = None
    device_name: str | None = None
    dtype_reason: Message | None = None
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
    best_reward: float | None = None
    peak_memory_bytes: int | None = None
    adapter_step: int | None = None
    adapter_is_best: bool | None = None

    @property
    def planned(self) -> AdviceFacts:
        """Return the usual learning rate, the memory estimate and the budget of the plan, read from `advice`; defaults
        where it is missing or damaged."""
        return AdviceFacts.from_json(self.advice)

    def set_fields(self) -> JsonObject:
        """Return the fields that were set (also those set to None), as JSON."""
        return self.model_dump(mode="json", exclude_unset=True)
