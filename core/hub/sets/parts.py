"""Which files of a repository belong to which part (configuration and split) of its dataset, or why none can be read.

The hub converts most sets into Parquet, on a branch of its own (`refs/convert/parquet`, <config>/<split>/0000.parquet; "partial-<split>"
where it stopped at 5 GB). Where it has not, the repository's own files are sorted as its card says (`configs`), else by the names that
the library `datasets` goes by (train, validation, test). Only names that stay below one folder on any system are ever taken.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from core.errors import DataError
from core.hub.listing import File, Listing

CONVERTED = "refs/convert/parquet"
DEFAULT = "default"
KINDS = {
    ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".txt": "txt",
}  # fmt: skip
PACKED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_MEDIA = (
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".mp4", ".webm",
    ".mkv", ".avi", ".mov", ".tar", ".npz", ".npy",
)  # fmt: skip
_ABOUT_IT = {
    "readme.txt", "license.txt", "requirements.txt", "dataset_info.json", "dataset_infos.json", "state.json", "config.json",
}  # fmt: skip
_WORDS = {"train": ("train", "training"), "validation": ("validation", "valid", "dev", "val"), "test": ("test", "testing", "eval", "evaluation")}  # fmt: skip
_SAFE = re.compile(r"(?:(?!\.)[^\x00-\x1f<>:\"/\\|?*]{1,120}(?<![. ])/){0,6}(?!\.)[^\x00-\x1f<>:\"/\\|?*]{1,160}(?<![. ])")
_OF_CONVERTED = re.compile(r"([^/]+)/(partial-)?([^/]+)/\d+\.parquet")
SHOWN = 3  # names in a sentence


@dataclass(frozen=True)
class Part:
    """kind: parquet, jsonl, json, csv, tsv or txt, of all its files. listing: of the commit they are of. is_partial: the hub stopped converting it."""

    config: str
    split: str
    kind: str
    files: tuple[File, ...]
    listing: Listing
    is_partial: bool = False

    @property
    def bytes(self) -> int:
        return sum(file.size or 0 for file in self.files)


def parts_of(own: Listing, converted: Listing | None) -> list[Part]:
    """What can be read, in the order in which the repository names it. Raises DataError with the reason where that is nothing."""
    found = [*_converted(converted)] if converted else []
    there = {part.config for part in found} | ({DEFAULT} if found else set())
    found += [part for part in _own(own) if part.config not in there]  # all, or configurations that it could not convert
    if not found:
        raise _nothing(own)
    return found


def part_of(parts: list[Part], repo: str, named: tuple[str, ...]) -> Part:
    """The one that was named: by configuration and split, by either, or the first. Raises DataError that names what there is."""
    if len(named) == 2:
        for part in parts:
            if (part.config, part.split) == named:
                return part
    elif named:
        of_config = [part for part in parts if part.config == named[0]]
        of_split = [part for part in parts if part.split == named[0]]
        if of_config or of_split:
            return _first(of_config or of_split)
    else:
        return _first(parts)
    there = [f"{part.config}:{part.split}" for part in parts]
    shown = [*there[:30], *(["…"] if len(there) > 30 else [])]
    raise DataError("hub_set.no_such_part", repo=repo, found=":".join(named)[:100], there=shown)


def _first(parts: list[Part]) -> Part:
    """What is there to be learned: the part named train, of the first configuration."""
    return next((part for part in parts if part.config == parts[0].config and part.split == "train"), parts[0])


def safe_name(name: str) -> bool:
    return _SAFE.fullmatch(name) is not None


def _converted(listing: Listing) -> Iterable[Part]:
    sorted_by: dict[tuple[str, str, bool], list[str]] = {}
    for name in listing.siblings:
        found = _OF_CONVERTED.fullmatch(name)
        if found and safe_name(name):
            sorted_by.setdefault((found[1], found[3], bool(found[2])), []).append(name)
    for (config, split, is_partial), names in sorted_by.items():
        if not is_partial or (config, split, False) not in sorted_by:
            yield Part(config, split, "parquet", tuple(listing.file(name) for name in sorted(names)), listing, is_partial)


# --- the repository's own files
def _own(listing: Listing) -> Iterable[Part]:
    names = [name for name in listing.siblings if kind_of(name) and safe_name(name) and name.lower() not in _ABOUT_IT]
    sorted_by = _by_card(listing.info.card_data, names) or _by_name(names)
    for (config, split), found in sorted_by.items():
        kind = Counter(kind_of(name) for name in found).most_common(1)[0][0]
        chosen = sorted(name for name in found if kind_of(name) == kind)
        yield Part(config, split, kind, tuple(listing.file(name) for name in chosen), listing)


def kind_of(name: str) -> str:
    """ "" for what is no file of rows."""
    stem = next((name[: -len(ending)] for ending in PACKED if name.lower().endswith(ending)), name)
    kind = KINDS.get("." + stem.rpartition("/")[2].rpartition(".")[2].lower(), "")
    return "" if stem != name and kind == "parquet" else kind


def _by_card(card: Any, names: list[str]) -> dict[tuple[str, str], list[str]]:
    """As the card's `configs` say: data_files is a pattern, a list of them, or a list of {split, path}."""
    told = card.get("configs") if card else None
    sorted_by: dict[tuple[str, str], list[str]] = {}
    for config in told if isinstance(told, list) else ():
        if not isinstance(config, dict) or "data_files" not in config:
            continue
        files = config["data_files"]
        entries = [{"split": split, "path": path} for split, path in files.items()] if isinstance(files, dict) else files
        for entry in entries if isinstance(entries, list) else [entries]:
            split, path = (entry.get("split", "train"), entry.get("path")) if isinstance(entry, dict) else ("train", entry)
            patterns = [_pattern(each) for each in (path if isinstance(path, list) else [path]) if isinstance(each, str)]
            found = [name for name in names if any(pattern.fullmatch(name) for pattern in patterns)]
            if found:
                key = str(config.get("config_name", DEFAULT)), str(split)
                sorted_by[key] = [*sorted_by.get(key, []), *found]
    return sorted_by


def _pattern(glob: str) -> re.Pattern[str]:
    """* stays within a folder, ** does not."""
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", glob.removeprefix("./"))
    meant = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meant.get(piece, re.escape(piece)) for piece in pieces))


def _by_name(names: list[str]) -> dict[tuple[str, str], list[str]]:
    sorted_by: dict[tuple[str, str], list[str]] = {}
    for split, words in _WORDS.items():
        found = [name for name in names if not set(words).isdisjoint(re.split(r"[/\-._ 0-9]+", name.lower()))]
        if found:
            sorted_by[DEFAULT, split] = found
    return sorted_by or ({(DEFAULT, "train"): names} if names else {})


def _nothing(listing: Listing) -> DataError:
    repo, names = listing.repo_id, [name for name in listing.siblings if name != ".gitattributes"]
    script = f"{repo.rpartition('/')[2]}.py"
    if script in names:
        return DataError("hub_set.only_script", repo=repo, file=script)
    media = [name for name in names if name.lower().endswith(_MEDIA)]
    if media:
        return DataError("hub_set.only_media", repo=repo, found=media[:SHOWN])
    others = [
        "".join(c if c.isprintable() else "?" for c in name) for name in names if name.lower() not in ("readme.md", *_ABOUT_IT)
    ]
    if others:
        return DataError("hub_set.nothing_readable", repo=repo, found=others[:SHOWN], kinds=sorted(KINDS))
    return DataError("hub_set.empty", repo=repo)
