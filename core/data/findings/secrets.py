"""Finds secrets in a text: API keys by their prefixes, tokens, and data that identifies or reaches a person.

Numbers count only if their check digits are right and their notation, or a word before them, says what they are: of
random numbers of 16 digits one in ten passes a card's check. Published examples (AKIA...EXAMPLE, example.com, 4111 1111
...) are ignored. Each search begins with a test for a few letters, so that a row without any costs some microseconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

_KEYS = {
    "sk-": r"sk-(?:ant-|proj-|or-v1-)?[\w-]{20,}", "ghp_": r"ghp_\w{36,}", "gho_": r"gho_\w{36,}",
    "ghs_": r"gh[sur]_\w{36,}",
    "github_pat_": r"github_pat_\w{50,}", "glpat-": r"glpat-[\w-]{20,}", "hf_": r"hf_[A-Za-z0-9]{30,}",
    "AKIA": r"AKIA[0-9A-Z]{16}",
    "ASIA": r"ASIA[0-9A-Z]{16}", "AIza": r"AIza[\w-]{35}", "xox": r"xox[abeoprs]-[\w-]{12,}",
    "_live_": r"[rsp]k_live_\w{20,}",
    "npm_": r"npm_\w{36}", "pypi-": r"pypi-[\w-]{60,}", "SG.": r"SG\.[\w-]{20,}\.[\w-]{30,}",
    "hooks.slack": r"hooks\.slack\.com/services/[\w/]{20,}",
    ":AA": r"\d{8,10}:AA[\w-]{32,}", "gsk_": r"gsk_\w{40,}", "dop_v1": r"dop_v1_[0-9a-f]{60,}",
    "tskey-": r"tskey-[\w-]{20,}",
}  # fmt: skip
_KEY = {mark: re.compile(r"(?<![\w-])" + pattern) for mark, pattern in _KEYS.items()}
# By a sign in them that many texts lack.
_MARKS = {sign: [m for m in _KEY if sign == next((s for s in "_-A" if s in m), "")] for sign in ("_", "-", "A", "")}
# Header and payload: eyJ is {" in base64.
_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}")
_PRIVATE = re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY(?: BLOCK)?-----[\s\S]{40,}?(?:-----END [A-Z ]+-----|\Z)")
_EMAIL = re.compile(
    r"(?<![\w.+/:-])[A-Za-z0-9][\w.+-]{0,63}"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,4}[A-Za-z]{2,18}(?![\w@(])"
)
_NO_EMAIL = re.compile(
    r"@(?:[\w.-]*\.)?(?:example|test|invalid|localhost|domain|email|mail|company|yourcompany|yourdomain|website"
    r"|xyz|abc|acme|foo|bar)\.\w+$"
    r"|\.(?:example|test|invalid|localhost|local|internal|png|jpe?g|gif|svg|py|js|html?|css)$|^(?:git"
    r"|user(?:name)?|you|your\.?\w*|name|email|someone|xxx+)@",
    re.IGNORECASE,
)
_IBAN = re.compile(r"(?<![A-Z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Z0-9])")
# 4-4-4-4, American Express 4-6-5, or all digits together
_CARD = re.compile(r"(?<![\d.,-])(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}|3[47]\d\d([ -])\d{6}\2\d{5}|\d{15,16})(?![\d.,]?\d)")
# Visa, Mastercard (5, 2), American Express, Discover, UnionPay
_ISSUED = re.compile(r"4\d{15}|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|6(?:011|5\d\d)\d{12}|62\d{14}")
_TEST_CARDS = {"4111111111111111", "4242424242424242", "5555555555554444", "378282246310005", "4012888888881881",
    "6011111111111117", "5105105105105100", "4000056655665556"}  # fmt: skip
_NEAR_CARD = re.compile(
    r"card|visa|master|amex|cvv|cvc|karte|carte|tarjeta|cart[aã]o|银行卡|信用卡|卡号", re.IGNORECASE
)
_PHONE = re.compile(
    r"(?<![\w.,+/=-])(?:\+\d{1,3}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?\d{1,5}(?:[ .-]?\d{2,5}){1,4}|\(?0?\d{2,5}\)?(?:[ "
    r"/.-]?\d{2,5}){2,4})(?![\w,.]?\d)"
)
_NEAR_PHONE = re.compile(
    r"(?:\b(?:tel|phone|call|mobile|cell|whatsapp|fax|telefon|handy|mobil|anruf\w*|tél(?:éphone)?|teléfono"
    r"|telefono)\b|电话|手机|热线|微信|联系)"
    r"[^\n\d+(]{0,20}$",
    re.IGNORECASE,
)
# Numbers of films and examples, and digits in a row.
_FICTION = re.compile(r"555.?01\d\d|555.?\d{4}|1234567|(\d)\1{5}")
_NO_DIGITS = re.compile(r"\D")
# Text in place of a removed secret; also the list of kinds.
STAND_IN = {
    "key": "[key]", "token": "[token]", "private_key": "[private key]", "email": "[e-mail]", "iban": "[account]",
    "card": "[card]",
    "phone": "[phone]",
}  # fmt: skip


class Secret(NamedTuple):
    kind: str
    start: int
    end: int


def secrets(text: str) -> Iterator[Secret]:
    """Yield the secrets in a text by kind: keys, tokens, private keys, e-mail addresses, account numbers (IBAN), card
    and phone numbers. Made-up ones are left out.

    A card's digits without gaps count only after a word such as "card", a phone number only with + or after a word such
    as "call".
    """
    # A look for a few fixed characters first: most texts have none of them, and searching a pattern takes far longer.
    for mark in (mark for sign, marks in _MARKS.items() if sign in text for mark in marks if mark in text):
        yield from _matches_of_kind("key", _KEY[mark], text, _is_random)
    if "eyJ" in text:
        yield from _matches_of_kind("token", _JWT, text, _is_random)
    if "PRIVATE KEY" in text:
        yield from _matches_of_kind("private_key", _PRIVATE, text, _is_random)
    if "@" in text:
        yield from _matches_of_kind("email", _EMAIL, text, lambda address: not _NO_EMAIL.search(address))
    if (_SEVEN_FIGURES if text.isascii() else _SEVEN_DIGITS).search(text):
        yield from _matches_of_kind("iban", _IBAN, text, is_iban)
        cards = [*_matches_of_kind("card", _CARD, text, is_card)]
        yield from (
            c
            for c in cards
            if not text[c.start : c.end].isdigit() or _NEAR_CARD.search(text[max(0, c.start - 60) : c.start])
        )
        phones = _matches_of_kind("phone", _PHONE, text, _is_phone)
        yield from (
            p for p in phones if text[p.start] == "+" or _NEAR_PHONE.search(text[max(0, p.start - 40) : p.start])
        )


# The shortest number that is looked for; in ASCII twice as fast.
_SEVEN_DIGITS = re.compile(r"\d[\d ()/.-]{5,}\d")
_SEVEN_FIGURES = re.compile(r"[0-9][0-9 ()/.-]{5,}[0-9]")


def _matches_of_kind(
    kind: str, pattern: re.Pattern[str], text: str, is_real: Callable[[str], bool]
) -> Iterator[Secret]:
    """Yield a Secret of this kind for each match of the pattern whose text passes is_real."""
    return (Secret(kind, match.start(), match.end()) for match in pattern.finditer(text) if is_real(match[0]))


def _is_random(key: str) -> bool:
    """Return True if a key is not made up, as sk-xxxxxxxx, sk-your-key-here, AKIAIOSFODNN7EXAMPLE are.

    A real key has many different characters, digits among them, and no words.
    """
    low = key.lower()
    return (
        len(set(key)) >= 10
        and any(map(str.isdigit, key))
        and not any(
            word in low
            for word in ("example", "your", "xxxx", "1234567", "abcdef", "key-here", "placeholder", "redacted")
        )
    )


def is_iban(text: str) -> bool:
    """Return True for a valid account number: its letters as numbers have the remainder 1 modulo 97 (ISO 13616)."""
    plain = text.replace(" ", "")
    if not 15 <= len(plain) <= 34 or len(set(plain[4:])) < 4:
        return False
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def is_card(text: str) -> bool:
    """Return True for a card number in an issuer's range with a valid check digit (ISO 7812, Luhn) that is no test
    number."""
    digits = _NO_DIGITS.sub("", text)
    if not _ISSUED.fullmatch(digits) or digits in _TEST_CARDS or len(set(digits)) < 4:
        return False
    # Luhn: every second digit from the right is doubled, its digits added.
    doubled = (int(d) if i % 2 == 0 else sum(divmod(2 * int(d), 10)) for i, d in enumerate(reversed(digits)))
    return sum(doubled) % 10 == 0


def _is_phone(text: str) -> bool:
    """Return True if a text has 7 to 15 digits that do not look made up, as 555-0123 and 1234567 do."""
    digits = _NO_DIGITS.sub("", text)
    return (
        7 <= len(digits) <= 15 and len(set(digits)) >= 3 and not _FICTION.search(text) and not _FICTION.search(digits)
    )


def masked(text: str) -> str:
    """Return text with "•••" after the first three characters of each secret, in place of the rest."""
    return _replace(text, secrets(text), lambda secret: text[secret.start : secret.start + 3] + "•••")


def without_secrets(text: str, kind: str) -> str:
    """Return text with each secret of this kind replaced by the kind's word in brackets, such as "[e-mail]"; secrets of
    other kinds stay."""
    return _replace(text, (secret for secret in secrets(text) if secret.kind == kind), lambda secret: STAND_IN[kind])


def _replace(text: str, secrets: Iterable[Secret], stand_in: Callable[[Secret], str]) -> str:
    """Return the text with each secret replaced by its stand-in; of overlapping ones the first is."""
    parts, at = [], 0
    for secret in sorted(secrets, key=lambda secret: (secret.start, -secret.end)):
        if secret.start >= at:
            parts += [text[at : secret.start], stand_in(secret)]
            at = secret.end
    return "".join(parts) + text[at:]
