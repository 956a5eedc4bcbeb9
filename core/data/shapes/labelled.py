"""Rows of annotation tools and benchmarks, converted to the columns of our formats.

Label Studio     data: {...}, annotations | completions: [{result: [...]}]     text, label: the first choice or written
                 text
Prodigy          text, label, answer: accept | reject | ignore                the label is right only if accepted
nlp.js, Rasa     intent, utterances | examples: several texts, answers        a row for each text, with an answer or
                 beside the intent
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

from core.data.reading.file_rows import Flaw
from core.data.shapes.left_out import MEDIA, Columns, Notes, has_value
from core.data.shapes.options import parsed_cell
from core.data.shapes.roles import column_named

_UTTERANCE_KEYS = (
    "utterances",
    "examples",
    "phrases",
    "patterns",
)  # alternative wordings of one intent, no turns of a conversation
_NAMES = ("intent", "tag")
_QUESTION_LISTS = ("qas", "qa_pairs", "qa", "questions", "question_answers", "faqs", "faq", "cards")
_ABOUT_ANNOTATION = {"annotation_id", "lead_time"}
_MIN_COLUMNS = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time")
_FILE = re.compile(r"(?:https?://|s3://|gs://|/data/)\S+\s*$")
_ANSWERED = {"answer", "answers", "correct_answer"}
_PARALLEL = ("questions", "options", "answers")


def rows_in_object(value: Any) -> Iterator[Any]:
    """Yield the rows in one object of a file: the questions about one text, or the wordings of an intent; otherwise the
    value itself. SQuAD has an article with its paragraphs in one object, DROP a passage with its questions, RACE lists
    of equal length."""
    if not isinstance(value, dict):
        yield value
        return
    paragraphs = value.get("paragraphs")
    if isinstance(paragraphs, list) and all(isinstance(p, dict) and isinstance(p.get("qas"), list) for p in paragraphs):
        # SQuAD
        about = {name: part for name, part in value.items() if name != "paragraphs"}
        for paragraph in paragraphs:
            yield from _questions_of_a_text(about | paragraph, "qas")
        return
    # DROP, CoQA and others
    lists = {key: part for key in _QUESTION_LISTS if isinstance(part := value.get(key), list) and part}
    if key := next((key for key, part in lists.items() if all(map(_is_answered, part))), None):
        yield from _questions_of_a_text(value, key)
        return
    # RACE: the questions, their options and answers as lists of one length; else nothing says which answer is whose
    parallel = [part for key in _PARALLEL if isinstance(part := value.get(key), list) and part]
    if len(parallel) == len(_PARALLEL):
        shared = {name: part for name, part in value.items() if name not in _PARALLEL}
        is_even = len(set(map(len, parallel))) == 1
        for question, options, answer in zip_longest(*parallel):
            yield shared | {"question": question, "options": options, "answer": answer if is_even else None}
        return
    texts_key = utterances_key(value.get)
    if texts_key is None:
        yield value
        return
    # Intents: every wording is a row, with the answer if there is one, else beside the intent's name.
    answers = next((texts for key in ("answers", "responses") if (texts := _texts(value.get(key)))), [])
    rest = {key: part for key, part in value.items() if key not in (texts_key, "answers", "responses")}
    for text in value[texts_key]:
        if answers:
            yield rest | {"question": text, "answer": answers[0]} | ({"answers": answers[1:]} if answers[1:] else {})
        else:
            yield {**rest, "text": text}


def _is_answered(one: object) -> bool:
    """Return True for an object with a question and an answer, in any spelling."""
    return isinstance(one, dict) and ("question" in one and bool(_ANSWERED & one.keys()) or len(_other_names(one)) == 2)


def _other_names(one: Mapping[str, Any]) -> dict[str, str]:
    """Return {name: ours} of a question and its answer in other spellings ("query_text", "reply"); {} if there is no
    such pair."""
    names = [str(name) for name in one]
    question, answer = column_named(names, "question"), column_named(names, "answer")
    return (
        {question: "question", answer: "answers" if isinstance(one[answer], list) else "answer"}
        if (question and answer and "question" not in one and not _ANSWERED & one.keys() - {answer})
        else {}
    )


def _questions_of_a_text(value: Mapping[str, Any], key: str) -> Iterator[Any]:
    """Yield a row for each question about a text, in the list `key`, with the object's other fields; one of all
    questions and answers if they follow one another (QuAC)."""
    shared, questions = {name: part for name, part in value.items() if name != key}, value[key]
    if questions and all(isinstance(each, dict) and "followup" in each and "question" in each for each in questions):
        # The other questions follow in one conversation.
        text = str(shared.pop("context", "") or "")
        wordings = [str(each["question"]) for each in questions]
        wordings[0] = f"{text}\n\n{wordings[0]}" if text else wordings[0]
        yield shared | {"questions": wordings, "answers": [_answer_text(each) for each in questions]}
        return
    for each in questions:
        names = _other_names(each) if isinstance(each, dict) and key in _QUESTION_LISTS else {}
        if names and "context" not in shared and (context := column_named(shared, "context")):
            shared["context"] = shared.pop(context)
        if not isinstance(each, dict):
            yield each
        else:
            yield shared | {names.get(name, name): part for name, part in each.items()}


def _answer_text(question: Mapping[str, Any]) -> str:
    """Return the first answer beside a question as text; "" without one."""
    answers = question.get("orig_answer") or question.get("answers") or question.get("answer") or ""
    if isinstance(answers, list):
        answers = answers[0] if answers else ""
    return str(answers.get("text") or "") if isinstance(answers, dict) else str(answers)


def utterances_key(value_of: Callable[[str], object]) -> str | None:
    """Return the key of an intent's wordings; None if the object is no intent."""
    if not any(isinstance(value_of(name), str) for name in _NAMES):
        return None
    return next((name for name in _UTTERANCE_KEYS if _texts(value_of(name))), None)


def _texts(value: object) -> list[str]:
    """Return a list of texts, or of objects with an answer each, as texts; [] for anything else."""
    if not isinstance(value, list):
        return []
    texts = [part.get("answer") if isinstance(part, dict) else part for part in value]
    return [text for text in texts if isinstance(text, str)] if all(isinstance(text, str) for text in texts) else []


def label_studio(values: Columns, notes: Notes) -> dict[str, object] | None:
    """Return {text, label} of a task of Label Studio: its text and the first label; other labels and fields are noted
    as left out. None for any other row, and for a task without any labels.

    Raises Flaw if nothing can be trained: only pictures or sounds, only labels of places in the text or of relations, a
    skipped task, or several texts.
    """
    fields, results_key = (
        values.peek("data"),
        next((n for n in ("annotations", "completions") if isinstance(values.peek(n), list)), None),
    )
    if not isinstance(fields, dict) or results_key is None:
        return None
    # Texts and files alike are strings in Label Studio: an address or a file's name is no text to train on.
    strings = {name: part for name, part in fields.items() if isinstance(part, str) and has_value(part)}
    texts = {name: part for name, part in strings.items() if name.lower() not in MEDIA and not _FILE.match(part)}
    if strings and not texts:
        raise Flaw("data.media_labels", fields=[f"data.{name}" for name in strings])
    text = next(iter(texts)) if len(texts) == 1 else column_named(texts, "text") or column_named(texts, "question")
    # A cancelled annotation is a person's "skip".
    annotations = [
        one for one in values.peek(results_key) if isinstance(one, dict) and one.get("was_cancelled") is not True
    ]
    results = [
        result
        for one in annotations
        if isinstance(one.get("result"), list)
        for result in one["result"]
        if isinstance(result, dict)
    ]
    labels = [label for result in results for label in _chosen(result.get("value"))]
    if text is None or not labels:
        if text is None and len(texts) > 1 and labels:
            raise Flaw("data.several_texts", field="data", fields=[f"data.{name}" for name in texts][:10])
        if text is not None and len(annotations) < len(values.peek(results_key)):
            raise Flaw("data.was_skipped")
        if any(isinstance(result.get("value"), dict) and "start" in result["value"] for result in results):
            raise Flaw(
                "data.only_relations"
                if any(result.get("type") == "relation" for result in results)
                else "data.only_spans",
                column=results_key,
            )
        if any(isinstance(result.get("value"), dict) and {"x", "y"} <= result["value"].keys() for result in results):
            raise Flaw("data.media_labels", fields=[f"data.{name}" for name in strings if name not in texts])
        return None
    values.take("data", results_key)
    for name in fields:
        if name != text and has_value(fields[name]):
            notes.add_omission("column", f"data.{name}")
    if any(label != labels[0] for label in labels):
        notes.add_omission("answer", results_key)
    return {"text": texts[text], "label": labels[0]}


def json_min(values: Columns, notes: Notes) -> dict[str, object] | None:
    """Return {"text", "label"} of a row of Label Studio's JSON-MIN or CSV export, and mark both columns as read. label:
    a list of texts.

    None for any other row, and if no column, or more than one, holds labels.
    """
    if not set(values) >= _ABOUT_ANNOTATION or not isinstance(values.peek("text"), str):
        return None
    labels = {name: _label_of(values.peek(name)) for name in values if name not in (*_MIN_COLUMNS, "text")}
    given = {name: label for name, label in labels.items() if label}
    if len(given) != 1:
        return None
    ((name, label),) = given.items()
    values.take("text", name)
    return {"text": values.peek("text"), "label": label}


def _label_of(value: Any) -> list[str]:
    """Return the labels in a cell: one text, several, or JSON of them. Anything else gives []."""
    value = parsed_cell(value)
    if isinstance(value, dict):
        value = value.get("choices", value.get("text"))
    return [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, str) and part.strip()]


def _chosen(value: object) -> list[str]:
    """Return the labels chosen or written for a full text; spans of it (which have a start) give []."""
    if not isinstance(value, dict) or "start" in value:
        return []
    labels: Any = next((value[name] for name in ("choices", "text") if value.get(name)), [])
    return [label for label in (labels if isinstance(labels, list) else [labels]) if isinstance(label, str)]


def is_rejected(values: Columns) -> bool:
    """Return True if a person marked the label in Prodigy as wrong ("reject"), or skipped it ("ignore").

    Marks the columns answer, _task_hash and _input_hash as read, also for an accepted label, so that they are not
    reported as left out. False, with nothing marked, for a row that is not Prodigy's: without _task_hash, or with
    another answer.
    """
    if "_task_hash" not in values or values.peek("answer") not in ("accept", "reject", "ignore"):
        return False
    values.take("answer", "_task_hash", "_input_hash")
    return values.peek("answer") != "accept"
