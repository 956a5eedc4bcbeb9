"""LLM.int8 with each row of a product rounded by itself, so that rows can be compared. Workers only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitsandbytes import MatmulLtState
    from transformers import PreTrainedModel


@contextmanager
def rows_apart(model: PreTrainedModel) -> Iterator[list[MatmulLtState]]:
    """Context manager: eval mode, with an outlier threshold of 0 in the LLM.int8 layers, by which each row of a product
    is rounded by itself; yields the states of these layers, [] for a base that is not in 8 bits, and restores mode and
    threshold.

    Otherwise an outlier in any row takes its column out of the 8-bit product for all rows, in a padded batch too, and
    one example changes the others' rounding by 3 to 6 % of the maximum (starter). A leak is 40 %.
    """
    was_training = model.training
    states = [module.state for module in model.modules() if hasattr(getattr(module, "state", None), "threshold")]
    thresholds = [state.threshold for state in states]
    model.eval()
    try:
        for state in states:
            state.threshold = 0.0  # no outliers
        yield states
    finally:
        for state, threshold in zip(states, thresholds, strict=True):
            state.threshold = threshold
        model.train(was_training)
