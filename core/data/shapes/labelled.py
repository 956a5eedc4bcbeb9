"""Rows of annotation tools and benchmarks, converted to the columns of our formats.

OpenAI evals     input: messages, ideal: a text or several                    messages: the first ideal answers
Label Studio     data: {...}, annotations | completions: [{result: [...]}]     text, label: the first choice, or what
                 was written
Prodigy          text, label, answer: accept | reject | ignore                the label is right only where it was
                 accepted
nlp.js, Rasa     intent, utterances | examples: several texts, answers        a row for each text: the label is the
                 intent, or an answer stands there
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Any

from core.data.reading.file_rows import Flaw
from core.data.shapes.left_out import Columns, Notes, says

_SAID_OF_INTENTS = (
    "utterances",
    "examples",
    "phrases",
    "patterns",
)  # all of them mean the same: they are no turns of a conversation
_NAMES = ("intent", "tag")


def several(value: Any) -> Iterator[Any]:
    """The rows that one object of a file holds: SQuAD keeps an article with its paragraphs in one, bots what can be
    said for one intent."""
    if not isinstance(value, dict):
        yield value
        return
    paragraphs = value.get("paragraphs")
    if isinstance(paragraphs, list) and all(isinstance(p, dict) and isinstance(p.get("qas"), list) for p in paragraphs):
        about = {name: part for name, part in value.items() if name != "paragraphs"}
        for paragraph in paragraphs:
            shared = about | {name: part for name, part in paragraph.items() if name != "qas"}
            yield from (shared | qa if isinstance(qa, dict) else qa for qa in paragraph["qas"])
        return
    said, name = said_of_intent(value.get), next((name for name in _NAMES if isinstance(value.get(name), str)), None)
    if said is None or name is None:
        yield value
        return
    answers = next((found for key in ("answers", "responses") if (found := _texts(value.get(key)))), [])
    rest = {key: part for key, part in value.items() if key not in (said, "answers", "responses")}
    for text in value[said]:
        if answers:
            yield rest | {"question": text, "answer": answers[0]} | ({"answers": answers[1:]} if answers[1:] else {})
        else:
            yield {key: part for key, part in rest.items() if key != name} | {"text": text, "label": value[name]}


def said_of_intent(value_of: Callable[[str], Any]) -> str | None:
    """Under which name an intent keeps what can be said for it; None of what is no intent."""
    if not any(isinstance(value_of(name), str) for name in _NAMES):
        return None
    return next((name for name in _SAID_OF_INTENTS if _texts(value_of(name))), None)


def _texts(value: Any) -> list[str]:
    """A list of texts, or of objects with an answer each; [] where it is none."""
    if not isinstance(value, list):
        return []
    found = [part.get("answer") if isinstance(part, dict) else part for part in value]
    return [text for text in found if isinstance(text, str)] if all(isinstance(text, str) for text in found) else []


def evals(values: Columns, notes: Notes) -> dict[str, Any] | None:
    asked, ideal = values.peek("input"), values.peek("ideal")
    if not isinstance(asked, list) or not asked or not all(isinstance(turn, dict) for turn in asked) or not says(ideal):
        return None
    values.take("input", "ideal")
    answers = ideal if isinstance(ideal, list) else [ideal]
    if len(answers) > 1:
        notes.leave("answer", "ideal")
    told = [*takewhile(lambda turn: turn.get("role") == "system", asked)]
    rest = asked[len(told) :]
    if not rest:  # the question stands in a system message of its own, behind what is to be done
        told, rest = told[:-1], [{**told[-1], "role": "user"}]
    system = [{"role": "system", "content": "\n\n".join(str(turn.get("content")) for turn in told)}] if told else []
    return {"messages": [*system, *rest, {"role": "assistant", "content": answers[0]}]}


def label_studio(values: Columns, notes: Notes) -> dict[str, Any] | None:
    task, done = (
        values.peek("data"),
        next((n for n in ("annotations", "completions") if isinstance(values.peek(n), list)), None),
    )
    if not isinstance(task, dict) or done is None:
        return None
    texts = {name: part for name, part in task.items() if isinstance(part, str) and says(part)}
    text = next(
        (name for name in ("text", "question", "prompt") if name in texts),
        max(texts, key=lambda n: len(texts[n]), default=None),
    )
    given = [one for one in values.peek(done) if isinstance(one, dict) and one.get("was_cancelled") is not True]
    results = [
        result
        for one in given
        if isinstance(one.get("result"), list)
        for result in one["result"]
        if isinstance(result, dict)
    ]
    labels = [label for result in results for label in _chosen(result.get("value"))]
    if text is None or not labels:
        if text is not None and len(given) < len(values.peek(done)):
            raise Flaw("data.was_skipped")
        return None
    values.take("data", done)
    for name in task:
        if name != text and says(task[name]):
            notes.leave("column", f"data.{name}")
    if any(label != labels[0] for label in labels):
        notes.leave("answer", done)
    return {"text": texts[text], "label": labels[0]}


def _chosen(value: Any) -> list[str]:
    """What somebody chose or wrote for a whole text. Spans of it (which have a start) are none."""
    if not isinstance(value, dict) or "start" in value:
        return []
    found: Any = next((value[name] for name in ("choices", "text") if value.get(name)), [])
    return [label for label in (found if isinstance(found, list) else [found]) if isinstance(label, str)]


def is_rejected(values: Columns) -> bool:
    """Whether somebody said in Prodigy that the label is not right, or would not say."""
    if "_task_hash" not in values or values.peek("answer") not in ("accept", "reject", "ignore"):
        return False
    values.take("answer", "_task_hash", "_input_hash")
    return values.peek("answer") != "accept"
