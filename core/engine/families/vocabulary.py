"""Tokens that a model has no row of its embedding for: the tokenizer has more than the weights know. Workers only.

A GPU notices one in the middle of a kernel, which ends the process's use of it without a word of the cause; a CPU
raises IndexError.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.data.labels import Encoded
from core.engine.families import unsupported
from core.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def rows_of(model: PreTrainedModel) -> float:
    """Return the number of tokens that the embedding of model has a row for; infinite for a family whose embedding is
    not found."""
    with unsupported.tolerated():
        return int(model.get_input_embeddings().weight.shape[0])
    return math.inf


def padding(model: PreTrainedModel, token: int) -> int:
    """Return token, or 0 if model has no row for it: only the mask marks padding."""
    return token if token < rows_of(model) else 0


def require_rows(model: PreTrainedModel, texts: Sequence[Sequence[int]]) -> None:
    """Raise ModelError if model has no row for one of the token ids in texts."""
    highest = max((max(ids, default=0) for ids in texts), default=0)
    if highest >= (rows := rows_of(model)):
        raise ModelError("model.token_without_row", token=highest, rows=rows)


def require_rows_of(model: PreTrainedModel, *parts: Sequence[Encoded]) -> None:
    """Raise the error of `require_rows` if an example has a token id beyond the rows of the model's embedding. Where
    tokens lie on disk, examples are read one by one only if some file has such an id."""
    rows = rows_of(model)
    for part in parts:
        segments = part.tokens.segments if hasattr(part, "tokens") else ()
        if not segments or any(segment.ids[0].max(initial=0) >= rows for segment in segments):
            for example in part:
                require_rows(model, [example.input_ids])
