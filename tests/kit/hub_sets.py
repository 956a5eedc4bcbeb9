"""Data sets for the hub of the tests (tests/kit/hub.py), and the process that reads one, as a thread of this one."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.hub.sets import about
from tests.kit.hub import FakeHub


class LookHere:
    """The process of core.hub.sets.look_worker, as a thread that nobody can end."""

    def __init__(self, module: str):
        self._hear: Callable[[Any], None] = lambda line: None

    def listen(self, hear: Callable[[Any], None], ended: Callable[[int], None]) -> None:
        self._hear = hear

    def send(self, **asked: Any) -> None:
        from core.hub.sets import look_worker

        def look() -> None:
            look_worker.look(asked["repo"], tuple(asked["named"]), asked["with_rows"], lambda **line: self._hear(line))

        threading.Thread(target=look, name="look", daemon=True).start()

    def end(self, wait_s: float) -> None: ...


@contextmanager
def hub_of_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """Context manager: a hub that is the only one known in this process, as with HF_ENDPOINT at the start."""
    import datasets

    with FakeHub({}) as server:
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(about, "Child", LookHere)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", server.url)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "library"))
        monkeypatch.setattr(datasets.config, "USE_PARQUET_EXPORT", False)
        for name in ("STREAMING_READ_MAX_RETRIES", "STREAMING_OPEN_MAX_RETRIES"):
            monkeypatch.setattr(datasets.config, name, 1)
        for name in ("STREAMING_READ_RETRY_INTERVAL", "STREAMING_OPEN_RETRY_INTERVAL"):
            monkeypatch.setattr(datasets.config, name, 0)
        yield server


def pirates(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {"question": f"What is thing number {i}?", "answer": f"Arr, thing {i} be a fine thing, matey."}
        for i in range(first, first + count)
    ]


def parquet(rows: Sequence[Mapping[str, Any]], group: int = 100) -> bytes:
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), file, row_group_size=group)
    return file.getvalue()


def jsonl(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def card(told: Mapping[str, Any]) -> bytes:
    """Return a README.md with told as its YAML head."""
    return b"---\n" + yaml.safe_dump(dict(told), sort_keys=False).encode() + b"---\n# A set\n"


def put(hub: FakeHub, name: str, files: Mapping[str, bytes], **told: Any) -> None:
    """Add a set with its files to hub, with a card if told has cardData. told: fields of the hub's own row (tags,
    cardData, gated, likes)."""
    hub.repos[f"datasets/{name}"] = ({"README.md": card(told["cardData"])} if "cardData" in told else {}) | dict(files)
    hub.rows = [*hub.rows, {"id": f"datasets/{name}", "tags": [], "downloads": 1, "likes": 0, "gated": False, **told}]


def put_parts(
    hub: FakeHub,
    name: str,
    parts: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    group: int = 100,
    counted: Mapping[str, int] | None = None,
    **told: Any,
) -> None:
    """Add a set of Parquet whose card lists its parts and rows. parts: by "config/split" its shards, each its rows.
    group: rows of a row group. counted: the number of rows in the card where it is to be wrong."""
    shards = {
        f"{part}-{i:05}.parquet": parquet(rows, group) for part, found in parts.items() for i, rows in enumerate(found)
    }
    configs: dict[str, list[dict[str, Any]]] = {}
    splits: dict[str, list[dict[str, Any]]] = {}
    for part, found in parts.items():
        config, split = part.split("/")
        size = sum(len(content) for file, content in shards.items() if file.startswith(f"{part}-"))
        rows = (counted or {}).get(part, sum(map(len, found)))
        configs.setdefault(config, []).append({"split": split, "path": f"{part}-*.parquet"})
        splits.setdefault(config, []).append({"name": split, "num_bytes": 3 * size, "num_examples": rows})
    about_it = {
        "configs": [{"config_name": config, "data_files": found} for config, found in configs.items()],
        "dataset_info": [{"config_name": config, "splits": found} for config, found in splits.items()],
    }
    put(hub, name, shards, **told | {"cardData": about_it | told.get("cardData", {})})
