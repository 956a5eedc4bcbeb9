"""W + BA: an adapter merged into its freshly read 16-bit base, as an ordinary Hugging Face folder. Never into 4 bit.

LoRA, rsLoRA and DoRA are merged from file to file, some rows of a tensor at a time: each sum is formed in float32 and
rounded once, and memory holds a few MiB for each core. What an adapter has beyond those (trained embeddings, biases,
...) goes through peft's merge_and_unload on the loaded model: 4 bytes a parameter, 2 where memory is short. Workers
only (torch).
"""

from __future__ import annotations

import math
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from core import files
from core.data.template import ChatTemplate
from core.errors import ExportError
from core.export.pairs import Pair, lora_pairs
from core.export.safetensors_file import SafetensorsFile
from core.export.stored import FLOATS, Base
from core.models.adapters import TOKENIZER_FILES
from core.models.weights import INDEX, open_tensors

Progress = Callable[[float], None]  # fraction of the work, 0 to 1
Check = Callable[[], None]  # raises StopRequested
# Everything a base folder may have that belongs to the merged one too; weights, cards and our own records do not.
KEPT = ("*.json", "*.jinja", "*.txt", "*.model", "LICENSE*", "NOTICE*", "USE_POLICY*")
# chat_template.json: an older place of the template, which would stand against ours.
NOT_KEPT = {INDEX, "starter.json", "adapter_config.json", "chat_template.json"}
AT_ONCE = 1 << 20  # numbers that are merged at once: 4 MiB in float32, which the cache of a core holds
MOST_CORES = 8  # a disk is no faster than they are
Maker = Callable[[], torch.Tensor]  # of a piece, which lasts until its thread makes the next
STORED = {dtype: name for name, dtype in FLOATS.items()}


class _Scratch(threading.local):
    """Where a thread works, again and again: malloc would fetch and clear the same pages from the system for each
    piece."""

    def __init__(self) -> None:
        self._kept: dict[torch.dtype, torch.Tensor] = {}

    def copied(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        kept = self._kept.get(dtype)
        if kept is None or kept.numel() < tensor.numel():
            kept = self._kept[dtype] = torch.empty(tensor.numel(), dtype=dtype)
        return kept[: tensor.numel()].view(tensor.shape).copy_(tensor)


_scratch = _Scratch()


def merge(base: Base, adapter: Path, target: Path, progress: Progress, check: Check) -> None:
    """target, made new: config, tokenizer, template without our markers, weights of the types that base.written_as
    tells."""
    target.mkdir(parents=True)
    copy_companions(base, adapter, target)
    pairs = lora_pairs(base, adapter)
    if pairs is None:
        _merge_with_peft(base, adapter, target, check)
    else:
        _merge_streaming(base, adapter, pairs, target, progress, check)


def copy(base: Base, adapter: Path, target: Path, progress: Progress, check: Check) -> None:
    """The base as it is, in a folder of ours, with the adapter's tokenizer and template."""
    target.mkdir(parents=True)
    copy_companions(base, adapter, target)
    _merge_streaming(base, adapter, {}, target, progress, check)


def copy_companions(base: Base, adapter: Path, target: Path) -> None:
    for pattern in KEPT:
        for file in base.folder.glob(pattern):
            if file.is_file() and file.name not in NOT_KEPT:
                shutil.copyfile(file, target / file.name)
    for name in TOKENIZER_FILES:
        if (adapter / name).exists():
            shutil.copyfile(adapter / name, target / name)
    config = files.read_object(target / "config.json")
    config.pop("torch_dtype", None)
    config.pop("_name_or_path", None)
    files.replace_json(target / "config.json", config | {"dtype": base.dtype_name})
    source = (adapter / "chat_template.jinja").read_text("utf-8")
    (target / "chat_template.jinja").write_text(ChatTemplate(source).without_markers, "utf-8", newline="\n")
    tokenizer = files.read_object(target / "tokenizer_config.json")
    if tokenizer.pop("chat_template", None):
        files.replace_json(target / "tokenizer_config.json", tokenizer)  # one template, in its own file


# ---- streaming -----------------------------------------------------------------------------------
def _merge_streaming(
    base: Base, adapter: Path, pairs: dict[str, Pair], target: Path, progress: Progress, check: Check
) -> None:
    done = 0
    weight_map: dict[str, str] = {}
    with open_tensors(adapter / "adapter_model.safetensors") as lora:
        for file in sorted({t.file for t in base.tensors.values()}):
            stored = {name: t for name, t in base.tensors.items() if t.file == file}
            shapes = {
                name: (STORED[base.written_as(name)] if t.dtype in FLOATS else t.dtype, t.shape)
                for name, t in stored.items()
            }
            with (
                open_tensors(file) as weights,
                SafetensorsFile(target / file.name, shapes) as written,
                _at_once() as start,
            ):
                for name in stored:
                    check()
                    pieces = _pieces(weights.get_tensor(name), base.written_as(name), pairs.get(name), lora)
                    place = written.places[name]
                    for size, make in pieces:
                        start(partial(_write, written, place, make))
                        place += size
                    done += 1
                    progress(done / len(base.tensors))
            weight_map |= dict.fromkeys(stored, file.name)
    if len(set(weight_map.values())) > 1:
        total = sum((target / name).stat().st_size for name in set(weight_map.values()))
        files.replace_json(target / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _write(file: SafetensorsFile, place: int, make: Maker) -> None:
    file.put(place, make())


def _pieces(tensor: torch.Tensor, dtype: torch.dtype, pair: Pair | None, lora: Any) -> Iterator[tuple[int, Maker]]:
    """Of the merged tensor, some rows after others: how many bytes, and what makes them. lora: the adapter's file."""
    if pair is None:
        dtype = dtype if tensor.is_floating_point() else tensor.dtype
        for part in tensor.reshape(-1).split(AT_ONCE):
            yield part.numel() * dtype.itemsize, partial(_as, part, dtype)
        return
    a, b = (lora.get_tensor(key).float() for key in (pair.a, pair.b))
    lengths = lora.get_tensor(pair.magnitude).float() if pair.magnitude else None

    def rows(start: int, stop: int) -> torch.Tensor:
        tuned = _scratch.copied(tensor[start:stop], torch.float32)
        if pair.experts:
            tuned.add_(pair.product(a, b, start, stop), alpha=pair.scale)
        else:  # without B A in memory: a third of the time of a merge went into that
            tuned.addmm_(b[start:stop], a, alpha=pair.scale)
        if lengths is not None:  # DoRA: each row gets the length that was learned for it (arXiv:2402.09353)
            tuned *= lengths[start:stop, None] / torch.linalg.norm(tuned, dim=1, keepdim=True)
        return _as(tuned, dtype)

    wide = math.prod(tensor.shape[1:])
    at_once = max(1, AT_ONCE // max(1, wide))
    for start in range(0, len(tensor), at_once):
        stop = min(len(tensor), start + at_once)
        yield (stop - start) * wide * dtype.itemsize, partial(rows, start, stop)


def _as(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor if tensor.dtype == dtype else _scratch.copied(tensor, dtype)


@contextmanager
def _at_once() -> Iterator[Callable[[Callable[[], None]], None]]:
    """What is started here is done when it ends, or what the first of it raised is. Each on one core: torch's own
    threads wait for each other at every small product, which on a busy PC was most of a merge. One more than there are
    cores: another may be waiting to write."""
    before, cores = torch.get_num_threads(), min(MOST_CORES, psutil.cpu_count(logical=False) or 1)
    torch.set_num_threads(1)
    pool, coming = ThreadPoolExecutor(cores + 1), deque[Future[None]]()

    def start(act: Callable[[], None]) -> None:
        coming.append(pool.submit(act))
        if len(coming) > 2 * cores:
            coming.popleft().result()

    try:
        yield start
        while coming:
            coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


# ---- through peft --------------------------------------------------------------------------------
def _merge_with_peft(base: Base, adapter: Path, target: Path, check: Check) -> None:
    from core.engine import base_model
    from core.engine.adapter import attach
    from core.engine.device import Compute
    from core.engine.families import mended
    from core.messages import msg

    roomy = psutil.virtual_memory().available > 5 * base.parameters
    dtype = torch.float32 if roomy else base.dtype  # float32: each sum is rounded once
    model = base_model.load(
        base.folder, Compute(torch.device("cpu"), dtype, msg("export.merging_on_cpu")), four_bit=False, keep_towers=True
    )
    if mended.lacks_tower(model):
        raise ExportError("export.tower_lacking", model_type=model.config.model_type)
    check()
    merged = attach(model, adapter).merge_and_unload(safe_merge=True).to(base.dtype)
    check()
    merged.config.use_cache = True
    merged.save_pretrained(target)
    copy_companions(base, adapter, target)  # save_pretrained wrote a config of its own; ours keeps the base's words
