"""Whatever stands in a data file or a recipe: rows, or one of our own errors; no traceback, no file anywhere.

The short form is the same every time; --full searches on, and with atheris where it is installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from core.data.sets.inspection import inspect_file
from core.errors import DataError, GarageError
from core.recipe import Recipe
from tests.kit.office import zipped

SHORT = settings(
    max_examples=120, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
LONG = settings(SHORT, max_examples=5000, derandomize=False)
ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".md", ".parquet", ".xls", ".zip", ".yaml", ".exe", "")
KEYS = (
    "question",
    "answer",
    "messages",
    "role",
    "content",
    "conversations",
    "from",
    "value",
    "instruction",
    "output",
    "text",
    "prompt",
)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
lines = st.lists(anything.map(json.dumps), max_size=6).map("\n".join).map(str.encode)
broken = st.tuples(lines, st.binary(max_size=30), st.integers(0, 200)).map(lambda t: t[0][: t[2]] + t[1] + t[0][t[2] :])
tables = (
    st.lists(st.lists(st.text('a,";\t\n\r\0=@é', max_size=6), max_size=4).map(",".join), max_size=6)
    .map("\n".join)
    .map(str.encode)
)
# A list of rows, an object around it, or one of columns, as JSON that may be cut or hurt anywhere.
wholes = st.lists(anything, max_size=5) | st.dictionaries(
    st.sampled_from(("data", "rows", "version", *KEYS)), anything, max_size=4
)
arrays = st.tuples(
    wholes.map(lambda value: json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")),
    st.sampled_from((b"", b"NaN", b"\0", b",", b"}", b"]", b'"', b"9" * 5000, b"\\ud83d", b"[" * 3000)),
    st.integers(0, 400),
    st.integers(0, 3),
).map(lambda t: t[0][: t[2]] + t[1] + t[0][t[2] + t[3] :])
legacy = st.text("abc,;\n é天の가ж", min_size=2, max_size=40).flatmap(
    lambda text: st.sampled_from(("gb18030", "cp932", "cp949", "cp1251", "cp1252", "utf-16-le")).map(
        lambda name: text.encode(name, "replace")
    )
)
contents = (
    st.binary(max_size=300)
    | lines
    | broken
    | arrays
    | legacy
    | tables
    | tables.map(lambda raw: raw.decode().encode("utf-16"))
)
NAMES = (
    "a.jsonl",
    "b/c.json",
    "conversations.json",
    "_chat.txt",
    "dataset_info.json",
    "../x.csv",
    "a.zip",
    "mimetype",
    "xl/workbook.xml",
    "é.txt",
)
archives = st.dictionaries(st.sampled_from(NAMES), contents, max_size=4).map(zipped)
hurt = st.tuples(
    archives, st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4), st.integers(0, 2000)
).map(lambda t: _flipped(*t))
sections = st.dictionaries(
    st.sampled_from(("name", "goal", "model", "data", "adapter", "train")),
    anything
    | st.dictionaries(
        st.sampled_from(
            ("id", "source", "r", "learning_rate", "max_steps", "max_length", "method", "revision", "target_modules")
        ),
        anything,
        max_size=5,
    ),
)


def _flipped(content: bytes, flips: list[tuple[int, int]], cut: int) -> bytes:
    hurt = bytearray(content)
    for at, value in flips:
        if hurt:
            hurt[at % len(hurt)] = value
    return bytes(hurt[: len(hurt) - cut if cut < 60 else len(hurt)])


def read_data(content: bytes, ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"data{ending}"
        file.write_bytes(content)
        with contextlib.suppress(DataError):
            report = inspect_file(file)
            assert 0 <= report.good_rows <= report.rows
        assert os.listdir(folder) == [file.name] and file.read_bytes() == content


def read_recipe(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        file.write_bytes(content)
        with contextlib.suppress(GarageError):
            assert isinstance(Recipe.read(file), Recipe)
        assert os.listdir(folder) == [file.name]


def parse_recipe(value: Any) -> None:
    with contextlib.suppress(GarageError):
        recipe = Recipe.parse(value)
        assert Recipe.parse(recipe.model_dump(exclude_unset=True)) == recipe


recipes = st.binary(max_size=200) | sections.map(
    lambda value: yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "replace")
)
tags = (
    "!!python/object/apply:os.system ['touch hacked']",
    "&a [*a, *a]",
    "? {a: b}\n: c",
    "a: &x [*x]",
    "{" * 3000,
    "- " * 3000,
    "\t",
)


@SHORT
@example(b'{"answer": null, "": {"": null}}', ".jsonl")  # a column without a name beside a known one
@given(contents, st.sampled_from(ENDINGS))
def test_no_data_file_crashes_its_reader(content: bytes, ending: str) -> None:
    read_data(content, ending)


@SHORT
@given(archives | hurt)
def test_no_archive_crashes_its_reader(content: bytes) -> None:
    read_data(content, ".zip")


@SHORT
@given(arrays)
def test_no_json_crashes_its_reader(content: bytes) -> None:
    read_data(content, ".json")


@SHORT
@given(recipes)
def test_no_recipe_file_crashes_its_parser(content: bytes) -> None:
    read_recipe(content)


@SHORT
@given(sections | anything)
def test_no_value_crashes_the_recipe(value: Any) -> None:
    parse_recipe(value)


@pytest.mark.parametrize("content", tags, ids=[tag[:12] for tag in tags])
def test_a_recipe_that_means_harm_is_a_sentence(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    read_recipe(content.encode())
    assert os.listdir(tmp_path) == []


@pytest.mark.full
def test_the_search_goes_on() -> None:
    for check, strategies in (
        (read_data, (contents, st.sampled_from(ENDINGS))),
        (read_data, (archives | hurt, st.just(".zip"))),
        (read_recipe, (recipes,)),
        (parse_recipe, (anything,)),
    ):
        LONG(given(*strategies)(check))()


@pytest.mark.full
def test_atheris_finds_no_crash_either() -> None:
    atheris = pytest.importorskip(
        "atheris", reason="atheris is not installed: it has no wheel for this Python or system"
    )
    script = (
        "import atheris, sys\nwith atheris.instrument_imports(include=['core']):\n    from tests.unit.data import "
        "test_fuzz as fuzz\n"
        "def one(raw):\n    fuzz.read_data(raw[1:], fuzz.ENDINGS[raw[0] % len(fuzz.ENDINGS)] if raw else '')\n    "
        "fuzz.read_recipe(raw)\n"
        "atheris.Setup(sys.argv, one)\natheris.Fuzz()"
    )
    import subprocess
    import sys

    assert atheris
    done = subprocess.run(
        [sys.executable, "-c", script, "-max_total_time=120"], capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
