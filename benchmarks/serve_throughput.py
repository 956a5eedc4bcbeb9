"""Measures tokens per second of servers with OpenAI's API: 16 requests at once and one by one, alternated.

    .venv/bin/python -m benchmarks.serve_throughput NAME=URL,MODEL[,KEY] ... [--pairs 3] [--requests 16] [--tokens 64]

For example ours=http://127.0.0.1:8000/v1,base,KEY. The servers run already, with the same weights; every round asks
each of them the same prompts, likeliest tokens: all at once, then a quarter of them one by one. Tokens are counted by
each server. On a machine that others use too, only ratios within a round count.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

import httpx

WORDS = ["the sea", "rain", "bread", "trains", "winter", "a lighthouse", "clocks", "honey"]


@dataclass(frozen=True)
class Server:
    """One server and the model to ask."""

    name: str
    url: str
    model: str
    key: str = "none"

    def pace(self, requests: int, tokens: int, at_once: int) -> float:
        """Return the tokens per second of so many requests, so many of them at once."""
        with (
            httpx.Client(headers={"Authorization": f"Bearer {self.key}"}, timeout=600) as http,
            ThreadPoolExecutor(at_once) as pool,
        ):

            def ask(number: int) -> int:
                content = f"Tell me a long story of {number + 3} friends and {WORDS[number % len(WORDS)]}."
                body = {
                    "model": self.model, "messages": [{"role": "user", "content": content}],
                    "max_tokens": tokens, "temperature": 0,
                }  # fmt: skip
                answer = http.post(f"{self.url}/chat/completions", json=body).raise_for_status().json()
                return int(answer["usage"]["completion_tokens"])

            begun = time.monotonic()
            return sum(pool.map(ask, range(requests))) / (time.monotonic() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="+", metavar="NAME=URL,MODEL[,KEY]")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    given = parser.parse_args()
    servers = [Server(name, *rest.split(",")) for name, rest in (each.split("=", 1) for each in given.servers)]
    paces: dict[tuple[str, int], list[float]] = {}
    for turn in range(-1, given.pairs):
        for server in servers:
            for at_once in (given.requests, 1):
                pace = server.pace(
                    at_once if at_once > 1 else given.requests // 4, given.tokens if turn >= 0 else 4, at_once
                )
                if turn >= 0:  # the first round loads and warms
                    paces.setdefault((server.name, at_once), []).append(pace)
                print(f"{turn} {server.name}, {at_once} at once: {pace:.1f} tokens/s", flush=True)
    first = servers[0].name
    for (name, at_once), measured in paces.items():
        ratios = [mine / its for mine, its in zip(paces[first, at_once], measured, strict=True)]
        shown = f"{min(ratios):.2f} {median(ratios):.2f} {max(ratios):.2f}"
        print(f"{name}, {at_once} at once: median {median(measured):.1f} tokens/s; {first} to it: {shown}")


if __name__ == "__main__":
    main()
