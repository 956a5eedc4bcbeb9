"""Leaves out what stands around a text and is no part of it: the licence of Project Gutenberg, a table of contents,
and of Markdown the front matter, comments, scripts, tags of templates and of layout, links to other pages and lists of
its own headings.
"""

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
_FENCE = re.compile(r"(^[ \t]*(?:```|~~~).*$)", re.MULTILINE)
# A page within a fence, as models write it.
_FENCED_COMMENT = re.compile(r"\s*(?:```|~~~)(?:html|markdown|md)?\s*<!--(?:(?!-->).)*-->\s*", re.DOTALL)
# A comment, or a tag of a template; nothing but links to places of the same page.
_UNSEEN = re.compile(r"<!--.*?-->|\{%.*?%\}|\{\{[<%].*?[>%]\}\}", re.DOTALL)
# What a browser does not show as text; a script or style whose tag has its line to itself goes on over empty lines.
# Tags of layout, with the title of a card's back. Code in a line is shown.
_CODE = r"(?P<code>(`+)[^`]+\2)|"
_HIDDEN = re.compile(
    _CODE
    + r"(?:^[ \t]*(?P<open>(?=<(?:script|style)\b[^<>]*>[ \t]*$)))?"
    + r"<(script|style|svg|select|form)\b(?:[^<]|<(?!/\4>))*(?:</\4>|(?(open)\Z|(?!)))",
    re.IGNORECASE | re.MULTILINE,
)
_BACK = re.compile(
    r"<summary\b[^<>]*>(?:(?!</summary>).){0,60}\b(?:answer|reveal|click|show|solution|antwort|lösung|réponse"
    r"|respuesta)"
    r"\b(?:(?!</summary>).){0,60}</summary>|<(\w+)\b[^<>]*>[^\w<>]*<a href=\"#[^<>]*>[^<>]*</a>[^\w<>]*</\1>",
    re.IGNORECASE,
)
_MAX_TITLE = 7  # words of a title, the tags among them
_TAG = re.compile(
    r"</?(?:script|style|svg|select|form|details|summary|span|div|center|p|button|input|ul|ol|li)\b", re.IGNORECASE
)
_LAYOUT = re.compile(_CODE + r"</?(?:details|span|div|center|p|button|input|ul|ol|li)\b[^<>]*>", re.IGNORECASE)
# Links without a word, as arrows to other pages: [[◀️](./02.md)]
_ARROW = re.compile(r"\[?\[[^\]\w]*\]\([^()]*\)\]?(?:&nbsp;)*")
# A note's lines about itself, without the marks of front matter.
_FACT = re.compile(r"[^\W\d_][\w ]{0,18}?\s?:\s*(\S.*)?")
_FACT_VALUE = re.compile(
    r"(?:\[\[[^\]]*\]\](?:\s*[-,|]\s*|\s*$))+|(?:#[^\s#]+\s*)+|\d{4}-\d\d-\d\d.{0,12}|\S*https?://\S+"
)
# In a table of contents: the dots behind a title, and the number of its page.
_PAGE = re.compile(r"(?:(?:[.·_][ \t]?){4,}|…{2,})[ \t]*(\d{1,4})[ \t]*(?=\s|$)")
_MIN_PAGES = 3  # lines of a table of contents
_CONTENTS = re.compile(r"(?:\s*(?:[-*+]|\d{1,3}[.)])\s+\[[^\n]*\]\(#\S*\)\s*(?:\n|$))+")


def without_boilerplate(items: Items, is_markdown: bool) -> Items:
    """Remove the licence of Project Gutenberg and tables of contents from the paragraphs of a text and, from Markdown,
    front matter, comments, scripts, layout tags and link lists; code stays.

    Yields the remaining paragraphs, numbered anew, and an Omission for each paragraph that lost all or some of its
    text. The licence's beginning is searched in the first _HELD paragraphs only.
    """
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
    row, is_over, is_code, hidden = 0, False, False, ""
    for item in chain(held[begins:], items):
        if not isinstance(item, RawRow):
            yield item
            continue
        text, end = item.value["text"], _END.search(item.value["text"])
        if is_over or (end and row):
            yield Omission("around", "licence")
            text = "" if is_over or end is None else text[: end.start()].rstrip()
            is_over = True
        if (rest_of_text := _without_contents(text)) != text:
            yield Omission("around", "contents")
            text = rest_of_text
        if is_markdown and not (is_code or row) and _FENCED_COMMENT.fullmatch(text):
            yield Omission("around", "unseen")
            text = ""
        elif is_markdown and ("```" in text or "~~~" in text):
            visible, is_code = _visible_around(text, is_code)
            if visible != text:
                yield Omission("around", "unseen")
                text = visible.strip("\n")
        elif is_markdown and not is_code and (hidden or "<" in text or "{%" in text or "{{" in text or "](" in text):
            visible, hidden = _visible(f"<{hidden}>\n{text}" if hidden else text)
            if visible != text:
                yield Omission("around", "unseen")
                text = visible.strip()
        if text.strip():
            row += 1
            # The first paragraph that is left begins a text, whatever stood before it.
            yield replace(item, row=row, value={"text": text}, joint=item.joint if row > 1 else None)


def _without_contents(text: str) -> str:
    """Return a paragraph without a table of contents: at least _MIN_PAGES titles with dots and a number behind, none
    smaller than the one before, as pages are and prices are not. A title alone above it goes with it."""
    pages = [*_PAGE.finditer(text)]
    numbers = [int(page[1]) for page in pages]
    if len(pages) < _MIN_PAGES or numbers != sorted(numbers):
        return text
    before, after = text[: pages[0].start()].rpartition("\n")[0], text[pages[-1].end() :].strip("\n")
    return "\n".join(part for part in (before if "\n" in before else "", after) if part)


def _visible_around(text: str, is_code: bool) -> tuple[str, bool]:
    """Remove comments and template tags from a Markdown paragraph, but only outside its code fences. Return the text,
    and True if a fence is still open at its end.

    is_code: True if the paragraph begins inside a fence that an earlier one opened.
    """
    parts = _FENCE.split(text)
    for place in range(0, len(parts), 2):
        parts[place] = parts[place] if is_code else _UNSEEN.sub("", parts[place])
        is_code ^= place + 1 < len(parts)
    return "".join(parts), is_code


def _visible(text: str) -> tuple[str, str]:
    """Return a paragraph of Markdown without comments, template tags, scripts and layout tags, and the name of a script
    or style tag that it leaves open, else "".

    The text is "" for a list of links to headings of the same page, and for links without a word.
    """
    visible, opened = _UNSEEN.sub("", text) if "<!--" in text or "{%" in text or "{{" in text else text, ""
    if "<" in visible and _TAG.search(visible):
        blocks = (block for block in _HIDDEN.finditer(visible) if block["open"] is not None)
        opened = next((block[4] for block in blocks if not block[0].endswith(f"</{block[4]}>")), "")
        visible = _BACK.sub(_unless_long, _HIDDEN.sub(r"\g<code>", visible))
        visible = _LAYOUT.sub(r"\g<code>", visible)
    if "](#" in visible and _CONTENTS.fullmatch(visible):
        return "", opened
    is_links = visible.lstrip().startswith("[") and not _ARROW.sub("", visible).strip(" \n|")
    return "" if is_links else visible, opened


def _unless_long(back: re.Match[str]) -> str:
    """Return the text that replaces a match of _BACK: "" for a short title of a fold-out, such as "Show the answer",
    and for an element that holds nothing but a link to a place of the same page.

    A <summary> of more than _MAX_TITLE words is likely a question and is returned unchanged.
    """
    return back[0] if back[1] is None and len(back[0].split()) > _MAX_TITLE else ""


def _after_front_matter(texts: list[str]) -> tuple[int, str] | None:
    """Return the index of the paragraph in which a Markdown file's front matter ends, and that paragraph's rest; None
    without front matter.

    A first paragraph of several "name: value" lines, one of them with a date, tags or links, counts as front matter.
    """
    opening = _FRONT_MATTER.match(texts[0]) if texts else None
    facts = [_FACT.fullmatch(line.strip()) for line in texts[0].strip("*-_ \n").split("\n")] if texts else []
    if len(facts) > 1 and all(facts) and any(_FACT_VALUE.fullmatch(fact[1] or "") for fact in facts if fact):
        return 0, ""
    for number, text in enumerate(texts if opening else ()):
        lines = text.split("\n")
        for place, line in enumerate(lines):
            if opening and line.rstrip() == opening[1] and (place or number):
                return number, "\n".join(lines[place + 1 :])
    return None
