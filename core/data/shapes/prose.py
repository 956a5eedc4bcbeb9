"""Tells running text from lines of another kind: of a script or a chat, entries with marks, a list, questions alone.

Whatever reads a file, its text is trained as it is only if nothing here speaks against it; otherwise a person decides.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby, islice, pairwise

from core.data.shapes.left_out import NEARLY_ALL
from core.data.shapes.roles import QUESTION_MARKS, words_of
from core.messages import Message, msg

_LOOKED_AT, _MIN_LINES, _SHOWN = 1_000, 6, 3  # lines; of fewer nothing is said; signs that are named
_NAME = re.compile(r"[\W_]{0,3}([^\W\d_][^:：\n.!?,;]{0,30})[:：](?!//)")
# A term, then a dash or a sign, then its meaning.
_TERM = re.compile(r"[\W_]{0,3}[^\W\d_][^:：\n.!?,;–—=→]{0,40}\s(?:-{1,2}|[–—=→:])\s")
# of a list, a quotation, a heading
_BULLET = re.compile(r"^(?:[-*•+–—>]+|#{1,6}|\d{1,3}[.)])\s+")
_FENCE = "```"
_ALONE = frozenset({"?", "??"})  # a line between the sides of a card in Obsidian
# A gap of a card in Anki; a turn of a chat copied from its page, or a button of it; gaps to fill in, of which there are
# many.
_CLOZE = re.compile(
    r"\{\{c\d+::|^(?:ChatGPT|Claude|Gemini|Copilot|You) said:$"
    r"|^(?:Copy code|Code kopieren|Copier le code|Copiar código|复制代码)$"
    r"|^[\W_]*(?:ChatGPT|GPT|Claude|Gemini|Bard|Copilot|DeepSeek|Grok|Assistant)(?:[ -]?[\d.]{1,4}o?)?[:：]\W*$"
)
_GAP, _GAPS = re.compile(r"_{4,}"), 0.1
# A time before a line of a log or a chat, or alone; not a verse (3:16 For God ...). Base64 and the like.
_TIME = re.compile(
    r"[\[(]\d{1,2}:\d\d(?::\d\d)?(?: ?[AP]M)?[\])]|\d{1,2}:\d\d(?::\d\d)?(?: ?[AP]M)?(?=$|\s+<)"
    r"|\d{1,2}:\d\d(?::\d\d| ?[AP]M)\s",
    re.IGNORECASE,
)
# A short line with a year and a time, as above each message of a forum, a chat or a mailing list.
_YEAR, _CLOCK, _LONGEST_STAMP = re.compile(r"\b(?:19|20)\d\d\b"), re.compile(r"\b\d{1,2}:\d\d\b"), 120
_TIMED = 0.1  # of the lines
_ENCODED, _OF_ENCODED = re.compile(r"(?=.*\d)(?=.*[a-z])(?=.*[A-Z])[A-Za-z0-9+/_=-]{60,}"), 0.5  # of the characters
# Objects inside of lists or of one another, as in JSON; characters for each such place. Not two sources: [5], [6].
_NESTED, _A_NESTED = re.compile(r"}\s*,\s*[{\[]|]\s*,\s*{|[\w\"']\s*:\s*[{\[]"), 300
_ODD = re.compile(r"[\d#\\|/$%&+=~<@{\[]")
_BETWEEN = re.compile(r"\s#\s|\s/\s|[-=]>|[\\|\t=]|::|\+{2,3}|[\"']\s*[,;]\s*[\"']")
# of a document format that is not read: Org, reStructuredText, LaTeX, a wiki; a heading in a frame
_MARKUP = re.compile(r"#\+\w+|\*{2,}\s+\w|\.\. \w+::|\\(?:begin|section|item)\b|={2,}[^=]+={2,}$|#{2,}[^#]+#{2,}$")
_NUMBERED = re.compile(r"\(?\d{1,4}[.):]\s")
_LIST_MARK = re.compile(r"([-+*>@%~])\s")
# in code: a value with its key, or a text alone
_ENTRY = re.compile(r"(?:[\w$-]+|([\"']).*?\1)\s*:\s*[\"'\d\[{].*|([\"']).*\2,?")
_OBJECT = re.compile(r"[\[({]*\s*[\w$\"']+\s*:\s*[\"'`\d\[{].*[})\]],?;?")  # in one line
_MAX_GAP = 6  # lines from a mark to the next one
# Shares of the lines: with names that return before a colon, in a document too, or with any name.
_NAMED, _NAMED_IN_DOCUMENTS, _BEFORE_COLONS = 0.3, 0.5, 0.7
# Outside of documents, with a term before its meaning: a colon, of entries of several lines; a dash.
_DEFINED, _DASHED, _MIN_TERMS = 0.25, 0.4, 3
# That ask, without letters, of few words; and of those that end as sentences do.
_ASKING, _WITHOUT_LETTERS, _SHORT, _ENDED = 0.3, 0.15, 0.8, 0.2
# With a sign between parts, one of the commonest first words, an odd first sign, the same mark, code.
_DIVIDED, _HEADED, _ODD_HEADS, _ONE_MARK, _OF_CODE = 0.4, 0.6, 0.5, 0.9, 0.3
# That begin with a number, with one of two marks, with the second of them; with marks of a document format.
_COUNTED, _TWO_MARKS, _SECOND_MARK, _OF_MARKUP, _MIN_MARKUP = 0.4, 0.6, 0.1, 0.03, 3
# Of a document, without its headings: that are items of a list.
_LISTED = 0.9
# In two scripts; of texts, with a short line above long ones, or two lines of which one is short.
_IN_SCRIPTS, _UNEVEN = 0.6, 0.5
# Of data in code; of a list with marks at distances, and of its distances that are equal.
_ENTRIES, _SPACED, _EQUAL = 0.6, 0.7, 0.8
# of code, and of the commands and marks of a script: a_name, path.py:9, [[link]], <<command>>, call(it), label start:
_CODE = re.compile(
    r"\.\w{1,5}:\d|::|\[\[|\]\]|<<|>>|</|[^\W_]_\w|[{}]$|\);$|^[{}<@$\[(;]|[^\W\d]\([^()]*\)$|==|\w =|"
    r"^[^\W\d][\w ]{0,40}:$|^\"\w+\":|^(?:scene|label|define|show|play|jump|image|goto) "
)
_FEW_WORDS, _FEW_CHARACTERS = 4, 12  # the second for languages without spaces
_SPACELESS = re.compile(r"[\u2e80-\u9fff\u0e00-\u0e7f]")
_ENDS = (*'.!?…。！？”",，;:；：؟।॥',)


def doubt(texts: Iterable[str], is_document: bool = False) -> Message | None:
    """Return a message that tells why the lines of texts are no running text, such as a list, a script or flash cards;
    None if nothing speaks against it.

    Most signs need at least _MIN_LINES lines; lines of "?" or a gap to fill in count at once. is_document: the texts
    have headings, tables and lists of their own, as Markdown has, which are no sign then.
    """
    texts = [*texts]
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()][:_LOOKED_AT]
    if not _ALONE.isdisjoint(lines):
        return msg("data.lines_divided", sign="?")
    if gap := next(filter(None, map(_CLOZE.search, lines)), None):
        return msg("data.lines_divided", sign=gap[0])
    if len(lines) >= _MIN_LINES and sum(bool(_GAP.search(line)) for line in lines) >= _GAPS * len(lines):
        return msg("data.lines_divided", sign="____")
    encoded = [line for line in lines if _ENCODED.fullmatch(line)]
    if encoded and sum(map(len, encoded)) >= _OF_ENCODED * sum(map(len, lines)):
        return msg("data.lines_of_code", example=encoded[0][:40])
    nested = [line for line in lines for _ in _NESTED.finditer(line)]
    if not is_document and len(nested) >= max(_MIN_LINES, sum(map(len, lines)) / _A_NESTED):
        return msg("data.lines_of_code", example=nested[0][:40])
    times = [time[0] for line in lines if (time := _TIME.match(line))]
    if len(times) >= max(_MIN_LINES, _TIMED * len(lines)):
        return msg("data.lines_begin", signs=[*dict.fromkeys(times)][:_SHOWN])
    stamps = [line for line in lines if len(line) <= _LONGEST_STAMP and _YEAR.search(line) and _CLOCK.search(line)]
    if len({*stamps}) >= max(_MIN_LINES, _TIMED * len(lines)):
        return msg("data.lines_stamped", example=stamps[0])
    items = [line[0] for line in lines if _LIST_MARK.match(line)]
    if is_document and len(items) >= max(_MIN_LINES, _LISTED * sum(line[0] != "#" for line in lines)):
        return msg("data.lines_begin", signs=[*{*items}][:_SHOWN])
    why = _unlike_sentences([*islice(_lines(texts), _LOOKED_AT)], is_document)
    return why or (None if is_document else _regular(texts))


def _unlike_sentences(lines: Sequence[str], is_document: bool) -> Message | None:
    """Return what the single lines are instead of sentences; None without it. is_document: as in doubt."""
    terms = sum(_NAME.match(line) is not None for line in lines)
    if len(lines) < _MIN_LINES:
        is_list = not is_document and terms == len(lines) >= _MIN_TERMS
        return msg("data.lines_divided", sign=":") if is_list else None

    def share(count: float) -> float:
        """Return count divided by the number of lines."""
        return count / len(lines)

    names = Counter(match[1].strip() for line in lines if (match := _NAME.match(line)))
    again = [name for name, count in names.most_common() if count > 1]
    if len(again) > 1 and share(sum(names[name] for name in again)) >= (_NAMED_IN_DOCUMENTS if is_document else _NAMED):
        return msg("data.lines_begin", signs=[f"{name}:" for name in again[:_SHOWN]])
    if share(terms) >= (_BEFORE_COLONS if is_document else _DEFINED):
        return msg("data.lines_divided", sign=":")
    if share(sum(line.endswith(QUESTION_MARKS) for line in lines)) >= _ASKING:
        return msg("data.lines_ask")
    if is_document:
        return None
    if share(sum(_TERM.match(line) is not None for line in lines)) >= _DASHED:
        return msg("data.lines_divided", sign="-")
    if share(sum(not any(map(str.isalpha, line)) for line in lines)) >= _WITHOUT_LETTERS:
        return msg("data.lines_of_numbers")
    few = sum(len(words_of(line)) <= (_FEW_CHARACTERS if _SPACELESS.search(line) else _FEW_WORDS) for line in lines)
    if share(few) >= _SHORT and share(sum(line.endswith(_ENDS) for line in lines)) < _ENDED:
        return msg("data.lines_of_words")
    between = Counter(sign for line in lines for sign in {*_BETWEEN.findall(line)}).most_common(1)
    if between and share(between[0][1]) >= _DIVIDED:
        return msg("data.lines_divided", sign=between[0][0].strip() or "⇥")
    heads = Counter(line.split()[0] for line in lines).most_common(_SHOWN)
    if share(sum(count for _, count in heads if count > 1)) >= _HEADED:
        return msg("data.lines_begin", signs=[head[:20] for head, count in heads if count > 1])
    odd = Counter(match[0] for line in lines if (match := _ODD.match(line)))
    marks = Counter(line[0] for line in lines if not line[0].isalnum()).most_common(1)
    if share(odd.total()) >= _ODD_HEADS or marks and share(marks[0][1]) >= _ONE_MARK:
        return msg("data.lines_begin", signs=[sign for sign, _ in odd.most_common(_SHOWN) or marks])
    codes = [line for line in lines if _CODE.search(line)]
    return msg("data.lines_of_code", example=codes[0][:40]) if share(len(codes)) >= _OF_CODE else None


def _regular(texts: Sequence[str]) -> Message | None:
    """Return what makes the lines of texts alike, as entries are and running text is not: signs between their parts,
    numbers, two scripts, marks at equal distances, texts of a short and a long line; None without it."""
    lines = [*islice((line.strip() for text in texts for line in text.splitlines() if line.strip()), _LOOKED_AT)]
    signs = [sign for line in lines for sign, count in Counter(_BETWEEN.findall(line)).most_common(1) if count > 2]
    if signs and len(signs) >= NEARLY_ALL * len(lines):
        return msg("data.lines_divided", sign=signs[0].strip() or "⇥")
    if len(lines) < _MIN_LINES:
        return None
    numbers = [match[0].strip(" (.:)") for line in lines if (match := _NUMBERED.match(line))]
    if len(numbers) >= _COUNTED * len(lines):
        return msg("data.lines_begin", signs=numbers[:_SHOWN])
    marks = Counter(match[1] for line in lines if (match := _LIST_MARK.match(line))).most_common(2)
    if (
        len(marks) > 1
        and marks[1][1] >= _SECOND_MARK * len(lines)
        and sum(n for _, n in marks) >= _TWO_MARKS * len(lines)
    ):
        return msg("data.lines_begin", signs=[mark for mark, _ in marks])
    if len(markup := [line for line in lines if _MARKUP.match(line)]) >= max(_MIN_MARKUP, _OF_MARKUP * len(lines)):
        return msg("data.lines_of_markup", example=markup[0][:40])
    scripts = Counter(tuple(name for name, _ in groupby(filter(None, map(_script, line.split())))) for line in lines)
    if sum(count for names, count in scripts.items() if len(names) == 2) >= _IN_SCRIPTS * len(lines):
        return msg("data.lines_in_scripts")
    heads = ["A" if line.isupper() else _script(line[0]) or ("0" if line[0].isdigit() else line[0]) for line in lines]
    lengths = [[*map(len, text.split("\n"))] for text in texts[:_LOOKED_AT]]
    uneven = sum(
        2 * first < min(rest, default=0) or [2 * n < first for n in rest] == [True] for first, *rest in lengths
    )
    alphabets = Counter(
        tuple(line.isascii() for line in text.split("\n") if line.strip()) for text in texts[:_LOOKED_AT]
    )
    translated = max(alphabets[True, False], alphabets[False, True])  # in an alphabet of their own
    are_pairs = max(uneven, translated) >= max(_MIN_LINES, _UNEVEN * len(lengths))
    return msg("data.lines_in_turn") if are_pairs or any(map(partial(_is_spaced, heads), {*heads})) else None


def entry_in(code: Iterable[str]) -> str:
    """Return the beginning of the first entry of data in code that holds little else, such as a list of objects; "" for
    other code."""
    lines = [*islice((line.strip() for text in code for line in text.splitlines()), _LOOKED_AT)]
    lines = [line for line in lines if any(map(str.isalnum, line))]
    entries = [line for line in lines if _ENTRY.fullmatch(line) or _OBJECT.fullmatch(line)]
    few = _MIN_TERMS if any(map(_OBJECT.fullmatch, lines)) else _MIN_LINES
    return entries[0][:40] if len(entries) >= few and len(entries) >= _ENTRIES * len(lines) else ""


def _is_spaced(heads: Sequence[str], head: str) -> bool:
    """Return True if the lines with this kind of beginning stand at equal distances in nearly the whole text (every
    second line up to every _MAX_GAP-th), as in lists of entries. heads: the kind of beginning of each line; head: one
    of them."""
    gaps = Counter(b - a for a, b in pairwise(place for place, each in enumerate(heads) if each == head))
    gap, count = max(gaps.items(), key=lambda item: item[1], default=(1, 0))
    is_all = (gaps.total() + 1) * gap >= _SPACED * len(heads)
    return 1 < gap <= _MAX_GAP and count >= max(_MIN_LINES - 1, _EQUAL * gaps.total()) and is_all


def _script(word: str) -> str:
    """Return the script of a word, the first part of its letters' Unicode names, KANA for any Japanese; "" without
    letters."""
    if word.isascii():
        return "LATIN" if any(map(str.isalpha, word)) else ""
    names = [unicodedata.name(letter, "").partition(" ")[0] for letter in word if letter.isalpha()]
    return "KANA" if {*names} & {"HIRAGANA", "KATAKANA"} else next(iter(names), "")


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Yield the lines of texts that are not empty, without bullets and fenced code."""
    is_code = False
    for line in (line.strip() for text in texts for line in text.splitlines()):
        if line.startswith(_FENCE):
            is_code = not is_code
        elif not is_code and (line := _BULLET.sub("", line, count=1)):
            yield line
