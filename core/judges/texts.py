"""Texts as judges compare them: without thoughts, in one width and case, as words."""

from __future__ import annotations

import re
import unicodedata

_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_CLOSE = "</think>"
_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "−": "-"})
_OPENING = "\"'`([{*¿¡「『《【" + " "
_CLOSING = "\"'`)]}*.,;:!?…。、」』》】" + " "
CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_CJK = re.compile(f"[{CJK}]")
_WORD = re.compile(f"[{CJK}]|[^\\W{CJK}]+")


def without_thoughts(text: str) -> str:
    """Return an answer without its <think> parts; one that was cut off while thinking is empty."""
    if _CLOSE in text and "<think>" not in text.partition(_CLOSE)[0]:
        text = text.partition(_CLOSE)[2]  # the template opens the thought
    return _THOUGHTS.sub("", text).strip()


def narrow(text: str) -> str:
    """Return text with full-width letters, digits and marks in their usual width."""
    return "".join(unicodedata.normalize("NFKC", c) if unicodedata.east_asian_width(c) in "FH" else c for c in text)


def folded(text: str) -> str:
    """Return text in one width, case, spacing and kind of quotation mark."""
    return " ".join(unicodedata.normalize("NFC", narrow(text)).translate(_QUOTES).casefold().split())


def comparable(text: str) -> str:
    """Return folded text without quotation marks and brackets at its ends and punctuation at its end; the folded text
    itself if nothing would be left."""
    text = folded(text)
    return text.lstrip(_OPENING).rstrip(_CLOSING) or text


def words(text: str) -> list[str]:
    """Return the folded words of a text; each Chinese or Japanese character is one."""
    return _WORD.findall(folded(text))


def is_cjk(text: str) -> bool:
    """Return whether more than a third of the letters of a text are Chinese or Japanese."""
    return 3 * len(_CJK.findall(text)) > sum(map(str.isalpha, text))


def has(text: str, phrase: str) -> bool:
    """Return whether folded text has the phrase, however written, as whole words: 7 is not in 17 and 7.5, nor art in
    party."""
    phrase = comparable(phrase)
    letter = f"[^\\W{CJK}]"  # Chinese has no spaces between words
    before = f"(?<!{letter})" if re.match(letter, phrase) else ""
    after = f"(?!{letter})" if re.match(letter, phrase[-1:]) else ""
    before += r"(?<!\d[.,])" if phrase[:1].isdigit() else ""
    after += r"(?![.,]\d)" if phrase[-1:].isdigit() else ""
    return bool(phrase) and re.search(before + re.escape(phrase) + after, text) is not None


def quoted(text: str) -> str:
    """Return a text in one line for use in a sentence, of at most 60 characters, with "…" for the rest."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "…"
