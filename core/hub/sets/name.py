"""Names of hub datasets: owner/name[:config][:split] for users, datasets/owner/name:config:split[:rows] in the list of
downloads."""

from __future__ import annotations

import re
from dataclasses import dataclass

from core.errors import DataError
from core.hub.cached import REPO_ID

PAGES = "datasets/"  # path prefix of datasets on a hub
_NAME = r'[^\x00-\x20<>:"/\\|?*\[\]]{1,100}'  # characters that the hub's library allows in a configuration or a split
_PART = re.compile(rf"datasets/([^:\s]+):({_NAME}):({_NAME})(?:\[:(\d{{1,9}})\])?")
_ADDRESS = re.compile(r"https?://[^/\s]+/(?:datasets/)?|datasets/")  # as copied from a browser
_AFTER = re.compile(r"(/viewer|/tree|/blob|/resolve|[?#]).*")


@dataclass(frozen=True)
class SetName:
    """A dataset's name as the user wrote it. named: the part after the repository, a configuration, a split or both."""

    repo: str
    named: tuple[str, ...] = ()

    @classmethod
    def parse(cls, written: str) -> SetName:
        """Parse owner/name[:config][:split], or an address copied from a browser. Raises DataError."""
        rest = written.strip()
        address = _ADDRESS.match(rest)
        if address:
            rest = _AFTER.sub("", rest[address.end() :])
        repo, *named = rest.split(":")
        if not REPO_ID.fullmatch(repo) or len(named) > 2 or not all(re.fullmatch(_NAME, name) for name in named):
            raise DataError("hub_set.bad_id", found=written.strip()[:100])
        return cls(repo, tuple(named))

    @classmethod
    def looks_like(cls, written: str) -> bool:
        """Return whether written can be read as a dataset's name."""
        try:
            cls.parse(written)
        except DataError:
            return False
        return True


@dataclass(frozen=True)
class PartName:
    """One configuration and split of a dataset. rows: only so many from its beginning; 0 for all."""

    repo: str
    config: str
    split: str
    rows: int = 0

    def __str__(self) -> str:
        """Return the part's name in the list of downloads, datasets/owner/name:configuration:split, with [:rows] if
        only some rows are meant."""
        return f"datasets/{self.shown}" + (f"[:{self.rows}]" if self.rows else "")

    @property
    def shown(self) -> str:
        """The part's name for people, owner/name:configuration:split, without the number of rows."""
        return f"{self.repo}:{self.config}:{self.split}"

    @classmethod
    def parse(cls, written: str) -> PartName | None:
        """Parse a name from the list of downloads; None for a model's."""
        match = _PART.fullmatch(written)
        if not match or not REPO_ID.fullmatch(match[1]):
            return None
        return cls(match[1], match[2], match[3], int(match[4] or 0))
