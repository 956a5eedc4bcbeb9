"""Detects the language of a text: by script, and for seven languages of Latin script by their commonest words.

Other languages of Latin script and texts of fewer than MIN_CHARACTERS stay undecided.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

MIN_CHARACTERS = 40
MAIN = 0.7  # share of the judged texts from which their language is the main one
_SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]"), 3),
    ("zh", re.compile(r"[\u3400-\u9fff]"), 1),
    ("ko", re.compile(r"[\uac00-\ud7af]"), 1),
    ("ru", re.compile(r"[\u0400-\u04ff]"), 1),
    ("ar", re.compile(r"[\u0600-\u06ff]"), 1),
    ("he", re.compile(r"[\u0590-\u05ff]"), 1),
    ("el", re.compile(r"[\u0370-\u03ff]"), 1),
    ("hi", re.compile(r"[\u0900-\u097f]"), 1),
    ("th", re.compile(r"[\u0e00-\u0e7f]"), 1),
)
_COMMON = {
    "en": "the of and is are that this with was for you it not have be which from by",
    "de": "der die das und ist nicht ein eine mit für auf den dem sich ich sie es wird von zu",
    "fr": "le la les des et est une dans que pour pas vous qui sur avec du je ce il",
    "es": "el la los las que y es una para con por del se no como más su lo",
    "it": "il che di è per una con non sono della del gli le si lo anche",
    "pt": "o que é para uma com não do da os as em por se mais um na no",
    "nl": "de het een en van is niet dat met voor op zijn ik je wordt te",
}
_WORDS = {language: frozenset(words.split()) for language, words in _COMMON.items()}
COMMON_WORDS = frozenset(" ".join(_COMMON.values()).split())
_LETTERS = re.compile(r"[^\W\d_]")
_HEAD = 300  # characters


def language_of(text: str) -> str | None:
    """Return a code of two letters (zh and ru stand for their scripts) by the beginning of a text, or None if it is too
    short, mixed or unknown."""
    head = text[:_HEAD]
    if len(head) < MIN_CHARACTERS and head.isascii():
        return None
    if not head.isascii():
        letters = len(_LETTERS.findall(head))
        for language, script, weight in _SCRIPTS:
            count = len(script.findall(head)) * weight
            if count >= 8 and count > letters / 2:
                return language
    if len(head) < MIN_CHARACTERS:
        return None
    words = head.lower().split()
    different = set(words)
    known = different & COMMON_WORDS  # most words are in no list
    if len(known) < 4:
        return None
    hits = sorted(((len(known & common), language) for language, common in _WORDS.items()), reverse=True)
    (best, language), (second, _) = hits[0], hits[1]
    return language if best >= 4 and best >= 2 * second and best >= len(different) / 12 else None


def main_language(texts: Sequence[str]) -> str | None:
    """Return the language of at least MAIN of the texts that can be judged; None if these are fewer than half of all,
    or mixed."""
    judged = Counter(filter(None, map(language_of, texts)))
    if not judged or judged.total() < len(texts) / 2:
        return None
    language, count = judged.most_common(1)[0]
    return language if count >= MAIN * judged.total() else None
