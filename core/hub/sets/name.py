"""The name of a hub dataset: owner/name[:config][:split] for people, datasets/owner/name:config:split[:rows] in the
list of downloads."""

from __future__ import annotations

import re
from dataclasses import dataclass

from core.errors import DataError
from core.hub.cached import REPO_ID

PAGES = "datasets/"  # where a hub has the pages of sets
_NAME = r'[^\x00-\x20<>:"/\\|?*\[\]]{1,100}'  # what the hub's library lets a configuration or a split be named
_PART = re.compile(rf"datasets/([^:\s]+):({_NAME}):({_NAME})(?:\[:(\d{{1,9}})\])?")
_ADDRESS = re.compile(r"https?://[^/\s]+/(?:datasets/)?|datasets/")  # as copied from a browser
_AFTER = re.compile(r"(/viewer|/tree|/blob|/resolve|[?#]).*")


@dataclass(frozen=True)
class SetName:
    """What somebody wrote. named: what stood after the repository, a configuration, a split or both."""

    repo: str
    named: tuple[str, ...] = ()

    @classmethod
    def parse(cls, written: str) -> SetName:
        """Raises DataError."""
        told = written.strip()
        address = _ADDRESS.match(told)
        if address:
            told = _AFTER.sub("", told[address.end() :])
        repo, *named = told.split(":")
        if not REPO_ID.fullmatch(repo) or len(named) > 2 or not all(re.fullmatch(_NAME, name) for name in named):
            raise DataError("hub_set.bad_id", found=written.strip()[:100])
        return cls(repo, tuple(named))

    @classmethod
    def looks_like(cls, written: str) -> bool:
        try:
            cls.parse(written)
        except DataError:
            return False
        return True


@dataclass(frozen=True)
class PartName:
    """One configuration and split of a set. rows: only so many from its beginning; 0 for all."""

    repo: str
    config: str
    split: str
    rows: int = 0

    def __str__(self) -> str:
        return f"datasets/{self.shown}" + (f"[:{self.rows}]" if self.rows else "")

    @property
    def shown(self) -> str:
        return f"{self.repo}:{self.config}:{self.split}"

    @classmethod
    def parse(cls, written: str) -> PartName | None:
        """Of a name in the list of downloads; None for a model's."""
        found = _PART.fullmatch(written)
        if not found or not REPO_ID.fullmatch(found[1]):
            return None
        return cls(found[1], found[2], found[3], int(found[4] or 0))
