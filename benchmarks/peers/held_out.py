"""The loss on held-out rows, measured by our own engine: `python -m benchmarks.peers.held_out JOB.json [ADAPTER]`.

JOB's rows are the held-out ones. ADAPTER: any trainer's adapter in PEFT's format; without it, the base's loss.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import engine
from benchmarks.peers.job import Job
from benchmarks.peers.meter import say


def main() -> None:
    job = Job.read(sys.argv[1])
    adapter_folder = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    with engine.opened(job, adapter_folder=adapter_folder) as opened:
        say({"eval_loss": opened.trainer(evaluation=opened.rows).evaluation.measure()})


if __name__ == "__main__":
    main()
