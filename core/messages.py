"""Sentences for people, kept as a key and its numbers until somebody reads them.

A `Message` crosses processes and files (state.json, events.jsonl) and is rendered in the reader's language at the
last moment. Catalogues are YAML files `<folder>/<language>/*.yaml` of `key: sentence with {placeholders}`;
the file name is the first part of each of its keys (`data.yaml` holds `data.empty_file`).
"""

from __future__ import annotations

import os
import string
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from core import COMMAND
from core.values import Frozen

LANGUAGES = ("en", "zh")
CORE_LOCALES = Path(__file__).parent / "locales"

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Message(Frozen):
    """One sentence: a catalogue key and the values of its placeholders (numbers, strings, or other Messages)."""

    key: str
    params: dict[str, Any] = {}

    def __str__(self) -> str:
        return self.render("en")

    def render(self, language: str = "en") -> str:
        return core_catalogue().render(self, language)


def msg(key: str, **params: Any) -> Message:
    """A Message whose nested Messages and Paths are made serialisable."""
    return Message(key=key, params={k: _plain(v) for k, v in params.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return {"key": value.key, "params": value.params}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)


class Catalogue:
    """Sentences by language and key, from one or more folders; later folders add keys."""

    def __init__(self, *folders: Path):
        self._sentences: dict[str, dict[str, str]] = {language: {} for language in LANGUAGES}
        for folder in folders:
            for language in LANGUAGES:
                for path in sorted((folder / language).glob("*.yaml")):
                    entries = yaml.load(path.read_text("utf-8"), YAML_LOADER) or {}
                    said = {f"{path.stem}.{key}": value.replace("python launch.py", COMMAND) for key, value in entries.items()}
                    self._sentences[language] |= said

    def keys(self, language: str) -> set[str]:
        return set(self._sentences[language])

    def raw(self, key: str, language: str) -> str:
        """The sentence with its placeholders. Raises KeyError for a key no catalogue has."""
        return self._sentences[language][key]

    def render(self, message: Message, language: str = "en") -> str:
        """message as a sentence. A key that this version does not know is shown as it is, with its values."""
        language = language if language in LANGUAGES else "en"
        sentence = self._sentences[language].get(message.key)
        if sentence is None:
            return f"{message.key} {message.params or ''}".strip()
        values = {name: self._value(value, language) for name, value in message.params.items()}
        return _Forgiving().vformat(sentence, (), values)

    def _value(self, value: Any, language: str) -> Any:
        if isinstance(value, dict) and "key" in value:
            return self.render(Message(key=value["key"], params=value.get("params", {})), language)
        if isinstance(value, list):
            parts = [str(self._value(v, language)) for v in value]
            return ("、" if language == "zh" else ", ").join(parts)
        return value


class _Forgiving(string.Formatter):
    """A placeholder without a value stays visible instead of raising while an error is being reported."""

    def get_value(self, key: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return kwargs.get(str(key), "{" + str(key) + "}")

    def format_field(self, value: Any, format_spec: str) -> Any:
        try:
            return super().format_field(value, format_spec)
        except ValueError:
            return str(value)


@lru_cache(maxsize=1)
def core_catalogue() -> Catalogue:
    return Catalogue(CORE_LOCALES)


def terminal_language() -> str:
    """ "zh" where LORA_GARAGE_LANG or the locale says Chinese, else "en"."""
    names = ("LORA_GARAGE_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    locale = next(filter(None, map(os.environ.get, names)), "")
    return "zh" if locale.lower().startswith("zh") else "en"
