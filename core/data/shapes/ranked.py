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
_NUMBERED = ("response_0", "response_1")  # PKU's BeaverTails: another column says which is better
_WHICH = ("better_response_id", "safer_response_id")
RANKED_COLUMNS = (*(name for pair in _RANKED for name in pair), *_NUMBERED)


def ranked(values: Columns) -> tuple[str, str] | None:
    """Return the names of the columns (better, worse), by their names or by a column that says which of two is better
    (then taken); None if the row compares no two answers."""
    named = next((pair for pair in _RANKED if all(name in values for name in pair)), None)
    if named or not all(name in values for name in _NUMBERED):
        return named
    which = next((name for name in _WHICH if values.peek(name) in (0, 1)), None)
    if which is None:
        return None
    values.take(which)
    better = int(values.peek(which))
    return _NUMBERED[better], _NUMBERED[1 - better]
