"""Leaves out what stands around a text and is no part of it: the licence of Project Gutenberg, and of Markdown the
front matter, comments, tags of templates and lists of its own headings."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import chain, islice

from core.data.reading.file_rows import Items, RawRow
from core.data.shapes.left_out import Omission

_HELD = 60  # paragraphs; the licence begins a book, and is shorter than that
_START = re.compile(
    r"\*\*\*\s*START OF TH(?:E|IS) PROJECT GUTENBERG[^\n]*(?:\n[^\n]*\*\*\*)?|\*END\*\s*THE SMALL PRINT[^\n]*",
    re.IGNORECASE,
)
_END = re.compile(
    r"^[^\S\n]*(?:\*\*\*\s*END OF TH(?:E|IS) PROJECT GUTENBERG|End of (?:the )?Project Gutenberg(?:['’]s)?\b)",
    re.IGNORECASE | re.MULTILINE,
)
_CREDITS = re.compile(r"(?:Produced|Transcribed|Prepared) by\b|E-?text prepared by\b", re.IGNORECASE)
_FRONT_MATTER = re.compile(r"(---|\+\+\+)[^\S\n]*\n(?=[\w\"'-]+\s*[:=]|\[)")
_FENCE = re.compile(r"^\s*(?:```|~~~)", re.MULTILINE)
# A comment, or a tag of a template; nothing but links to places of the same page.
_UNSEEN = re.compile(r"<!--.*?-->|\{%.*?%\}", re.DOTALL)
_CONTENTS = re.compile(r"(?:\s*(?:[-*+]|\d{1,3}[.)])\s+\[[^\n]*\]\(#\S*\)\s*(?:\n|$))+")


def without_boilerplate(items: Items, is_markdown: bool) -> Items:
    """Yield the paragraphs of a text that are prose, numbered anew, and an Omission for each that is a licence before
    or after, or what a page of Markdown does not say. Only the first _HELD paragraphs are searched for a beginning."""
    held = list(islice(items, _HELD))
    texts = [item.value["text"] if isinstance(item, RawRow) else "" for item in held]
    # Project Gutenberg's marks stand in the first paragraphs of a book or not at all.
    begins = next((n + 1 for n, text in enumerate(texts) if _START.search(text)), 0)
    while begins and begins < len(texts) and _CREDITS.match(texts[begins].lstrip()):
        begins += 1
    yield from [Omission("around", "licence")] * begins
    if is_markdown and not begins and (rest := _after_front_matter(texts)):
        begins, text = rest
        if isinstance(item := held[begins], RawRow):
            held[begins] = replace(item, value={"text": text})
        yield Omission("around", "front")
    row, is_over, is_code = 0, False, False
    for item in chain(held[begins:], items):
        if not isinstance(item, RawRow):
            yield item
            continue
        text, end = item.value["text"], _END.search(item.value["text"])
        if is_over or (end and row):
            yield Omission("around", "licence")
            text = "" if is_over or end is None else text[: end.start()].rstrip()
            is_over = True
        if is_markdown and ("```" in text or "~~~" in text):
            is_code ^= len(_FENCE.findall(text)) % 2 == 1
        elif is_markdown and not is_code and ("<!--" in text or "{%" in text or "](#" in text):
            visible = _UNSEEN.sub("", text)
            visible = "" if _CONTENTS.fullmatch(visible) else visible
            if visible != text:
                yield Omission("around", "unseen")
                text = visible.strip()
        if text.strip():
            row += 1
            # The first paragraph that is left begins a text, whatever stood before it.
            yield replace(item, row=row, value={"text": text}, joint=item.joint if row > 1 else None)


def _after_front_matter(texts: list[str]) -> tuple[int, str] | None:
    """Return (number of the paragraph in which the front matter of a Markdown file ends, its rest); None if there is
    none."""
    opening = _FRONT_MATTER.match(texts[0]) if texts else None
    for number, text in enumerate(texts if opening else ()):
        lines = text.split("\n")
        for place, line in enumerate(lines):
            if opening and line.rstrip() == opening[1] and (place or number):
                return number, "\n".join(lines[place + 1 :])
    return None
