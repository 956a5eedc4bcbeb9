"""Data sets for the hub of the tests (tests/kit/hub.py), with what the datasets server tells of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from core.hub.sets import viewer
from tests.kit.hub import FakeHub

CONVERTED = "refs/convert/parquet"


@contextmanager
def hub_with_viewer(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The only hub that is known in this process, as HF_ENDPOINT does before the start."""
    with FakeHub({}) as server:
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv(viewer.SERVER, f"{server.url}/viewer")
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


def put(hub: FakeHub, name: str, files: Mapping[str, bytes], **told: Any) -> None:
    """A set with its own files. told: as the hub's own rows (tags, cardData, gated, likes)."""
    hub.repos[f"datasets/{name}"] = dict(files)
    hub.rows = [*hub.rows, {"id": f"datasets/{name}", "tags": [], "downloads": 1, "likes": 0, "gated": False, **told}]


def put_converted(
    hub: FakeHub, name: str, parts: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], group: int = 100, **told: Any
) -> None:
    """A set that the hub made Parquet of. parts: by "config/split" its shards, each its rows. group: rows of a row group."""
    put(hub, name, {"README.md": b"# A set", "raw.zip": b"PK"}, **told)
    shards = {f"{part}/{i:04}.parquet": parquet(rows, group) for part, found in parts.items() for i, rows in enumerate(found)}
    hub.repos[f"datasets/{name}@{CONVERTED}"] = shards
    splits = []
    for part, found in parts.items():
        config, split = part.split("/")
        rows = [row for shard in found for row in shard]
        size = sum(len(content) for file, content in shards.items() if file.startswith(f"{part}/"))
        splits.append({
            "dataset": name, "config": config, "split": split.removeprefix("partial-"), "num_bytes_parquet_files": size,
            "num_bytes_memory": 3 * size, "num_rows": len(rows), "num_columns": len(rows[0]),
        })  # fmt: skip
        hub.viewed[f"first-rows?{name}:{config}:{split.removeprefix('partial-')}"] = first_rows(name, config, split, rows)
    hub.viewed[f"size?{name}"] = {
        "size": {"dataset": {}, "configs": [], "splits": splits},
        "pending": [],
        "failed": [],
        "partial": False,
    }


def first_rows(name: str, config: str, split: str, rows: Sequence[Mapping[str, Any]], cut: Sequence[str] = ()) -> dict[str, Any]:
    """As the datasets server answers /first-rows (its documentation of 2026)."""
    features = [{"feature_idx": i, "name": key, "type": {"dtype": "string", "_type": "Value"}} for i, key in enumerate(rows[0])]
    shown = [{"row_idx": i, "row": dict(row), "truncated_cells": list(cut)} for i, row in enumerate(rows[:100])]
    return {"dataset": name, "config": config, "split": split, "features": features, "rows": shown, "truncated": len(rows) > 100}
