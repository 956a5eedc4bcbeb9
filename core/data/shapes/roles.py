"""Guesses the roles of columns whose names match no format: from names in many languages, and from their contents.

A guess is made only if no format fits, and it is reported. Either a question and its answer must be found, or one
column of text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from core.data.reading.file_rows import Row
from core.data.shapes.left_out import has_value
from core.errors import DataError
from core.recipe import ColumnRole

Role = ColumnRole  # "ignore" is chosen by a person, never guessed
Roles = Mapping[str, Role]
_MEANT: tuple[Role, ...] = ("question", "answer", "system", "context", "text")
LEAST_WORDS = 3  # a column of text has more words than a name or a date
# Names, or words of names, that mean a role: English, German, Spanish, French, Italian, Portuguese, Russian, Chinese,
# Japanese, Korean, Arabic, Hindi.
_ROLE_WORDS: dict[Role, str] = {
    "question": """
        question questions q query prompt instruction input user human customer client problem ask request source src
        utterance frage fragen
        front term begriff 术语 anfrage eingabe kunde aufgabe pregunta consulta cliente entrada usuario demande
        domanda richiesta utente pergunta usuário вопрос запрос
        问题 问 提问 用户 输入 題目 題 质问 質問 질문 입력 سؤال प्रश्न""",
    "answer": """
        answer answers a response reply output completion target tgt bot assistant agent gpt solution summary
        translation highlights back definition 定义 antwort
        antworten ausgabe lösung zusammenfassung respuesta salida solución resumen réponse reponse sortie risposta
        uscita soluzione resposta
        saída ответ решение 回答 答案 答 输出 答复 解答 摘要 回复 答え 답변 대답 출력 جواب إجابة उत्तर""",
    "system": "system persona systemprompt система 系统 システム",
    "context": "context passage background kontext hintergrund contexto contexte contesto контекст 上下文 背景 文脈",
    "text": """
        text content body story article document poem lyrics chapter paragraph markdown inhalt texto contenido texte
        contenu testo conteúdo
        текст 文本 内容 正文 文章 本文 본문 텍스트 نص""",
}
# Last words of names of columns with facts about a text, not the text itself.
_ABOUT = frozenset(
    re.findall(r"\w+", "id ids date time type lang language name model count length tokens score rating url")
)
# Words in names of columns with worse answers.
_WORSE_WORDS = frozenset(
    re.findall(
        r"\w+", "rejected reject dispreferred nonpreferred worse worst incorrect wrong loser losing bad distractor"
    )
)
_NAMES = {role: frozenset(words.split()) for role, words in _ROLE_WORDS.items()}
_WORDS = re.compile(r"[^\W_]+")
_LINK = re.compile(r"\s*https?://\S+\s*$")
_WORD_OR_SIGN = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af]|[^\W\d_]+")


def guess(rows: Sequence[Row]) -> dict[str, Role] | None:
    """Return {column: role} for a question and its answer, or for a text; None if no column's name or content tells a
    role."""
    texts = _columns_of_text(rows)
    roles: dict[str, Role] = {}
    for role in ("answer", "question", "context", "system"):
        name = _named([name for name in texts if role != "answer" or not _is_worse(name)], role, taken=roles)
        if name is not None:
            roles[name] = role
    if "answer" in roles.values() and "question" not in roles.values():
        question_column = next((n for n, role in roles.items() if role == "context"), None) or _named(
            texts, "text", taken=roles
        )
        if question_column is not None:
            roles[question_column] = "question"
    if {"question", "answer"} <= set(roles.values()):
        return roles
    long = [
        name for name, words in texts.items() if words >= LEAST_WORDS and roles.get(name) not in ("system", "context")
    ]
    if len(long) == 2:  # the longer one is the answer
        question, answer = sorted(long, key=lambda name: (not _is_worse(name), texts[name]))
        if _is_worse(question):  # a worse answer beside a question, or else a text to be corrected
            question = next((name for name, role in roles.items() if role == "question"), question)
        return {question: "question", answer: "answer"}
    name = _named(texts, "text", taken={})
    return {name: "text"} if name is not None and len(long) <= 1 else None


def longest_columns(rows: Sequence[Row]) -> dict[str, Role] | None:
    """Return a first guess for a person to correct: the columns with the longest texts; None if there is no text."""
    longest = sorted(texts := _columns_of_text(rows), key=lambda name: texts[name])[-2:]
    if len(longest) == 1:
        return {longest[0]: "text"}
    return {longest[0]: "question", longest[1]: "answer"} if longest else None


def _is_worse(name: str) -> bool:
    """Return True for names such as badAnswer, bad_answer 2, BAD-ANSWER."""
    return not _WORSE_WORDS.isdisjoint(re.findall(r"[^\W\d_]+", _split_camel_case(name)))


def _split_camel_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def _columns_of_text(rows: Sequence[Row]) -> dict[str, float]:
    """Return the columns that hold only text, in at least half of the rows, with their median number of words."""
    names = dict.fromkeys(str(name) for row in rows for name in row.values)
    median_words = {}
    for name in names:
        values = [row.values[name] for row in rows if has_value(row.values.get(name))]
        if (
            values
            and all(isinstance(value, str) and not _LINK.match(value) for value in values)
            and 2 * len(values) >= len(rows)
        ):
            median_words[name] = median(len(words_of(value)) for value in values)
    return median_words


def words_of(text: str) -> list[str]:
    """Return the words of a text, and the characters of languages without spaces."""
    return _WORD_OR_SIGN.findall(text)


def means_something(name: str) -> bool:
    """Return True if the name stands for a role or for a fact about one: then it is a name, not a cell of a row."""
    words = _WORDS.findall(name.lower())
    return _last_meaning(name) is not None and len(name) > 1 or bool(words) and words[-1] in _ABOUT


def column_named(names: Iterable[str], role: Role) -> str | None:
    """Return the column whose name means a role; None if no name does."""
    return _named(names, role, taken={})


def _named(texts: Iterable[str], role: Role, taken: Mapping[str, Role]) -> str | None:
    """Return the column whose name means a role: the full name, else its last meaningful word ("Customer answer": an
    answer)."""
    free = [name for name in texts if name not in taken]
    exact = next((name for name in free if name.strip().lower() in _NAMES[role]), None)
    return exact or next((name for name in free if _last_meaning(name) == role), None)


def _last_meaning(name: str) -> Role | None:
    parts = _WORDS.findall(_split_camel_case(name))
    if parts and parts[-1] in _ABOUT:
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
    """Raise DataError if a column is in no row, or if these roles give nothing to train on."""
    known = dict.fromkeys(str(name) for row in rows for name in row.values)
    if missing := [name for name in roles if name not in known]:
        raise DataError("data.no_such_column", missing=missing[:20], found=[*known][:20])
    meant = [role for role in roles.values() if role != "ignore"]
    if len(set(meant)) < len(meant) or not (
        {"question", "answer"} <= set(meant) and "text" not in meant or meant == ["text"]
    ):
        raise DataError("data.roles_unclear", found=[f"{name}: {role}" for name, role in roles.items()])


def renamed(row: Row, roles: Roles) -> Row:
    """Return a row whose columns have the names of their roles; a column in the way of such a name gets the suffix
    (2)."""
    values: dict[str, object] = {}
    for name, value in row.values.items():
        role = roles.get(str(name))
        if role == "ignore":
            continue
        values[role or (f"{name} (2)" if str(name).strip().lower() in roles.values() else name)] = value
    return Row(row.number, values, row.line, row.losses)
