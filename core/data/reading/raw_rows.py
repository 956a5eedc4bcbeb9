"""Reads the rows of a file of any kind, as its format has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from core.data.reading.arrow_rows import arrow_rows
from core.data.reading.batch_files import with_request
from core.data.reading.database_rows import database_rows
from core.data.reading.document_rows import document_rows
from core.data.reading.file_rows import Items, Limits, RawRow, Source
from core.data.reading.json_rows import json_rows, jsonl_rows
from core.data.reading.notebooks import notebook_rows
from core.data.reading.source_code import code_rows
from core.data.reading.spreadsheets import sheet_rows
from core.data.reading.suffixes import DOCUMENTS, SPREADSHEETS
from core.data.reading.table_rows import csv_rows, parquet_rows, txt_rows
from core.data.reading.yaml_rows import yaml_rows
from core.data.shapes.class_names import with_names
from core.data.shapes.unfolded import unfolded

READERS: dict[str, Callable[[Source, Limits], Items]] = {
    "json": json_rows, "jsonl": jsonl_rows, "csv": csv_rows, "parquet": parquet_rows, "arrow": arrow_rows,
    "sqlite": database_rows,
    "txt": txt_rows, "yaml": yaml_rows, "toml": yaml_rows, "ipynb": notebook_rows, "code": code_rows,
    **dict.fromkeys(SPREADSHEETS, sheet_rows), **dict.fromkeys(DOCUMENTS, document_rows),
}  # fmt: skip


def converted(raw: RawRow, source: Source) -> RawRow:
    """Return a row as dataset_info.json describes it; without that, a batch result with the question of its request
    file, nested fields of known shapes as columns, and class names for class numbers."""
    if source.layout:
        return replace(raw, value=source.layout.apply(raw.value)) if isinstance(raw.value, dict) else raw
    value, omissions = unfolded(with_request(raw.value, source) if source.requests else raw.value)
    if source.class_names and isinstance(value, dict):
        value = with_names(value, source.class_names)
    return raw if value is raw.value else replace(raw, value=value, omissions=raw.omissions + omissions)
