"""Repairs one row. The caller keeps the old row, so that the repair can be undone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from core.data.findings.finding import Repair
from core.data.findings.secrets import without_secrets
from core.data.findings.writing import fix_encoding, without_markup
from core.data.formats import Example
from core.errors import DataError


def repaired(example: Example, repair: Repair, value: str = "") -> Example | None:
    """Return the repaired row: a placeholder filled with value, secrets replaced, encoding fixed or markup removed;
    None if the repair removes it. Raises DataError for an empty value to fill in."""
    if repair.action == "remove":
        return None
    if repair.action == "fill" and not value.strip():
        raise DataError("finding.value_missing", placeholder=repair.argument)
    changed: Callable[[str], str]
    if repair.action == "fill":
        changed = lambda text: text.replace(repair.argument, value)  # noqa: E731
    elif repair.kind == "secrets":
        changed = lambda text: without_secrets(text, repair.argument)  # noqa: E731
    else:
        changed = {"mojibake": fix_encoding, "markup": without_markup}[repair.kind]
    return _rewritten(example, changed)


def _rewritten(example: Example, changed: Callable[[str], str]) -> Example:
    """Return the example with each text (content and thinking of messages, not of a worse answer) changed; a text that
    would become empty stays as it is."""

    # A text of markup alone would become an empty turn.
    def changed_or_kept_if_blank(text: str) -> str:
        """Return the text as `changed` makes it, or the text as it was if that would leave nothing but blanks."""
        return new if (new := changed(text)).strip() else text

    if example.messages:
        turns = (
            replace(m, content=changed_or_kept_if_blank(m.content), reasoning=changed_or_kept_if_blank(m.reasoning))
            for m in example.messages
        )
        return replace(example, messages=tuple(turns))
    if example.text is not None:
        return replace(example, text=changed_or_kept_if_blank(example.text))
    return replace(
        example,
        prompt=changed_or_kept_if_blank(example.prompt or ""),
        completion=changed_or_kept_if_blank(example.completion or ""),
    )
