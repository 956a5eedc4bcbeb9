"""Facts about a dataset that the advice needs: counts of rows and tokens. No tokenizer here; core.data.preview
counts."""

from __future__ import annotations

from core.values import Frozen


class DataFacts(Frozen):
    """Of the rows that can be learned from; tokens before anything is cut. Lengths in tokens.

    learned_tokens: of all rows together, those the loss counts.
    exact: False where only some rows were counted. estimated: the tokenizer was not here, so tokens are guessed from
    characters, which may be wrong by a factor of two.
    """

    rows: int
    tokens: int
    learned_tokens: int
    median_length: int
    p99_length: int
    longest: int
    exact: bool = True
    estimated: bool = False
