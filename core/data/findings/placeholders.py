"""Unfilled placeholders: {{name}}, {author}, [YOUR NAME], <company>, and <image> without a picture. A model learns to
write them as they are.

A double brace is one wherever it stands in prose; the other brackets only around a word of what people leave open,
since braces, angles and brackets mean something else in code, markup, LaTeX and Markdown. What stands between
backquotes is no prose.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from core.data.findings.finding import Finding, Marked
from core.data.findings.row_words import RowWords
from core.data.findings.secrets import STAND_IN

MOST_NAMED = 20  # different ones that get a repair of their own
MOST_COUNTED = 500
_OPEN = (
    r"(?:name|user|username|author|company|organi[sz]ation|employer|date|city|country|address|phone|e-?mail|character|assistant|bot|"
    r"developer|creator|product|brand|customer|client|recipient|sender|position|job|title|link|url|website|topic|subject|number|amount|"
    r"price|insert|your|my|age|location|place|team|school|university|department|signature|model)"
)
_STAND_INS = frozenset(STAND_IN.values())  # what a person has put in place of a secret is no blank to be filled
_WORD = re.compile(rf"(?:.*[ _-])?{_OPEN}s?(?:[ _-].*)?", re.IGNORECASE)
_MEDIA = re.compile(r"<(?:image|picture|video|audio)>", re.IGNORECASE)  # where a set of pictures has lost them
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_CHINESE = re.compile(
    r"姓名|名字|名称|您的|你的|公司|作者|日期|地址|电话|邮箱|城市|单位|职位|用户|客户|学校|填写|此处|插入"
)
_DOUBLE = re.compile(r"\{\{\s*([A-Za-z_\u4e00-\u9fff][\w .-]{0,30}?)\s*\}\}")
_SINGLE = re.compile(r"(?<![\w\\}\])$^_{'\"/#@%])\{([A-Za-z_\u4e00-\u9fff][\w -]{1,30})\}(?![\w{}(\[:=])")
_SQUARE = re.compile(r"(?<![\w\])\[!\\'\"])\[([A-Za-z\u4e00-\u9fff][\w ,.'’/-]{2,40})\](?![\w(\[:\]=])")
_ANGLE = re.compile(r"(?<![\w<$:(\[])<([A-Za-z\u4e00-\u9fff][\w -]{2,30})>(?![\w<>(])")
_MATHS = re.compile(
    r"\\(?:begin|frac|text|sum|int|left|sqrt|mathbb|cdot)\b|\$\$|\{[^{}\n]{1,40}[,|][^{}\n]{0,40}\}"
)  # and a set: {a, b}


def placeholders(text: str, is_code: bool) -> Iterator[tuple[str, int, int]]:
    """(as it stands there, start, end) of each."""
    if "{{" in text and not is_code:
        yield from ((m[0], m.start(), m.end()) for m in _DOUBLE.finditer(text) if not _MATHS.search(text))
    if is_code:
        return
    if "{" in text and not _MATHS.search(text):
        yield from ((m[0], m.start(), m.end()) for m in _SINGLE.finditer(text) if _is_open(m[1]))
    if "[" in text:
        found = (m for m in _SQUARE.finditer(text) if _is_open(m[1]) and m[0] not in _STAND_INS)
        yield from ((m[0], m.start(), m.end()) for m in found)
    if "<" in text:
        for m in _ANGLE.finditer(text):
            if _is_open(m[1]) and f"</{m[1].split()[0]}" not in text:
                yield m[0], m.start(), m.end()
        if "</" not in text:
            yield from ((m[0], m.start(), m.end()) for m in _MEDIA.finditer(text))


def _is_open(name: str) -> bool:
    return _WORD.fullmatch(_CAMEL.sub("_", name)) is not None or _CHINESE.search(name) is not None


class Placeholders:
    def __init__(self, most: int | None):
        self._most, self._any = most, Marked()
        self._by_name: dict[str, Marked] = {}

    def add(self, said: RowWords) -> None:
        text = said.everything
        if "{" not in text and "[" not in text and "<" not in text:
            return
        text = said.prose
        for name, start, end in placeholders(text, said.is_code):
            if name in self._by_name or len(self._by_name) < MOST_COUNTED:
                self._by_name.setdefault(name, Marked()).add(said.row, "")
            self._any.add(said.row, said.quote(text, start, end) if self._any.wants_quote else "")

    def found(self, of: int) -> list[Finding]:
        first = sorted(self._by_name.items(), key=lambda item: -len(item[1]))[:MOST_NAMED]
        repairs = [marked.repair("fill", "placeholders", self._most, name) for name, marked in first]
        named = [name for name, _ in first[:4]] + (["…"] if len(self._by_name) > 4 else [])
        return self._any.finding(
            "placeholders", of, [*repairs, self._any.repair("remove", "placeholders", self._most)], names=named
        )
