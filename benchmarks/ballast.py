"""Takes the card's memory until only so much is free, and holds it until its input is closed. Started by
benchmarks.gpu_report.

python -m benchmarks.ballast LEAVES_BYTES       prints "held BYTES" once it does
"""

from __future__ import annotations

import sys

import torch

PIECE = 64 << 20


def main() -> None:
    leaves, held = int(sys.argv[1]), []
    torch.zeros(1, device="cuda")  # the context takes some itself
    while torch.cuda.mem_get_info()[0] - PIECE > leaves:
        held.append(torch.empty(PIECE, dtype=torch.uint8, device="cuda"))
    print(f"held {len(held) * PIECE}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
