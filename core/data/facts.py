"""Counts of rows and tokens that the advice needs, as core/data/preview computes them."""

from __future__ import annotations

from core.values import Frozen


class DataFacts(Frozen):
    """Counts over the trainable rows of a dataset. Lengths are in tokens, before anything is cut.

    learned_tokens: tokens that the loss counts, in all rows. exact: False if only some rows were counted. estimated:
    without the tokenizer, tokens are estimated from characters, which may be wrong by a factor of two.
    validation: rows that the dataset itself keeps for validation; None if it leaves that to the recipe. is_joined: rows
    are paragraphs of texts, which are joined. answers: how many of the answers differ; None if the rows are too many.
    """

    rows: int
    tokens: int
    learned_tokens: int
    median_length: int
    p99_length: int
    longest: int
    exact: bool = True
    estimated: bool = False
    validation: int | None = None
    is_joined: bool = False
    answers: int | None = None
