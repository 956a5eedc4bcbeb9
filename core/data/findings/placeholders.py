"""Unfilled placeholders: {{name}}, {author}, [YOUR NAME], <company>, and <image> without a picture, which a model would
learn.

A double brace counts anywhere in prose; other brackets only around words that people leave open, because braces, angles
and brackets have other meanings in code, markup, LaTeX and Markdown. Text between backquotes is no prose.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from core.data.findings.finding import Finding, Marked
from core.data.findings.row_words import RowWords
from core.data.findings.secrets import STAND_IN

MAX_NAMED = 20  # different placeholders with a repair of their own
MAX_COUNTED = 500
_OPEN = (
    r"(?:name|user|username|author|company|organi[sz]ation|employer|date|city|country|address|phone|e-?mail"
    r"|character|assistant|bot|"
    r"developer|creator|product|brand|customer|client|recipient|sender|position|job|title|link|url|website|topic"
    r"|subject|number|amount|"
    r"price|insert|your|my|age|location|place|team|school|university|department|signature|model)"
)
# Between braces, also what a program fills in.
_FILLED_IN = re.compile(
    r"(?:.*_)?(?:question|answer|context|query|prompt|document|instructions?|conversation|history|response"
    r"|reference|input|output|text|content|"
    r"language)s?(?:_.*)?",
    re.IGNORECASE,
)
_STAND_INS = frozenset(STAND_IN.values())  # a stand-in of a removed secret is no placeholder
_WORD = re.compile(rf"(?:.*[ _-])?{_OPEN}s?(?:[ _-].*)?", re.IGNORECASE)
_MEDIA = re.compile(r"<(?:image|picture|video|audio)>", re.IGNORECASE)  # left by a removed picture
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")  # userName
_CHINESE = re.compile(
    r"姓名|名字|名称|您的|你的|公司|作者|日期|地址|电话|邮箱|城市|单位|职位|用户|客户|学校|填写|此处|插入"
)
_DOUBLE = re.compile(r"\{\{\s*([A-Za-z_\u4e00-\u9fff][\w .-]{0,30}?)\s*\}\}")
# The signs around the next three are those of code, formulas and links, where a bracket means something else.
_SINGLE = re.compile(r"(?<![\w\\}\])$^_{'\"/#@%])\{([A-Za-z_\u4e00-\u9fff][\w -]{1,30})\}(?![\w{}(\[:=])")
_SQUARE = re.compile(r"(?<![\w\])\[!\\'\"])\[([A-Za-z\u4e00-\u9fff][\w ,.'’/-]{2,40})\](?![\w(\[:\]=])")
_ANGLE = re.compile(r"(?<![\w<$:(\[])<([A-Za-z\u4e00-\u9fff][\w -]{2,30})>(?![\w<>(])")
_MATHS = re.compile(
    r"\\(?:begin|frac|text|sum|int|left|sqrt|mathbb|cdot)\b|\$\$|\{[^{}\n]{1,40}[,|][^{}\n]{0,40}\}"
)  # and a set: {a, b}


def placeholders(text: str, is_code: bool) -> Iterator[tuple[str, int, int]]:
    """Yield (placeholder as written, start, end) for each unfilled placeholder in a text: {{name}}, {name}, [YOUR
    NAME], <company>, and what a removed picture leaves, such as <image>. Not counted are XML tags with an end tag,
    braces in a text with formulas, and the words that this app writes in place of secrets. is_code: the text is code;
    then nothing is yielded."""
    if "{{" in text and not is_code:
        # Double braces are common in LaTeX too.
        yield from ((m[0], m.start(), m.end()) for m in _DOUBLE.finditer(text) if not _MATHS.search(text))
    if is_code:
        return
    if "{" in text and not _MATHS.search(text):
        yield from (
            (m[0], m.start(), m.end()) for m in _SINGLE.finditer(text) if _is_open(m[1]) or _FILLED_IN.fullmatch(m[1])
        )
    if "[" in text:
        matches = (m for m in _SQUARE.finditer(text) if _is_open(m[1]) and m[0] not in _STAND_INS)
        yield from ((m[0], m.start(), m.end()) for m in matches)
    if "<" in text:
        for m in _ANGLE.finditer(text):
            # <name>Anna</name> is XML.
            if _is_open(m[1]) and f"</{m[1].split()[0]}" not in text:
                yield m[0], m.start(), m.end()
        if "</" not in text:
            yield from ((m[0], m.start(), m.end()) for m in _MEDIA.finditer(text))


def _is_open(name: str) -> bool:
    """Return True for words that people leave open: YOUR NAME, customerName, 公司."""
    return _WORD.fullmatch(_CAMEL.sub("_", name)) is not None or _CHINESE.search(name) is not None


class Placeholders:
    """Rows with unfilled placeholders."""

    def __init__(self, max_repair_rows: int | None):
        """Begin without rows. max_repair_rows: how many rows a repair of the finding names at most; None for all."""
        self._max_rows, self._any = max_repair_rows, Marked()
        self._by_name: dict[str, Marked] = {}

    def add(self, words: RowWords) -> None:
        """Mark the row if its text outside code has unfilled placeholders, and once for each different one; only the
        first MAX_COUNTED different placeholders are counted by name."""
        text = words.everything
        if "{" not in text and "[" not in text and "<" not in text:
            return
        text = words.prose
        for name, start, end in placeholders(text, words.is_code):
            if name in self._by_name or len(self._by_name) < MAX_COUNTED:
                self._by_name.setdefault(name, Marked()).add(words.row, "")
            self._any.add(words.row, words.quote(text, start, end) if self._any.wants_quote else "")

    def findings(self, rows: int) -> list[Finding]:
        """Return the placeholders with a repair that fills in each of the MAX_NAMED most frequent, and one that removes
        the rows."""
        first = sorted(self._by_name.items(), key=lambda item: -len(item[1]))[:MAX_NAMED]
        repairs = [marked.repair("fill", "placeholders", self._max_rows, name) for name, marked in first]
        named = [name for name, _ in first[:4]] + (["…"] if len(self._by_name) > 4 else [])
        return self._any.finding(
            "placeholders",
            rows,
            [*repairs, self._any.repair("remove", "placeholders", self._max_rows)],
            names=named,
        )
