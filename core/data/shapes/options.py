"""The options of a multiple choice question, in the notations of different files, and the right one by its key.

a list                  choices: ["Rome", "Paris"] | [{"label": "A", "text": "Rome"}, ...], also as a text with a list
objects of lists        choices: {"text": [...], "label": [...]} | {"A": "Rome", "B": "Paris"}
columns                 A, B, C | option_a, option_b | ending0, ending1 | sol1, sol2 | ...
the right one apart     correct_answer, distractor1, distractor2 | incorrect_answers: [...]
one text                "A) Rome B) Paris"
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Literal

from core.data.shapes.left_out import has_value
from core.data.shapes.numbering import number_of
from core.data.shapes.roles import meaning_of

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
Scheme = Literal["label", "letter", "text", "number"]
SCHEMES: tuple[Scheme, ...] = ("label", "letter", "text", "number")
LISTS = (
    "choices", "options", "opts", "choice", "option", "candidates", "endings", "alternatives", "answers",
    "answer_choices", "answer_options", "possible_answers", "target_scores", "mc1_targets", "candidate_answers",
    "optionen", "antworten",
    "antwortmöglichkeiten", "opciones", "opções", "opzioni", "réponses", "варианты", "选项", "選項", "選択肢", "보기",
)  # fmt: skip
# Last words of names of columns that hold an option each, before a letter or a number.
_EACH = frozenset(
    re.findall(
        r"\w+",
        """option options opt op choice choices ending sol solution answer answers ans hyp alternative alt candidate
    variant antwort antwortmöglichkeit auswahl möglichkeit respuesta opción opcion alternativa réponse reponse choix
    proposition risposta opzione resposta opção opcao ответ вариант 选项 選項 選択肢 보기 선택지""",
    )
)
RIGHT = ("correct_answer", "correct answer", "correct", "right_answer", "right answer", "correct_option", "answer",
    "richtige antwort", "正确答案")  # fmt: skip
_UNNAMED = re.compile(r"column \d+")
# distractor1, incorrect_answers, wrong option 2
_WRONG = re.compile(r"(?:distractors?|incorrect|wrong|false)(?:[\s_-]?(?:answers?|options?|choices?))?[\s_-]?\d*")
_ORDINAL = re.compile(r"(.*?)[\s_\-.(]*([a-j]|\d{1,2})\)?")  # option_a, Answer (2)
_TEXT_KEYS = ("text", "option", "content", "value", "choice", "answer", "option_text", "body")
_LABEL_KEYS = ("label", "key", "letter", "option_label", "code", "id")
_FLAG_KEYS = ("is_correct", "iscorrect", "correct", "right", "is_right", "is_answer")
_MARK = re.compile(r"(?:^|(?<=[\s,;:(（\[]))([(（]?)([A-Ja-j]|\d)(\s?[).:、．）:])\s*", re.MULTILINE)
_OWN_MARK = re.compile(r"\s*[(（]?([A-Ja-j])\s?[).:、．）]\s*")
_OWN_NUMBER = re.compile(r"\s*[(（]?(\d)[).:、．）](?!\d)\s*")
_HIDDEN = ("", "?", "-", "null", "nan", "n/a", "hidden")
_ARRAY = re.compile(
    r"array\((\[(?:(?!array\().)*?\])(?:,\s*dtype=\w+)?\)", re.DOTALL
)  # numpy's, as pandas writes them into a CSV
# numpy prints the items of a list without commas.
_APART = re.compile(r"\}\s+\{")
_NO_COMMA = re.compile(r"(?<=['\"])\s+(?=['\"])")


@dataclass(frozen=True)
class Options:
    """Options in their order; "" where a column is empty. labels: their keys in the file. right: the marked ones."""

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    right: tuple[int, ...] = ()

    def written(self) -> str:
        """Return the options as a text, each with its letter in a line of its own ("A. Rome"); empty ones are left
        out."""
        return "\n".join(self.line(place) for place, text in enumerate(self.texts) if text)

    def line(self, place: int) -> str:
        """Return an option with its letter: "B. Paris"."""
        return f"{LETTERS[place]}. {self.texts[place]}"


Finder = Callable[[Any], Options | None]


def without_mark(text: str) -> str:
    """Return an option without its letter: "B) Paris" is Paris."""
    return _OWN_MARK.sub("", text, count=1)


def is_hidden(value: Any) -> bool:
    """Return True for a key that tells nothing: empty, below 0, "?" or a word for hidden; also for a list of only
    such."""
    if isinstance(value, list):
        return all(map(is_hidden, value))
    number = number_of(value)
    return value is None or (number < 0 if number is not None else str(value).strip().lower() in _HIDDEN)


def place_of(value: Any, options: Options, scheme: Scheme) -> int | None:
    """Return the place (from 0) of the option that a key means, for numbers the number itself; None if it means none.
    scheme: the key is a number, the option's text, its label, or a letter."""
    if scheme == "number":
        number = number_of(value)
        return number if number is not None and 0 <= number <= len(options.texts) else None
    text = str(value).strip()
    if scheme == "text":
        return _place(text.casefold(), [option.casefold() for option in options.texts])
    if scheme == "label":
        return _place(_bare(text), [_bare(label) for label in options.labels])
    # "B", "(b)", "B) Paris"
    match = re.fullmatch(r"[(（\[]?([A-Za-z])(?:\s?[).:、．）\]](?:\s*(.*))?)?", text, re.DOTALL)
    place = LETTERS.find(match[1].upper()) if match else -1
    return place if 0 <= place < len(options.texts) and options.texts[place] else None


def _bare(label: str) -> str:
    """Return a label without case, blanks and lines, by which "Option B" and option_b are the same."""
    return re.sub(r"[\s_-]", "", label).lower()


def _place(value: str, among: Sequence[str]) -> int | None:
    """Return the place of a value among others; None for an empty one, or if it is not there."""
    return among.index(value) if value and value in among else None


# --- one value that holds all options ---------------------------------------------------------------------------------


def listed(value: Any) -> Options | None:
    """Return the options in one value of a row (a list, an object, or a text of either); None if it holds none."""
    if isinstance(value, str):
        value = parsed_cell(value)
        if isinstance(value, str):
            return inline(value, at_start=True) or _split(value)
    if isinstance(value, dict):
        return _from_object(value)
    if not isinstance(value, list) or len(value) < 2:
        return None
    if all(isinstance(part, dict) for part in value):
        if all(len(part) == 1 for part in value):  # [{"A": "Rome"}, {"B": "Paris"}]
            return _from_object({key: one for part in value for key, one in part.items()})
        return _from_objects([{str(key).lower(): one for key, one in part.items()} for part in value])
    if not all(isinstance(part, str | int | float) and not isinstance(part, bool) for part in value):
        return None
    return _options([str(part) for part in value])


def _options(texts: Iterable[str], labels: Sequence[Any] = (), right: Iterable[int] = ()) -> Options | None:
    """Return the options without their own marks ("A)") and empty ones at the end; None if fewer than two are filled,
    or if there are more than letters."""
    written = [text.strip() for text in texts]
    while written and not written[-1]:  # of questions with fewer options
        del written[-1]
    # "A) Paris" would become "A. A) Paris".
    for pattern, first in ((_OWN_MARK, LETTERS), (_OWN_NUMBER, "123456789")):
        marks = [pattern.match(text) for text in written]
        if 0 < len(written) <= len(first) and all(
            mark and mark[1].upper() == first[at] for at, mark in enumerate(marks)
        ):
            written = [text[mark.end() :] if mark else text for text, mark in zip(written, marks, strict=True)]
    if sum(map(bool, written)) < 2 or len(written) > len(LETTERS):
        return None
    return Options(tuple(written), tuple(str(label).strip() for label in labels), tuple(right))


def _from_object(value: dict[Any, Any]) -> Options | None:
    """Return the options in an object: text to score (0 or 1), lists of texts and labels, or label to text. None for
    others."""
    marks = [*value.values()]
    if all(isinstance(mark, int | float) for mark in marks) and set(marks) == {0, 1}:  # BIG-bench: a score for each
        return _options(map(str, value), right=[at for at, mark in enumerate(marks) if mark == 1])
    lists = {str(key).lower(): part for key, part in value.items() if isinstance(part, list)}
    texts = next((lists[key] for key in (*_TEXT_KEYS, "texts", "choices", "options") if lists.get(key)), None)
    if texts is not None:
        labels = next((lists[key] for key in (*_LABEL_KEYS, "labels") if len(lists.get(key, ())) == len(texts)), [])
        if not all(isinstance(text, str | int | float) for text in texts):
            return None
        marked = [at for at, label in enumerate(labels) if label in (1, True)]
        if set(map(str, labels)) <= {"0", "1"} and len(marked) == 1:  # TruthfulQA
            return _options(map(str, texts), right=marked)
        return _options(map(str, texts), labels)
    keys = [str(key).strip() for key in value]
    counted = ([str(number + first) for number in range(len(keys))] for first in (0, 1))
    ordered = [key.upper() for key in keys] == [*LETTERS[: len(keys)]] or keys in counted
    if not ordered or not all(isinstance(part, str | int | float) for part in value.values()):
        return None
    return _options(map(str, value.values()), keys)


def _from_objects(parts: list[dict[str, Any]]) -> Options | None:
    """Return the options in a list of objects, each with a text, and perhaps a label or a flag that it is right; None
    if one has no text."""
    text_key = next((key for key in _TEXT_KEYS if all(isinstance(part.get(key), str) for part in parts)), None)
    label_key = next(
        (key for key in _LABEL_KEYS if key != text_key and all(has_value(p.get(key)) for p in parts)), None
    )
    flag_key = next((key for key in _FLAG_KEYS if all(isinstance(p.get(key), bool) for p in parts)), _flag_of(parts))
    if text_key is None and flag_key:  # in other words: the first that holds more than a letter
        texts = [key for key in parts[0] if all(isinstance(part.get(key), str) for part in parts)]
        text_key = next((key for key in texts if any(len(part[key].strip(" .:)")) > 1 for part in parts)), None)
    if text_key is None:
        return None
    labels = [part[label_key] for part in parts] if label_key else []
    right = [at for at, part in enumerate(parts) if flag_key and part[flag_key]]
    return _options([part[text_key] for part in parts], labels, right)


def _flag_of(parts: Sequence[dict[str, Any]]) -> str | None:
    """Return the only key that is true in one of the parts and false in all others, by any name; None without one."""
    flags = [
        key
        for key in parts[0]
        if all(isinstance(part.get(key), bool) for part in parts) and sum(part[key] for part in parts) == 1
    ]
    return flags[0] if len(flags) == 1 else None


def are_marked(value: Any) -> bool:
    """Return True for a list of two or more objects, one of which is marked as the right one."""
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(part, dict) for part in value):
        return False
    return _flag_of(value) is not None and (options := listed(value)) is not None and len(options.right) == 1


def parsed_cell(cell: Any) -> Any:
    """Return the list or object that a cell of a table writes as JSON or as Python or numpy does; else the cell
    itself."""
    text = cell.strip() if isinstance(cell, str) else ""
    if not text.startswith(("[", "{")):
        return cell
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        # Python's parser needs much more memory than the text has.
        if len(text) > 100_000:
            return cell
    plain = _ARRAY.sub(r"\1", text)
    as_objects = [plain, _APART.sub("}, {", plain)] if "{" in plain[:20] else []
    for written in (*as_objects, _NO_COMMA.sub(", ", plain)):
        try:
            return ast.literal_eval(written)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
    return cell


def inline(text: str, at_start: bool = False) -> Options | None:
    """Return options that stand in a text one after another, each with its letter or number; None if there are none.
    at_start: the text holds nothing else. Otherwise, the last list of at least three, or of two with a line each."""
    run: list[re.Match[str]] = []
    for mark in _MARK.finditer(text):
        place = len(run)
        expected = (LETTERS[place], LETTERS[place].lower(), str(place + 1)) if place < 9 else ()
        if mark[2] in expected and (not run or _style(mark) == _style(run[0])):
            run.append(mark)
        # Anew: up to two marks were not a list, such as the "a)" of a sentence.
        elif mark[2] in "Aa1" and len(run) < 3:
            run = [mark]
    if len(run) < 2 or (at_start and text[: run[0].start()].strip(" \n'\"[")):
        return None
    ends = [*(mark.start() for mark in run[1:]), len(text)]
    texts = [text[mark.end() : end].strip().strip(",;").strip() for mark, end in zip(run, ends, strict=True)]
    before = [text[: mark.start()].rstrip(" \t") for mark in run]
    of_lines = all(not part or part.endswith("\n") for part in before)
    if not all(texts) or (not at_start and len(run) < 3 and not of_lines):
        return None
    return Options(tuple(texts), tuple(mark[2] for mark in run))


def _style(mark: re.Match[str]) -> tuple[str, str, bool]:
    """Return what is alike in all marks of a list: the signs around the letter, and whether it is a capital."""
    return mark[1], mark[3].strip(), mark[2].isupper()


def _split(text: str) -> Options | None:
    """Return the options between bars, line ends or semicolons, the first of them that gives several; else None."""
    for separator in ("|", "\n", ";"):
        if len(parts := text.split(separator)) > 1 and all(part.strip() for part in parts):
            return _options(parts)
    return None


# --- several columns --------------------------------------------------------------------------------------------------


def columns_of_options(names: Sequence[str]) -> list[str]:
    """Return the columns of a row that hold an option each, in their order; [] if there are none.

    names: in lower case. They are columns whose names differ by a letter or number that counts from a, 0 or 1 without a
    gap, after a word for an option or alone (option_a, option_b; a, b, c). In a table of more than three columns
    without names, all but the first and the last.
    """
    has_key = any(name in RIGHT for name in names)  # then 1, 2, 3 alone are options too
    families: dict[str, dict[str, str]] = {}
    for name in names:
        match = _ORDINAL.fullmatch(name)
        words = re.findall(r"[^\W\d_]+", match[1]) if match else []
        if match and (not match[1] or words and words[-1] in _EACH):
            families.setdefault(match[1].strip(" _-."), {})[match[2]] = name
    for prefix, members in families.items():
        for ordinals in ("abcdefghij", *(("0123456789", "123456789") if prefix or has_key else ())):
            run = [*takewhile(lambda ordinal: ordinal in members, ordinals)]  # noqa: B023 - used at once
            if len(run) >= (2 if prefix else 3):
                return [members[ordinal] for ordinal in run]
    if len(names) > 3 and are_unnamed(names):
        return [*names[1:-1]]  # the question, its options, the letter
    return []


def are_unnamed(names: Sequence[str]) -> bool:
    """Return True for the columns of a table without names."""
    return bool(names) and all(map(_UNNAMED.fullmatch, names))


def lettered(names: Sequence[str]) -> list[str]:
    """Return three or more columns that differ by their last letters alone, a, b, c, in a language whose words for
    options are not known: "odpa", "odpb", "odpc". [] without them, or if their word means another side."""
    for name in names:
        prefix = name[:-1]
        family = [*takewhile(lambda column: column in names, (f"{prefix}{letter}" for letter in "abcdefghij"))]
        if prefix.strip(" _-.") and len(family) >= 3 and meaning_of(prefix) in (None, "answer"):
            return family
    return []


def in_columns(names: Sequence[str], cells: Sequence[Any]) -> Options | None:
    """Return a row's options from the cells of its option columns, one each; None if fewer than two are filled or one
    is no text or number. names: of these columns, as labels, because a key may name one: "option_b"."""
    if not all(cell is None or isinstance(cell, str | int | float) for cell in cells):
        return None
    return _options(("" if cell is None else str(cell) for cell in cells), names)


def right_and_wrong(names: Sequence[str]) -> tuple[str, list[str]] | None:
    """Return the column with the right answer and those with wrong ones; None if the names tell none."""
    wrong = [name for name in names if _WRONG.fullmatch(name)]
    right = next((name for name in RIGHT if name in names), None)
    return (right, wrong) if right and wrong else None


def one_right_among(right: Any, wrong: Iterable[Any]) -> Options | None:
    """Return the options in alphabetical order, as no other is known, with the right one marked; None without a right
    or a wrong one."""
    others = [part for cell in wrong for part in _wrong_texts(cell)]
    if not isinstance(right, str | int | float) or not has_value(right) or not others:
        return None
    texts = sorted({str(right).strip(), *others}, key=lambda text: (text.casefold(), text))
    options = _options(texts)
    place = _place(str(right).strip(), options.texts) if options else None
    return replace(options, right=(place,)) if options and place is not None else None


def _wrong_texts(cell: Any) -> list[str]:
    """Return the wrong answers in a cell, which may hold a list of them."""
    parsed = parsed_cell(cell)
    parts = parsed if isinstance(parsed, list) else [parsed]
    return [str(part).strip() for part in parts if isinstance(part, str | int | float) and has_value(part)]
