"""chrF (Popović 2015, https://aclanthology.org/W15-3049): the F score of the n-grams of letters of two texts.

Twenty lines of our own: sacrebleu, whose figures these are (tests/unit/judges), would bring lxml, portalocker and
tabulate along.
"""

from __future__ import annotations

from collections import Counter

ORDER = 6
BETA = 2  # recall counts twice


def chrf(answer: str, expected: str) -> float:
    """Return chrF2 of one answer, 0 to 1; spaces do not count. Texts shorter than ORDER are compared by fewer n; 0
    without anything in common."""
    answer, expected = "".join(answer.split()), "".join(expected.split())
    precision, recall, orders = 0.0, 0.0, 0
    for n in range(1, ORDER + 1):
        given, needed = (Counter(text[i : i + n] for i in range(len(text) - n + 1)) for text in (answer, expected))
        if given and needed:
            shared = (given & needed).total()
            precision, recall, orders = precision + shared / given.total(), recall + shared / needed.total(), orders + 1
    if not precision or not recall:
        return 0.0
    precision, recall = precision / orders, recall / orders
    return (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)
