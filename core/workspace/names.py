"""Folder names made from names that users choose (which may be Chinese, empty, hostile or reserved)."""

from __future__ import annotations

import re
import secrets
import unicodedata

MAX_SLUG = 40
_WINDOWS_RESERVED = {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(10)), *(f"lpt{i}" for i in range(10))}


def slug(name: str, fallback: str = "run") -> str:
    """Return name as lower-case ASCII letters, digits and single hyphens, at most MAX_SLUG characters; fallback if
    nothing remains, or Windows reserves it."""
    ascii_name = unicodedata.normalize("NFKD", name[:1000]).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")[:MAX_SLUG].strip("-")
    return fallback if not plain or is_reserved(plain) else plain


def is_reserved(name: str) -> bool:
    """Return whether Windows treats name as a device, like CON and con.txt."""
    return name.partition(".")[0].rstrip().lower() in _WINDOWS_RESERVED


def short_id() -> str:
    """Return six random characters, small letters and digits that are easy to read aloud: no i, l, o, 0 or 1."""
    return "".join(secrets.choice("abcdefghjkmnpqrstuvwxyz23456789") for _ in range(6))


def display_name(name: object, length: int = 60) -> str:
    """Return str(name) fit for display: one line, with a space for each line break or tab, without other control or
    direction characters, cut at `length` characters; may be empty."""
    text = unicodedata.normalize("NFC", str(name)[:5000])
    visible = (c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
    return " ".join("".join(visible).split())[:length].strip()
