"""Parser of a person's request for a model: "small japanese for 6 GB", "calls tools under 4B", "日语小模型 可商用".

No torch. Words are looked up (presets/shelf.yaml), not interpreted: a sentence is cut into GPUs, sizes, known words,
and names, in that order; unknown words are reported, with the nearest names (difflib).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Literal

from core.files import JsonObject
from core.messages import Message, msg
from core.models.known import KnownModel, known_models
from core.presets import load

LONGEST = 200  # characters that are read
# Billions, least and most, for words; "small" includes the largest models called 4B or E2B.
MEANT = {"small": (0.0, 4.7), "large": (12.0, float("inf"))}
AS_NAMED = 1.07  # a model called 4B has up to 4.2 billion: tolerance for sizes given as numbers
ABOUT = 1.25
NEAR = 0.72  # similarity of a misspelt word, up to 1: "qwne" and "qwen" have 0.75
ANYWHERE = 4  # letters
Order = Literal["liked", "newest", "smallest", "largest"]


@dataclass(frozen=True)
class Wish:
    """The conditions on a model; None, () or "liked": no condition. A page's own filters are a Wish too.

    names: parts of a name, all of them. makers: families or owners, one of them. topic: a key of topics in
    presets/shelf.yaml. billions: least and most. language: a code; languages: several, all of which are required. sell:
    products may be sold. thinks: True: can, False: need not. fits: trains on this GPU. card_gb: of a GPU as sold.
    """

    names: tuple[str, ...] = ()
    makers: tuple[str, ...] = ()
    topic: str | None = None
    billions: tuple[float, float] | None = None
    language: str | None = None
    languages: tuple[str, ...] = ()
    card_gb: float | None = None
    fits: bool = False
    sell: bool = False
    thinks: bool | None = None
    tools: bool = False
    order: Order = "liked"

    def parts(self) -> dict[str, Message]:
        """Return a message in a few words for each condition that is set, by its field."""
        parts: dict[str, Message | None] = {
            "makers": msg("shelf.maker", names=self.makers) if self.makers else None,
            "names": msg("shelf.name", names=self.names) if self.names else None,
            "topic": msg("shelf.topic", topic=topic_name(self.topic)) if self.topic else None,
            "billions": _size_text(*self.billions) if self.billions else None,
            "language": msg("shelf.language", language=language_name(self.language)) if self.language else None,
            "languages": msg("shelf.language", language=[language_name(code) for code in self.languages])
            if self.languages
            else None,
            "card_gb": msg("shelf.card", gb=self.card_gb) if self.card_gb else None,
            "fits": msg("shelf.fits") if self.fits and not self.card_gb else None,
            "sell": msg("shelf.sell") if self.sell else None,
            "thinks": None if self.thinks is None else msg("shelf.thinks" if self.thinks else "shelf.answers_at_once"),
            "tools": msg("shelf.tools") if self.tools else None,
            "order": None if self.order == "liked" else msg(f"shelf.{self.order}"),
        }
        return {field: message for field, message in parts.items() if message is not None}


@dataclass(frozen=True)
class ReadWish:
    """The result of parsing words. wish: the conditions. unknown: words without a meaning, each with similar names."""

    wish: Wish
    unknown: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def remarks(self) -> tuple[Message, ...]:
        """Return messages on the words that were not understood."""
        return tuple(
            msg("shelf.unknown_near", words=words, near=near) if near else msg("shelf.unknown", words=words)
            for words, near in self.unknown
        )


def read(words: str, wish: Wish | None = None) -> ReadWish:
    """Return the conditions that the first LONGEST characters of words ask for, on top of those of wish, with unknown
    words. Never raises: unknown words are reported."""
    fields: dict[str, Any] = {}
    text = _cards(f" {unicodedata.normalize('NFKC', words[:LONGEST]).lower()} ", fields)
    text, meanings = _known_words(_sizes(text, fields))
    for kind, value in meanings:
        _take(kind, value, fields)
    unknown = _names(text, fields)
    return ReadWish(replace(wish or Wish(), **fields), unknown)


def squashed(text: str) -> str:
    """Return a name without the signs that people leave out: "Llama-3.1-8B" and "llama 3.1 8b" are equal."""
    return re.sub(r"[\s_/:-]+", "", text.lower())


def language_name(code: str) -> Message:
    """Return a message with a language's name in every language of the app; its code where presets do not name it."""
    names = _presets()["languages"].get(code)
    return msg(
        "language.of_name",
        **{tongue: names[tongue] for tongue in ("en", "zh", "de")}
        if names
        else dict.fromkeys(("en", "zh", "de"), code),
    )


def topic_name(topic: str) -> Message:
    """Return a message with a topic's name in every language of the app. Raises KeyError for an unknown topic."""
    names = _presets()["topics"][topic]
    return msg("language.of_name", en=names["en"], zh=names["zh"], de=names["de"])


def cards_of(gb: int) -> tuple[str, ...]:
    """Return the names of GPUs sold with gb GB: "RTX 3060", "RTX 4070 Ti"."""
    cards = (str(name).partition(" ")[::2] for name, sold in _presets()["cards"].items() if sold == gb)
    return tuple(
        f"{'RTX' if int(number) >= 2000 else 'GTX'} {f'{number} {more}'.title().strip()}" for number, more in cards
    )


def topic_words(topic: str) -> tuple[str, ...]:
    """Return words in a model's name or note that mark it as good at this topic."""
    return tuple(_presets()["topics"][topic]["in"])


@lru_cache(maxsize=1)
def _presets() -> JsonObject:
    """Return the content of presets/shelf (topics, languages, makers, graphics cards and so on, in which a person can
    word a wish for a model), loaded once per process."""
    content: JsonObject = load("shelf")
    return content


# ---- cards and sizes -----------------------------------------------------------------------------
_GB = re.compile(r"(?<![a-z0-9.])(\d{1,3}(?:\.\d)?)\s*(?:gib|gigs?|gb|g)(?![a-z0-9])(?!\s*(?:of )?(?:ram|内存))")
_CARD = re.compile(r"(?<![a-z0-9.-])(?:rtx|gtx)?\s*(\d{4})\s*-?\s*((?:ti)?\s*(?:super)?)(?![a-z0-9.-])")
_UNIT = r"\s*(b|billion|bn|m|million|亿)(?![a-z0-9])"
_NUMBER = r"(\d{1,4}(?:\.\d{1,3})?)"
_MOST = (
    r"under|below|up to|at most|max|maximum|less than|smaller than|no more than|<=?|≤|unter|bis "
    r"zu|bis|höchstens|maximal|weniger als|kleiner als|不超过|不大于|小于|低于|最多|至多"
)
_LEAST = (
    r"over|above|at least|more than|larger than|bigger than|>=?|≥|über|ab|mindestens|mehr als|größer "
    r"als|大于|超过|不小于|至少"
)
_RANGE = re.compile(rf"(?<![a-z0-9.-]){_NUMBER}\s*(?:b|billion)?\s*(?:-|–|to|~|到|至)\s*{_NUMBER}{_UNIT}")
_SIZE = re.compile(
    rf"(?:(?:(?![a-zäöü])|(?<![a-zäöü]))(?:({_MOST})|({_LEAST})))?\s*(?<![a-z0-9.-]){_NUMBER}{_UNIT}\s*(?:(or less|or "
    rf"smaller|oder weniger|oder kleiner|以下|以内)|(or more|or larger|oder mehr|oder größer|以上))?"
)


def _cards(text: str, fields: dict[str, Any]) -> str:
    """Remove GPU names and sizes (1 to 999 GB) from text, put the GPU's GB into fields, and return the rest; an
    explicit size counts more than a name."""

    def take_card(match: re.Match[str]) -> str:
        """Store the memory of a known GPU in fields, unless one is stored already, and return a space in place of its
        name. Return an unknown name unchanged."""
        name = " ".join(match[0].replace("rtx", "").replace("gtx", "").replace("-", " ").replace("ti", " ti ").split())
        gb = cards.get(name)
        if gb is None:
            return match[0]
        fields.setdefault("card_gb", float(gb))
        return " "

    def take_memory(match: re.Match[str]) -> str:
        """Store a memory of 1 to 999 GB in fields and return a space in its place. Return any other number
        unchanged."""
        if not 1 <= float(match[1]) <= 999:
            return match[0]
        fields["card_gb"] = float(match[1])
        return " "

    cards = {str(name): gb for name, gb in _presets()["cards"].items()}
    text = _GB.sub(take_memory, text)
    return _CARD.sub(take_card, text)


def _sizes(text: str, fields: dict[str, Any]) -> str:
    """Remove model sizes ("7b", "under 4b", "3-8b") from text, put (least, most) billions into fields, and return the
    rest; a bare size means about that size."""

    def in_billions(number: str, unit: str) -> float:
        """Return a number with its unit (m, million, 亿; any other is billions) in billions of parameters."""
        return float(number) * {"m": 1e-3, "million": 1e-3, "亿": 0.1}.get(unit, 1.0)

    def take_range(match: re.Match[str]) -> str:
        """Store a range of model sizes, (least, most) billions, in fields and return a space in its place."""
        least, most = sorted((in_billions(match[1], match[3]), in_billions(match[2], match[3])))
        fields["billions"] = (least, most)
        return " "

    def take_size(match: re.Match[str]) -> str:
        """Store a model size as (least, most) billions in fields, by the words beside it (at most, at least; without
        any, about), and return a space in its place. Return a size of 0 unchanged."""
        size = in_billions(match[3], match[4])
        if size <= 0:
            return match[0]
        if match[1] or match[5]:
            fields["billions"] = (0.0, size)
        elif match[2] or match[6]:
            fields["billions"] = (size, float("inf"))
        else:
            fields["billions"] = (size / ABOUT, size * ABOUT)
        return " "

    return _SIZE.sub(take_size, _RANGE.sub(take_range, text))


def _size_text(least: float, most: float) -> Message:
    """Return a message on a range of billions of parameters: at most, at least, about, or between."""
    if least <= 0:
        return msg("shelf.at_most", billions=most)
    if most == float("inf"):
        return msg("shelf.at_least", billions=least)
    if abs(most / least - ABOUT * ABOUT) < 1e-6:
        return msg("shelf.about", billions=round(least * ABOUT, 3))
    return msg("shelf.between", least=least, most=most)


# ---- words of presets/shelf.yaml -----------------------------------------------------------------
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


@lru_cache(maxsize=1)
def _vocabulary() -> dict[str, tuple[str, str]]:
    """Return, for each known word in small letters, (kind, value): the kinds are filler, language, topic, ask (any
    other condition) and maker. A word with several meanings has the one that is last in this order. Cached."""
    presets = _presets()
    words: dict[str, tuple[str, str]] = {str(word).lower(): ("filler", "") for word in presets["fillers"]}
    for code, names in presets["languages"].items():
        for word in (names["en"], names["zh"], names["de"], *names["words"]):
            words[word.lower()] = ("language", code)
    for kind, entries in (
        ("topic", {key: entry["words"] for key, entry in presets["topics"].items()}),
        ("ask", presets["asks"]),
    ):
        for value, written in entries.items():
            words |= {word.lower(): (kind, value) for word in written}
    return words | {word: ("maker", word) for word in presets["makers"]}


@lru_cache(maxsize=1)
def _patterns() -> tuple[re.Pattern[str], ...]:
    """Return patterns for Chinese words anywhere, then for Latin words that stand alone; the longest first."""
    words = sorted(_vocabulary(), key=len, reverse=True)
    chinese = "|".join(re.escape(word) for word in words if _CJK.search(word))
    latin = "|".join(re.escape(word) for word in words if not _CJK.search(word))
    return re.compile(chinese), re.compile(rf"(?<![\w.-])(?:{latin})(?![\w-]|\.\w)")


def _known_words(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the text without the vocabulary's words, and of each such word its (condition, value)."""
    meanings: list[tuple[str, str]] = []

    def take_meaning(match: re.Match[str]) -> str:
        """Note the kind and value of a known word, and return a space, which takes its place in the text."""
        meanings.append(_vocabulary()[match[0]])
        return " "

    for pattern in _patterns():
        text = pattern.sub(take_meaning, text)
    return text, meanings


def _take(kind: str, value: str, fields: dict[str, Any]) -> None:
    """Store the meaning of one known word in fields; a second language, and makers, are added. The person's size
    overrides those of small and large."""
    if kind == "language" and fields.setdefault("language", value) != value:
        fields["languages"] = tuple(dict.fromkeys((*fields.get("languages", ()), value)))
    elif kind in ("language", "topic"):
        fields[kind] = value
    elif kind == "maker":
        fields["makers"] = tuple(dict.fromkeys((*fields.get("makers", ()), *_presets()["makers"][value])))
    elif value in ("newest", "smallest", "largest"):
        fields["order"] = value
    elif value in MEANT:
        fields.setdefault("billions", MEANT[value])
    elif value in ("thinks", "answers_at_once"):
        fields["thinks"] = value == "thinks"
    elif kind == "ask":
        fields[value] = True


# ---- names ---------------------------------------------------------------------------------------
_WITH_NUMBER = re.compile(r"(?<![\w.-])([a-z][a-z:-]*[a-z])\s+(\d{1,2}(?:\.\d)?)(?![\w.])")
_TOKEN = re.compile(r"[^\s,;!?，。；！？、\"'()（）“”]+")


@lru_cache(maxsize=1)
def _heads() -> frozenset[str]:
    """Return the beginnings of family names: "qwen", "qwen3.5", "gemma", "deepseek", "gpt"."""
    families = {model.family.lower() for model in known_models()}
    return frozenset(
        head for family in families for head in (squashed(family), re.split(r"[\s\d-]", family)[0]) if len(head) > 1
    )


@lru_cache(maxsize=1)
def _names_known() -> tuple[str, ...]:
    """Return every name or word that a misspelt one may stand for, families first. Cached."""
    pieces = (
        piece for model in known_models() for piece in re.split(r"[\s/_-]+", f"{model.title} {model.hub}".lower())
    )
    named = dict.fromkeys(piece for piece in pieces if len(piece) > 3 and re.match(r"[a-z]{3}", piece))
    asking = (word for word, (kind, _) in _vocabulary().items() if kind != "filler")
    latin = (word for word in asking if len(word) > 3 and word.isalpha() and not _CJK.search(word))
    return tuple(dict.fromkeys((*sorted(_heads()), *named, *latin)))


@lru_cache(maxsize=1)
def _all_names() -> tuple[str, ...]:
    """Return the names of each known model, as from `about`. Cached."""
    return tuple(about(model) for model in known_models())


def _names(text: str, fields: dict[str, Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Put the model names in text into fields; return (word, similar names) of unknown ones."""
    unknown: list[tuple[str, tuple[str, ...]]] = []
    for token in _TOKEN.findall(_WITH_NUMBER.sub(r"\1\2", text)):
        token = token.strip(".-/")
        name = squashed(token)
        if not any(char.isalnum() for char in name) or (len(name) < 2 and name.isascii()):
            continue
        if any(is_part(name, about) for about in _all_names()):
            fields["names"] = tuple(dict.fromkeys((*fields.get("names", ()), token)))
        else:
            near = [] if _CJK.search(name) else get_close_matches(name, _names_known(), n=3, cutoff=NEAR)
            unknown.append((token, tuple(near)))
    return tuple(unknown)


def about(model: KnownModel) -> str:
    """Return all names of a model, squashed: family, title and hub id as a whole, then the pieces of both."""
    pieces = re.split(r"[\s/_.-]+", f"{model.title} {model.hub}".lower())
    return "|".join(["", squashed(model.family), squashed(model.title), squashed(model.hub), *pieces])


def is_part(name: str, about: str) -> bool:
    """Return whether a squashed name occurs in about (of a model, as from `about`). A short one must begin a name or a
    piece of one: "r1" is not in "coder-14b"."""
    return (f"|{name}" if len(name) < ANYWHERE else name) in about


def matches_name(names: Iterable[str], about: str, family: str, others: bool) -> bool:
    """Return whether every name occurs among a model's names. about: these, as from `about`; family: its squashed
    family.

    A family's own name, alone, means that family and not models derived from it ("llama" is not TinyLlama). others:
    more than one name was given.
    """
    parts = [squashed(name) for name in names]
    return all(is_part(name, about) and (others or name not in _heads() or family.startswith(name)) for name in parts)
