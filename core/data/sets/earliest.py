"""Finds the first occurrence of each of many values, in eight bytes per value."""

from __future__ import annotations

import numpy as np


def earliest(hashes: np.ndarray) -> np.ndarray:
    """Return (R,) for each of (R,) 64-bit hashes the position of the first equal one. Sorts hashes in place.

    Two of two million different rows share a hash in one of ten million datasets. A dictionary of a million rows took
    250 MB for the same.
    """
    # Stable, so that the first of equal hashes is the earliest row; int32 halves the 16 MB of two million rows.
    order = np.argsort(hashes, kind="stable").astype(np.int32)
    hashes.sort()
    begins = np.arange(len(hashes), dtype=np.int32)  # for each sorted hash, where its run of equal ones begins
    begins[1:][hashes[1:] == hashes[:-1]] = 0
    np.maximum.accumulate(begins, out=begins)
    first = np.empty_like(order)
    first[order] = order[begins]
    return first
