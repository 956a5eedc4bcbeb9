"""Recipes of this app written as one of axolotl or TRL, by the table that theirs are read by."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from core import COMMAND
from core.errors import RecipeError
from core.files import JsonObject
from core.messages import Message, msg
from core.recipe import NO_DATA, OBJECTIVES_OF, Recipe, to_yaml
from core.workspace import names
from core.workspace.foreign_recipes import SECTIONS, keys_of, shortened, table

Tool = Literal["axolotl", "trl"]
HUB_SET = re.compile(r"([\w.-]+/[\w.-]+)(?::([^:]+?))??(?::([^:]+))?")
# A setting that has no effect, and PEFT's own initialization.
OFF: tuple[object, ...] = (None, False, 0, -1, "", "none", "true", [], {})
BATCH = "train.per_device_train_batch_size"  # of questions; elsewhere of answers
TARGETS = "adapter.target_modules"  # a list in other tools


@dataclass(frozen=True)
class WrittenRecipe:
    """A recipe as another tool's. file: its name; keys: in the tool's order; notes: how to run it, and what was changed
    or left out."""

    file: str
    keys: JsonObject
    notes: tuple[Message, ...]

    def text(self, render: Callable[[Message], str]) -> str:
        """Return it as YAML with the notes as comments."""
        comments = ("# " + " ".join(render(note).split()) for note in self.notes)
        return "\n".join([*comments, to_yaml(self.keys)])


def write(recipe: Recipe, tool: Tool) -> WrittenRecipe:
    """Return what is set in a recipe as one of another tool. Raises RecipeError if the tool has no such objective."""
    return _Writing(recipe, tool).written()


class _Writing:
    """One recipe of this app, while it is written as another tool's."""

    def __init__(self, recipe: Recipe, tool: Tool):
        self.tool, self.entry, self.objective = tool, table()[tool], recipe.train.objective
        self.notes: list[Message] = []
        self.name = names.slug(recipe.name or recipe.data.source)
        given = recipe.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        sections = {section: part for section, part in given.items() if isinstance(part, dict)}
        fields = {f"{section}.{name}": value for section, part in sections.items() for name, value in part.items()}
        # what is trained, which other tools have other defaults for
        needed = {TARGETS: recipe.adapter.target_modules, "adapter.method": recipe.adapter.method}
        needed |= {"model.id": recipe.model.id, "data.train_on": recipe.data.train_on}
        self.fields: JsonObject = needed | fields | {"train.objective": self.objective}
        if "adapter.r" in fields:
            self.fields["adapter.lora_alpha"] = recipe.lora_alpha
        if recipe.rewards and BATCH in self.fields:
            self.fields[BATCH] *= recipe.rewards.num_generations
            why, questions = msg("foreign_recipe.why_questions"), recipe.train.per_device_train_batch_size
            now = self.fields[BATCH]
            self.notes.append(msg("foreign_recipe.changed", name=BATCH, value=shortened(questions), now=now, why=why))
        idle = {f"train.{name}" for name, objectives in OBJECTIVES_OF.items() if self.objective not in objectives}
        idle |= set() if self.objective == "sft" else {"data.train_on"}
        idle |= {"train.warmup_ratio" if recipe.train.warmup_steps else "train.warmup_steps"}
        self.fields = {name: value for name, value in self.fields.items() if name not in idle}
        self.keys: JsonObject = {}
        self.done = {"data.source", "data.version", "train.objective"}

    def written(self) -> WrittenRecipe:
        """Return the recipe as the other tool's, with notes on how to run it and what was changed or left out; call it
        once.

        No file is written. Raises RecipeError if the tool does not have the recipe's objective.
        """
        title = self.entry["title"]
        if self.objective not in self.entry["writes"].split():
            raise RecipeError("foreign_recipe.no_objective", title=title, objective=self.objective)
        rules = {
            key: rule
            for key, rule in keys_of(self.tool, self.objective).items()
            if self.objective in rule.get("for", self.objective).split()
        }
        for key, rule in rules.items():
            self._write_value(key, rule)
        for key, rule in rules.items():
            if key not in self.keys:
                self._write_field(key, rule)
        self.keys.pop("trainer", None)
        self._write_judges()
        self.keys = {key: self.keys[key] for key in (*rules, *self.keys) if key in self.keys}
        changed, counted = len(self.notes), len(self.keys)
        self._write_rows()
        left = [name for name in self.fields if name not in self.done and self._matters(name)]
        no_key = msg("foreign_recipe.why_no_key", title=title)
        self.notes += [
            msg("foreign_recipe.left_out", name=name, value=shortened(self.fields[name]), why=no_key) for name in left
        ]
        file = f"{self.name}.{self.tool}.yaml"
        command = self.entry["run"].format(objective=self.objective, file=file)
        counts = {"written": counted - changed, "changed": changed, "left": len(left)}
        head = msg("foreign_recipe.written", title=title, command=command, **counts)
        return WrittenRecipe(file, _nested(self.keys), (head, *self.notes))

    def _matters(self, field: str) -> bool:
        """Return whether a setting that is not written has an effect: how rows are used, or another value than the
        default."""
        section, _, name = field.partition(".")
        default = SECTIONS[section][0].model_fields[name].default
        return self.fields[field] not in OFF and (section == "data" or self.fields[field] != default)

    def _write_value(self, key: str, rule: JsonObject) -> None:
        """Write the first value of a key whose meaning is exactly what the fields have; nothing without one."""
        for word, meant in rule.get("values", {}).items():
            if all(self.fields.get(field) == value for field, value in meant.items()):
                self._set(key, {"true": True, "false": False}.get(word, word), *meant, note=rule.get("note"))
                return

    def _write_field(self, key: str, rule: JsonObject) -> None:
        """Write a key with the value of the first of its fields that is set and not written under another key; target
        modules become a list. Nothing happens without such a field."""
        for field in rule.get("to", "").split():
            if field in self.fields and field not in self.done:
                value = self.fields[field]
                self._set(key, value.split(",") if field == TARGETS else value, field)
                return

    def _set(self, key: str, value: object, *fields: str, note: str | None = None) -> None:
        """Set a key, note each field whose value it changes, and count the fields as done."""
        self.keys[key] = value
        for field in (name for name in fields if name not in self.done and name != TARGETS):
            was, now = shortened(self.fields[field]), shortened(value)
            if was != now:
                why = msg(f"foreign_recipe.why_{note}") if note else ""
                self.notes.append(msg("foreign_recipe.changed", name=field, value=was, now=f"{key}: {now}", why=why))
        self.done |= set(fields)

    def _write_judges(self) -> None:
        """Write the judges that stand for one of TRL's reward functions; the others are left out."""
        named = []
        for judge in self.fields.pop("rewards.judges", ()):
            name = next((name for name, one in table()["judges"].items() if one == judge), "")
            if name:
                named.append(f"trl.rewards.{name}")
            why = msg("foreign_recipe.why_judge" if name else "foreign_recipe.why_no_function")
            values = {"name": "rewards.judges", "value": shortened(judge), "why": why, "now": name}
            self.notes.append(msg("foreign_recipe.changed" if name else "foreign_recipe.left_out", **values))
        if named:
            self.keys["trl.reward_funcs" if self.tool == "axolotl" else "reward_funcs"] = named

    def _write_rows(self) -> None:
        """Write the dataset: one of the Hub by its name, any other as a file, with the command that writes it."""
        source = self.fields["data.source"]
        hub = HUB_SET.fullmatch(source)
        if hub:
            path, part, split = hub.groups()
            entry = {"path": path, "name": part, "split": split or "train"}
        else:
            file = f"{self.name}.jsonl"
            entry = {"path": "json", "data_files": file, "split": "train"}
            if self.tool == "axolotl":
                entry = {"path": file, "ds_type": "json"}
            if source != NO_DATA:
                version = f" --version {self.fields['data.version']}" if "data.version" in self.fields else ""
                command = f"{COMMAND} data export {source} {file}{version}"
                self.notes.append(msg("foreign_recipe.rows", command=command))
        if self.objective not in ("sft", "grpo"):
            columns = {"title": self.entry["title"], "objective": self.objective}
            self.notes.append(msg("foreign_recipe.other_columns", **columns))
        if self.tool == "axolotl":
            entry |= {"type": "chat_template" if self.objective == "sft" else "chat_template.default"}
        self.keys["datasets"] = [{name: value for name, value in entry.items() if value}]


def _nested(keys: JsonObject) -> JsonObject:
    """Return keys such as trl.beta as a mapping within a mapping."""
    nested: JsonObject = {}
    for key, value in keys.items():
        section, dot, name = key.partition(".")
        if dot:
            nested.setdefault(section, {})[name] = value
        else:
            nested[key] = value
    return nested
