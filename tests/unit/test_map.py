"""docs/map.md is true of the folders: every room is on it once, on its floor, and it names nothing that is not
there."""

from __future__ import annotations

import re

from core.presets import PROJECT

MAP = (PROJECT / "docs" / "map.md").read_text("utf-8")
ROWS = re.findall(r"^\| `((?:core|webui)/\w+)/` \| (core|webui) (\d) \|", MAP, re.MULTILINE)


def test_every_room_is_named_once_and_none_that_is_not_there() -> None:
    rooms = {
        f"{house}/{file.parent.name}" for house in ("core", "webui") for file in (PROJECT / house).glob("*/__init__.py")
    }
    assert len(rooms) > 15 and sorted(room for room, _, _ in ROWS) == sorted(rooms)


def test_a_room_within_a_room_is_named_in_its_row() -> None:
    within = [file.parent for house in ("core", "webui") for file in (PROJECT / house).glob("*/*/__init__.py")]
    rows = {place: row for row in MAP.splitlines() for place, _, _ in ROWS if row.startswith(f"| `{place}/`")}
    assert len(within) > 10
    assert [
        inner for inner in within if f"`{inner.name}/`" not in rows[inner.parent.relative_to(PROJECT).as_posix()]
    ] == []


def test_rooms_stand_on_the_floors_that_are_held() -> None:
    """The numbers of the map have the order of the floors in test_architecture.py, and the same rooms side by side."""
    source = (PROJECT / "tests" / "unit" / "test_architecture.py").read_text("utf-8")
    [tuples] = re.findall(r"^FLOORS = \(\n(.*?)^\)", source, re.MULTILINE | re.DOTALL)
    held = [re.findall(r'"((?:core|webui)\.\w+)"', line) for line in tuples.splitlines()]
    for house in ("core", "webui"):
        floors = [set(line) for line in held if line and line[0].startswith(house)]
        numbers = sorted({int(floor) for _, where, floor in ROWS if where == house})
        on_map = [
            {room.replace("/", ".") for room, where, floor in ROWS if where == house and int(floor) == n}
            for n in numbers
        ]
        assert on_map == floors


def test_what_the_map_names_is_there_and_it_is_a_page() -> None:
    named = re.findall(r"`((?:core|webui|presets|tests|benchmarks|docs)/[\w./]*)`", MAP)
    assert len(named) > 40 and [path for path in named if not (PROJECT / path).exists()] == []
    assert len(MAP.splitlines()) <= 110
