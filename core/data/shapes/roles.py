"""The roles of columns whose names match no format: by names in many languages, or as a person states them.

core/data/shapes/sides decides what the columns of a table are by these names and their contents.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from core.data.reading.file_rows import Row
from core.errors import DataError
from core.recipe import ColumnRole

Role = ColumnRole  # "ignore" is chosen by a person, never guessed
Roles = Mapping[str, Role]
_MEANT: tuple[Role, ...] = ("question", "answer", "system", "context", "text")
# Names, or words of names, that mean a role: English, German, Spanish, French, Italian, Portuguese, Russian, Chinese,
# Japanese, Korean, Arabic, Hindi.
_ROLE_WORDS: dict[Role, str] = {
    "question": """
        question questions q query prompt instruction input user human customer client problem ask request source src
        utterance premise frage fragen prämisse intrebare întrebare vraag pytanie soru pertanyaan
        front term begriff 术语 anfrage eingabe kunde aufgabe pregunta consulta cliente entrada usuario demande
        domanda richiesta utente pergunta usuário вопрос запрос
        问题 问 提问 用户 输入 題目 題 质问 質問 질문 입력 سؤال प्रश्न""",
    "answer": """
        answer answers a response responses reply replies output outputs completion generation target tgt bot assistant
        agent gpt solution solutions summary resolution
        translation translations übersetzung traducción traduction traduzione tradução перевод 翻译 译文 訳 번역
        highlights back definition 定义 antwort raspuns răspuns antwoord odpowiedź cevap jawaban
        antworten ausgabe lösung zusammenfassung respuesta salida solución resumen réponse reponse sortie risposta
        uscita soluzione resposta
        saída ответ решение 回答 答案 答 输出 答复 解答 摘要 回复 答え 답변 대답 출력 جواب إجابة उत्तर""",
    "system": "system persona systemprompt система 系统 システム",
    "context": """
        context passage background schema kontext hintergrund contexto contexte contesto контекст 上下文 背景 文脈""",
    "text": """
        text content body story article document poem lyrics chapter paragraph markdown inhalt texto contenido texte
        contenu testo conteúdo
        текст 文本 内容 正文 文章 本文 본문 텍스트 نص""",
}
# Last words of names of columns with facts about a text, not the text itself.
_ABOUT = frozenset(
    re.findall(
        r"\w+",
        "id ids uuid fname filename date time timestamp type lang language name author model count length tokens "
        "score rating url link index idx nr no number split file path version status parse parses datum zeit "
        "zeitstempel nummer assignee assignees age gender sex phone telefon geschlecht 年龄 性别 电话",
    )
)
# input_col names a column elsewhere, and a prompt_template is filled in elsewhere
_OF_COLUMN = frozenset({"col", "column", "field", "spalte", "feld", "template", "templates", "format"})
# Words in names of columns with worse answers.
_WORSE_WORDS = frozenset(
    re.findall(
        r"\w+", "rejected reject dispreferred nonpreferred worse worst incorrect wrong loser losing bad distractor"
    )
)
_OF_LINES = frozenset({"summary", "summaries", "highlights", "steps"})  # a list in such a column is one text
_NAMES = {role: frozenset(words.split()) for role, words in _ROLE_WORDS.items()}
# Names of columns by a language, or by its code (ISO 639), perhaps with a script or a country: sr, sr_lat, pt-BR.
LANGUAGE = re.compile(
    r"(?:(?:aa|ab|af|ak|am|an|ar|as|ay|az|ba|be|bg|bn|bo|br|bs|ca|ce|co|cs|cv|cy|da|de|dv|el|en|eo|es|et|eu|fa|fi"
    r"|fo|fr|"
    r"fy|ga|gd|gl|gn|gu|gv|ha|he|hi|hr|ht|hu|hy|ia|id|ig|io|is|it|iu|ja|jv|ka|kg|kk|km|kn|ko|ku|kv|kw|ky|la|lb|lg|li|"
    r"ln|lo|lt|lv|mg|mi|mk|ml|mn|mr|ms|mt|my|nb|nd|ne|nl|nn|no|nv|ny|oc|om|or|os|pa|pl|ps|pt|qu|rm|rn|ro|ru|rw|sa|sc|"
    r"sd|se|sg|si|sk|sl|sm|sn|so|sq|sr|ss|st|su|sv|sw|ta|te|tg|th|ti|tk|tl|tn|to|tr|ts|tt|tw|ty|ug|uk|ur|uz|ve|vi|wa|"
    r"wo|xh|yi|yo|za|zh|zu|deu|eng|fra|spa|ita|por|rus|jpn|kor|zho|jp|cn|kr|ara|pol|nld|tur|ukr|csb|hsb|dsb|szl)"
    r"(?:[_-][a-z]{2,4}){0,2}|english|german|french|spanish|italian|portuguese|russian|chinese|japanese|korean|arabic|"
    r"dutch|polish|turkish|ukrainian|hindi|vietnamese|indonesian|swedish|latin|greek|hebrew|persian|swahili|deutsch|"
    r"englisch|französisch|spanisch|español|inglés|français|anglais|allemand|italiano|inglese|português|русский|"
    r"английский|中文|英文|英语|日语|日本語|한국어|영어)(?:\s?\([^()]*\))?",
    re.IGNORECASE,
)
MIN_WORDS = 3  # of a text; a column of sentences has so many in the middle, names, dates and labels fewer
QUESTION_MARKS = ("?", "？", "؟")
_WORDS = re.compile(r"[^\W_]+")
# Of Hindi, Tamil and other scripts of India with their signs for vowels, which Python counts as no letters.
_WORD_OR_SIGN = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af]|(?:[^\W\d_]|(?!\d)[\u0900-\u0963\u0970-\u0dff])+")


def is_worse(name: str) -> bool:
    """Return True if the name of a column says that it holds worse or wrong answers: badAnswer, rejected,
    incorrect_answer 2."""
    return not _WORSE_WORDS.isdisjoint(re.findall(r"[^\W\d_]+", _split_camel_case(name)))


def _split_camel_case(name: str) -> str:
    """Return a name in lower case with a blank at each border in badAnswer or rowId."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=Id\b)", " ", name).lower()


def words_of(text: str) -> list[str]:
    """Return the words of a text, without numbers, and the characters of languages without spaces."""
    return _WORD_OR_SIGN.findall(text)


def means_something(name: str) -> bool:
    """Return True if a text can only be the name of a column, not a cell of a row: it has a word for a role (question,
    answer, ...) or ends in one for a fact about rows (id, date, score)."""
    words = _WORDS.findall(name.lower())
    return _last_meaning(name) is not None and len(name) > 1 or bool(words) and words[-1] in _ABOUT


def column_named(names: Iterable[str], role: Role) -> str | None:
    """Return the first column whose name means a role, full names before others; None if no name does."""
    meant = [name for name in names if meaning_of(name) == role]
    return next((name for name in meant if meaning_of(name, exact=True) == role), next(iter(meant), None))


def meaning_of(name: str, exact: bool = False) -> Role | None:
    """Return the role that a column's name means: by its full name, else (unless exact) by its last meaningful word
    ("Customer answer": an answer). None without a meaning."""
    full = next((role for role, words in _NAMES.items() if name.strip().lower() in words), None)
    return full if exact or full else _last_meaning(name)


def is_about(name: str) -> bool:
    """Return True for a column that tells of a row and is no part of it: an id, a date, a link, a score."""
    words = _WORDS.findall(_split_camel_case(name))
    return bool(words) and words[-1] in _ABOUT


def _last_meaning(name: str) -> Role | None:
    """Return the role of the last word with a meaning in a column's name, `text` only if no other has one; None without
    one, or if the name is about something else."""
    parts = _WORDS.findall(_split_camel_case(name))
    if parts and parts[-1] in _ABOUT | _OF_COLUMN:
        return None
    if "system" in parts:  # a system prompt is no question
        return "system"
    meant = [
        role for part in reversed(parts) if part not in ("q", "a") for role, words in _NAMES.items() if part in words
    ]
    # in "question text" the role is question
    return next((role for role in meant if role != "text"), next(iter(meant), None))


def parse(text: str) -> dict[str, Role]:
    """Parse {column: role} from "question=Frage,answer=Antwort". Raises DataError."""
    roles: dict[str, Role] = {}
    for pair in text.split(","):
        role, equals, name = (part.strip() for part in pair.partition("="))
        if not equals or not name or role not in (*_MEANT, "ignore"):
            raise DataError("data.bad_columns", found=pair[:80], roles=[*_MEANT, "ignore"])
        roles[name] = role
    return roles


def require(roles: Roles, rows: Sequence[Row]) -> None:
    """Raise DataError if a column is in none of the rows, or if these roles give nothing to train on: neither one
    question and answer, nor a text alone."""
    known = dict.fromkeys(str(name) for row in rows for name in row.values)
    if missing := [name for name in roles if name not in known]:
        raise DataError("data.no_such_column", missing=missing[:20], found=[*known][:20])
    meant = [role for role in roles.values() if role != "ignore"]
    if len(set(meant)) < len(meant) or not (
        {"question", "answer"} <= set(meant) and "text" not in meant or meant == ["text"]
    ):
        raise DataError("data.roles_unclear", found=[f"{name}: {role}" for name, role in roles.items()])


def with_answer(readings: Sequence[Roles], column: str, columns: Iterable[str] = ()) -> Roles:
    """Return the first of the readings ({column: role}) in which this column is the answer. If there is none but it is
    one of `columns`, change the first reading that has a question in another column: this column becomes its answer.
    Raises DataError, with the columns that can be the answer, if neither exists."""
    for roles in readings:
        if any(name.lower() == column.strip().lower() and role == "answer" for name, role in roles.items()):
            return roles
    other = next((name for name in columns if name.lower() == column.strip().lower()), "")
    for roles in readings if other else ():
        # No reading has this answer: one is changed.
        if "question" in (others := {n: role for n, role in roles.items() if role != "answer" and n != other}).values():
            return others | {other: "answer"}
    answers = [name for roles in readings for name, role in roles.items() if role == "answer"]
    raise DataError("data.no_such_answer", found=column[:80], expected=list(dict.fromkeys(answers)))


def renamed(row: Row, roles: Roles) -> Row:
    """Return a row whose columns have the names of their roles, ignored ones dropped; a column in the way of such a
    name gets the suffix (2), a list in a column such as summary becomes lines."""
    values: dict[str, object] = {}
    for name, value in row.values.items():
        role = roles.get(str(name))
        if role == "ignore":
            continue
        if (
            isinstance(value, list)
            and str(name).strip().lower() in _OF_LINES
            and all(isinstance(v, str) for v in value)
        ):
            value = "\n".join(value)
        values[role or (f"{name} (2)" if str(name).strip().lower() in roles.values() else name)] = value
    return replace(row, values=values)
