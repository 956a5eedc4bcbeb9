"""What a person chose for the whole workspace on the Settings page: <workspace>/preferences.json, written by that page.

Workers read it when they need it, so that a change also counts for what is training already.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, ValidationError

from core import files
from core.errors import RecipeError
from core.values import Frozen
from core.workspace.folder import Workspace

HOURS = re.compile(r"([01]?\d|2[0-3])[:：.]([0-5]\d)\s*(?:-|–|—|到|至)\s*([01]?\d|2[0-3])[:：.]([0-5]\d)")
MOST_PROGRAMS = 50


class Hours(Frozen):
    """A stretch of each day, in minutes since midnight; begin after end means over midnight. end itself is outside."""

    begin: int = Field(ge=0, lt=1440)
    end: int = Field(ge=0, lt=1440)

    def covers(self, minute: int) -> bool:
        return self.begin <= minute < self.end if self.begin < self.end else minute >= self.begin or minute < self.end

    def minutes_left(self, minute: int) -> int:
        return (self.end - minute) % 1440

    def __str__(self) -> str:
        return f"{clock_of(self.begin)}-{clock_of(self.end)}"


def clock_of(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


class Automation(Frozen):
    """Defaults surprise nobody: nothing is paused and no PC is sent to sleep unless somebody asked for it."""

    go_on_after_failure: bool = True
    keep_awake: bool = True  # while a run or an export is at work, and its battery is not running low
    sleep_when_empty: bool = False
    watch_card: bool = False  # game mode, by what NVML tells of other programs
    # desktops and browsers hold a few hundred MiB of a card all the time
    min_gib: float = Field(default=1.0, ge=0.1, le=100)
    programs: tuple[str, ...] = ()  # game mode, by name, on any PC
    hours: tuple[Hours, ...] = ()  # game mode, by the clock
    wanted_s: float = Field(default=10.0, ge=0, le=3600)  # before it pauses: a picture viewer opens and closes
    free_s: float = Field(default=120.0, ge=0, le=86400)  # before it goes on: a game loads its next level

    @property
    def game_mode(self) -> bool:
        return self.watch_card or bool(self.programs) or bool(self.hours)


def parse_hours(said: str) -> tuple[Hours, ...]:
    """ "18:00-23:00, 7:30-8:15". Raises RecipeError naming the part that is none."""
    found = []
    for part in filter(None, (part.strip() for part in re.split(r"[,，;；\n]", said))):
        match = HOURS.fullmatch(part)
        begin, end = (int(match[i]) * 60 + int(match[i + 1]) for i in (1, 3)) if match else (0, 0)
        if begin == end:
            raise RecipeError("queue.bad_hours", found=part[:40])
        found.append(Hours(begin=begin, end=end))
    return tuple(found)


def parse_programs(said: str) -> tuple[str, ...]:
    """Names with commas between them, as a task manager shows them."""
    names = [part.strip()[:100] for part in re.split(r"[,，;；\n]", said)]
    return tuple(dict.fromkeys(filter(None, names)))[:MOST_PROGRAMS]


WhenAlone = Literal["go_on", "pause"]


class Preferences(Frozen):
    v: int = 1
    when_alone: WhenAlone = Field("go_on", description="What a training does whose app has ended without a word.")
    keep_ready: bool = Field(
        True, description="Whether a process that has read the libraries waits for the next run while a page is open."
    )
    automation: Automation = Field(Automation(), description="What happens by itself between runs, and game mode.")


def read(workspace: Workspace) -> Preferences:
    """The defaults where nothing was chosen yet, or where the file is not readable."""
    return files.read_model(Preferences, workspace.root / "preferences.json") or Preferences()


def choose(workspace: Workspace, **changes: object) -> Preferences:
    """Raises RecipeError for what is no choice, and where it cannot be written."""
    file = workspace.root / "preferences.json"
    try:
        kept = files.read_model(Preferences, file, to_change=True) or Preferences()
        chosen = Preferences.model_validate(kept.model_dump() | changes)
        files.replace_json(file, chosen.model_dump())
    except ValidationError:
        raise RecipeError("preferences.no_choice", found=str(changes)[:100]) from None
    except OSError as error:
        raise RecipeError("preferences.cannot_save", reason=error.strerror or error) from error
    return chosen
