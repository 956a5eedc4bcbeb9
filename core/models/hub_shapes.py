"""The shape of a hub model from the headers of its weight files, before any download. No torch.

Reads config.json, the index of a sharded model, and the first kilobytes of its files, several at once.
`huggingface_hub.get_safetensors_metadata` would read 100 kB of every file, keep the index in the cache, and read the
weights from a server without range requests. Here no request exceeds its limit, and all together read no more than
about 1 MB: for a model in many files only the first one's header is read, and the index has the size of the others.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from core.errors import ModelError
from core.files import JsonObject
from core.hub import cached, peek
from core.models import headers
from core.models.headers import Tensor
from core.models.shapes.shape import Held, ModelShape

START = 32 << 10  # bytes of a file that are asked for first: the header of a usual shard
MAX_FILES = 8  # up to which all headers are read; for more, the index and the first file


def fetch_shape(repo_id: str, revision: str | None = None, endpoint: str | None = None) -> ModelShape:
    """Return the shape of a model on the hub, with the counts of its files' headers, of which nothing is stored. Of
    more than MAX_FILES files only the first is read, and the counts are extrapolated.

    If the headers cannot be read (another format, a broken header), the shape is derived from config.json alone, and
    its source says so. Raises ModelError as `download.fetch`, and for headers that contradict config.json.
    """
    with ThreadPoolExecutor(MAX_FILES, thread_name_prefix="hub-headers") as pool:
        index = pool.submit(_index, repo_id, revision, endpoint)
        config = peek.fetch_config(repo_id, revision, endpoint)
        shape = ModelShape.from_config(config)
        try:
            files = _files(index.result())
            several = len(files) > MAX_FILES
            parts = list(
                pool.map(lambda name: _tensors(repo_id, name, revision, endpoint), files[:1] if several else files)
            )
        except (ModelError, ValueError, KeyError, RecursionError):
            return shape
    tensors = [tensor for one in parts for tensor in one]
    if several and (full_index := index.result()) is not None:
        return shape.with_held(_scaled(tensors, full_index, config, shape))
    headers.refuse_contradiction(tensors, config, shape)
    return shape.with_held(headers.count_weights(tensors, config, shape))


def _index(repo_id: str, revision: str | None, endpoint: str | None) -> JsonObject | None:
    """Return the index of a sharded model; None if the hub has no such file: then the model should be in one file.
    Raises ValueError for anything else."""
    try:
        content = json.loads(peek.fetch_start(repo_id, cached.INDEX, revision, endpoint))
    except ModelError as error:
        if error.message.key == "hub.no_config":
            return None
        raise
    if not isinstance(content, dict) or not isinstance(content.get("weight_map"), dict):
        raise ValueError("no index")
    return content


def _files(index: JsonObject | None) -> list[str]:
    """Return the names of the model's files by its index; without one, the single file's. Raises ValueError if they are
    no names of shards."""
    if index is None:
        return [cached.SINGLE]
    names = sorted({str(name) for name in index["weight_map"].values()})
    if not names or not all(cached.SHARD.fullmatch(name) for name in names):
        raise ValueError("no shards")
    return names


def _tensors(repo_id: str, name: str, revision: str | None, endpoint: str | None) -> list[Tensor]:
    """Fetch the header of a safetensors file by range requests. Raises ValueError if it is too long."""
    start = peek.fetch_start(repo_id, name, revision, endpoint, START)
    end = 8 + headers.header_length(start)
    if end > peek.SMALL_FILE:
        raise ValueError("too long")
    if len(start) < end:
        start = peek.fetch_start(repo_id, name, revision, endpoint, end)
    return headers.parse(start[8:end])


def _scaled(tensors: list[Tensor], index: JsonObject, config: JsonObject, shape: ModelShape) -> Held | None:
    """Return the counts of a model in many files, extrapolated from the first file's tensors by the bytes of the index;
    None without these.

    The part that stays in 16 bit is derived from config.json.
    """
    total = index.get("metadata", {}).get("total_size") if isinstance(index.get("metadata"), dict) else None
    first = headers.count_weights(tensors, config, shape)
    if first is None or not isinstance(total, int) or total <= 0:
        return None
    params = (
        round((first.params + first.beside) * total / sum(tensor.stored_bytes for tensor in tensors)) - first.beside
    )
    left_out = shape.tie_word_embeddings and any(name.startswith("lm_head.") for name in index["weight_map"])
    params -= shape.vocab_size * shape.hidden_size if left_out and not first.quantised else 0
    if first.quantised:
        return Held(params=max(1, params), four_bit=shape.linear_params, stored_bytes=total, quantised=first.quantised)
    return Held(params=max(1, params), beside=first.beside, four_bit=min(shape.linear_params, params))
