"""Recipes of LLaMA-Factory, axolotl and TRL, read as recipes of this app: presets/foreign_recipes.yaml has their keys.

TRL's may also be a command line, such as `trl sft --model_name_or_path ...`. A setting that a file leaves open is
planned as in any recipe, not set to the other tool's default, except for the few in the table.
"""

from __future__ import annotations

import re
import reprlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from core import presets
from core.errors import RecipeError
from core.files import JsonObject
from core.messages import Message, msg
from core.recipe import NO_DATA, Adapter, Data, Model, Train, read_yaml
from core.reward_settings import Rewards

_COMMAND = re.compile(r"(?:\btrl |\b)(sft|dpo|kto|orpo|grpo)(?:\.py)?[ \t]+(?=\\?\s*--)((?:\\\r?\n|[^\n])*)")
_CONFIG = re.compile(r"\btrl (sft|dpo|kto|grpo) --config\b")  # in a comment, as no key names the trainer
_SHOWN = 80  # characters of a value
SECTIONS: dict[str, tuple[type[BaseModel], JsonObject]] = {
    "model": (Model, {}), "data": (Data, {"source": NO_DATA}), "adapter": (Adapter, {}), "train": (Train, {}),
    "rewards": (Rewards, {"judges": [{}]}),
}  # fmt: skip


@dataclass(frozen=True)
class KeyNote:
    """A note on one key of another tool's recipe. kind "open": a person has to decide."""

    kind: Literal["open", "changed", "left_out", "taken"]
    text: Message


@dataclass(frozen=True)
class ForeignRecipe:
    """A recipe of another tool. title: the tool's name. value: its settings as a recipe of this app, without a name."""

    title: str
    value: JsonObject
    notes: tuple[KeyNote, ...]

    @property
    def head(self) -> Message:
        """The sentence on whose recipe it is, with the numbers of keys that were taken as they are, changed and left
        out."""
        counts = {kind: len(self.texts(kind)) for kind in ("taken", "changed", "left_out")}
        return msg("foreign_recipe.head", title=self.title, left=counts.pop("left_out"), **counts)

    def texts(self, *kinds: str) -> list[Message]:
        """Return the sentences of the notes of these kinds."""
        return [note.text for note in self.notes if note.kind in kinds]


def read(path: Path) -> tuple[Any, ForeignRecipe | None]:
    """Return (values, foreign) of a recipe file, values as a mapping for Recipe.parse.

    For a recipe of this app they are those of the file, and foreign is None. For one of another tool, or a text file
    with a command of TRL, they are translated, and foreign tells what became of each key. Raises RecipeError as
    core.recipe.read_yaml, for keys of several tools, and for rewards that are code.
    """
    value = command_line(path) if path.suffix.lower() in (".sh", ".txt") else None
    value = read_yaml(path) if value is None else value
    tool = recognised(value)
    if tool is None:
        return value, None
    if tool == "trl" and (started := _CONFIG.search(path.read_text("utf-8-sig"))):
        value = {"trainer": started[1]} | value
    taken = _Taking(tool, value).recipe()
    return taken.value, taken


@lru_cache(maxsize=1)
def table() -> JsonObject:
    """Return presets/foreign_recipes.yaml: by tool the keys of its recipes, each with the rule by which it becomes a
    setting of this app."""
    return dict(presets.load("foreign_recipes"))


def keys_of(tool: str, objective: str = "") -> JsonObject:
    """Return the keys of a tool's recipes, each with the rule (a mapping) by which it becomes a setting of this app.
    The tool's own come before those that all tools have; with an objective, such as "grpo", the keys of that objective
    are added and replace others of the same name."""
    entry = table()[tool]
    keys = entry["keys"] | {key: rule for key, rule in table()["all"].items() if key not in entry["keys"]}
    keys |= entry.get(objective, {})
    return {key: rule if isinstance(rule, dict) else {"to": rule} for key, rule in keys.items()}


def recognised(value: object) -> str | None:
    """Return the tool whose keys a parsed file has; None for a recipe of this app and anything else. Raises RecipeError
    if it mixes the keys of several."""
    if not isinstance(value, dict):
        return None
    signs = {
        name: next((key for key in entry["signs"].split() if key in value), None)
        for name, entry in table().items()
        if "signs" in entry
    }
    matches = {table()[name]["title"]: key for name, key in signs.items() if key}
    if own := next(
        (name for name in ("data", "adapter", "train") if matches and isinstance(value.get(name), dict)), None
    ):
        matches |= {"LoRA Garage": own}
    if len(matches) > 1:
        raise RecipeError("foreign_recipe.mixed", found=[f"{key} ({title})" for title, key in matches.items()])
    return next((name for name, key in signs.items() if key), "trl" if "model_name_or_path" in value else None)


class _Taking:
    """One recipe while it is translated."""

    def __init__(self, tool: str, value: Mapping[Any, Any]):
        self.tool, self.entry = tool, table()[tool]
        self.keys: JsonObject = keys_of(tool)
        nested = {
            f"{key}.{name}": inner
            for key, group in value.items()
            if isinstance(group, dict) and any(known.startswith(f"{key}.") for known in self.keys)
            for name, inner in group.items()
        }
        within = {name.partition(".")[0] for name in nested}
        self.given = {str(key): v for key, v in value.items() if v is not None and key not in within} | nested
        self.fields: JsonObject = {}
        self.notes: list[KeyNote] = []

    def recipe(self) -> ForeignRecipe:
        """Translate all keys, and return the recipe with a note on each key that has a value. Raises RecipeError as
        `_take_rewards`."""
        for key, default in self.entry.get("defaults", {}).items():
            if key not in self.given:
                tells = self.entry.get("tells", {}).items() if key == "trainer" else ()
                self._take(key, next((name for sign, name in tells if sign in self.given), default), is_default=True)
        for key in {"trainer", "rl"} & self.given.keys() & self.keys.keys():  # which decide what other keys mean
            self._take(key, self.given.pop(key))
        self.keys = keys_of(self.tool, self.fields.get("train.objective", ""))
        if self.fields.get("train.objective") == "grpo":
            self._take_batch()
        for key in self.keys:
            if key in self.given:
                self._take(key, self.given.pop(key))
        self._take_rewards()
        self._take_data()
        reasons = {key: why for why, keys in self.entry["left"].items() for key in keys.split()}
        for key, value in self.given.items():
            self._note_left_out(key, value, reasons.get(key, reasons.get(key.partition(".")[0], "unknown")))
        nested: JsonObject = {"data": {"source": NO_DATA}}
        for field, value in self.fields.items():
            section, _, name = field.partition(".")
            nested.setdefault(section, {})[name] = value
        return ForeignRecipe(self.entry["title"], nested, tuple(self.notes))

    def _take(self, key: str, value: object, is_default: bool = False) -> None:
        """Set the fields that a key's value means, and note it; leave out a value that they do not accept. is_default:
        the file lacks the key."""
        rule = self.keys[key]
        word = str(value).lower() if isinstance(value, str | int | float) else ""
        meanings = {str(name).lower(): meant for name, meant in (rule.get("values", {}) | rule.get("also", {})).items()}
        meant = meanings.get(word)
        if meant is None:
            is_names = isinstance(value, list) and all(isinstance(name, str) for name in value)
            now = ",".join(value) if isinstance(value, list) and is_names else value
            meant = next(({field: now} for field in rule.get("to", "").split() if _accepts(field, now)), None)
        if meant is None:
            self._note_left_out(key, value, "value")
            return
        self.fields |= meant
        same = all(word == str(now).lower() or now is value for now in meant.values())
        if same and not is_default:
            self._note("taken", key, value)
            return
        why = msg(f"foreign_recipe.why_{rule['why']}") if "why" in rule else ""
        now_is = [f"{field} = {shortened(now)}" for field, now in meant.items()]
        self._note("changed", key, value, now=now_is, why=why)

    def _take_batch(self) -> None:
        """Set the micro-batch, in questions, from the other tool's number of answers in a batch, divided by the answers
        to each question. If that does not divide evenly, the micro-batch is 1 and gradient accumulation makes up for
        it. Adds a note on each key that changes. Nothing happens if a number is missing or not a whole one above 0."""
        key = next((key for key in ("micro_batch_size", "per_device_train_batch_size") if key in self.given), "")
        given = (self.given.get(key), self.given.get("num_generations", self.given.get("trl.num_generations", 8)))
        steps = self.given.get("gradient_accumulation_steps", 1)
        if not all(str(number).isdigit() and int(str(number)) for number in (*given, steps)):
            return
        answers, each = (int(str(number)) for number in given)
        batches = {key: answers // each}
        if answers % each:
            batches = {key: 1, "gradient_accumulation_steps": max(1, answers * int(str(steps)) // each)}
        for name, questions in batches.items():
            field = self.keys[name]["to"]
            self.fields[field] = questions
            why = msg("foreign_recipe.why_questions")
            self._note("changed", name, self.given.pop(name, steps), now=f"{field} = {questions}", why=why)

    def _take_rewards(self) -> None:
        """Set the judges that stand for the other tool's reward functions, with a note on each function; those that are
        code are left out. Nothing happens for another objective than grpo. Raises RecipeError if no function has a
        judge."""
        if self.fields.get("train.objective") != "grpo":
            return
        key = next((key for key in ("reward_funcs", "trl.reward_funcs") if key in self.given), "reward_funcs")
        given = self.given.pop(key, None) or []
        names = [shortened(name) for name in (given if isinstance(given, list) else str(given).split(","))]
        judges = {name: table()["judges"].get(name.rpartition(".")[2]) for name in names}
        if not any(judges.values()):
            raise RecipeError("foreign_recipe.rewards_are_code", title=self.entry["title"], names=names or "-")
        for name, judge in judges.items():
            if judge:
                self._note("changed", key, name, now=f"rewards.judges: {judge}", why=msg("foreign_recipe.why_judge"))
            else:
                self._note_left_out(key, name, "reward")
        self.fields["rewards.judges"] = [judge for judge in judges.values() if judge]

    def _take_data(self) -> None:
        """Set data.source to a dataset of the Hub that the file names alone; else note that it has to be chosen."""
        listed = self.given.pop("datasets", None)
        entries = listed if isinstance(listed, list) else []
        if name := self.given.pop("dataset_name", None):
            parts = (name, self.given.pop("dataset_config", None), self.given.pop("dataset_train_split", None))
            entries = [dict(zip(("path", "name", "split"), parts, strict=True))]
        local = [self.given.pop(key) for key in ("dataset", "train_dataset") if key in self.given]
        paths = [entry.get("path") if isinstance(entry, dict) else entry for entry in entries] or local
        if len(entries) == 1 and isinstance(entries[0], dict):
            named = [shortened(entries[0][part]) for part in ("path", "name", "split") if entries[0].get(part)]
            source = shortened(entries[0].get("data_files") or ":".join(named).partition("[")[0])
            if _accepts("data.source", source):
                self.fields["data.source"] = source
                why = msg("foreign_recipe.why_columns")
                self._note("changed", "dataset", paths[0], now=f"data.source = {source}", why=why)
                return
        shown = [shortened(path) for path in paths[:8]]
        why = msg("foreign_recipe.open_data", names=shown) if shown else msg("foreign_recipe.no_data")
        self.notes.append(KeyNote("open", why))

    def _note_left_out(self, key: str, value: object, why: str) -> None:
        """Note that a key was left out, with the sentence for the reason why ("value", "reward", "unknown", ...)."""
        self._note("left_out", key, value, why=msg(f"foreign_recipe.why_{why}"))

    def _note(self, kind: Literal["changed", "left_out", "taken"], key: str, value: object, **more: object) -> None:
        """Add a note on one key of the other tool's recipe, with its value shortened. more: further values of the
        note's sentence."""
        self.notes.append(
            KeyNote(kind, msg(f"foreign_recipe.{kind}", name=key[:_SHOWN], value=shortened(value), **more))
        )


def _accepts(field: str, value: object) -> bool:
    """Return whether a field of the recipe, "section.name", accepts a value."""
    section, _, name = field.partition(".")
    model, needed = SECTIONS[section]
    try:
        model.model_validate(needed | {name: value})
    except ValidationError:
        return False
    return True


def shortened(value: object) -> str:
    """Return a value as short text; repr alone would expand a YAML bomb of aliases."""
    text = value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else reprlib.repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def command_line(path: Path) -> JsonObject | None:
    """Return the arguments of the first command of TRL's in a text file, with the trainer; None if there is none."""
    try:
        text = path.read_text("utf-8-sig") if path.stat().st_size <= 1 << 20 else ""
        command = _COMMAND.search(text)
        words = shlex.split(command[2].replace("\\\r\n", " ").replace("\\\n", " ")) if command else []
    except (OSError, ValueError):
        return None
    if not command:
        return None
    value: JsonObject = {"trainer": command[1]}
    key = ""
    for word in words:
        name, equals, rest = word.removeprefix("--").partition("=")
        if word.startswith("--"):
            key = name.replace("-", "_")
            key, start = (key.removeprefix("no_"), "false") if key.startswith("no_") else (key, "true")
            value[key] = rest if equals else start
        elif key:
            value[key] = word if value[key] == "true" else f"{value[key]},{word}"
    return value
