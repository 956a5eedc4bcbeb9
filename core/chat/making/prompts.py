"""The prompts of the models that write rows: presets/making/<kind>.yaml, and what all kinds share in
shared.yaml, each in several languages."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from string import Template

from core.chat.making.drafts import Kind
from core.data.conversation import Turn
from core.presets import load
from core.values import Strict

NOT_STATED = "NOT STATED"  # the reply to a question that a passage does not answer
NAMES = {"ar": "Arabic", "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "fr": "French",
    "he": "Hebrew", "hi": "Hindi", "it": "Italian", "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "pt": "Portuguese",
    "ru": "Russian", "th": "Thai", "zh": "Chinese"}  # fmt: skip
# Marks of chat templates and tags, as <|im_end|>, </s>, [INST]: a space makes plain text of them.
_MARKS = re.compile(r"(<)(?=[|｜/]?[A-Za-z_][\w｜|]{0,30}[|｜]?>)|(\[)(?=/?[A-Z_]{3,30}\])")


class WritingPrompt(Strict):
    """A prompt for each language that it is written in; others use English. $count, $wordings, $language and $stated
    are filled in. absent_answer: of rows whose question the document does not answer, for each language."""

    en: str
    de: str
    zh: str
    absent_answer: dict[str, str] = {}

    def text(self, language: str, **values: object) -> str:
        """Return the prompt in a language, or in English with the language named."""
        template = {"de": self.de, "zh": self.zh}.get(language, self.en)
        return Template(template).substitute(values, language=NAMES.get(language, language)).strip()


@lru_cache(maxsize=16)
def prompt_of(kind: Kind) -> WritingPrompt:
    """Return the prompt, in all its languages, by which a model writes rows of a kind from a document.

    kind: also the name of its file in presets/making, which is read once.
    """
    return WritingPrompt.model_validate(load(f"making/{kind}"))


@lru_cache(maxsize=16)
def _shared(name: str) -> WritingPrompt:
    """Return a prompt that all kinds share: answer, wanted or unwanted."""
    return WritingPrompt.model_validate(load("making/shared")[name])


def harmless(text: str) -> str:
    """Return a document's text with a blank after each sign that could begin a mark of a chat template, so that it
    cannot be read as one."""
    return _MARKS.sub(r"\g<0> ", text)


def writing(
    kind: Kind,
    language: str,
    passage: str,
    count: int,
    wordings: int,
    to_follow: Sequence[tuple[str, str]] = (),
    to_avoid: Sequence[str] = (),
) -> list[Turn]:
    """Return the request for rows of a passage. to_follow: rows (question, answer) whose style is to be followed;
    to_avoid: questions that a person rejected."""
    text = prompt_of(kind).text(language, count=count, wordings=wordings)
    if to_follow:
        rows = [{"question": question, "answer": answer} for question, answer in to_follow]
        text += f"\n\n{_shared('wanted').text(language)}\n{json.dumps(rows, ensure_ascii=False)}"
    if to_avoid:
        text += f"\n\n{_shared('unwanted').text(language)}\n{json.dumps(list(to_avoid), ensure_ascii=False)}"
    return [{"role": "system", "content": text}, {"role": "user", "content": harmless(passage)}]


def answering(language: str, turns: Sequence[Turn], passage: str) -> list[Turn]:
    """Return the request to answer the last of `turns` from a passage alone, or to say that it is not stated there."""
    system = _shared("answer").text(language, stated=NOT_STATED)
    content = json.dumps({"passage": harmless(passage)}, ensure_ascii=False)
    return [{"role": "system", "content": f"{system}\n\n{content}"}, *(dict(turn) for turn in turns)]
