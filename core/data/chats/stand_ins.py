"""Pseudonyms: names, phone numbers, e-mail addresses and links of other people, replaced consistently in a chat.

Replaced are the names of all writers but the voice, anywhere, numbers and addresses anywhere (their owner is unknown),
and links of the others. Not recognized, and left: nicknames, people who are only mentioned, places, and anything else
in a sentence; and a name, or a part of one, that the chat mostly writes in small letters, because that is an ordinary
word there ("All Ricks"). So the rows are not anonymous; they only omit what is easiest to misuse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_LATIN = tuple(
    [
        "Alex",
        "Robin",
        "Kim",
        "Sam",
        "Jo",
        "Noa",
        "Luca",
        "Toni",
        "Mika",
        "Charlie",
        "Nico",
        "Sascha",
        "Jules",
        "Kai",
        "Lou",
        "Remy",
    ]
)
_HAN = tuple(["小林", "小陈", "小周", "小吴", "小郑", "小冯", "小何", "小曹"])
_HANGUL = tuple(["지우", "서준", "하늘", "민서", "도윤", "수아"])
_KANA = tuple(["ハル", "ソラ", "アオイ", "ヒカル", "ナギ"])
_SCRIPTS = (
    (re.compile("[\u3040-\u30ff]"), _KANA),
    (re.compile("[\uac00-\ud7af]"), _HANGUL),
    (re.compile("[\u3400-\u9fff]"), _HAN),
)
# scripts without blanks between words
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_WORD = "[^\\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"

# Parts of names that are also words: replaced only as written, not in lower case.
_ALSO_WORDS = frozenset(
    re.findall(
        r"\w+",
        """will mark rose hope may june april august grace joy art bill rob sue pat dan jack frank drew chase faith
        guy max
    rich ray dean gene lance miles penny ruby summer wade heath dawn eve ivy holly iris lily olive violet daisy bob nick
    don ed al john carol gold ernst kurt ernst sonne blume""",
    )
)
_NO_NAMES = frozenset(
    re.findall(
        r"\w+",
        """van von der den del della de da di du la le el al bin ibn and und the uni work arbeit mom mum dad mama
        papa""",
    )
)
MIN_LETTERS = 3
MAX_PHRASES = 200  # names of several words in one expression; further ones are replaced word by word

# From a word's beginning: 2 MB without a blank took hours.
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_LINK = re.compile(r"(?:https?://|www\.)[^\s<>\"']+", re.IGNORECASE)
# +49 (0) 151 234-5678, but no part of a longer number
_PHONE = re.compile(r"(?<![0-9A-Za-z_.,/])(?:\+|00)?\(?\d(?:[ ()\u00a0./-]{0,2}\d){6,14}(?![0-9A-Za-z_])")
# 31.12.2025 has as many digits as a phone number.
_DATE = re.compile(r"\d{1,4}([./-])\d{1,2}\1\d{1,4}")


class StandIns:
    """Replacements of people's names. names: all but the voice, those with the most messages first; voice: no stand-in
    has its name; words: how often the chat has each word, as it is written."""

    def __init__(self, names: Iterable[str], voice: str, words: Mapping[str, int] | None = None):
        names = list(names)
        self._counts = words or {}
        self._kept = {voice.casefold(), *map(str.casefold, _parts(voice))}
        # no stand-in may have the name of a person
        self._taken = {part.casefold() for name in (voice, *names) for part in _parts(name)}
        self._next: dict[tuple[str, ...], int] = {}
        self.people: dict[str, str] = {}
        self._words: dict[str, str] = {}
        for name in names:
            self._add(name)
        phrases = [word for word in self._words if not word.isalnum() or _UNSPACED.search(word)][:MAX_PHRASES]
        # The longest first, so that a full name is replaced before a part of it.
        alternatives = [
            re.escape(word) if _UNSPACED.search(word) else rf"(?<!\w){re.escape(word)}(?!\w)"
            for word in sorted(phrases, key=len, reverse=True)
        ]
        self._names = re.compile("|".join([*alternatives, _WORD]))
        self._replaced: dict[str, dict[str, str]] = {"phone": {}, "email": {}, "link": {}}

    def _add(self, name: str) -> None:
        """Choose a free stand-in for a name in its script, used also for each of its words that is neither the voice's
        nor an ordinary one."""
        pool = next((names for script, names in _SCRIPTS if script.search(name)), _LATIN)
        number = self._next.get(pool, 0)
        while (new := _numbered(pool, number)).casefold() in self._taken:
            number += 1
        self._next[pool] = number + 1
        self.people[name] = new
        for word in _parts(name):
            if word.casefold() not in self._kept and not self._is_ordinary(word, name.strip()):
                for written in _as_written(word):
                    # Of two people with one word in their names the first, who wrote more, has it.
                    self._words.setdefault(written, new)

    def _is_ordinary(self, word: str, name: str) -> bool:
        """Return True if a word of a person's name is also an ordinary word of the chat, which is not replaced: the
        chat has it more often in small letters than with a capital. False for a name that is itself only this word in
        small letters."""
        small = word.lower()
        others = sum(self._counts.get(written, 0) for written in {word, word.upper(), word.capitalize()} - {small})
        return name != small and self._counts.get(small, 0) > others

    def replaced(self, text: str, is_voice: bool) -> str:
        """Return the text with names, e-mail addresses, phone numbers and links replaced, each always by the same
        stand-in. The voice's own links stay."""
        # Addresses and links before names, which may be parts of them.
        text = _EMAIL.sub(lambda match: self._number("email", match[0].casefold(), "person{}@example.com"), text)
        if not is_voice:
            text = _LINK.sub(lambda match: self._number("link", match[0], "https://example.com/{}"), text)
        parts = _LINK.split(text) if is_voice else [text]
        if len(parts) > 1:  # digits in the voice's own link are no phone number
            links = [*_LINK.findall(text), ""]
            return "".join(self._plain(part) + link for part, link in zip(parts, links, strict=True))
        return self._plain(text)

    def _plain(self, text: str) -> str:
        """Return a text that has no links, with stand-ins for phone numbers and names."""
        text = _PHONE.sub(self._phone, text)
        return self._names.sub(lambda match: self._words.get(match[0], match[0]), text)

    def _phone(self, match: re.Match[str]) -> str:
        """Return the stand-in of a phone number, "000 000 01", the same one for the same digits. Dates stay as they
        are, and so do digits unlike a number: not 8 to 15, or fewer than 10 without +, 0 or ( in front."""
        digits = "".join(filter(str.isdigit, match[0]))
        begins = match[0].startswith(("+", "0", "("))
        if _DATE.fullmatch(match[0]) or not (8 <= len(digits) <= 15) or not (begins or len(digits) >= 10):
            return match[0]
        return self._number("phone", digits, "000 000 {:02}")

    def _number(self, kind: str, value: str, form: str) -> str:
        """Return the stand-in of a value, always the same one: form with the value's number within its kind, from 1."""
        known = self._replaced[kind]
        return known.setdefault(value, form.format(len(known) + 1))


def _numbered(pool: tuple[str, ...], number: int) -> str:
    """Return the stand-in of a number, from 0; once the pool is used up its names come again with 2, 3, ..."""
    again, place = divmod(number, len(pool))
    return f"{pool[place]} {again + 1}" if again else pool[place]


def _parts(name: str) -> list[str]:
    """Return the texts of a name that are replaced: the full name and its parts, without short ones, numbers and words
    that are no names."""
    parts = [name.strip()]
    for word in re.findall(r"[^\W_]+", name):
        if _UNSPACED.search(word):
            parts += [word, *([word[1:]] if len(word) == 3 else [])]  # 王小明 is called 小明
        elif len(word) >= MIN_LETTERS and not word.isdigit() and word.casefold() not in _NO_NAMES:
            parts.append(word)
    return [word for word in dict.fromkeys(parts) if len(word) >= 2]


def _as_written(word: str) -> set[str]:
    """Return the spellings of a part of a name that are replaced: as it is, in small letters, in capitals, and with one
    capital. Only as it is, if it is in a script without blanks or in the list of names that are also words (will, mark,
    rose)."""
    if _UNSPACED.search(word) or word.casefold() in _ALSO_WORDS:
        return {word}
    return {word, word.lower(), word.upper(), word.capitalize()}
