"""Estimates a row's tokens from its characters if there is no tokenizer; may be wrong by a factor of two. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from core.data.conversation import Turn
from core.data.formats import Example
from core.data.labels import Learning
from core.data.sets.segment import Counted
from core.data.shapes.tools import as_json
from core.data.tokenizer import conversation, sides

# About four Latin characters to one token; most tokenizers of today need two tokens for three Chinese, Japanese or
# Korean ones. A turn's frame (<|im_start|>user ... <|im_end|>) adds the rest.
TOKENS_PER_CHARACTER = 0.25
TOKENS_PER_CJK_CHARACTER = 0.7
TOKENS_PER_TURN = 12
_CJK = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")


def counted(example: Example, learning: Learning) -> list[Counted]:
    """Return the examples of a row, two for a pair, with estimated tokens. Where a plain text may be cut (its borders)
    stays empty. Raises TemplateError if pairs are learned and the row is none."""
    if learning.pairs:
        return [_conversation(turns, example.tools, learning) for turns in sides(example)]
    if example.text is not None:
        length = _tokens(example.text) + 1
        return [Counted(length, [(1, length)], ())]
    return [_conversation(conversation(example), example.tools, learning)]


def _conversation(turns: Sequence[Turn], tools: str | None, learning: Learning) -> Counted:
    """Return the estimated number of tokens of a conversation, tools included, with the estimated places of what is
    learned: all of it for "everything", else each answer whose weight is not 0; of rated ones the last."""
    position, runs = _tokens(tools or ""), []
    for turn in turns:
        calls = as_json(turn["tool_calls"]) if turn.get("tool_calls") else ""
        size = _tokens(turn["content"] + turn.get("reasoning", "") + calls)
        position += TOKENS_PER_TURN + size
        if turn["role"] == "assistant" and turn.get("weight", 1):
            runs.append((position - size - 1, position))
    if learning.rated:
        runs = runs[-1:]
    return Counted(position, [(1, position)] if learning.train_on == "everything" else runs, None)


def _tokens(content: str) -> int:
    """Return the estimated tokens of a text, rounded up."""
    cjk = len(_CJK.findall(content))
    return math.ceil(TOKENS_PER_CJK_CHARACTER * cjk + TOKENS_PER_CHARACTER * (len(content) - cjk))
