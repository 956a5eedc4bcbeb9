"""All settings: the fields of a recipe, their values as the page shows them, and the way back to a recipe.

A field that nobody touched follows the plan. A field that was edited is part of the person's answers, which the browser
keeps (assets/form.js). `FormAnswers` holds the edited fields.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency
from pydantic import BaseModel, ValidationError

from core.errors import GarageError, RecipeError
from core.files import JsonObject
from core.messages import as_typed
from core.recipe import LONGEST_PROMPT, Adapter, Data, Model, Recipe, Train
from core.runs.further import LOCKED
from webui.form.reading.recipe_reading import RecipeReading
from webui.kit.wording import Wording, field_of

Key = tuple[str, str]  # section and name of a recipe's field

ELSEWHERE: set[Key] = {
    ("model", "id"),
    ("data", "source"),
    ("data", "columns"),
    ("data", "encoding"),
    ("data", "sheet"),
    ("data", "header"),
    ("data", "voice"),
    ("data", "gap_hours"),
    ("data", "pseudonyms"),
    ("data", "version"),
    ("data", "rated"),
    ("adapter", "method"),
    ("adapter", "r"),
    ("train", "objective"),
}  # have their own components in the steps
# Shown beside method and rank without unfolding: the settings that people change most.
AT_HAND: tuple[Key, ...] = (
    ("train", "learning_rate"),
    ("train", "num_train_epochs"),
    ("train", "per_device_train_batch_size"),
    ("data", "max_length"),
)
SECTIONS: dict[str, type[BaseModel]] = {"adapter": Adapter, "train": Train, "data": Data, "model": Model}
FOLDED: tuple[Key, ...] = tuple(
    (section, name)
    for section, settings in SECTIONS.items()
    for name in settings.model_fields
    if (section, name) not in ELSEWHERE and (section, name) not in AT_HAND
)
FIELDS: tuple[Key, ...] = (("adapter", "method"), ("adapter", "r"), ("train", "objective"), *AT_HAND, *FOLDED)
LOCKED_NAMES = frozenset(f"{section}.{name}" for section, name in LOCKED)
CARDS = "cards"  # the chosen GPUs of this PC; a recipe has only their number
REWARDS = "rewards"  # the section of a recipe that trains by rewards, whole
AUTO = ""  # left to the plan
# empty means off: no plan turns it on
NONE: set[Key] = {("train", "loraplus_lr_ratio"), ("train", "neftune_noise_alpha")}
MAX_LINE = LONGEST_PROMPT  # characters of a line of a field with several


class FormError(GarageError):
    """A missing or invalid entry of the form; shown beside the Start button."""


@dataclass(frozen=True)
class FieldKind:
    """The type of a field. choices: of a Literal. optional: it may be left to the plan. many: several values, one a
    line."""

    type: type
    choices: tuple[str, ...] = ()
    optional: bool = False
    many: bool = False


def kind_of(key: Key) -> FieldKind:
    """Return the type, choices and optionality of a setting of the recipe, from its annotation."""
    annotation = field_of(*key).annotation
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    if get_origin(annotation) is tuple:
        return FieldKind(str, many=True)
    optional = type(None) in parts
    inner = next(part for part in parts if part is not type(None))
    if get_origin(inner) is Literal:
        return FieldKind(str, get_args(inner), optional)
    return FieldKind(inner, (), optional)


def step_of(default: float | int) -> float | int:
    """Return the step of a number's arrow keys: the place of the first digit of its default, as 0.0001 for 0.0002, at
    most 1. It is 1 for whole numbers, and 0.01 for a default of 0.0."""
    if isinstance(default, int):
        return 1
    return min(1.0, 10.0 ** math.floor(math.log10(default))) if default else 0.01


def label_of(name: str, w: Wording) -> str:
    """Return a setting's label, then its name in the libraries unless the label has it."""
    words = w.t(f"wizard.field_{name}")
    has_name = words.lower() == name or words.lower().endswith(f"({name})")
    return words if has_name else f"{words} ({name})"


def shown_value(key: Key, value: Any) -> object:
    """Return a recipe's value as its component shows it: AUTO for None, yes or no, lines of text, or a number."""
    kind = kind_of(key)
    if kind.type is bool and kind.optional:
        return AUTO if value is None else "yes" if value else "no"
    if kind.many:
        return "\n".join(value)
    if kind.choices or kind.type is str:
        return AUTO if value is None else value
    if kind.optional:
        return AUTO if value is None else as_typed(value)
    return value


def setting_of(key: Key, value: object) -> object:
    """Return a component's value as Recipe.parse expects it: a trimmed text, a number, or a tuple of lines. None for an
    empty field, which leaves the setting to the plan, but () for an empty field of lines."""
    kind = kind_of(key)
    if kind.many:
        return tuple(line.strip() for line in str(value or "").splitlines() if line.strip())
    if value is None or value == "":
        return None
    if kind.type is str and not kind.choices:
        return str(value).strip()[:1000] or None
    return _number(value) if kind.type in (int, float) and isinstance(value, str) else value


GROUPED = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")


def _number(typed: str) -> float | str:
    """Return a typed number, also with a decimal comma; the text itself if it is no number, or ambiguous ("2,000")."""
    try:
        return float(typed if GROUPED.fullmatch(typed.strip()) else typed.replace(",", "."))
    except ValueError:
        return typed


def setting_error(error: RecipeError) -> GarageError:
    """Return an error for the first setting that Recipe.parse refused, with its limits; error itself if it is about no
    field."""
    cause = error.__cause__
    item = cause.errors()[0] if isinstance(cause, ValidationError) else {"loc": ()}
    section, name, *_ = (*map(str, item["loc"]), "", "")
    if (section, name) not in FIELDS:
        return error
    kind, value = kind_of((section, name)), item["input"]
    values = {"field": name, "found": value if type(value) is float else str(value)[:40]}
    rules = {
        bound: limit
        for rule in field_of(section, name).metadata
        for bound in ("ge", "gt", "le", "lt", "max_length")
        if (limit := getattr(rule, bound, None)) is not None
    }
    if kind.many:
        return FormError("wizard.bad_lines", field=name, most=rules["max_length"], long=MAX_LINE)
    if kind.choices or kind.type in (bool, str):
        return FormError("wizard.bad_choice", **values)
    low, high = rules.get("ge", rules.get("gt", -math.inf)), rules.get("le", rules.get("lt", math.inf))
    return FormError(
        "wizard.bad_whole_number" if kind.type is int else "wizard.bad_number", **values, low=low, high=high
    )


@dataclass(frozen=True)
class FormAnswers:
    """The person's answers.

    explicit: edited settings, by "section.name". parent: the id of the run to continue; its adapter's settings are
    fixed then. revision: the number of the person's last action that the page sent (assets/form.js counts them).
    reading: how an opened recipe reads its dataset.
    """

    explicit: Mapping[str, object] = field(default_factory=dict)
    parent: str | None = None
    revision: int = 0
    reading: RecipeReading | None = None

    @classmethod
    def from_state(cls, state: object) -> FormAnswers:
        """Return the answers from the page's JSON; empty ones for anything else. Settings that a parent's adapter fixes
        are left out."""
        if not isinstance(state, dict) or not isinstance(explicit := state.get("explicit"), dict):
            return cls()
        parent, revision = state.get("parent"), state.get("revision")
        parent = parent if isinstance(parent, str) and parent else None
        if parent:
            explicit = {name: value for name, value in explicit.items() if name not in LOCKED_NAMES}
        return cls(
            explicit,
            parent,
            revision if isinstance(revision, int) else 0,
            RecipeReading.from_state(state.get("reading")),
        )

    @property
    def cards(self) -> tuple[str, ...]:
        """Uuids of the chosen GPUs; () if none were chosen."""
        uuids = self.explicit.get(CARDS)
        return tuple(uuid for uuid in uuids if isinstance(uuid, str)) if isinstance(uuids, list) else ()

    @property
    def rewards(self) -> Any:
        """The section of the recipe for training by rewards, unchecked; None for another objective."""
        return self.explicit.get(REWARDS) if self.explicit.get("train.objective") == "grpo" else None

    def state(self) -> JsonObject:
        """Return the answers as JSON for `from_state`."""
        reading = self.reading.state() if self.reading else None
        return {"explicit": dict(self.explicit), "parent": self.parent, "revision": self.revision, "reading": reading}

    def sections(self) -> dict[str, JsonObject]:
        """Return the person's settings (not those left empty) as sections of a recipe, unchecked. max_steps 0 becomes
        -1, which stands for no limit."""
        sections: dict[str, JsonObject] = {}
        for key in FIELDS:
            if name_of(key) in self.explicit:
                value = setting_of(key, self.explicit[name_of(key)])
                if value is not None:
                    sections.setdefault(key[0], {})[key[1]] = value
        steps = sections.get("train", {})
        if steps.get("max_steps") == 0:
            steps["max_steps"] = -1
        return sections


def name_of(key: Key) -> str:
    return f"{key[0]}.{key[1]}"


def key_of(name: str) -> Key:
    section, _, field_name = name.partition(".")
    return section, field_name


def explicit_values(recipe: Recipe) -> JsonObject:
    """Return the settings that a recipe or preset sets itself, not None, as answers of the form by "section.name". A
    lora_alpha of twice the rank is left to the plan: it follows the rank."""
    values = {}
    for key in FIELDS:
        section = getattr(recipe, key[0])
        if key[1] in section.model_fields_set and (value := getattr(section, key[1])) is not None:
            values[name_of(key)] = shown_value(key, value)
    if "adapter.r" in values and recipe.adapter.lora_alpha == 2 * recipe.adapter.r:
        del values["adapter.lora_alpha"]
    rewards = {REWARDS: recipe.rewards.model_dump(mode="json", exclude_unset=True)} if recipe.rewards else {}
    return values | rewards


def shown_values(recipe: Recipe) -> JsonObject:
    """Return the value of each field for a plan's recipe, by its name."""
    return {name_of(key): shown_value(key, getattr(getattr(recipe, key[0]), key[1])) for key in FIELDS}


def edit_event(field: Component) -> Callable[..., Dependency]:
    """Return the event that fires when a person edits a field. A Dropdown's `input` also fires when the field only
    loses the focus (gradio 6.31), but it is the only event for typed text."""
    return field.select if isinstance(field, gr.Dropdown) and not field.allow_custom_value else field.input
