"""What CUDA shows to a process that the product starts for one card, as JSON (test_two_cards.py). argv: a card's
uuid, or nothing for the best.

Fields: nvml: name, uuid and free memory of each card as NVML numbers them; best: the uuid of the card that a run
would use; default: the name of CUDA's first card without our environment, where a uuid is given; cuda: name, uuid,
capability and memory of the first card with it; on: NVML's numbers of the cards on which that process holds memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from core.system import devices

ASK = """
import json, os, torch
card = torch.cuda.get_device_properties(0)
held = torch.empty(1 << 30, dtype=torch.uint8, device="cuda:0")
free, total = torch.cuda.mem_get_info(0)
print(json.dumps({"name": card.name, "uuid": f"GPU-{card.uuid}", "capability": [card.major, card.minor],
    "total": total, "free": free, "count": torch.cuda.device_count(), "pid": os.getpid()}), flush=True)
input()
"""


def ask_torch(environment: dict[str, str]) -> tuple[dict, list[int]]:
    """What torch says there, and NVML's numbers of the cards on which that process holds memory meanwhile."""
    process = subprocess.Popen(
        [sys.executable, "-c", ASK],
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout
    report = json.loads(process.stdout.readline())
    cards = devices.read_cards().cards
    on = [card.index for card in cards if any(holder.pid == report["pid"] for holder in card.holders or ())]
    process.communicate("\n")
    return report, on


def main() -> None:
    nvidia = devices.read_cards()
    best = devices.best_card(nvidia)
    best_uuid = sys.argv[1] if len(sys.argv) > 1 else best and best.uuid
    cuda, on = ask_torch(devices.environment_of(best_uuid, nvidia))
    print(json.dumps({
        "nvml": [[card.name, card.uuid, card.free_bytes] for card in nvidia.cards], "best": best and best.uuid,
        "default": ask_torch({})[0]["name"] if len(sys.argv) > 1 else None, "cuda": cuda, "on": on,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
