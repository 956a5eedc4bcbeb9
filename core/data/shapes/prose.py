"""Tells running text from lines of another kind: of a script or a chat, entries with marks, a list, questions alone.

Whatever reads a file, its text is trained as it is only if nothing here speaks against it; otherwise a person decides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from core.data.shapes.roles import QUESTION_MARKS, words_of
from core.messages import Message, msg

_LOOKED_AT, _MIN_LINES, _SHOWN = 1_000, 6, 3  # lines; of fewer nothing is said; signs that are named
_NAME = re.compile(r"[\W_]{0,3}([^\W\d_][^:：\n.!?,;]{0,30})[:：](?!//)")
# of a list, a quotation, a heading
_BULLET = re.compile(r"^(?:[-*•+–—>]+|#{1,6}|\d{1,3}[.)])\s+")
_FENCE = "```"
_ODD = re.compile(r"[\d#\\|/$%&+=~<@{\[]")
_BETWEEN = re.compile(r"\s#\s|[\\|\t]|[-=]>|::|\+{2,3}")
# of code, and of the commands and marks of a script: a_name, path.py:9, [[link]], <<command>>, call(it), label start:
_CODE = re.compile(
    r"\.\w{1,5}:\d|::|\[\[|\]\]|<<|>>|</|[^\W_]_\w|[{}]$|\);$|^[{}<@$\[(;]|[^\W\d]\([^()]*\)$|==|\w =|"
    r"^[^\W\d][\w ]{0,40}:$|^\"\w+\":|^(?:scene|label|define|show|play|jump|image|goto) "
)
_FEW_WORDS, _FEW_CHARACTERS = 4, 12  # the second for languages without spaces
_SPACELESS = re.compile(r"[\u2e80-\u9fff\u0e00-\u0e7f]")
_ENDS = (*'.!?…。！？”",，;:；：؟।॥',)


def doubt(texts: Iterable[str], is_document: bool = False) -> Message | None:
    """Return what the lines of texts are instead of running text; None for running text, or fewer than _MIN_LINES
    lines.

    is_document: with headings, tables and lists of its own, such as Markdown.
    """
    lines = [*islice(_lines(texts), _LOOKED_AT)]
    if len(lines) < _MIN_LINES:
        return None

    def share(count: float) -> float:
        return count / len(lines)

    names = Counter(match[1].strip() for line in lines if (match := _NAME.match(line)))
    again = [name for name, count in names.most_common() if count > 1]
    if len(again) > 1 and share(sum(names[name] for name in again)) >= (0.5 if is_document else 0.3):
        return msg("data.lines_begin", signs=[f"{name}:" for name in again[:_SHOWN]])
    if share(names.total()) >= 0.7:
        return msg("data.lines_divided", sign=":")
    if share(sum(line.endswith(QUESTION_MARKS) for line in lines)) >= 0.3:
        return msg("data.lines_ask")
    if is_document:
        return None
    if share(sum(not any(map(str.isalpha, line)) for line in lines)) >= 0.15:
        return msg("data.lines_of_numbers")
    few = sum(len(words_of(line)) <= (_FEW_CHARACTERS if _SPACELESS.search(line) else _FEW_WORDS) for line in lines)
    if share(few) >= 0.8 and share(sum(line.endswith(_ENDS) for line in lines)) < 0.2:
        return msg("data.lines_of_words")
    between = Counter(sign for line in lines for sign in {*_BETWEEN.findall(line)}).most_common(1)
    if between and share(between[0][1]) >= 0.4:
        return msg("data.lines_divided", sign=between[0][0].strip() or "⇥")
    heads = Counter(line.split()[0] for line in lines).most_common(_SHOWN)
    if share(sum(count for _, count in heads if count > 1)) >= 0.6:
        return msg("data.lines_begin", signs=[head[:20] for head, count in heads if count > 1])
    odd = Counter(match[0] for line in lines if (match := _ODD.match(line)))
    marks = Counter(line[0] for line in lines if not line[0].isalnum()).most_common(1)
    if share(odd.total()) >= 0.5 or marks and share(marks[0][1]) >= 0.9:
        return msg("data.lines_begin", signs=[sign for sign, _ in odd.most_common(_SHOWN) or marks])
    codes = [line for line in lines if _CODE.search(line)]
    return msg("data.lines_of_code", example=codes[0][:40]) if share(len(codes)) >= 0.3 else None


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Yield the lines of texts that are not empty, without bullets and fenced code."""
    is_code = False
    for line in (line.strip() for text in texts for line in text.splitlines()):
        if line.startswith(_FENCE):
            is_code = not is_code
        elif not is_code and (line := _BULLET.sub("", line, count=1)):
            yield line
