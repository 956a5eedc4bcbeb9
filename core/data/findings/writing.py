"""Checks for traces of a text's origin: HTML tags and entities, tags of templates ({% load i18n %}), wiki links
([[Rivers]]) and empty check boxes, and letters read in a wrong encoding (Ã¼, â€™).

Markup counts in prose alone: in rows about HTML or code, or with code, tags belong to the subject. Wrong encodings are
judged and repaired by ftfy, which is called only for rows with a typical pair of characters.
"""

from __future__ import annotations

import html
import re

import ftfy
from ftfy.badness import is_bad

from core.data.findings.finding import Finding, Marked
from core.data.findings.row_words import RowWords

_TAG = re.compile(
    r"</?(?:p|br|div|span|b|i|u|em|strong|a|ul|ol|li|h[1-6]|table|tr|td|th|tbody|thead|img|font|center|blockquote"
    r"|sup|sub|small|hr|details|summary)(?:\s[^<>]{0,300})?/?>"
    r"|&(?:nbsp|amp|lt|gt|quot|apos|#\d{2,5}|#x[0-9a-f]{2,5}|[lr][sd]quo|hellip|[mn]dash|bull|middot|copy|reg"
    r"|trade|times|deg|[lr]arr|[aeiou](?:acute|grave|circ|uml|tilde)|szlig|ccedil|ntilde);"
    # [i] alone is an index
    r"|\[(?:url|img|quote|color|size)=[^\]\n]{0,200}\]|\[/(?:url|img|quote|b|i|u|color|size)\]",
    re.IGNORECASE,
)
# Of a template, a comment, a shortcode; a link of a wiki or a note, with its words; a box to check.
_LEFT = re.compile(
    r"\{%[-+~]?\s*\w[^{}]{0,300}?%\}|\{#\s[^{}]{1,300}?#\}"
    r"|\{\{[<%#/>^][^{}]{0,300}\}\}|\{\{\s*\w[^{}\n]{0,60}?[|.(][^{}]{0,300}\}\}"
    r"|<!--.{0,500}?-->|<%[=-]?\s[^<>]{0,300}%>|<\?(?:php|=)[^<>]{0,300}\?>"
    r"|(?P<picture>!)?\[\[(?=[^\W\d]|\d{4}-\d\d)(?:[^\[\]|\n\"=,]{1,80}\|)?(?P<words>[^\[\]|\n\"=,]{2,80})\]\]"
    r"|^(?P<mark>[ \t]*[-*+] )\[ ?\](?:[ \t]|$)",
    re.DOTALL | re.MULTILINE,
)
_LEFT_SIGNS = ("[[", "{%", "{{", "{#", "<!--", "<%", "<?", "- [", "* [")
_BREAK = re.compile(r"<(?:br|/p|/div|/li|/tr|/h[1-6])\s*/?>", re.IGNORECASE)
_ABOUT = re.compile(
    (
        r"html|\btags?\b|\bxml\b|\bcss\b|javascript|\bjsx?\b|\breact\b|\bvue\b|web ?page|web "
        r"?site|markdown|\bcode\b|网页|标签|代码|\bentit"
    ),
    re.IGNORECASE,
)
# A first and a second byte of UTF-8, read as Latin-1 or Windows-1252.
_SIGNS = re.compile(r"[ÃÂâðïÐÑåæäçèéÎÏ][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]")
_LOST = re.compile("\ufffd|锟斤拷|烫烫烫|ï¿½")
_AROUND = 40  # characters


def without_markup(text: str) -> str:
    """Return text without tags and check boxes, with the words of wiki links, with entities replaced by their
    characters and ends of blocks by line breaks."""
    text = _LEFT.sub(lambda left: left["mark"] or ("" if left["picture"] else left["words"] or ""), text)
    return html.unescape(
        _TAG.sub(lambda tag: tag[0] if tag[0].startswith("&") else "", _BREAK.sub("\n", text))
    ).replace("\xa0", " ")


def fix_encoding(text: str) -> str:
    """Return text with letters corrected that were read in a wrong encoding ("Ã¼" to "ü"), by ftfy; unchanged if ftfy
    recognizes none."""
    return ftfy.fix_encoding(text)


def _find_mojibake(text: str) -> re.Match[str] | None:
    """Return the first match of a wrong encoding that can be corrected, None without one: an É before a dash looks
    alike, and is right."""
    for sign in _SIGNS.finditer(text):
        around = text[max(0, sign.start() - _AROUND) : sign.end() + _AROUND]
        if is_bad(around) and fix_encoding(around) != around:
            return sign
    return None


class Writing:
    """Rows with markup, wrong encodings or lost characters."""

    def __init__(self, max_repair_rows: int | None):
        """Begin without rows. max_repair_rows: how many rows a finding's repair names at most; None for all."""
        self._max_rows = max_repair_rows
        self._markup, self._mojibake, self._lost = Marked(), Marked(), Marked()

    def add(self, words: RowWords) -> None:
        """Mark the row for markup outside code: tags, except in texts about markup, and marks of templates, wikis and,
        in plain texts alone, check boxes. Mark it also for lost characters (U+FFFD, 锟斤拷), or else for letters in a
        wrong encoding that can be corrected."""
        text = words.everything
        if ("<" in text or "&" in text or "[" in text) and _TAG.search(text):
            if (
                not words.is_code
                and (match := _TAG.search(words.prose))
                and not _ABOUT.search(_TAG.sub("", words.prose))
            ):
                self._markup.add(words.row, words.quote(words.prose, match.start(), match.end()))
        if any(sign in text for sign in _LEFT_SIGNS) and not words.is_code:
            left = next((each for each in _LEFT.finditer(words.prose) if words.is_text or each["mark"] is None), None)
            if left:
                self._markup.add(words.row, words.quote(words.prose, left.start(), left.end()))
        if text.isascii():
            return
        if match := _LOST.search(text):
            self._lost.add(words.row, words.quote(text, match.start(), match.end()))
        elif match := _find_mojibake(text):
            self._mojibake.add(words.row, words.quote(text, match.start(), match.end()))

    def findings(self, rows: int) -> list[Finding]:
        """Return up to three findings, each only if rows were marked for it: mojibake (wrong encoding) and markup with
        a repair that rewrites the texts, lost_characters with one that removes the rows."""
        markup, mojibake, lost = self._markup, self._mojibake, self._lost
        return [
            *mojibake.finding("mojibake", rows, [mojibake.repair("replace", "mojibake", self._max_rows)]),
            *lost.finding("lost_characters", rows, [lost.repair("remove", "lost_characters", self._max_rows)]),
            *markup.finding("markup", rows, [markup.repair("replace", "markup", self._max_rows)]),
        ]
