"""Sentences for people, kept as a key and its values until they are shown.

A `Message` crosses processes and files (state.json, events.jsonl) and is rendered in the reader's language at the last
moment. Catalogues are YAML files `<folder>/<language>/*.yaml` of `key: sentence with {placeholders}`, in which
`{rows:,} {rows:row|rows}` gives "1 row" and "2 rows". Values are numbers, formatted as the language does: 1.962,5 in
German; the file name is the first part of each of its keys (`data.yaml` holds `data.empty_file`). English and Chinese
are written together with the code; a further language is one file, `core/locales/<code>.yaml`, whose sections are the
names of those files, the page's too.
"""

from __future__ import annotations

import bz2
import json
import math
import os
import string
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from core import COMMAND
from core.values import Frozen

CORE_LOCALES = Path(__file__).parent / "locales"
PACKED = ".bz2"
TOGETHER = f"together.json{PACKED}"  # in a release: section: key: language: sentence, all in 40 % of the bytes
# For a quicker start: gradio builds the page once for each language.
_CHOSEN = os.environ.get("LORA_GARAGE_LANGUAGES", "").replace(",", " ").split()
LANGUAGES = (
    "en",
    *(
        code
        for code in ("zh", *sorted({file.name.partition(".")[0] for file in CORE_LOCALES.glob("*.yaml")}))
        if not _CHOSEN or code in _CHOSEN
    ),
)

DECIMAL_COMMA = frozenset({"de"})  # languages that write 1.962,5 where code formats 1,962.5
_SWAPPED = str.maketrans(",.", ".,")

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Exceptions of yaml.load for a damaged text: "!!bool x" is a KeyError, "!!int ''" an IndexError, "!!timestamp x" an
# AttributeError, deep nesting a RecursionError.
YAML_ERRORS = (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError)


class Message(Frozen):
    """One sentence: a catalogue key and the values of its placeholders (numbers, strings, or other Messages)."""

    key: str
    params: dict[str, Any] = {}

    def __str__(self) -> str:
        """Return the sentence in English."""
        return self.render("en")

    def render(self, language: str = "en") -> str:
        """Return the sentence in a language, else in English, from core's catalogue. A key that it lacks, such as one
        of the page's own, is shown as it is with its values."""
        return core_catalogue().render(self, language)


def msg(key: str, **params: object) -> Message:
    """Return a Message whose params can be written as JSON: Messages become {key, params}, also those in lists; values
    other than numbers, texts, booleans and None become their text, a Path and a dict too.

    Sentences write a negative number with a minus; what is typed or printed with a hyphen (offload_layers -1, an exit
    status) is passed as text."""
    return Message(key=key, params={k: _as_json(v) for k, v in params.items()})


def figures(text: str, language: str) -> str:
    """Format a number that code formatted, "1,962", "-3" or "2.2 GB", as a language writes it."""
    text = f"−{text[1:]}" if text.startswith("-") else text
    return text.translate(_SWAPPED) if language in DECIMAL_COMMA else text


def as_text(sentences: Iterable[str], language: str) -> str:
    """Join sentences, those that are empty left out: with spaces, in Chinese without."""
    return ("" if language == "zh" else " ").join(filter(None, sentences))


def as_typed(value: float | int) -> str:
    """Format 0.0002, 8 and 64 as a person types them: no needless exponent, no trailing zeros."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.10f}".rstrip("0").rstrip(".") if 1e-6 <= abs(value) < 1e6 else f"{value:g}"


def in_language(texts: Mapping[str, str], language: str) -> str:
    """Return a text of presets/ in a language, or in English if it lacks that one."""
    return texts.get(language, texts["en"])


def _as_json(value: object) -> object:
    """Return a message's value as JSON: a Message as {key, params}, also in lists; numbers, texts, booleans and None as
    they are; any other value as its text."""
    if isinstance(value, Message):
        return {"key": value.key, "params": value.params}
    if isinstance(value, list | tuple):
        return [_as_json(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such value
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)


def unpacked_yaml(path: Path) -> Any:
    """Return what a YAML file holds, packed or not; {} for an empty one."""
    content = path.read_bytes()
    return yaml.load(bz2.decompress(content) if path.suffix == PACKED else content, YAML_LOADER) or {}


class Catalogue:
    """Sentences by language and key, from one or more folders; later folders add and replace keys."""

    def __init__(self, *folders: Path):
        """Read the sentences of the folders' YAML files, a file's name being the first part of its keys, and those of
        core's single-file languages; in a release TOGETHER has most of them."""
        self._sentences: dict[str, dict[str, str]] = {language: {} for language in LANGUAGES}
        for folder in folders:
            file = folder / TOGETHER
            together = json.loads(bz2.decompress(file.read_bytes())) if file.exists() else {}
            for language in LANGUAGES:
                for name, entries in together.items():
                    self._add(
                        language, {name: {key: texts[language] for key, texts in entries.items() if language in texts}}
                    )
                for path in sorted((folder / language).glob("*.yaml")):
                    self._add(language, {path.stem: unpacked_yaml(path)})
        for language in LANGUAGES:
            for single_file in CORE_LOCALES.glob(f"{language}.yaml"):
                self._add(language, unpacked_yaml(single_file))

    def _add(self, language: str, sections: Mapping[str, Mapping[str, str]]) -> None:
        """Add sentences of a language. sections: by file name, the first part of their keys, and the rest of the key;
        "python launch.py" in them becomes COMMAND."""
        for name, entries in sections.items():
            sentences = {f"{name}.{key}": value.replace("python launch.py", COMMAND) for key, value in entries.items()}
            self._sentences[language] |= sentences

    def keys(self, language: str) -> set[str]:
        """Return the keys of all sentences of a language."""
        return set(self._sentences[language])

    def raw(self, key: str, language: str) -> str:
        """Return the sentence with its placeholders. Raises KeyError for an unknown key."""
        return self._sentences[language][key]

    def render(self, message: Message, language: str = "en") -> str:
        """Return message as a sentence of language, else of English. An unknown key is shown as it is, with its
        values."""
        language = language if language in LANGUAGES else "en"
        sentence = self._sentences[language].get(message.key, self._sentences["en"].get(message.key))
        if sentence is None:
            return f"{message.key} {message.params or ''}".strip()
        values = {name: self._in_words(value, language) for name, value in message.params.items()}
        return _Forgiving(language).vformat(sentence, (), values)

    def _in_words(self, value: object, language: str) -> object:
        """Return a value with messages in it rendered, a list joined by the language's comma."""
        if isinstance(value, dict) and "key" in value:
            return self.render(Message(key=value["key"], params=value.get("params", {})), language)
        if isinstance(value, list):
            parts = [str(self._in_words(v, language)) for v in value]
            return self._sentences[language]["language.comma"].join(parts)
        return value


class _Forgiving(string.Formatter):
    """Formats numbers as the language does. A placeholder without a value stays visible instead of raising while an
    error is being reported."""

    def __init__(self, language: str):
        self._language = language

    def get_value(self, key: int | str, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
        """Return the value of a placeholder, or its name in braces if there is none."""
        return kwargs.get(str(key), "{" + str(key) + "}")

    def format_field(self, value: Any, format_spec: str) -> object:
        """Format a value; "{rows:row|rows}" chooses by 1 or another number. An invalid format gives the value as
        text."""
        one, is_counted, several = format_spec.partition("|")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_counted:
            return one if (as_typed(value) if is_number else str(value)) == "1" else several
        try:
            text = as_typed(value) if is_number and not format_spec else super().format_field(value, format_spec)
        except ValueError:
            text = str(value)
        return figures(text, self._language) if is_number else text


@lru_cache(maxsize=1)
def core_catalogue() -> Catalogue:
    """Return the catalogue of core's own sentences, read from its files once."""
    return Catalogue(CORE_LOCALES)


def terminal_language() -> str:
    """Return the supported language of the first that is set of LORA_GARAGE_LANG, LC_ALL, LC_MESSAGES and LANG; else
    "en"."""
    names = ("LORA_GARAGE_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    locale = next(filter(None, map(os.environ.get, names)), "")
    return next((language for language in LANGUAGES if locale.lower().startswith(language)), "en")
