"""The share of pairs in which an adapter prefers the better answer more than the base does, measured by our own engine:
`python -m benchmarks.peers.held_out_pairs JOB.json ADAPTER`."""

from __future__ import annotations

import sys

import numpy as np

from benchmarks import engine
from benchmarks.peers.job import Job
from benchmarks.peers.meter import say
from core.engine import adapter
from core.training.preference.reference import log_probabilities_of


def main() -> None:
    job = Job.read(sys.argv[1])
    with engine.opened(job) as opened:
        step = opened.trainer().step
        step.tuned.eval()

        def answered() -> np.ndarray:
            return np.reshape([log_probabilities_of(step, [row]) for row in opened.rows], (-1, 2))

        before = answered()  # an adapter that has learned nothing is the base
        step.tuned.load_adapter(sys.argv[2], adapter.ADAPTER, is_trainable=True)
        chosen, rejected = (answered() - before).T
        say(
            {
                "right": int((chosen > rejected).sum()),
                "pairs": len(chosen),
                "margin": float((chosen - rejected).mean()) * 0.1,
            }
        )


if __name__ == "__main__":
    main()
