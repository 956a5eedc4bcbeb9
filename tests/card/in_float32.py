"""A run's worker that computes in float32, on the card where there is one: `python -m tests.card.in_float32 --workspace
DIR RUN_ID`."""

from __future__ import annotations

import sys

import torch

from core.engine import device
from core.messages import msg
from core.system import cores
from core.training import worker

if __name__ == "__main__":
    cores.NICENESS = 0  # what is compared here shall not come after everything else that is tested
    name = "cuda:0" if torch.cuda.is_available() else "cpu"
    in_float32 = device.Compute(torch.device(name), torch.float32, msg("device.cpu_fp32"))
    device._choose = lambda: in_float32
    sys.exit(worker.main())
