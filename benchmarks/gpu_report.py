"""Everything that needs a graphics card, in one report: the tests marked gpu, then the engine's benchmarks.

    .venv/bin/python -m benchmarks.gpu_report --data FILE [--report gpu-report.md] [--with-peers] [--rounds 5]

Refuses to run without a card: nothing in the report stands for a card that was not there. Writes the report as it goes, so
that what was measured is kept when something later fails; exit status 1 if anything did. Minutes to an hour.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks import machine
from core.system import gpu


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a data file of any format that the app reads")
    parser.add_argument("--report", type=Path, default=Path("gpu-report.md"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--with-peers", action="store_true", help="also TRL and LLaMA-Factory, installed from PyPI (gigabytes)")
    chosen = parser.parse_args()
    if not gpu.probe().cards:
        print(
            "NVML names no graphics card here, so there is nothing to report. `python launch.py doctor` says why.", file=sys.stderr
        )
        return 2
    data, rounds = ["--data", str(chosen.data)], ["--rounds", str(chosen.rounds)]
    contestants = [] if chosen.with_peers else ["--only", "garage"]
    parts = {
        "Tests marked gpu": ["pytest", "-m", "gpu", "-q", "-s", "-rA", "tests/model/test_on_a_card.py"],
        "Our step against its floor": ["benchmarks.step_limit", *data, *rounds],
        "Where our step spends its time": ["benchmarks.step_limit", *data, "--profile"],
        "Memory by length": ["benchmarks.memory_vs_length", *data, *rounds],
        "Throughput": ["benchmarks.train_throughput", *data, *rounds, *contestants],
    }
    chosen.report.write_text(f"# What a card showed\n\n{machine.line('torch', 'transformers', 'peft', 'bitsandbytes')}\n", "utf-8")
    failed = [title for title, command in parts.items() if not part(title, command, chosen.report)]
    print(f"{chosen.report}: " + (f"failed: {', '.join(failed)}" if failed else "all parts ended well"))
    return 1 if failed else 0


def part(title: str, command: list[str], report: Path) -> bool:
    """Run `python -m command`, append what it printed; whether it ended well."""
    print(title, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    with report.open("a", encoding="utf-8") as file:
        file.write(
            f"\n## {title}\n\n`python -m {' '.join(command)}`, exit status {done.returncode}\n\n```\n{done.stdout.strip()}\n```\n"
        )
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
