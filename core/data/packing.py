"""Examples of one optimizer step laid end to end into micro-batches, so that no token is padding. No torch.

An epoch has as many steps and reads the same examples, packed or not; which of them meet in a step differs. A micro-batch holds at most per_device_train_batch_size x max_length tokens, the most that a padded one would hold; best fit,
longest first, needs at most as many of them as there would be padded ones and mostly far fewer.
"""

from __future__ import annotations

from collections.abc import Sequence


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Positions in `lengths` as bins of at most `capacity` tokens, each put where it leaves the least room.

    Deterministic: equal lengths in order of position, equally full bins in order of their making. An example longer than
    capacity gets a bin of its own.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = [b for b, left in enumerate(room) if left >= lengths[i]]
        if fitting:
            best = min(fitting, key=lambda b: (room[b], b))
        else:
            best = len(bins)
            bins.append([])
            room.append(capacity)
        bins[best].append(i)
        room[best] -= lengths[i]
    return bins
