"""The settings of a run, complete and shareable: recipe.yaml.

Every field is the only place of its default and has the help text that the page shows. Names are those of peft and
transformers, so that people can search for them. `None` means "resolved by core.advice.plan before Start"; eval_steps
and save_steps, which depend on the number of steps, are resolved by the worker, which writes them to run.json.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from core import files
from core.errors import RecipeError
from core.messages import YAML_ERRORS, Message, msg
from core.reward_settings import Rewards

Goal = Literal[
    "style", "question_answer", "instructions", "chatbot", "writing", "classification",
    "domain_knowledge", "code_math", "function_calling", "agents",
]  # fmt: skip
# Tried in this order if the recipe names none; core/data/formats describes each.
Format = Literal["messages", "sharegpt", "alpaca", "question_answer", "prompt_completion", "text_label", "text"]
ColumnRole = Literal["question", "answer", "system", "context", "text", "ignore"]
MAX_RANK = 256
USUAL_BETA = {"dpo": 0.1, "orpo": 0.1, "simpo": 2.0, "kto": 0.1}  # TRL's; SimPO's from its paper, which uses 2 to 10
OBJECTIVES_OF = {  # those that a setting of train has an effect on
    "beta": ("dpo", "orpo", "simpo", "kto"), "loss_type": ("dpo",), "label_smoothing": ("dpo", "simpo"),
    "simpo_gamma": ("simpo",), "sft_weight": ("dpo", "simpo"), "desirable_weight": ("kto",),
    "undesirable_weight": ("kto",),
}  # fmt: skip
OF_PREFERENCES = ("objective", *OBJECTIVES_OF)
# A learning rate and a number of steps that suit one objective ruin the other: DPO takes a tenth of the rate.
OF_ONE_OBJECTIVE = ("learning_rate", "max_steps", "num_train_epochs")
NO_DATA = "-"  # data.source where a recipe leaves the dataset to the form
LONGEST_PROMPT = 500  # characters of a user's own question


RETIRED = {"torch_compile"}  # settings that recipes of earlier versions may have, without effect since


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Model(_Section):
    id: str = Field(
        "starter",
        min_length=1,
        max_length=200,
        description=(
            "The base model: starter, a Hub name such as owner/name, or library:name for one of your own folders."
        ),
    )
    revision: str | None = Field(
        None, max_length=100, description="A branch, tag or commit on the Hub; empty means the main branch."
    )


class Data(_Section):
    source: str = Field(
        min_length=1,
        max_length=1000,
        description="The dataset to train on: a sample, one you added, or (in a command) a file.",
    )
    format: Format | None = Field(None, description="The format of the rows; empty means detected from the rows.")
    columns: dict[str, ColumnRole] | None = Field(
        None,
        description="What each column is, such as {Frage: question, Antwort: answer}; empty means by name, or guessed.",
    )
    encoding: str | None = Field(
        None,
        min_length=1,
        max_length=40,
        description="Encoding of a text file, such as utf-8, gb18030 or cp1252; empty means detected.",
    )
    sheet: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Which sheet of a spreadsheet to read; empty means the first that has rows.",
    )
    header: bool | None = Field(
        None,
        description=(
            "For a table: whether the first row contains the column names; empty means detected, with a note "
            "when unclear."
        ),
    )
    voice: str | None = Field(
        None,
        max_length=200,
        description=(
            "For an exported chat: whose messages become the answers; empty means the person who wrote the most."
        ),
    )
    gap_hours: float | None = Field(
        None,
        ge=0.25,
        le=8760,
        description="For an exported chat: hours of silence between conversations; empty means 6.",
    )
    pseudonyms: bool | None = Field(
        None,
        description=(
            "For an exported chat: replace the others' names, numbers, addresses and links with placeholders; "
            "empty means yes for chats between people."
        ),
    )
    version: int | None = Field(
        None, ge=0, description="Which version of an edited dataset, 0 for the file as added; empty means the newest."
    )
    rated: bool | None = Field(
        None,
        description=(
            "Rows whose answer is marked as bad (label or kto_tag is false): keep them, for train.objective "
            "kto; empty: kept for kto, skipped otherwise."
        ),
    )
    max_length: int = Field(
        512,
        ge=8,
        le=131072,
        description="Maximum length of an example in tokens; longer ones are truncated, split or skipped.",
    )
    long_examples: Literal["cut", "split", "drop"] = Field(
        "cut",
        description=(
            "What happens to examples that are too long: truncated at the end, split into chunks, or skipped. "
            "Plain text is never truncated but split at paragraphs and sentences."
        ),
    )
    overlap: int = Field(
        0,
        ge=0,
        le=65536,
        description=(
            "Tokens shared by neighbouring chunks of plain text, at most half of max_length. In the second "
            "chunk they are context only."
        ),
    )
    join_paragraphs: bool | None = Field(
        None,
        description=(
            "Join the paragraphs of a text file up to max_length; false makes each an example. Empty means yes, "
            "except for a run that began before they were joined."
        ),
    )
    packing: bool = Field(
        True, description="Pack examples into one row instead of padding: faster; none attends to another."
    )
    eval_fraction: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="Share of the rows used as the validation set, which is not trained on. "
        "A dataset with validation rows of its own uses those instead.",
    )
    train_on: Literal["assistant", "everything"] = Field(
        "assistant",
        description=(
            "Compute the loss on the answers only, or on every token including prompts: a little slower, with "
            "hardly any more memory."
        ),
    )
    enable_thinking: bool | None = Field(
        None,
        description=(
            "Train on the thinking before an answer: true as the template prompts for it, false removes it "
            "and "
            "prompts without it; empty: where a row has some."
        ),
    )
    mask_history: bool = Field(
        False,
        description=(
            "When the template shows earlier answers differently from how they were written (without their "
            "thinking), train on the last turn only; off: each such answer becomes its own example."
        ),
    )
    deduplicate: bool = Field(
        False,
        description="Remove rows that repeat an earlier one (ignoring case, spaces and punctuation); they are counted.",
    )
    drop_leaked: bool = Field(
        False, description="Exclude from training rows that are also in the validation set; they are counted."
    )
    drop_near_leaked: bool = Field(
        False, description="Exclude from training near-duplicates of validation rows; they are counted."
    )


class Adapter(_Section):
    method: Literal["lora", "qlora"] = Field(
        "lora",
        description=(
            "LoRA keeps the base model in 16 bit; QLoRA keeps it in 4 bit and needs about a third of the memory."
        ),
    )
    r: int = Field(
        8, ge=1, le=MAX_RANK, description="Rank: the capacity of the adapter. 4, 8 or 16 are nearly always enough."
    )
    lora_alpha: int | None = Field(
        None, ge=1, le=1024, description="Scaling of the adapter; empty means twice the rank."
    )
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Share of adapter inputs dropped at random; costs memory.")
    target_modules: str = Field(
        "all-linear",
        pattern=r"^[A-Za-z0-9_.,\- ]{1,400}$",
        description="Layers that get an adapter: all-linear, or names separated by commas such as q_proj,v_proj.",
    )
    target_parameters: Literal["none", "experts"] = Field(
        "none",
        description=(
            "Adapters on the routed experts of a mixture-of-experts model too: experts are most of its "
            "weights, so the adapter gets many times larger and each step rebuilds all experts of a layer, "
            "which the plan counts. Only with plain LoRA or rsLoRA."
        ),
    )
    load_in_8bit: bool = Field(
        False,
        description=(
            "LoRA with an 8-bit base model (LLM.int8): about half the memory of 16 bit for its layers, more "
            "precise than 4 bit; steps may be slower."
        ),
    )
    use_rslora: bool = Field(
        False,
        description="Scale by alpha divided by the square root of r instead of r; matters from rank 64. Costs nothing.",
    )
    use_dora: bool = Field(
        False,
        description=(
            "DoRA also trains the magnitude of each weight row: a step takes about twice as long and more "
            "memory per layer, which the plan counts."
        ),
    )
    init_lora_weights: Literal["true", "pissa", "pissa_niter_16"] = Field(
        "true",
        description=(
            "How the adapter is initialized: at zero, or with the principal components of the weights "
            "(PiSSA). "
            "Memory and speed as LoRA; pissa_niter_16 takes seconds before the start, pissa minutes or more; "
            "the file is twice as large."
        ),
    )

    @field_validator("init_lora_weights", mode="before")
    @classmethod
    def _as_peft_writes_it(cls, value: object) -> object:
        """Turn True, as peft writes it, into "true"; other values stay."""
        return "true" if value is True else value

    @property
    def is_pissa(self) -> bool:
        """True if the adapter starts from the principal components of the base's weights (PiSSA) instead of at zero."""
        return self.init_lora_weights != "true"

    @property
    def trains_experts(self) -> bool:
        """True if routed experts get adapters too (target_parameters)."""
        return self.target_parameters == "experts"


class Train(_Section):
    @model_validator(mode="before")
    @classmethod
    def _without_retired(cls, values: object) -> object:
        """Drop the settings that earlier versions had (RETIRED)."""
        return {key: values[key] for key in values if key not in RETIRED} if isinstance(values, Mapping) else values

    objective: Literal["sft", "dpo", "orpo", "simpo", "kto", "grpo"] = Field(
        "sft",
        description=(
            "What to train: sft trains on the answer of each row; dpo, orpo and simpo train the model to "
            "prefer the better answer (chosen) to the worse one (rejected); kto trains on single answers "
            "marked good or bad (label); grpo draws answers and trains by the rewards of judges "
            "(section rewards)."
        ),
    )
    beta: float | None = Field(
        None,
        gt=0,
        le=100,
        description=(
            "For preference training: how much the difference between the two answers counts; with dpo a "
            "higher beta stays closer to the base model. Empty: 0.1, with simpo 2."
        ),
    )
    loss_type: Literal["sigmoid", "sigmoid_norm", "robust"] = Field(
        "sigmoid",
        description=(
            "For dpo: sigmoid as in the paper; sigmoid_norm is length-normalized, so that long answers count "
            "no more; robust expects a share label_smoothing of the pairs to be swapped."
        ),
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="Share of pairs that may be swapped: for dpo with loss_type robust, and for simpo.",
    )
    simpo_gamma: float = Field(
        0.5, ge=0, le=100, description="For simpo: the margin by which the better answer should win, per token."
    )
    sft_weight: float = Field(
        0.0,
        ge=0,
        le=100,
        description=(
            "For dpo and simpo: weight of an additional SFT loss on the better answers; 0 for none. orpo always uses 1."
        ),
    )
    desirable_weight: float = Field(1.0, ge=0, le=100, description="For kto: weight of the good answers.")
    undesirable_weight: float = Field(
        1.0,
        ge=0,
        le=100,
        description="For kto: weight of the bad answers; raise the weight of the kind that is much rarer.",
    )
    learning_rate: float = Field(
        2e-4, gt=0, le=1, description="Size of each optimizer step. Too high, and the loss jumps."
    )
    num_train_epochs: float = Field(3.0, gt=0, le=1000, description="How often the whole dataset is trained on.")
    loraplus_lr_ratio: float | None = Field(
        None,
        ge=1,
        le=1024,
        description=(
            "LoRA+: the learning rate of the B matrices as a multiple of that of A; 16 is usual, with a lower "
            "learning rate. Empty: the same for both. Costs nothing."
        ),
    )
    max_steps: int = Field(
        -1, ge=-1, le=10_000_000, description="Maximum optimizer steps; -1 means as the epochs need."
    )
    per_device_train_batch_size: int = Field(4, ge=1, le=1024, description="Examples per batch; more need more memory.")
    per_device_eval_batch_size: int = Field(4, ge=1, le=1024, description="Examples per batch in an evaluation.")
    gradient_accumulation_steps: int = Field(
        1, ge=1, le=4096, description="Batches accumulated before each optimizer step; needs no extra memory."
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="How the learning rate decays until the end. Costs nothing."
    )
    warmup_steps: int = Field(
        0, ge=0, le=1_000_000, description="Steps in which the learning rate rises from zero. Costs nothing."
    )
    warmup_ratio: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Warmup as a share of all steps, such as 0.03; used if warmup_steps is 0. Costs nothing.",
    )
    neftune_noise_alpha: float | None = Field(
        None,
        gt=0,
        le=1000,
        description=(
            "NEFTune: noise on the embeddings during training, usually 5; answers get longer and facts less "
            "exact. Empty: none. Costs next to nothing."
        ),
    )
    optim: Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit"] | None = Field(
        None, description="Optimizer. The 8-bit ones need a quarter of the memory. Empty: chosen automatically."
    )
    weight_decay: float = Field(
        0.0, ge=0, le=1, description="Pulls the adapter's weights slightly towards zero in each step."
    )
    max_grad_norm: float = Field(
        1.0, ge=0, le=1000, description="Maximum norm for gradient clipping; 0 means no clipping."
    )
    gradient_checkpointing: bool | None = Field(
        None, description="Recompute activations to save memory; about a third slower. Empty: on if needed."
    )
    activation_offload: bool = Field(
        False,
        description=(
            "Keep activations in RAM instead of GPU memory: for the last gigabyte, which the plan does not "
            "count; slower."
        ),
    )
    offload_layers: int = Field(
        0,
        ge=-1,
        le=2048,
        description=(
            "How many layers of the base model to keep in RAM instead of GPU memory, for a model larger than "
            "the GPU: each is copied to the GPU when it is needed, which takes time; the result is the same. "
            "-1: as few as fit requires."
        ),
    )
    ranks: int = Field(
        1,
        ge=1,
        le=16,
        description=(
            "How many GPUs train together, each with its own copy of the base model; the result is the same "
            "as "
            "on one GPU. Unless you choose which, those with the most free memory are used. Without a GPU: "
            "how many processes."
        ),
    )
    fsdp: bool = Field(
        False,
        description=(
            "FSDP2: the GPUs of a run (ranks) hold the base model together, each a part of every layer, for a "
            "model larger than one GPU; layers are gathered while they compute, which takes time; the result "
            "is the same."
        ),
    )
    spare_cores: int = Field(
        0,
        ge=0,
        le=1024,
        description=(
            "CPU cores left to other programs when training on the CPU; next to a busy program it "
            "automatically uses fewer threads if that is faster."
        ),
    )
    seed: int = Field(42, ge=0, lt=2**32, description="Random seed: the same seed gives the same run.")
    eval_steps: int | None = Field(None, ge=1, description="Steps between two evaluations; empty means five per run.")
    save_steps: int | None = Field(
        None, ge=1, description="Steps between two checkpoints; empty means at each evaluation."
    )
    early_stopping_patience: int | None = Field(
        None,
        ge=0,
        le=1000,
        description=(
            "Evaluations in a row without improvement after which training stops; 0 means never. Empty: "
            "three, "
            "or two fifths of all."
        ),
    )
    load_best_model_at_end: bool = Field(
        True,
        description=(
            "Keep the adapter with the lowest validation loss instead of the last one; without a validation "
            "set, the last."
        ),
    )
    sample_seconds: float = Field(
        4.0,
        ge=0,
        le=600,
        description="Seconds for sample answers, 5 % of a run at most, held-out questions, and test sets; 0: none.",
    )
    sample_prompts: tuple[
        Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_PROMPT)], ...
    ] = Field((), max_length=3, description="Up to three questions of your own for the sample answers, one per line.")
    report_to: tuple[Literal["tensorboard", "trackio", "wandb", "mlflow"], ...] = Field(
        (),
        max_length=4,
        description=(
            "Trackers that also get metrics, settings and sample answers, one per line: tensorboard, trackio, wandb or "
            "mlflow. Their packages must be installed; wandb sends to the internet, mlflow to the address it is set to."
        ),
    )
    save_total_limit: int = Field(
        2, ge=1, le=100, description="How many checkpoints to keep; the best one is kept in addition."
    )
    save_total_gib: float = Field(
        10.0,
        gt=0,
        le=100_000,
        description="Maximum disk space for a run's checkpoints, in GiB; the newest is always kept.",
    )

    @property
    def compares(self) -> bool:
        """True for preference training (dpo, orpo, simpo, kto), which compares two answers: those of a row, with kto
        its own and another row's."""
        return self.objective not in ("sft", "grpo")


class Recipe(_Section):
    version: Literal[1] = 1
    name: str = Field("", max_length=200, description="Name of this run; empty means named after its dataset.")
    goal: Goal | None = Field(None, description="What the model should become better at.")
    model: Model = Model()
    data: Data
    adapter: Adapter = Adapter()
    train: Train = Train()
    rewards: Rewards | None = Field(None, description="For objective grpo: the judges, and how answers are drawn.")

    @classmethod
    def parse(cls, value: object, where: str = "recipe") -> Recipe:
        """Turn value (parsed YAML) into a Recipe. kto implies rated rows, rewards that long ones are dropped. where:
        its name in errors. Raises RecipeError with up to eight problems, or every clash of settings."""
        if not isinstance(value, dict):
            raise RecipeError("recipe.not_a_mapping", where=where, found=type(value).__name__)
        try:
            recipe = cls.model_validate(value)
        except ValidationError as error:
            problems = "; ".join(_problem(item) for item in error.errors()[:8])
            raise RecipeError("recipe.invalid", where=where, problems=problems) from error
        if recipe.train.objective == "kto" and recipe.data.rated is None:  # kto needs them
            recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"rated": True})})
        if recipe.rewards:  # of a row that was cut, judges would expect half an answer; a later piece has no question
            recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"long_examples": "drop"})})
        if clashing := clashes(recipe.adapter) + _objective_clashes(recipe):
            raise RecipeError("recipe.clashes", problems=clashing)
        return recipe

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a recipe. Raises RecipeError if it is missing, too large (1 MiB), not UTF-8, not YAML, or not a
        recipe."""
        return cls.parse(read_yaml(path), where=path.name)

    def dump(self) -> str:
        """Return the recipe as YAML, with every setting written out."""
        return to_yaml(self.model_dump(mode="json"))

    def write(self, path: Path) -> None:
        """Write the recipe as YAML, complete or not at all. Raises OSError."""
        files.replace(path, self.dump())

    @property
    def row_length(self) -> int:
        """Maximum tokens of what is trained together: an example, both of a pair, or a prompt and a drawn answer."""
        drawn = self.rewards.max_completion_length if self.rewards else 0
        return self.data.max_length * (2 if self.train.compares else 1) + drawn

    @property
    def lora_alpha(self) -> int:
        """The adapter's lora_alpha, or twice its rank if it has none."""
        return self.adapter.lora_alpha or 2 * self.adapter.r


def clashes(adapter: Adapter) -> list[Message]:
    """Return a message for each two settings of the adapter that cannot be combined."""
    base_bits = 4 if adapter.method == "qlora" else 8 if adapter.load_in_8bit else 16
    rules = {
        "recipe.two_bases": adapter.method == "qlora" and adapter.load_in_8bit,
        # peft raises a TypeError: PiSSA subtracts its components from the weights, which must be unquantized.
        "recipe.pissa_quantised": adapter.is_pissa and base_bits < 16,
        # DoRA's magnitudes would belong to PiSSA's residual weights; peft's conversion drops them.
        "recipe.pissa_dora": adapter.is_pissa and adapter.use_dora,
        # Its conversion has twice the rank, at most 256.
        "recipe.pissa_rank": adapter.is_pissa and adapter.r > MAX_RANK // 2,
        # peft's layer on a parameter computes W + BA, so A has no input for dropout, and it supports no variant.
        "recipe.experts_dora": adapter.trains_experts and adapter.use_dora,
        "recipe.experts_pissa": adapter.trains_experts and adapter.is_pissa,
        "recipe.experts_dropout": adapter.trains_experts and adapter.lora_dropout > 0,
    }
    facts = {
        "bits": base_bits, "init": adapter.init_lora_weights, "r": adapter.r, "most": MAX_RANK // 2,
        "dropout": adapter.lora_dropout,
    }  # fmt: skip
    return [msg(key, **facts) for key, is_so in rules.items() if is_so]


def _objective_clashes(recipe: Recipe) -> list[Message]:
    """Return a message for each two settings of objective, ranks, offloading and data that cannot be combined."""
    train, objective, drawn = recipe.train, recipe.train.objective, recipe.rewards
    rules = {
        "recipe.ranks_pissa": train.ranks > 1 and recipe.adapter.is_pissa,
        "recipe.offload_pissa": train.offload_layers != 0 and recipe.adapter.is_pissa,
        "recipe.offload_eight_bit": train.offload_layers != 0 and recipe.adapter.load_in_8bit,
        "recipe.offload_ranks": train.offload_layers != 0 and train.ranks > 1,
        "recipe.offload_no_checkpointing": train.offload_layers != 0 and train.gradient_checkpointing is False,
        "recipe.fsdp_alone": train.fsdp and train.ranks == 1,
        "recipe.fsdp_eight_bit": train.fsdp and recipe.adapter.load_in_8bit,
        "recipe.fsdp_experts": train.fsdp and recipe.adapter.trains_experts,
        "recipe.fsdp_offload": train.fsdp and train.activation_offload,
        "recipe.pairs_everything": train.compares and recipe.data.train_on == "everything",
        "recipe.rewards_alone": (drawn is not None) != (objective == "grpo"),
        "recipe.rewards_everything": drawn is not None and recipe.data.train_on == "everything",
        "recipe.rewards_ranks": drawn is not None and train.ranks > 1,
        "recipe.rewards_offload": drawn is not None and train.offload_layers != 0,
        "recipe.rewards_pissa": drawn is not None and drawn.beta > 0 and recipe.adapter.is_pissa,
        "recipe.rated_alone": recipe.data.rated is not None and recipe.data.rated != (objective == "kto"),
        "recipe.loss_type_alone": objective != "dpo" and train.loss_type != "sigmoid",
        "recipe.smoothing_alone": train.label_smoothing > 0 and objective != "simpo" and train.loss_type != "robust",
    }
    facts = {
        "offload": str(train.offload_layers), "ranks": train.ranks, "init": recipe.adapter.init_lora_weights,
        "objective": objective,
        "loss_type": train.loss_type, "label_smoothing": train.label_smoothing,
    }  # fmt: skip
    return [msg(key, **facts) for key, is_so in rules.items() if is_so]


def to_yaml(value: dict[str, object]) -> str:
    """Return a mapping as YAML, its keys in the given order, without escapes for letters such as Chinese ones."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> Any:
    """Parse a YAML file. Raises RecipeError if it cannot be read, is too large (1 MiB), not UTF-8, or not YAML."""
    try:
        if path.stat().st_size > 1 << 20:
            raise RecipeError("recipe.too_large", file=path, bytes=path.stat().st_size)
        return yaml.safe_load(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise RecipeError("recipe.missing", file=path) from None
    except UnicodeDecodeError as error:
        raise RecipeError("recipe.not_utf8", file=path, position=error.start) from None
    except YAML_ERRORS as error:
        mark = getattr(error, "problem_mark", None)
        raise RecipeError("recipe.not_yaml", file=path, line=mark.line + 1 if mark else 1) from None
    except OSError as error:
        raise RecipeError("recipe.unreadable", file=path, reason=error.strerror or error) from None


def _problem(item: Mapping[str, Any]) -> str:
    """Return an error of pydantic as "field.path: message (found value)", without the bracket for a missing field."""
    where = ".".join(str(part) for part in item["loc"])
    value = reprlib.repr(item.get("input"))  # repr would expand a YAML bomb of aliases
    return f"{where}: {item['msg']}" + (f" (found {value[:60]})" if item["type"] != "missing" else "")
