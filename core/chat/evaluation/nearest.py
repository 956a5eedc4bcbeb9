"""The rows of the training data that are nearest to a question, by BM25."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from core.judges.texts import words

K1, B = 1.5, 0.75  # usual values (Robertson and Zaragoza 2009)


def nearest(questions: Sequence[str], documents: Sequence[str], count: int) -> list[list[int]]:
    """Return for each question the positions of at most `count` documents by BM25, the best first.

    The same result each time: of equal documents the earlier one is better. Documents without a common word come last.
    """
    in_questions = [set(words(question)) for question in questions]
    needed = set[str]().union(*in_questions)
    lengths = np.zeros(len(documents))
    places, counts = {word: list[int]() for word in needed}, {word: list[int]() for word in needed}
    for place, document in enumerate(documents):
        in_document = Counter(words(document))
        lengths[place] = in_document.total()
        for word in in_document.keys() & needed:
            places[word].append(place)
            counts[word].append(in_document[word])
    usual = K1 * (1 - B + B * lengths / max(lengths.mean(), 1.0)) if len(documents) else lengths
    ranked = list[list[int]]()
    for in_question in in_questions:
        scores = np.zeros(len(documents))
        # Sorted, as a set's order, and with it the last digit of a sum, changes between processes.
        for word in sorted(in_question):
            at, times = np.array(places[word], int), np.array(counts[word], float)
            rarity = math.log(1 + (len(documents) - len(at) + 0.5) / (len(at) + 0.5))
            scores[at] += rarity * times * (K1 + 1) / (times + usual[at])
        ranked.append(np.argsort(-scores, kind="stable")[:count].tolist())
    return ranked
