"""Flattens rows whose fields are nested one level deeper, before their columns are looked at.

a list          [{role, content}, ...] | ["Why?", "So.", ...]         turns: the list
datasets server row_idx, row: {...}                                   the row
questions       question: {stem, choices: [...]}, answerKey           question, choices, answerKey
translations    translation: {en: ..., de: ...}                       en, de
Argilla         fields: {...}, responses: {name: [{value, status}]}   the fields, and for each question the first answer
                that was submitted
"""

from __future__ import annotations

from typing import Any

from core.data.shapes.left_out import Omission


def unfolded(value: Any) -> tuple[Any, tuple[Omission, ...]]:
    """Return (row, omissions): a row with its nested fields as columns, and an omission for each field whose further
    answers differ from the one that is kept.

    Known are rows of the datasets server, OPUS, OpenBookQA and Argilla; a list of several texts or objects becomes
    {"turns": list}. Any other value is returned unchanged, with ().
    """
    if isinstance(value, list):
        is_talk = len(value) > 1 and any(all(isinstance(turn, kind) for turn in value) for kind in (str, dict))
        return ({"turns": value} if is_talk else value), ()
    if not isinstance(value, dict):
        return value, ()
    # The datasets server: {"row_idx": 0, "row": {...}}
    if "row_idx" in value and isinstance(value.get("row"), dict):
        value = value["row"] | ({"truncated_cells": value["truncated_cells"]} if value.get("truncated_cells") else {})
    pair = value.get("translation")
    # OPUS: {"translation": {"en": ..., "de": ...}}
    if isinstance(pair, dict) and len(pair) > 1 and all(isinstance(text, str) for text in pair.values()):
        return pair | {name: rest for name, rest in value.items() if name != "translation"}, ()
    question = value.get("question")
    # OpenBookQA: {"question": {"stem": ..., "choices": [...]}}
    if isinstance(question, dict) and isinstance(question.get("stem"), str) and "choices" in question:
        parts = {name: part for name, part in question.items() if name != "stem"}
        return value | parts | {"question": question["stem"]}, ()
    fields, responses = value.get("fields"), value.get("responses")
    if isinstance(fields, dict) and isinstance(responses, dict):
        # Argilla calls a field and its answer alike where an annotator corrects a text.
        responses = {name if name not in fields else f"{name} answer": answers for name, answers in responses.items()}
        value = fields | responses | {name: rest for name, rest in value.items() if name not in ("fields", "responses")}
    answered = [  # the answers of annotators in Argilla
        name
        for name, answers in value.items()
        if isinstance(answers, list)
        and answers
        and all(isinstance(one, dict) and {"value", "status"} <= one.keys() for one in answers)
    ]
    if not answered:
        return value, ()
    submitted = {name: [one["value"] for one in value[name] if one["status"] == "submitted"] for name in answered}
    others = tuple(
        Omission("answer", name) for name, answers in submitted.items() if any(one != answers[0] for one in answers)
    )
    return value | {name: answers[0] if answers else None for name, answers in submitted.items()}, others
