"""Multiple choice questions, written with their options; the answer is the letter and the text of the right one.

Which columns hold the options, the question and the key, and if the key's numbers count from 0 or from 1, is decided
over all rows of a file, so that each row is read alike.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import dropwhile, takewhile
from typing import Any

from core.data.reading.file_rows import Problem, Row
from core.data.shapes import options as reading
from core.data.shapes.left_out import NEARLY_ALL, Columns
from core.data.shapes.numbering import Base, Numbering
from core.data.shapes.options import SCHEMES, Options, Scheme, parsed_cell
from core.data.shapes.roles import MIN_WORDS, QUESTION_MARKS, column_named, is_about, meaning_of, words_of
from core.errors import DataError
from core.messages import Message, msg

# Words in names of columns that say which option is right.
_KEY_WORDS = re.compile(
    r"answer|^ans$|correct|label|gold|target|right|^cop$|^key$|solution|antwort|richtig|lösung|respuesta|réponse|bonne|"
    r"resposta|corret|risposta|ответ|правильн|答案|正确|正確|正解|정답"
)
_STEMS = ("question_stem", "stem", "goal", "sentence", "ctx", "startphrase", "sent1", "题目", "题干", "problem text")
_CONTEXTS = ("context", "passage", "article", "premise", "paragraph", "story", "dialogue", "dialog", "document",
    "background", "reading", "text", "kontext", "文章", "上下文")  # fmt: skip
_OTHER_SHAPES = {"messages", "conversations", "conversation", "chosen", "rejected"}
_MIN_ROWS = 3  # of a file
_PLAIN_KEYS, _MAX_ALIKE = ("a", "ans", "key"), 8  # names of keys, and the options of a list that no name tells
_KEY, _NUMBER = re.compile(r"[A-Ja-j]|\d"), re.compile(r"\s*\d+\s*")
_LETTERS = re.compile("(?=..)A?B?C?D?E?F?G?H?")  # of several right options: ACD


@dataclass(frozen=True)
class Place:
    """The columns of a row with its options. kind: "list": one column holds all; "columns": each has its own; "apart":
    the first of names holds the right one, the others wrong ones; "inline": they stand in the text of the question."""

    kind: str
    names: tuple[str, ...]

    def options(self, values: Columns) -> Options | None:
        """Return a row's options, with the right one if its place tells; None if its cells hold none."""
        cells = [values.peek(name) for name in self.names]
        if self.kind == "columns":
            return reading.in_columns(self.names, cells)
        if self.kind == "apart":
            return reading.one_right_among(cells[0], cells[1:])
        if self.kind == "inline":
            return reading.inline(cells[0]) if isinstance(cells[0], str) else None
        return reading.listed(cells[0])


@dataclass(frozen=True)
class MultipleChoice:
    """The way the rows of a file are read. key: the column that says which option is right; "": they are marked.

    base: the first number of a key of numbers.
    """

    place: Place
    question: str
    contexts: tuple[str, ...]
    key: str
    scheme: Scheme
    base: Base = 0

    def note(self) -> Message:
        """Return a sentence on which columns hold the options, and what tells the right one."""
        key = self.key or self.place.names[0]
        how = "apart" if self.place.kind == "apart" else self.scheme if self.key else "marked"
        return msg(
            "data.note_options", options=[*self.place.names], right=msg(f"data.key_{how}", column=key, first=self.base)
        )

    def apply(self, row: Row) -> Row:
        """Return a row as question (with its contexts and options) and answer; without a right option its flaw says
        why. Columns without a part in it keep their names."""
        values = Columns(row.values)
        options = self.place.options(values)
        shown = [part for name in self.contexts if (part := _text(values.peek(name)))]
        if question := _text(values.peek(self.question)):
            shown.append(question if self.place.kind == "inline" or not options else f"{question}\n{options.written()}")
        answer, flaw = self._answer(values, options)
        taken = {*self.place.names, self.question, *self.contexts, self.key}
        rest = {name: values.peek(name) for name in values if name not in taken}
        pair = {"question": "\n\n".join(shown) if question else "", "answer": answer}
        return replace(row, values={**pair, **{n: v for n, v in rest.items() if n not in pair}}, flaw=flaw)

    def _answer(self, values: Columns, options: Options | None) -> tuple[str, Message | None]:
        """Return (the right options' lines, None), or ("", why there are none)."""
        column, key = self.key or self.place.names[0], values.peek(self.key)
        if self.key and reading.is_hidden(key):
            return "", msg("data.hidden_answer", column=column, found=_short(key))
        if options is None:
            return "", msg("data.no_options", columns=[*self.place.names])
        places = self._option_positions(key, options) if self.key else options.right
        if not places or not all(0 <= place < len(options.texts) and options.texts[place] for place in places):
            return "", msg("data.no_such_option", column=column, found=_short(key), options=len(options.texts))
        return "\n".join(options.line(place) for place in places), None

    def _option_positions(self, key: Any, options: Options) -> list[int]:
        """Return the places (from 0) of the options that a key means; [] if one means nothing."""
        places = _option_numbers(key, options, self.scheme)
        return [place - self.base for place in places] if self.scheme == "number" else places


def _option_numbers(key: Any, options: Options, scheme: Scheme) -> list[int]:
    """Return the options that a key means, several for keys such as ["B", "C"], "A, C" or "ACD": their places from 0,
    or with the scheme "number" the numbers as they are written. [] if one part of the key means no option."""
    parts = key if isinstance(key, list) else [key]
    # Only a key that means no option as it stands is split: an option's text may have commas.
    if len(parts) == 1 and isinstance(parts[0], str) and reading.place_of(parts[0], options, scheme) is None:
        text = parts[0].strip()
        parts = [*text] if _LETTERS.fullmatch(text) else re.split(r"\s*[,;]\s*", text)
    places = [reading.place_of(part, options, scheme) for part in parts]
    return [] if None in places else [place for place in places if place is not None]


def _short(value: Any) -> str:
    """Return the beginning of a value for a message."""
    return str("" if value is None else value)[:60]


def _text(value: Any) -> str:
    """Return the text of a table cell without the blanks around it.

    A list of texts becomes one text with a line for each; "" for any other cell, as a number or None.
    """
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "\n".join(value).strip()
    return value.strip() if isinstance(value, str) else ""


# --- deciding ---------------------------------------------------------------------------------------------------------


def decided(sample: Sequence[Row], rows: Callable[[], Iterable[Row | Problem]]) -> MultipleChoice | None:
    """Return how a file of multiple choice questions is read; None for another file, or without a key. rows: returns
    all rows, which are only read if the sample has options. Raises DataError if the numbers of the key can count from 0
    and from 1, or from neither."""
    values = [Columns(row.values) for row in sample]
    names = [*dict.fromkeys(name for each in values for name in each)]
    if not _OTHER_SHAPES.isdisjoint(names):
        return None
    names = _from_question_to_key(values, names) if reading.are_unnamed(names) else names
    # Only all rows tell if numbers count from 0.
    for place in map(partial(_with_right_one, values, names), _places_of_options(values, names)):
        if not _holds_for_most((place.options(each) is not None for each in values), len(values)):
            continue
        question, contexts = _question_columns(values, [name for name in names if name not in place.names], place)
        if not question:
            continue
        layout = MultipleChoice(place, question, contexts, "", "label")
        marked = (bool((one := place.options(each)) and one.right) for each in values)
        if place.kind == "apart" or _holds_for_most(marked, len(values)):
            return layout
        keys = _key_columns(names, {*place.names, question, *contexts})
        is_named = place.kind != "list" or place.names[0] in reading.LISTS
        if not is_named:  # a label of a text with tags is no place, and aliases hold the answer itself
            keys = [name for name in names if name in reading.RIGHT or name in _PLAIN_KEYS]
        key = _Keys(place, keys).chosen(rows(), _is_possible(values, place, keys)) if keys else None
        if key and (is_named or key[1] != "text"):
            return replace(layout, key=key[0], scheme=key[1], base=key[2])
    return None


def refuse_without_key(sample: Sequence[Row]) -> None:
    """Raise DataError for rows nearly all of which have a question with options, in columns or a list, as nothing says
    which is right."""
    values = [Columns(row.values) for row in sample]
    names = [*dict.fromkeys(name for each in values for name in each)]
    for place in _places_of_options(values, names):
        is_list = place.kind == "list" and place.names[0] in reading.LISTS
        if (is_list or place.kind == "columns") and not reading.are_unnamed(names):
            question, _ = _question_columns(values, [name for name in names if name not in place.names], place)
            if question and _holds_for_most((place.options(each) is not None for each in values), len(values)):
                raise DataError("data.options_without_key", question=question, options=[*place.names])


def refuse_unread(sample: Sequence[Row]) -> None:
    """Raise DataError if a column of letters or numbers says which parts of a list or object are right: one that is
    named as the answer beside options that are not read, or any whose values all are keys of an object, or places
    in a list."""
    values = [Columns(row.values) for row in sample]
    names = [*dict.fromkeys(name for each in values for name in each)] if len(sample) >= _MIN_ROWS else []
    for name in names if _OTHER_SHAPES.isdisjoint(names) else ():
        cells = [
            (each, cell) for each in values if (cell := parsed_cell(each.peek(name))) and isinstance(cell, list | dict)
        ]
        for key in names if 8 * len(cells) >= len(values) else ():
            is_named = key in reading.RIGHT and name in reading.LISTS and len(cells) >= NEARLY_ALL * len(values)
            are_keys = [
                is_named and _KEY.fullmatch(str(each.peek(key))) or _is_key(each.peek(key), cell)
                for each, cell in cells
            ]
            if key != name and _holds_for_most(map(bool, are_keys), len(cells)):
                raise DataError("data.options_unread", answer=key, options=name)


def _is_key(value: object, options: list[Any] | dict[str, Any]) -> bool:
    """Return True for a letter or number that is a key of an object with others, or a list of places in a list."""
    if isinstance(options, dict):
        return isinstance(value, str) and len(value) == 1 and value in options and len(options) > 1
    if not isinstance(value, list) or not 0 < len(value) < len(options) or any(type(at) is not int for at in value):
        return False
    return all(0 <= at <= len(options) for at in value) and all(isinstance(one, str) for one in options)


def _places_of_options(values: Sequence[Columns], names: Sequence[str]) -> Iterator[Place]:
    """Yield the places where these columns may hold options, the most certain first."""
    if apart := reading.right_and_wrong(names):
        yield Place("apart", (apart[0], *apart[1]))
    yield from (Place("list", (name,)) for name in reading.LISTS if name in names)
    marked = (
        name for name in names if _holds_for_most((reading.are_marked(each.peek(name)) for each in values), len(values))
    )
    yield from (Place("list", (name,)) for name in marked if name not in reading.LISTS)
    alike = (name for name in names if name not in reading.LISTS and _are_alike_lists(values, name))
    yield from (Place("list", (name,)) for name in alike)
    columns = reading.columns_of_options(names)
    if not columns and all(_half_have_letters(values, name) for name in reading.lettered(names)):
        columns = reading.lettered(names)
    if columns:
        yield Place("columns", tuple(columns))
    if question := column_named(names, "question"):
        yield Place("inline", (question,))


def _are_alike_lists(values: Sequence[Columns], name: str) -> bool:
    """Return True for a column of lists of texts that nearly all have the same length, as those of options do."""
    lists = [cell for each in values if isinstance(cell := each.peek(name), list)]
    lengths = Counter(map(len, lists))
    return any(
        2 <= length <= _MAX_ALIKE and count >= NEARLY_ALL * len(values) for length, count in lengths.items()
    ) and all(isinstance(part, str) and part.strip() for cell in lists for part in cell)


def _holds_for_most(flags: Iterable[bool], count: int) -> bool:
    """Return True if nearly all are true. Stops reading once too many are not."""
    others = 0
    for one in flags:
        others += not one
        if others > (1 - NEARLY_ALL) * count:
            return False
    return True


def _question_columns(values: Sequence[Columns], names: Sequence[str], place: Place) -> tuple[str, tuple[str, ...]]:
    """Return the column of the question and those of contexts that belong to it; "" if there is no question."""
    texts = [name for name in names if any(_text(each.peek(name)) for each in values)]
    contexts = [
        name for name in texts if name in _CONTEXTS or column_named([name], "context") and _is_wordy(values, name)
    ]
    if place.kind == "inline":
        return place.names[0], tuple(contexts)
    stem = next((name for name in texts if name in _STEMS), None)
    rest = [name for name in texts if name not in contexts]
    # An id of a question is none.
    question = column_named([n for n in rest if _is_wordy(values, n)], "question") or column_named(rest, "question")
    # Such as gold-source; a source may be the exam that a question is from.
    if stem and (question is None or meaning_of(question, exact=True) is None or question == "source"):
        question = stem
    if reading.are_unnamed(names):
        question = names[0]
    if question is None and contexts:  # "text" or "premise" alone is what the options go with
        question = contexts.pop()
    if question is None:  # no name says it: the only column of several words, or the only one that asks
        wordy = [
            name for name in texts if not _KEY_WORDS.search(name) and not is_about(name) and _is_wordy(values, name)
        ]
        asking = [name for name in wordy if _half_ask(values, name)] if len(wordy) > 1 else wordy
        if len(asking) != 1:  # an explanation stands after the options
            before = {*takewhile(lambda name: name not in place.names, values[0])}
            asking = [name for name in wordy if name in before]
        question = asking[0] if len(asking) == 1 else None
        contexts += [*takewhile(lambda name: name != question, wordy)] if question else []
    return question or "", tuple(name for name in contexts if name != question)


def _half_have_letters(values: Sequence[Columns], name: str) -> bool:
    """Return True if at least half of the rows have a letter in this column."""
    return 2 * sum(any(map(str.isalpha, _text(each.peek(name)))) for each in values) >= len(values)


def _half_ask(values: Sequence[Columns], name: str) -> bool:
    """Return True if the text of this column ends with a question mark or a colon in at least half of the rows."""
    return 2 * sum(_text(each.peek(name)).endswith((*QUESTION_MARKS, ":", "：")) for each in values) >= len(values)


def _from_question_to_key(values: Sequence[Columns], names: Sequence[str]) -> list[str]:
    """Return the columns of a table without names from the question to the key, which is the first of letters or small
    numbers after two texts, and is included; without a key to the last.

    The question is the first column that is neither a number, such as a level, nor a kind that many rows share, such as
    a subject. What follows the key is no option.
    """

    def are(pattern: re.Pattern[str], name: str) -> bool:
        """Return True if nearly all values of a column match a pattern as a whole."""
        return _holds_for_most((bool(pattern.fullmatch(str(each.peek(name)))) for each in values), len(values))

    def is_kind(name: str) -> bool:
        """Return True if at least every second row has the value of another row."""
        return 2 * len({_text(each.peek(name)) for each in values}) <= len(values)

    named = [*dropwhile(lambda name: are(_NUMBER, name) or is_kind(name), names)] or [*names]
    keys = [name for name in named[3:] if are(_KEY, name)]
    return named[: named.index(keys[0]) + 1] if keys else named


def _with_right_one(values: Sequence[Columns], names: Sequence[str], place: Place) -> Place:
    """Return the place of options, changed where a separate column holds the right answer as text that is never one of
    the options.

    The changed place has the kind "apart", and that column before the others, which then hold wrong answers. Only a
    place of the kind "columns" is changed; any other is returned as it is.
    """
    right = next((name for name in reading.RIGHT if name in names and name not in place.names), None)
    if place.kind != "columns" or right is None:
        return place
    shown = [(_text(each.peek(right)), [_text(each.peek(name)) for name in place.names]) for each in values]
    are_keys = all(_KEY.fullmatch(str(each.peek(right))) for each in values)
    bare = [(reading.without_mark(text), others) for text, others in shown]  # "B: Paris" is a key with its text
    is_apart = not are_keys and all(text not in others for text, others in bare if text)
    return Place("apart", (right, *place.names)) if is_apart else place


def _is_wordy(values: Sequence[Columns], name: str) -> bool:
    """Return True for a column that has several words in nearly every row."""
    return _holds_for_most((len(words_of(_text(each.peek(name)))) >= MIN_WORDS for each in values), len(values))


def _key_columns(names: Sequence[str], others: set[str]) -> list[str]:
    """Return the columns that may say which option is right: those with a fitting name (answer, correct, ...) that are
    not among `others`, which have another part; in a table without names the last column."""
    if reading.are_unnamed(names):
        return [names[-1]]
    return [name for name in names if name not in others and _KEY_WORDS.search(name)]


def _is_possible(values: Sequence[Columns], place: Place, keys: Sequence[str]) -> bool:
    """Return True if a key means an option in most rows of the sample, or is hidden in all of them."""
    tally = _Keys(place, keys)
    for each in values:
        tally.add(each)
    return bool(tally.possible())


@dataclass
class _Keys:
    """Counts over many rows of the options that the values of possible key columns mean."""

    place: Place
    columns: Sequence[str]
    means: Counter[tuple[str, Scheme]] = field(default_factory=Counter)
    hidden: Counter[str] = field(default_factory=Counter)
    given: Counter[str] = field(default_factory=Counter)
    numbers: defaultdict[str, Numbering] = field(default_factory=lambda: defaultdict(Numbering))
    most: int = 0

    def add(self, values: Columns) -> None:
        """Count for one row which key columns are filled or hidden, and in which ways each can be read."""
        options = self.place.options(values)
        if options is None:
            return
        self.most = max(self.most, len(options.texts))
        for column in self.columns:
            key = values.peek(column)
            if reading.is_hidden(key):
                self.hidden[column] += 1
                continue
            self.given[column] += 1
            for scheme in SCHEMES:
                if places := _option_numbers(key, options, scheme):
                    self.means[column, scheme] += 1
                    if scheme == "number":
                        for place in places:
                            self.numbers[column].add(place, len(options.texts))

    def possible(self) -> list[tuple[str, Scheme]]:
        """Return the (column, scheme) pairs by which a key column can be read in nearly all rows, the best first.

        If none fits: the columns that are hidden in all rows in which they were counted, with the scheme "text"; []
        without such.
        """
        fitting = [
            (column, scheme)
            for (column, scheme), count in self.means.items()
            if count >= NEARLY_ALL * self.given[column]
        ]
        if not fitting:
            hidden = [column for column in self.columns if not reading.are_unnamed([column])]
            return [(column, "text") for column in hidden if self.hidden[column] and not self.given[column]]
        # Numbers last, as they may count from 0 or from 1.
        return sorted(fitting, key=lambda each: (each[1] == "number", -self.means[each], SCHEMES.index(each[1])))

    def chosen(self, rows: Iterable[Row | Problem], is_possible: bool) -> tuple[str, Scheme, Base] | None:
        """Count all rows and return the column that says which option is right, how its values are read, and its first
        number (0 for keys that are no numbers). None if no column can be it; with is_possible False at once, without
        reading rows. Raises DataError if its numbers can count from 0 and from 1, or from neither."""
        if not is_possible:
            return None
        for row in rows:
            if isinstance(row, Row):
                self.add(Columns(row.values))
        for column, scheme in self.possible():
            if scheme != "number":
                return column, scheme, 0
            numbers = self.numbers[column]
            # A last column of one number alone is no key.
            if numbers.lowest == numbers.highest and reading.are_unnamed([column]):
                continue
            if (base := numbers.base) is None:
                reason = "both" if not numbers.has_zero else "neither"
                raise DataError(
                    f"data.numbering_{reason}",
                    column=column,
                    lowest=numbers.lowest,
                    highest=numbers.highest,
                    options=self.most,
                )
            return column, scheme, base
        return None
