"""Decides which columns of a table are the question and the answer, if their names are none of a format's.

The names of the columns decide first, then the contents of the rows; never the length of the texts. If neither
decides, every possible reading is kept for the person to choose from (DataReport.readings), and no run starts before.
The first SAMPLE_ROWS rows are looked at, however many there are.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Literal

from core.data.reading.file_rows import Row
from core.data.shapes.cells import are_scores, are_spans, is_list_of_texts
from core.data.shapes.known import COLUMNS
from core.data.shapes.left_out import NEARLY_ALL, has_value
from core.data.shapes.numbering import number_of
from core.data.shapes.options import are_unnamed
from core.data.shapes.roles import (
    LANGUAGE,
    MIN_WORDS,
    QUESTION_MARKS,
    Role,
    Roles,
    is_about,
    is_worse,
    meaning_of,
    words_of,
)
from core.data.shapes.turn_markers import turns_in
from core.errors import DataError
from core.messages import msg
from core.recipe import Format

_MAX_SIDES = 4  # columns of which each may go with each
MAX_READINGS, MAX_JOINED = 6, 24  # offered to a person; of a set of files
_MIN_ROWS, _ROWS_OF_EACH = 20, 5  # of a column of kinds: rows, and rows with each value
_WORDINGS = 16  # rows with each answer that are still questions about one fact in other words
_LONG = 8  # words of a usual text in a column
_WEAK = frozenset({"source", "summary", "input"})  # names of a question or an answer, and of much else
_ORIGIN, _GOAL = frozenset({"source", "src"}), frozenset({"target", "tgt", "summary", "translation", "output"})
_LONG_CONTEXT = 40  # words of a usual text that a question may be about
LONGEST_LABEL = 40  # characters
MAX_LABELS = 30  # different values of a column of labels
_LABEL = frozenset(
    re.findall(
        r"\w+",
        """label labels category categories class classes intent intents sentiment topic topics tag tags emotion
        polarity stance kategorie klasse etikett stimmung thema categoria categoría catégorie clase classe etiqueta
        étiquette etichetta метка категория класс 类别 标签 分类 分類 ラベル カテゴリ 라벨 카테고리 분류 تصنيف श्रेणी""",
    )
)
_CODE = frozenset({"code", "sql", "cypher", "sparql", "query", "program", "snippet", "quelltext", "代码", "コード"})
_HUMAN = "human"
# Names of a side, and of columns that say who a person is.
_PERSONS = {"user", "customer", "client", "human", "agent", "assistant", "bot", "kunde", "cliente", "usuario", "用户"}
_VERDICTS = {"correct", "right", "valid", "accepted", "approved", "good", "helpful", "relevant", "true", "verified"}
_NEVER_ANSWERS = frozenset({"premise", "hypothesis", "passage"})  # beside the names of questions, contexts, systems
_OF_SETS = {"domain", "subset", "dataset", "set", "corpus", "genre", "style", "license", "section", "series", "level"}
_FLAGS = {"true", "false", "yes", "no", "y", "n", "x", "✓", "✔", "✗"}
_CODE_BEGINS = re.compile(
    r"\s*(?:select|with|insert|update|delete|create)\s+\S|\s*(?:def|class|import|from|function|const|let|var|public|"
    r"package|fn|#include|#!/|<\?php|<!doctype|<html)\b|\s*```",
    re.IGNORECASE,
)
# Both readings of lists of texts: several answers to one question, or questions and answers in turn.
LISTED: tuple[Roles, Roles] = (
    {"first text": "question", "later text": "answer"},
    {"odd text": "question", "even text": "answer"},
)
CARDS: tuple[Roles, Roles] = (
    {"question": "question", "answer": "answer"},
    {"answer": "question", "question": "answer"},
)
Evidence = Literal["chosen", "names", "content", "none"]


@dataclass(frozen=True)
class Decision:
    """The possible readings of a table's columns, the likeliest first.

    evidence: "chosen" by a person; "names" or "content" of the columns decide for the first; "none" decides.
    """

    readings: tuple[Roles, ...] = ()
    evidence: Evidence = "names"

    @property
    def roles(self) -> dict[str, Role]:
        """{column: role} of the likeliest reading, the first; {} if there is none."""
        return dict(self.readings[0]) if self.readings else {}

    @classmethod
    def merge(cls, decisions: Iterable[Decision]) -> Decision:
        """Return one decision for the files of a set.

        If a person has to choose for any file, its readings are joined, at most MAX_JOINED of them; a few files of
        doubtful text (fewer than half) are ignored. Else the first reading has the roles of all files, and it is a
        guess if one of them is. Empty without a file that has readings.
        """
        every = [*decisions]
        lines = [one for one in every if one.evidence == "none" and len(one.readings) == 1]
        few = lines if 2 * len(lines) < len(every) else []  # of which each is noted
        every = [one for one in every if one not in few and (one.readings or one.evidence == "content")]
        ranks = itertools.zip_longest(*(one.readings for one in every if one.evidence == "none"), fillvalue={})
        if joined := {tuple(roles.items()): roles for roles in itertools.chain(*ranks) if roles}:
            return cls((*joined.values(),)[:MAX_JOINED], "none")
        roles = {name: role for one in every for name, role in one.roles.items()}
        doubtful = next((one for one in every if one.evidence == "content"), None)
        if doubtful is None:
            return cls((roles,), every[0].evidence) if every else cls()
        return cls(({**roles, **doubtful.roles}, *doubtful.readings[1:]), doubtful.evidence)


def decide(rows: Sequence[Row]) -> Decision | None:
    """Decide by names and contents which columns of a table are question, answer, context or plain text. Return the
    possible readings ({column: role}), which are certain, a guess, or left to a person (`Decision.evidence`); None if
    no column of text can be used."""
    table = _Table(rows)
    # From what names say for sure to what only contents suggest.
    kinds = (_lettered, _both_named, _translated, _one_named, _correction, _labelled, _unnamed)
    listed = Decision(LISTED, "none") if table.values.keys() == {*LISTED[0], *LISTED[1]} else None
    return listed or next((decision for decide_by in kinds if (decision := decide_by(table))), None)


def beside_text(rows: Sequence[Row]) -> Decision | None:
    """Return the readings ({column: role}) of rows of the format `text` that also have columns of labels, annotations,
    answers or code, so that a person chooses between the text alone and text with answer. If names give both a question
    and an answer, their reading is returned as decided by names.

    None if there is no text column, or nothing beside it that may be an answer. Raises DataError if all such columns
    only mark places in the text.
    """
    table = _Table(rows)
    text = next((name for name in table.texts if meaning_of(name) == "text"), None)
    if text is None:
        return None
    if table.named("question") and table.named("answer"):
        return _both_named(table)
    others = [
        name
        for name in table.values
        if name not in (text, *table.of_annotation)
        and not is_worse(name)
        and (table.may_be_answer(name) or table.holds_annotations(name) or table.may_be_kind(name, text))
    ]
    others.sort(key=lambda name: meaning_of(name) != "answer")
    if others and all(are_spans(table.values[name][0]) for name in others):
        raise DataError("data.every_row", problem=msg("data.only_spans", column=others[0]))
    return _left_to_person([*(_pair(text, name) for name in others), _alone(text)]) if others else None


def _about_longer(table: _Table) -> Decision | None:
    """Return a Decision left to a person: a long column before question and answer, with a name that means nothing, may
    be the question's context. Its readings are one with each such column as context, and one without. None without such
    a column."""
    question, answer = next(iter(table.named("question")), ""), next(iter(table.named("answer")), "")
    before = [*itertools.takewhile(lambda name: name not in (question, answer), table.texts)]
    others = [name for name in before if meaning_of(name) is None and not is_about(name)]
    longer = [name for name in others if table.texts[name] >= max(_LONG_CONTEXT, 2 * table.texts.get(question, 0))]
    if not (question and answer and longer):
        return None
    pair = _pair(question, answer)
    contexts: list[dict[str, Role]] = [{name: "context"} for name in longer]
    return _left_to_person([*(context | pair for context in contexts), pair])


def beside_pair(rows: Sequence[Row], format: Format) -> Decision | None:
    """Return readings ({column: role}) for a person to choose from, if the columns that the row's format uses may be
    the wrong ones: further columns of answers, one that says if the answer is right, ids in place of questions, a long
    text that the question may be about, a label beside an answer. None for other rows. Raises DataError if the labels
    only mark places in the text, or options stand in rows of their own."""
    table = _Table(rows)
    if format == "question_answer":
        names = {name.strip().lower(): name for name in table.texts}
        sides = [next((names[n] for n in COLUMNS[format][side] if n in names), "") for side in ("question", "answer")]
        if all(sides) and (doubted := _doubted(table, sides[0], sides[1])):
            return doubted
    if format in ("question_answer", "alpaca", "prompt_completion") and (several := _several(table, format)):
        return several
    if format == "question_answer" and not table.named("context"):
        return _about_longer(table)
    labels = [
        cell
        for row in rows
        for name, cell in row.values.items()
        if str(name).lower() in COLUMNS["text_label"]["label"] and has_value(cell)
    ]
    if format == "text_label" and labels and all(map(are_spans, labels)):
        raise DataError("data.every_row", problem=msg("data.only_spans", column="label"))
    answers = [name for name in table.named("answer") if name in table.texts and name not in table.of_annotation]
    text, label = (
        next((name for name in table.values if name.strip().lower() in COLUMNS["text_label"][column]), "")
        for column in ("text", "label")
    )
    if format == "text_label" and text and label:
        stem = _SECOND.sub("", text).lower()
        if others := [n for n in table.sentences if n != text and _SECOND.sub("", n).lower() == stem]:
            beside: dict[str, Role] = {text: "context"}
            return _left_to_person([beside | _pair(others[0], label), _pair(text, label), _pair(text, others[0])])
    is_doubtful = format == "text_label" and answers and text and label and not table.named("question")
    return _left_to_person(_pair(text, name) for name in (*answers, label)) if is_doubtful else None


def _several(table: _Table, format: Format) -> Decision | None:
    """Return a Decision left to a person if a table in this format (a question and an answer) has further columns of
    answers, with one reading for each, or a column that says if the answer is right. None without such columns."""
    known = {alias for aliases in COLUMNS[format].values() for alias in aliases}
    others = [n for n in table.sentences if meaning_of(n) == "answer" and n.lower() not in known and not is_worse(n)]
    named = _both_named(table) if others or table.marks(()) else None
    if not (named and others):
        return named
    question_roles = {name: role for name, role in named.roles.items() if role != "answer"}
    answers = [name for name, role in named.roles.items() if role == "answer"]
    return _left_to_person(question_roles | {name: "answer"} for name in dict.fromkeys((*answers, *others)))


def _doubted(table: _Table, question: str, answer: str) -> Decision | None:
    """Return a Decision left to a person if the column of questions holds ids or numbers, or an answer is XML: the
    pair, or the answers alone as text. None for other columns. Raises DataError if questions repeat and each row has
    one option (A, B, ...) of the question as its answer, as nothing says which is right."""
    questions, answers = ([str(value) for value in table.values[name]] for name in (question, answer))
    are_ids = table.share(question, (_ID.fullmatch(text) is not None for text in questions)) >= NEARLY_ALL
    if are_ids or table.is_numeric(question) or any(text.lstrip().startswith("<?xml") for text in answers):
        return _left_to_person([_pair(question, answer), _alone(answer)])
    marks = [match[1].lower() for text in answers if (match := _OPTION.match(text))]
    repeats = 3 * len({*questions}) <= 2 * len(questions)
    if repeats and len({*marks}) > 1 and len(marks) >= NEARLY_ALL * len(answers):
        raise DataError("data.options_without_key", question=question, options=[answer])
    return None


def with_useful_answers(readings: Sequence[Roles], rows: Sequence[Row]) -> Sequence[Roles]:
    """Return the readings ({column: role}) without those whose answer teaches nothing: the same in nearly all rows, an
    id, a date or the number of the row, in a column whose name does not say that it is an answer. If none is left,
    return all readings of a table of at most two columns; for more columns raise DataError."""
    table = _Table(rows)
    answers = {name for roles in readings for name, role in roles.items() if role == "answer"}
    silent = {*filter(table.says_nothing, answers)}
    rest = [roles for roles in readings if not any(roles.get(name) == "answer" for name in silent)]
    if not rest and len(table.values) > 2:
        raise DataError("data.no_answer_column", columns=[*table.values][:20])
    return rest or readings


class _Table:
    """The columns of the sample rows: those of text, and those of labels or numbers."""

    def __init__(self, rows: Sequence[Row]):
        """Keep the filled values of each column that half of the rows have, or one in ten if it is named as an answer;
        columns of hashes and addresses are left out."""
        self.rows = rows
        names = dict.fromkeys(str(name) for row in rows for name in row.values)
        values = {name: [row.values[name] for row in rows if has_value(row.values.get(name))] for name in names}
        self.values = {
            name: each
            for name, each in values.items()
            if (10 if meaning_of(name) == "answer" else 2) * len(each) >= len(rows)
            and 2 * sum(_HASH.fullmatch(str(one)) is None for one in each) > len(each)
        }

    @cached_property
    def texts(self) -> dict[str, float]:
        """The columns that hold only text, with their usual number of words; no links and no flags."""
        return {name: words for name in self.values if (words := self._words(name)) is not None}

    def _words(self, name: str) -> float | None:
        """Return the median number of words of a column; None for links, flags, credits and what is no text. Among
        texts, some may be lists of several."""
        values = [value for value in self.values[name] if isinstance(value, str)]
        lists = 0 if 2 * len(values) < len(self.values[name]) else sum(map(is_list_of_texts, self.values[name]))
        if len(values) + lists < NEARLY_ALL * len(self.values[name]) or any(map(_LINK.match, values)):
            return None
        if {value.strip().lower() for value in values} <= _FLAGS or all(map(_CREDIT.search, values)):
            return None
        return median(len(words_of(value)) for value in values)

    @property
    def sentences(self) -> list[str]:
        """Return the names of the text columns that hold sentences: usually MIN_WORDS words or more, and in at least
        half of the texts blanks, or Chinese, Japanese or Korean characters, which need none.

        Left out are columns named as ids, links, dates or scores, columns of dates, and names of topics, which repeat
        where two other texts do not. [] without such a column.
        """
        return [
            name
            for name, words in self.texts.items()
            if words >= MIN_WORDS
            and not is_about(name)
            and not self.holds_dates(name)
            and not self.repeats_unlike_others(name)
            and self.share(name, (_APART.search(str(value)) is not None for value in self.values[name])) >= 0.5
        ]

    def named(self, role: Role) -> list[str]:
        """Return the columns whose name means a role: those whose full name does, else those whose last word does.

        Worse answers are left out. Of questions, also labels, kinds, numbers and origins of a row are left out, and
        code if there is another.
        """
        letters = {name.strip().lower() for name in self.values} >= {"q", "a"}  # one alone is a name like b or c
        columns = list(self.values if role == "answer" else self.texts)
        meant = [
            name
            for name in columns
            if (letters or name.strip().lower() not in ("q", "a"))
            and meaning_of(name) == role
            and not (role == "answer" and is_worse(name))
            and (_last_word(name) not in _PERSONS or self.texts.get(name, MIN_WORDS) >= MIN_WORDS)
        ]
        meant = [name for name in meant if meaning_of(name, exact=True) == role] or meant
        if role == "text":  # a chapter may be a text, or the title of many rows
            meant = [name for name in meant if not (self.repeats(name) and self.texts[name] < MIN_WORDS)]
        if role == "question":  # a query may be one, or SQL; a source may be a text, or the name of one
            has_text = any(meaning_of(name) == "text" for name in self.texts)
            meant = [
                name
                for name in meant
                if not (self.is_label(name) or self.holds_kinds(name) or has_text and self.holds_markers(name))
            ]
            meant = [name for name in meant if not self.holds_code(name)] or meant
            meant = [name for name in meant if not (self.is_origin(name) or self.is_numeric(name))]
            # Beside a prompt, without an answer by name, what a human wrote is one of several answers.
            others = [name for name in meant if _last_word(name) != _HUMAN]
            meant = others if others and not self.named("answer") else meant
        return meant

    def is_origin(self, name: str) -> bool:
        """Return True for a column named source without one named target beside it: where a row is from."""
        return _last_word(name) in _ORIGIN and not any(_last_word(other) in _GOAL for other in self.values)

    def has_few_values(self, name: str) -> bool:
        """Return True for a column that looks like one of labels: few different short values, each of several rows."""
        values = {str(value) for value in self.values[name]}
        is_short = all(isinstance(v, str | int | bool) and len(str(v)) <= LONGEST_LABEL for v in self.values[name])
        return is_short and 2 <= len(values) <= min(MAX_LABELS, len(self.rows) // 2)

    def may_be_kind(self, name: str, text: str) -> bool:
        """Return True if a column puts each row into one of a few kinds, such as the priority of a request, and so may
        be what is to be learned. False for the source, level or year of a text, for names with a role, and if the
        column `text` usually has _LONG_CONTEXT words or more."""
        is_label = self.has_few_values(name) and not (self.is_numeric(name) or is_about(name) or meaning_of(name))
        return is_label and _last_word(name) not in _OF_SETS and self.texts[text] < _LONG_CONTEXT

    def marks(self, taken: Iterable[str]) -> list[str]:
        """Return the columns, except those taken, that may say if an answer is right: labels of two numbers (0 and 1,
        or -1 and 1), and columns with a name such as correct that hold only yes or no."""
        values = {n: {str(value).strip().lower() for value in self.values[n]} for n in self.values if n not in taken}
        return [
            name
            for name, each in values.items()
            if (self.is_label(name) and {*map(number_of, each)} in ({0, 1}, {-1, 1}))
            or (_last_word(name) in _VERDICTS and each <= _FLAGS | {"0", "1"})
        ]

    def holds_kinds(self, name: str) -> bool:
        """Return True if a column names the kind of its row, and so is no question: it has a few short values, each in
        many rows, or the same short value in all rows while another text changes."""
        values = {str(value) for value in self.values[name]}
        is_constant = len(values) == 1 and len(min(values)) <= LONGEST_LABEL and not all(map(self.repeats, self.texts))
        return (is_constant or self.has_few_values(name)) and self.repeats(name)

    def repeats(self, name: str, often: int = _ROWS_OF_EACH) -> bool:
        """Return True if each value of a column stands in at least `often` rows, on average. False for a column with
        fewer than _MIN_ROWS values."""
        values = self.values[name]
        return len(values) >= _MIN_ROWS and len({*map(str, values)}) * often <= len(values)

    def repeats_unlike_others(self, name: str) -> bool:
        """Return True for a column that repeats while two other texts do not: the name of a topic or a conversation."""
        if not self.repeats(name):
            return False
        others = [other for other, words in self.texts.items() if words > 0 and not is_about(other)]
        return sum(not self.repeats(other) for other in others) >= 2

    def long_beside(self, roles: Roles) -> list[str]:
        """Return the columns that the reading `roles` does not use although they hold long texts: _LONG or more words
        usually, with a name that means no role and no worse answer."""
        return [
            name
            for name in self.sentences
            if name not in roles and self.texts[name] >= _LONG and meaning_of(name) is None and not is_worse(name)
        ]

    def may_be_answer(self, name: str) -> bool:
        """Return True if a column's name means a label, code or an answer."""
        return meaning_of(name) == "answer" or self.is_label(name) or _last_word(name) in _CODE

    def holds_annotations(self, name: str) -> bool:
        """Return True for a column of annotations, and no other object or list: scores of classes, {"joy": 1, "anger":
        0}, or spans of the text, [[0, 5, "PERSON"]], [{"start": 0, "end": 5, "label": "PERSON"}]."""
        return self.share(name, (are_scores(value) or are_spans(value) for value in self.values[name])) >= 0.5

    @property
    def of_annotation(self) -> tuple[str, ...]:
        """The columns that a program for annotation adds: the words of the text, and whether a person accepted it."""
        return ("tokens", "answer") if "_task_hash" in self.values else ("tokens",) if "spans" in self.values else ()

    def holds_markers(self, name: str) -> bool:
        """Return True if at least half of a column's values are whole conversations in one text, with the turn markers
        of a chat template or names of the sides."""
        return self.share(name, (turns_in(str(value)) is not None for value in self.values[name])) >= 0.5

    def says_nothing(self, name: str) -> bool:
        """Return True for a column that is no answer unless its name says so: a word or two that are the same in nearly
        all rows, a date, or an id of each row."""
        values = [*map(str, self.values.get(name, ()))]
        most = max(Counter(values).values(), default=0)
        is_id = most == 1 and self.share(name, (_ID.fullmatch(value) is not None for value in values)) >= NEARLY_ALL
        is_id = is_id or self.counts_rows(name)
        may_repeat = name in self.sentences or self.holds_annotations(name)
        is_empty = is_id or self.holds_dates(name) or most >= NEARLY_ALL * len(values) and not may_repeat
        return is_empty and len(values) >= _MIN_ROWS and not self.may_be_answer(name)

    def counts_rows(self, name: str) -> bool:
        """Return True for the numbers of the rows: each one more than the number before."""
        numbers = [number_of(str(value)) for value in self.values.get(name, ())]
        return len(numbers) >= _ROWS_OF_EACH and all(
            one is not None and other is not None and other - one == 1 for one, other in itertools.pairwise(numbers)
        )

    def asks_nothing(self, name: str) -> bool:
        """Return True for a column that is never a question: of facts about the row, dates or bare numbers."""
        return is_about(name) or self.holds_dates(name) or self.is_numeric(name)

    def holds_dates(self, name: str) -> bool:
        """Return True for a column of dates or times, as programs write them."""
        return all(_DATE.match(str(value)) for value in self.values[name])

    def is_numeric(self, name: str) -> bool:
        """Return True for a column of numbers, whose meaning the file does not tell."""
        return (
            self.share(name, (_NUMBER.fullmatch(str(value)) is not None for value in self.values[name])) >= NEARLY_ALL
        )

    def is_label(self, name: str) -> bool:
        """Return True for a column that is named as one of labels."""
        return _last_word(name) in _LABEL

    def share(self, name: str, holds: Iterable[bool]) -> float:
        """Return the share of a column's values for which holds is True. holds: one for each value."""
        return sum(holds) / max(1, len(self.values[name]))

    def asks(self, name: str) -> float:
        """The share of a column's values that end with a question mark."""
        return self.share(name, (str(value).rstrip().endswith(QUESTION_MARKS) for value in self.values[name]))

    def holds_code(self, name: str) -> bool:
        """Return True if half of a column's values begin as programs or queries do."""
        return self.share(name, (_CODE_BEGINS.match(str(v)) is not None for v in self.values[name])) >= 0.5


_IN_LANGUAGE = re.compile(r"([^\W\d_]+)([\s_-]\w{1,5})")  # question_hu
_SECOND = re.compile(r"[\s_-]*(?:\d|[a-dA-D])$")  # of a name, of two alike
_LINK = re.compile(r"\s*https?://\S+\s*$")
_ID = re.compile(r"\s*(?=\S{8,})[A-Za-z]+[\w.-]*\d[\w.-]*\s*")  # NEJMoa1404037
_OPTION = re.compile(r"\s*[(\[*]*([a-hA-H]|[1-8])\s?[).:]\s")
_NUMBER = re.compile(r"\s*-?\d+(?:\.\d+)?\s*")
_DATE = re.compile(
    r"\s*(?:\d{4}[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.]\d{4})(?:[T ,]+[\d:.]+\s*(?:[AP]M|Z|[+-][\d:]+)?)?\s*$"
)
_APART = re.compile(r"\s|[\u2e80-\u9fff\uac00-\ud7af]")  # words stand apart, or need not


# A checksum, an id or an e-mail address, also in a list: nobody would train it.
_HASH = re.compile(
    r"[\W_]*(?:[0-9a-f]{16,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[\w.+-]+@[\w.-]+\.\w+)[\W_]*", re.IGNORECASE
)
_CREDIT = re.compile(r"\bCC[- ]BY\b|©|\b(?:copyright|attribution)\b", re.IGNORECASE)


def _last_word(name: str) -> str:
    """Return the last word of a column's name in small letters, as "question" for "user_Question2"; "" for a name
    without letters.

    Digits, "_" and other signs divide words; capitals inside a word do not.
    """
    words = re.findall(r"[^\W\d_]+", name.lower())
    return words[-1] if words else ""


def _pair(question: str, answer: str) -> dict[str, Role]:
    """Return the choice of columns in which column `question` has the question's role and column `answer` the
    answer's."""
    return {question: "question", answer: "answer"}


def _alone(text: str) -> dict[str, Role]:
    """Return the choice of columns in which this column alone is trained, as plain text."""
    return {text: "text"}


def _left_to_person(readings: Iterable[Mapping[str, Role]]) -> Decision:
    """Return a Decision that nothing decides (evidence "none"): a person chooses one of these readings ({column: role})
    before a run."""
    return Decision(tuple(readings), "none")


def _beside(table: _Table, taken: Roles) -> dict[str, Role]:
    """Return {column: role} of the first context and system column, by their names, that taken does not have."""
    roles_beside: dict[str, Role] = {}
    for role in ("context", "system"):
        name = next((name for name in table.named(role) if name not in taken), None)
        if name is not None:
            roles_beside[name] = role
    return roles_beside


def _lettered(table: _Table) -> Decision | None:
    """Return a Decision by names for columns that belong together as question and answer of one language: q_en with
    a_en, question_hu with answer_hu. With several such pairs a person chooses one. None without a pair."""
    names = {name.strip().lower(): name for name in table.texts}
    parts = [
        (*match.groups(), name)
        for name in names.values()
        if (match := _IN_LANGUAGE.fullmatch(name.strip()))
        and not table.is_numeric(name)  # "id" is a language, and an id
    ]
    pairs = [
        _pair(name, other)
        for side, rest, name in parts
        for answer, same, other in parts
        if rest.lower() == same.lower()
        and (side.lower(), answer.lower()) == ("q", "a")
        or rest.lower() == same.lower()
        and LANGUAGE.fullmatch(rest[1:])
        and (meaning_of(side, exact=True), meaning_of(answer, exact=True)) == ("question", "answer")
    ]
    return (Decision((pairs[0],)) if len(pairs) == 1 else _left_to_person(pairs)) if pairs else None


def _both_named(table: _Table) -> Decision | None:
    """Return a Decision for a table in which the names give both question and answer. A person chooses if there are
    several columns of answers, one that says if the answer is right, answers that repeat, or long texts that are not
    used. A text or context column serves as the question if no column is named so. None if a side has no name."""
    questions, answers = table.named("question"), table.named("answer")
    texts = [name for name in table.named("text") if name not in answers]
    question = next(iter([*questions, *texts, *table.named("context")]), None)
    if question is None or not (answers := [name for name in answers if name != question]):
        return None
    asks = table.named("question")[:2] if not table.named("context") else []
    # A title and the text of a question.
    first: dict[str, Role] = {asks[0]: "context"} if len({_SECOND.sub("", name) for name in asks}) == 2 else {}
    pairs = [first | _pair(asks[-1] if first else question, answer) for answer in answers]
    readings = [roles | _beside(table, roles) for roles in pairs]
    if len(readings) == 1 and (marks := table.marks(readings[0])):
        judged: dict[str, Role] = {question: "context", answers[0]: "question", marks[0]: "answer"}
        return _left_to_person([*readings, judged])
    if len(readings) == 1 and {question, answers[0]} <= table.texts.keys():
        if doubted := _doubted(table, question, answers[0]):
            return doubted
    is_repeated = table.repeats(answers[0], _WORDINGS) and not (
        table.has_few_values(answers[0]) or table.repeats(question)
    )
    beside = table.long_beside(readings[0]) if len(readings) == 1 else []
    if len(readings) == 1 and (is_repeated or beside and {*map(_last_word, (question, answers[0]))} & _WEAK):
        return _left_to_person([*readings, *(_pair(name, answers[0]) for name in beside), _alone(question)])
    return Decision((readings[0],), "names") if len(readings) == 1 else _left_to_person(readings)


def _translated(table: _Table) -> Decision | None:
    """Return a Decision left to a person for columns that are named by languages: each pair of them, in both
    directions, as a text and its translation. None for fewer than two languages."""
    names = [
        name
        for name, words in table.texts.items()
        if LANGUAGE.fullmatch(name.strip()) and (words >= MIN_WORDS or not is_about(name))
    ]
    # Both ways between the first languages, then those with the next one, as only some are offered.
    places = sorted(itertools.permutations(range(len(names)), 2), key=max)
    pairs = [_pair(names[one], names[other]) for one, other in places]
    # A language without a name that is known, before the others.
    before = [n for n in itertools.takewhile(lambda n: n not in names, table.texts) if n in table.sentences][:1]
    pairs[2:2] = (
        [pair for name in before if not table.repeats(name) for pair in (_pair(name, names[0]), _pair(names[0], name))]
        if names
        else []
    )
    return _left_to_person(pairs) if len({name.strip().lower()[:2] for name in names}) > 1 else None


def _one_named(table: _Table) -> Decision | None:
    """Return a Decision for a table in which names give only the question or only the answer. If a single other column
    can be the missing side, it is certain by its name or a guess by content; otherwise a person chooses among the
    columns. None if both or neither have a name, or if no column can be the other side."""
    question, answer = next(iter(table.named("question")), None), next(iter(table.named("answer")), None)
    if (question is None) == (answer is None):
        return None
    if answer is not None:
        others = [name for name in table.texts if not (name == answer or table.asks_nothing(name) or is_worse(name))]
        pairs = [_pair(name, answer) for name in others]
        if len(others) == 1 and (table.is_label(others[0]) or table.holds_kinds(others[0])):
            # an answer for a label, or the label of a text
            alone = [] if table.is_label(others[0]) else [_alone(answer)]
            return _left_to_person([_pair(answer, others[0]), *pairs, *alone])
    else:
        others = [
            name
            for name in table.values
            if name != question
            and (not is_about(name) or name.lower().endswith("type") and table.has_few_values(name))
            and not (is_worse(name) or _is_never_answer(name) or table.counts_rows(name))
            and (name in table.texts or table.may_be_answer(name) or table.has_few_values(name))
        ]
        others.sort(key=lambda name: not (table.may_be_answer(name) or table.holds_code(name)))
        pairs = [_with_both_parts(table, question or "") | {name: "answer"} for name in others]
    readings = [roles | _beside(table, roles) for roles in pairs]
    if len(readings) == 1 and answer is None and table.may_be_answer(others[0]) and not table.is_numeric(others[0]):
        return Decision((readings[0],), "names")
    if len(readings) == 1 and answer is None and table.is_numeric(others[0]) and (context := table.named("context")):
        # such as 1 for a right reply to what was said before
        return _left_to_person([*readings, _pair(context[0], question or "")])
    names = [*table.values]
    if len(readings) == 1 and answer is None and not table.has_few_values(others[0]):
        is_short = table.texts.get(others[0], MIN_WORDS) < min(MIN_WORDS, table.texts[question or ""] / 2)
        if is_short and names.index(others[0]) < names.index(question or ""):  # such as the name of a prompt
            return _left_to_person([*readings, _pair(others[0], question or ""), _alone(question or "")])
    codes = [place for place, name in enumerate(others) if table.holds_code(name)] if answer is None else []
    if len(codes) == 1:
        readings.insert(0, readings.pop(codes[0]))
    certain = len(readings) == 1 or len(codes) == 1
    return (
        (Decision(tuple(readings[:MAX_READINGS]), "content") if certain else _left_to_person(readings))
        if readings
        else None
    )


def _with_both_parts(table: _Table, question: str) -> dict[str, Role]:
    """Return the roles of the question and of a second column before it that is never an answer: a premise and its
    hypothesis, an instruction and its input, in the order of the columns."""
    parts = [
        name
        for name in table.texts
        if name == question or _is_never_answer(name) and meaning_of(name) != "system" and not table.is_origin(name)
    ]
    if len(parts) != 2 or any(meaning_of(name) == "context" for name in parts):
        return {question: "question"}
    return {parts[0]: "context", parts[1]: "question"}


def _is_never_answer(name: str) -> bool:
    """Return True for a column whose name means another side; not for code and labels, which may be either."""
    if _last_word(name) in _CODE | _LABEL | {_HUMAN}:
        return False
    return meaning_of(name) in ("question", "context", "system") or _last_word(name) in _NEVER_ANSWERS


def _correction(table: _Table) -> Decision | None:
    """Return what is to be corrected as the question: of two columns the one that is named as the wrong one. None for
    other tables."""
    worse = [name for name in table.sentences if is_worse(name)]
    others = [name for name in table.sentences if not is_worse(name)]
    return Decision((_pair(worse[0], others[0]),)) if len(worse) == len(others) == 1 else None


def _labelled(table: _Table) -> Decision | None:
    """Return a Decision left to a person for one or two columns of sentences beside labels or code: the label may be
    the answer, or the text is trained alone, or of two texts one may be the context. None for other tables."""
    named = [name for name in table.values if table.may_be_answer(name) and meaning_of(name) != "answer"]
    sentences = [name for name in table.sentences if name not in named]
    has_text = bool(table.named("text"))  # then only a column that is named as one holds labels
    if has_text and named and len(sentences) > 2:
        sentences = [name for name in sentences if name in table.named("text")]
    labels = named or [
        name
        for name in table.values
        if not has_text
        and name not in sentences
        and not is_about(name)
        and not _is_never_answer(name)
        and table.has_few_values(name)
    ]
    codes = [name for name in named if table.holds_code(name)]
    if codes and len(sentences) > 2:  # wordings of one query
        return _left_to_person(_pair(text, code) for code in codes for text in sentences)
    if not labels or not 1 <= len(sentences) <= 2:
        return None
    labels = sorted(labels, key=lambda name: isinstance(table.values[name][0], list))  # those of each annotator last
    if len(sentences) == 2:
        context, question = sentences
        beside: dict[str, Role] = {context: "context"}
        pairs = [_pair(context, question), _pair(question, context)]
        both = [beside | _pair(question, label) for label in labels[:2]]
        # Both are one question only beside a label by its name, beside class numbers, or as sentence1 and sentence2.
        is_one = (
            named or table.is_numeric(labels[0]) or all(map(_SECOND.search, sentences)) and not are_unnamed(sentences)
        )
        return _left_to_person([*both, *pairs] if is_one else [*pairs, *both])
    (text,) = sentences
    others = _first_as_question(table, [name for name in table.texts if name not in labels])
    others = [pair for pair in others if not named or text not in pair]  # a word and its translation, with a category
    reverse = [_pair(label, text) for label in labels if _last_word(label) in _CODE and meaning_of(text) is None]
    return _left_to_person(
        [*(_pair(text, label) for label in labels), *_explained(table, text), *reverse, _alone(text), *others]
    )


def _explained(table: _Table, text: str) -> list[dict[str, Role]]:
    """Return [one reading] with a term as the question and `text` as its answer; the term is the first column of one or
    two words that seldom repeat. [] without such a column."""
    terms = (
        name
        for name, words in table.texts.items()
        if name != text and 0 < words < MIN_WORDS and not (table.repeats(name) or table.has_few_values(name))
        if not table.holds_dates(name) and meaning_of(name) is None
        if not is_about(name) or _last_word(name) == "name"
    )
    return [_pair(name, text) for name in itertools.islice(terms, 1)]


def _first_as_question(table: _Table, names: Iterable[str]) -> list[dict[str, Role]]:
    """Return a reading for each column after the first: the first as the question, that one as its answer (a word and
    its translations, say).

    Columns about the row, and those that repeat unlike others, are skipped. [] if the first column left has no words,
    or is the only one.
    """
    sides = [name for name in names if not is_about(name) and not table.repeats_unlike_others(name)]
    return [_pair(first, name) for first in sides[:1] if table.texts.get(first) for name in sides[1:]]


def _are_crossed(one: str, other: str) -> bool:
    """Return True for two columns in different languages with different contents: name_fr and def_en."""
    parts = [re.fullmatch(r"(.+)_([a-z]{2})", name.strip().lower()) for name in (one, other)]
    return all(parts) and len({part[1] for part in parts if part}) == len({part[2] for part in parts if part}) == 2


def _unnamed(table: _Table) -> Decision | None:
    """Return a Decision for a table in which no name gives a side. A single column of sentences is trained alone. Two
    columns are question and answer if their contents tell which is which (question marks, code). In other cases a
    person chooses. None without a column of sentences, unless there are exactly two columns of shorter texts, and for
    one object of many texts."""
    named_text = next(iter(table.named("text")), None)
    columns = [name for name in table.sentences if not is_worse(name)]
    if named_text is not None and len(columns) != 2:
        others = [*_explained(table, named_text), *(_pair(name, named_text) for name in columns if name != named_text)]
        if not others:
            return Decision((_alone(named_text),), "names" if named_text in columns else "content")
        return _left_to_person([_alone(named_text), *others[: MAX_READINGS - 1]])
    has_two = len(table.values) == 2 and not columns  # then even a column called name is a side
    short = [
        name
        for name, words in table.texts.items()
        if name not in columns
        and words > 0
        and (has_two or not is_about(name) and not table.holds_dates(name))
        and not table.repeats_unlike_others(name)
    ]
    if len(columns) == 1 and not short:
        readings = [_alone(columns[0]), *_explained(table, columns[0])]
        return Decision(tuple(readings), "none" if len(readings) > 1 else "content")
    if len(columns) == 1:
        (text,) = columns
        pairs = [_pair(text, short[0]), _pair(short[0], text), _alone(text)]
        return _left_to_person(
            [*pairs, *(each for each in _first_as_question(table, table.texts) if each not in pairs)]
        )
    if not columns and (len(short) != 2 or len(table.values) > 3):
        return None
    if len(table.rows) == 1 and len(columns) > MAX_READINGS:  # one object of many texts is no row
        return None
    first, second, *rest = (columns or short)[:_MAX_SIDES]
    if rest:
        either = itertools.combinations((first, second, *rest), 2)
        pairs = [_pair(*names) for names in either if not _are_crossed(*names)]
        beside = [name for name, words in table.texts.items() if words > 0 and not is_about(name)][:2]
        head, explained = _with_head(first, second, rest[0]), _explained(table, first)
        two = [pair for pair in [_pair(*beside)] if pair not in (*pairs, *explained)]
        pairs = pairs[: MAX_READINGS - len(head) - len(two) - len(explained)]
        return _left_to_person([*explained, *pairs, *two, *head])
    # A side of questions, or of code, shows in the values which one it is.
    for question, answer in ((first, second), (second, first)):
        asks = table.asks(question) >= 0.5 and table.asks(answer) < 0.2
        codes = table.holds_code(answer) and not table.holds_code(question)
        if asks or codes:
            return Decision((_pair(question, answer), _pair(answer, question)), "content")
    before = itertools.takewhile(lambda name: name != first, table.texts)
    heads = [n for n in before if table.texts[n] > 0 and not (table.repeats(n) or table.is_origin(n))]
    headed = [each for name in heads[-1:] for each in _with_head(name, first, second)]
    explained = _explained(table, first) if columns else []
    return _left_to_person([*explained, _pair(first, second), _pair(second, first), *headed])


def _with_head(head: str, question: str, answer: str) -> list[dict[str, Role]]:
    """Return [one reading of three columns]: a subject or title as the context, a question, and an answer; [] if two of
    the names are of different languages and contents, as name_fr and def_en."""
    are_crossed = itertools.starmap(_are_crossed, itertools.combinations((head, question, answer), 2))
    return [] if any(are_crossed) else [{head: "context", question: "question", answer: "answer"}]
