"""Settings for the whole workspace: <workspace>/preferences.json, written by the Settings page.

Workers read it when they need it, so that a change also applies to a running training.
"""

from __future__ import annotations

import re

from pydantic import Field, ValidationError

from core import files
from core.errors import RecipeError
from core.values import Frozen
from core.workspace.folder import PREFERENCES, Workspace

HOURS = re.compile(r"([01]?\d|2[0-3])[:：.]([0-5]\d)\s*(?:-|–|—|到|至)\s*([01]?\d|2[0-3])[:：.]([0-5]\d)")
MAX_PROGRAMS = 50


class Hours(Frozen):
    """A daily period in minutes since midnight; begin after end crosses midnight. end is exclusive."""

    begin: int = Field(ge=0, lt=1440)
    end: int = Field(ge=0, lt=1440)

    def covers(self, minute: int) -> bool:
        """Return whether a minute of the day (0 to 1439) lies in the period."""
        return self.begin <= minute < self.end if self.begin < self.end else minute >= self.begin or minute < self.end

    def minutes_left(self, minute: int) -> int:
        """Return the minutes from a minute of the day until the period next ends, 0 at its end. For a minute within the
        period."""
        return (self.end - minute) % 1440

    def __str__(self) -> str:
        return f"{clock_of(self.begin)}-{clock_of(self.end)}"


def clock_of(minute: int) -> str:
    """Return a minute of the day as a time, "07:30"."""
    return f"{minute // 60:02d}:{minute % 60:02d}"


class Automation(Frozen):
    """Keeping awake and game mode. By default nothing is paused."""

    keep_awake: bool = True  # while a run or an export works, unless the battery is low
    watch_card: bool = False  # game mode, by NVML's numbers of other programs
    # desktops and browsers always use a few hundred MiB of a GPU
    min_gib: float = Field(default=1.0, ge=0.1, le=100)
    programs: tuple[str, ...] = ()  # game mode, by name, on any PC
    hours: tuple[Hours, ...] = ()  # game mode, by the clock
    wanted_s: float = Field(default=10.0, ge=0, le=3600)  # before it pauses: a picture viewer opens and closes
    free_s: float = Field(default=120.0, ge=0, le=86400)  # before it resumes: a game loads its next level

    @property
    def game_mode(self) -> bool:
        """True if anything can pause training: games on the GPU, programs or hours."""
        return self.watch_card or bool(self.programs) or bool(self.hours)


def parse_hours(text: str) -> tuple[Hours, ...]:
    """Return the hours of "18:00-23:00, 7:30-8:15", separated by commas, semicolons or lines. Raises RecipeError naming
    an invalid part."""
    hours = []
    for part in filter(None, (part.strip() for part in re.split(r"[,，;；\n]", text))):
        match = HOURS.fullmatch(part)
        begin, end = (int(match[i]) * 60 + int(match[i + 1]) for i in (1, 3)) if match else (0, 0)
        if begin == end:
            raise RecipeError("queue.bad_hours", found=part[:40])
        hours.append(Hours(begin=begin, end=end))
    return tuple(hours)


def parse_programs(text: str) -> tuple[str, ...]:
    """Return the different program names of a list with commas, semicolons or lines, at most MAX_PROGRAMS of 100
    characters."""
    names = [part.strip()[:100] for part in re.split(r"[,，;；\n]", text)]
    return tuple(dict.fromkeys(filter(None, names)))[:MAX_PROGRAMS]


class Preferences(Frozen):
    """The contents of preferences.json."""

    v: int = 1
    model_folders: tuple[str, ...] = Field((), description="Library folders that were added on the Models page.")
    automation: Automation = Field(Automation(), description="What happens by itself between runs, and game mode.")


def read(workspace: Workspace) -> Preferences:
    """Read the preferences; the defaults if there are none or the file is unreadable."""
    return files.read_model(Preferences, workspace.root / PREFERENCES) or Preferences()


def choose(workspace: Workspace, **changes: object) -> Preferences:
    """Write the preferences with these changes and return them; unknown names are ignored. Raises RecipeError for an
    invalid value, and if the file cannot be read or written."""
    file = workspace.root / PREFERENCES
    try:
        kept = files.read_model(Preferences, file, for_update=True) or Preferences()
        chosen = Preferences.model_validate(kept.model_dump() | changes)
        files.replace_json(file, chosen.model_dump())
    except ValidationError:
        raise RecipeError("preferences.no_choice", found=str(changes)[:100]) from None
    except OSError as error:
        raise RecipeError("preferences.cannot_save", reason=error.strerror or error) from error
    return chosen
