"""A dataset on the Hub through the `datasets` library: its parts with features and sizes, and their rows as a stream.

For worker processes: the library imports pandas. It runs no Python of a repository (since its version 4), and only
kinds of files that hold rows as text are read (KINDS). A card may name any address, so files that are not in the
listing are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

import datasets
import pyarrow
from datasets import (
    BuilderConfig,
    ClassLabel,
    DownloadConfig,
    Features,
    IterableDataset,
    LargeList,
    List,
    packaged_modules,
)
from datasets.builder import Key
from datasets.data_files import DataFilesDict, DataFilesList, EmptyDatasetError
from datasets.exceptions import DataFilesNotFoundError
from datasets.features import Json
from datasets.load import DatasetModule, HubDatasetModuleFactory, import_main_class
from datasets.packaged_modules.parquet.parquet import Parquet
from datasets.table import CastError
from datasets.utils.file_utils import xopen
from huggingface_hub import HfFileSystem, constants
from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled
from pyarrow.parquet import ParquetFile

from core.errors import DataError, GarageError, reason_of
from core.files import JsonObject
from core.hub.hub_errors import NotAHub
from core.hub.listing import File, Listing
from core.hub.sets.about import AboutPart, select_part
from core.hub.transfer import TransferStopped

# the library's modules; the others are for media, or need more libraries
KINDS = ("parquet", "json", "csv", "text", "arrow")
OWN_SUFFIXES = {".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".txt"}  # files that core.data.reading reads directly
FEW = 5  # configurations
BUFFER = 1 << 20  # bytes of a Parquet column per request
BATCH = 100  # rows of Parquet
SHOWN = 3  # file names in a message
SAFE = re.compile(
    r"(?:(?!\.)[^\x00-\x1f<>:\"/\\|?*]{1,120}(?<![. ])/){0,6}(?!\.)[^\x00-\x1f<>:\"/\\|?*]{1,160}(?<![. ])"
)
# “NA” is a word, not a missing value
_READ_OPTIONS: dict[str, JsonObject] = {"csv": {"keep_default_na": False}, "text": {"sample_by": "paragraph"}}


@dataclass(frozen=True)
class Part:
    """One configuration and split. features: from the card or the hub. options: the card's, for the library."""

    about: AboutPart
    files: tuple[File, ...]
    features: Features | None = None
    options: JsonObject = field(default_factory=dict)

    @property
    def has_own_reader(self) -> bool:
        """True if core.data.reading can read all of its files without the `datasets` library: known endings, no option
        but a separator, no class labels."""
        is_plain = not self.options.keys() - {"sep", "delimiter"} and "ClassLabel(" not in repr(self.features)
        return is_plain and all(Path(file.name).suffix.lower() in OWN_SUFFIXES for file in self.files)


def configure(cache: Path) -> None:
    """Set the library up for this process: cards and indexes go into cache; a broken connection raises at once, because
    the caller retries; no progress bars."""
    constants.HF_HUB_CACHE = datasets.config.HF_DATASETS_CACHE = str(cache)
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # it would report the dataset to another address
    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
    datasets.config.STREAMING_READ_RETRY_INTERVAL = datasets.config.STREAMING_OPEN_RETRY_INTERVAL = 0
    # The datasets server, which knows rows and features that a card lacks, exists only for huggingface.co.
    datasets.config.USE_PARQUET_EXPORT = constants.ENDPOINT == constants._HF_DEFAULT_ENDPOINT
    datasets.disable_progress_bars()


def parts_of(listing: Listing) -> list[Part]:
    """Return the readable parts as the card lists them, the default configuration first. Raises DataError for a set
    with a script, of media or without readable files; HTTPError."""
    repo = listing.repo_id
    script = f"{repo.rpartition('/')[2]}.py"
    if script in listing.siblings:
        raise DataError("hub_set.only_script", repo=repo, file=script)
    module = _module(listing)
    kind = module.module_path.rpartition(".")[2]
    if kind not in KINDS:
        raise _no_readable_files(
            listing, "hub_set.only_media" if kind.endswith("folder") or kind == "webdataset" else ""
        )
    parameters = module.builder_configs_parameters
    configs = sorted(parameters.builder_configs, key=lambda config: config.name != parameters.default_config_name)
    if len(configs) > FEW:  # list all folders in one request instead of one for each
        HfFileSystem(endpoint=datasets.config.HF_ENDPOINT, token=listing.token).find(module.builder_kwargs["base_path"])
    parts = [part for config in configs for part in _parts(listing, module, kind, config)]
    if not parts:
        raise _no_readable_files(listing)
    return parts


def part_named(listing: Listing, named: tuple[str, ...]) -> Part:
    """Return the part that `select_part` chooses by configuration and split. Raises DataError, HTTPError."""
    parts = parts_of(listing)
    chosen = select_part([part.about for part in parts], listing.repo_id, named)
    return next(part for part in parts if part.about is chosen)


def _module(listing: Listing) -> DatasetModule:
    """Return what the datasets library finds in the repository. Raises DataError without data files."""
    factory = HubDatasetModuleFactory(
        listing.repo_id,
        listing.commit,
        download_config=DownloadConfig(token=listing.token),
        use_exported_dataset_infos=True,
    )
    with refusing(listing.repo_id, "README.md"):
        try:
            return factory.get_module()
        except (EmptyDatasetError, DataFilesNotFoundError):
            raise _no_readable_files(listing) from None


def _parts(listing: Listing, module: DatasetModule, kind: str, config: BuilderConfig) -> Iterator[Part]:
    """Yield the splits of one configuration, with files, sizes and features; none if its files cannot be resolved."""
    base = module.builder_kwargs["base_path"]
    try:
        config._resolve_data_files(base, DownloadConfig(token=listing.token))
    except (FileNotFoundError, ValueError, ImportError):  # files that do not exist, or at another kind of address
        return
    infos = module.dataset_infos or {}
    info = infos.get(config.name) or (next(iter(infos.values())) if len(infos) == 1 else None)
    defaults = type(config)(name=config.name)
    values = {
        each.name: getattr(config, each.name)
        for each in fields(config)
        if each.name not in ("name", "data_files", "data_dir")
    }
    options = {name: value for name, value in values.items() if value != getattr(defaults, name)}
    for split, urls in config.data_files.items():
        names = [url.removeprefix(f"{base}/") for url in urls]
        part_files = tuple(listing.file(name) for name in names if name in listing.siblings and SAFE.fullmatch(name))
        size = (info.splits or {}).get(split) if info else None
        if part_files:
            about = AboutPart(
                config=config.name, split=str(split), kind=kind, files=len(part_files),
                bytes=sum(file.size or 0 for file in part_files),
                rows=size and size.num_examples, unpacked_bytes=size and size.num_bytes,
            )  # fmt: skip
            yield Part(about, part_files, info.features if info else None, options)


def _no_readable_files(listing: Listing, key: str = "") -> DataError:
    """Return the error (key, or that nothing is readable) that names some of the repository's files, or says that it
    has none."""
    about = ("readme", "license", ".gitattributes", "requirements", "dataset_info")
    names = [name for name in listing.siblings if not name.lower().startswith(about)]
    if not names:
        return DataError("hub_set.empty", repo=listing.repo_id)
    shown = ["".join(c if c.isprintable() else "?" for c in name) for name in names[:SHOWN]]
    return DataError(
        key or "hub_set.nothing_readable",
        repo=listing.repo_id,
        found=shown,
        kinds=sorted(OWN_SUFFIXES | {".parquet", ".arrow"}),
    )


# --- rows
class FrugalParquet(Parquet):
    """Reads of each column only as much as the requested rows need; the library's own reads a whole row group, often
    the file."""

    def _generate_tables(self, files: list[str], row_groups_list: list[None]) -> Iterator[tuple[Key, pyarrow.Table]]:
        """Yield batches of BATCH rows, read from the hub by ranges; the library itself reads row groups whole."""
        options = DownloadConfig(token=self.token, storage_options={"hf": {"block_size": BUFFER}})
        for number, file in enumerate(files):
            with (
                xopen(file, "rb", download_config=options) as raw,
                ParquetFile(raw, buffer_size=BUFFER, pre_buffer=False) as parquet,
            ):
                for batch, rows in enumerate(
                    parquet.iter_batches(BATCH, columns=self.config.columns, use_threads=False)
                ):
                    yield Key(number, batch), self._cast_table(pyarrow.Table.from_batches([rows]))


def stream(part: Part, listing: Listing, files: Sequence[str] = ()) -> IterableDataset:
    """Return a part's rows, unread, with pictures and sound undecoded. files: local copies of the part's files; without
    them from the hub. Raises DataError, HTTPError, OSError."""
    base = f"hf://datasets/{listing.repo_id}@{listing.commit}/"
    urls = list(files) or [base + file.name for file in part.files]
    name = part.about.kind
    options = {"features": part.features} | _READ_OPTIONS.get(name, {}) | part.options
    kind = FrugalParquet if name == "parquet" else import_main_class(f"{packaged_modules.__name__}.{name}.{name}")
    # Literal names, which load_dataset would interpret as patterns.
    data_files = DataFilesDict({"train": DataFilesList(urls, [(url,) for url in urls])})
    with refusing(listing.repo_id, part.files[0].name):
        rows = kind(data_files=data_files, token=listing.token, **options).as_streaming_dataset("train")
        # Pictures and sound stay undecoded; rows_of leaves them out. Set here, because state_dict belongs to this
        # dataset object.
        return rows.decode(False) if media(rows.features) else rows


def media(features: Features | None) -> list[str]:
    """Return the names of the columns that hold images, sound or video."""
    return [name for name, feature in (features or {}).items() if _is_media(feature)]


def _is_media(feature: object) -> bool:
    """Return whether a column holds images, sound or video, at any depth."""
    match feature:
        case dict():
            return any(map(_is_media, feature.values()))
        case List() | LargeList():
            return _is_media(feature.feature)
    return hasattr(feature, "decode_example") and not isinstance(feature, Json)


def rows_of(rows: IterableDataset) -> Iterator[JsonObject]:
    """Yield each row as JSON has it, classes by their names, without media. Raises what the library and the hub do
    (`refusing`)."""
    features = rows.features or Features()
    left_out = set(media(rows.features))
    for row in rows:
        yield {name: _as_json(value, features.get(name)) for name, value in row.items() if name not in left_out}


def _as_json(value: object, feature: object) -> object:
    """Return a cell as JSON, however nested: a class label by its name, bytes and non-finite numbers as None, other
    types as text."""
    if isinstance(feature, ClassLabel) and isinstance(value, int):
        return feature.int2str(value) if 0 <= value < feature.num_classes else None
    if isinstance(value, dict):
        inner = feature if isinstance(feature, dict) else {}
        return {str(name): _as_json(each, inner.get(name)) for name, each in value.items()}
    if isinstance(value, list):
        return [_as_json(each, getattr(feature, "feature", None)) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | int) or value is None:
        return value
    return None if isinstance(value, bytes) else str(value)


@contextmanager
def refusing(repo: str, file: str) -> Iterator[None]:
    """Context manager: replaces an error of the library by the hub's error behind it, else by DataError about the
    broken file."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the library, a card or a file may raise anything
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, GarageError | TransferStopped | HTTPError | NotAHub | OfflineModeIsEnabled) or (
                isinstance(cause, OSError) and cause.errno is not None
            ):
                raise cause from None
            if isinstance(cause, CastError):
                raise DataError("hub_set.other_columns", repo=repo, file=file) from None
            cause = cause.__cause__ or cause.__context__
        raise DataError("hub_set.broken_file", repo=repo, file=file, reason=reason_of(error)) from None
