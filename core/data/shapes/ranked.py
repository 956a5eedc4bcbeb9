"""The columns that hold the better and the worse of two answers, in the notations of different files."""

from __future__ import annotations

from core.data.shapes.left_out import Columns

_RANKED = (
    ("chosen", "rejected"),
    ("preferred_output", "non_preferred_output"),  # OpenAI
    ("preferred", "dispreferred"),
    ("preferred", "rejected"),
    ("accepted", "rejected"),
    ("chosen_response", "rejected_response"),
    ("response_chosen", "response_rejected"),
    ("chosen", "reject"),
    ("chosen_messages", "rejected_messages"),
    ("better", "worse"),
    ("response_j", "response_k"),  # questions of Stack Exchange, in pairs
)
RANKED_COLUMNS = tuple(name for pair in _RANKED for name in pair)


def ranked(values: Columns) -> tuple[str, str] | None:
    """Return the names of the columns (better, worse); None if the row compares no two answers."""
    return next((pair for pair in _RANKED if all(name in values for name in pair)), None)
