"""Merges an adapter into its freshly read 16-bit base, W + s * B @ A, as an ordinary Hugging Face folder. Never into 4
bit.

LoRA, rsLoRA and DoRA are merged from file to file, some rows of a tensor at a time: each sum is formed in float32 and
rounded once, and memory holds a few MiB for each core. Adapters with more than those (trained embeddings, biases, ...)
go through peft's merge_and_unload on the loaded model: 4 bytes a parameter, 2 if memory is short. Workers only (torch).
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
# Files of a base folder that belong to the merged one too; weights, cards and this app's records do not.
COMPANIONS = ("*.json", "*.jinja", "*.txt", "*.model", "LICENSE*", "NOTICE*", "USE_POLICY*")
# chat_template.json: an older place of the template, which would contradict ours.
EXCLUDED = {INDEX, "starter.json", "adapter_config.json", "chat_template.json"}
AT_ONCE = 1 << 20  # numbers merged at once: 4 MiB in float32, which fits into the cache of a core
MAX_CORES = 8  # with more, the disk is the limit
Maker = Callable[[], torch.Tensor]  # makes a piece in its thread's scratch buffer, valid until the next call
STORED = {dtype: name for name, dtype in FLOATS.items()}


class _Scratch(threading.local):
    """Reusable buffers of a thread, one for each dtype: malloc would fetch and clear the same pages from the system for
    each piece."""

    def __init__(self) -> None:
        self._buffers: dict[torch.dtype, torch.Tensor] = {}

    def copied(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return the tensor in dtype, in a buffer that the thread's next call overwrites."""
        buffer = self._buffers.get(dtype)
        if buffer is None or buffer.numel() < tensor.numel():
            buffer = self._buffers[dtype] = torch.empty(tensor.numel(), dtype=dtype)
        return buffer[: tensor.numel()].view(tensor.shape).copy_(tensor)


_scratch = _Scratch()


def merge(base: Base, adapter: Path, target: Path, progress: Progress, check: Check) -> None:
    """Make the folder target: config, tokenizer, template without training markers, and the merged weights in the types
    given by base.written_as; tensor by tensor where `lora_pairs` allows it, else with peft in RAM."""
    target.mkdir(parents=True)
    copy_companions(base, adapter, target)
    pairs = lora_pairs(base, adapter)
    if pairs is None:
        _merge_with_peft(base, adapter, target, check)
    else:
        _merge_streaming(base, adapter, pairs, target, progress, check)


def copy_companions(base: Base, adapter: Path, target: Path) -> None:
    """Copy config, tokenizer, licence and chat template of the base and the adapter into target; the adapter's
    tokenizer and template replace the base's, config gets the dtype, and the template has no training markers."""
    for pattern in COMPANIONS:
        for file in base.folder.glob(pattern):
            if file.is_file() and file.name not in EXCLUDED:
                shutil.copyfile(file, target / file.name)
    for name in TOKENIZER_FILES:
        if (adapter / name).exists():
            shutil.copyfile(adapter / name, target / name)
    config = files.read_object(target / "config.json")
    # The old name of `dtype`, which would contradict the new one.
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
    """Merge one stored tensor after the other into files of the base's names, with an index if there are several,
    without a model in memory."""
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
                _in_thread_pool() as start,
            ):
                for name in stored:
                    check()
                    pieces = _pieces(weights.get_tensor(name), base.written_as(name), pairs.get(name), lora)
                    place = written.places[name]
                    for size, make in pieces:
                        start(partial(_put_tensor, written, place, make))
                        place += size
                    done += 1
                    progress(done / len(base.tensors))
            weight_map |= dict.fromkeys(stored, file.name)
    # As Transformers writes it: a model in one file has no index.
    if len(set(weight_map.values())) > 1:
        total = sum((target / name).stat().st_size for name in set(weight_map.values()))
        files.replace_json(target / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _put_tensor(file: SafetensorsFile, place: int, make: Maker) -> None:
    """Compute a piece of a tensor by make() and write its bytes at the offset `place` of the file; run in a thread."""
    file.put(place, make())


def _pieces(tensor: torch.Tensor, dtype: torch.dtype, pair: Pair | None, lora: Any) -> Iterator[tuple[int, Maker]]:
    """Yield (bytes, function that returns them as a tensor) for successive rows of the merged tensor in dtype, W + s B
    A (with DoRA's magnitudes); without a pair the tensor converted alone. lora: the adapter's file."""
    if pair is None:
        dtype = dtype if tensor.is_floating_point() else tensor.dtype
        for part in tensor.reshape(-1).split(AT_ONCE):
            yield part.numel() * dtype.itemsize, partial(_in_dtype, part, dtype)
        return
    a, b = (lora.get_tensor(key).float() for key in (pair.a, pair.b))
    lengths = lora.get_tensor(pair.magnitude).float() if pair.magnitude else None

    def merged_rows(start: int, stop: int) -> torch.Tensor:
        """Return the rows with the adapter's product added, and DoRA's lengths, in the type that is written."""
        tuned = _scratch.copied(tensor[start:stop], torch.float32)
        if pair.experts:
            tuned.add_(pair.product(a, b, start, stop), alpha=pair.scale)
        else:  # without B A in memory: a third of the time of a merge went into that
            tuned.addmm_(b[start:stop], a, alpha=pair.scale)
        if lengths is not None:  # DoRA: each row gets the length that was learned for it (arXiv:2402.09353)
            tuned *= lengths[start:stop, None] / torch.linalg.norm(tuned, dim=1, keepdim=True)
        return _in_dtype(tuned, dtype)

    wide = math.prod(tensor.shape[1:])
    at_once = max(1, AT_ONCE // max(1, wide))
    for start in range(0, len(tensor), at_once):
        stop = min(len(tensor), start + at_once)
        yield (stop - start) * wide * dtype.itemsize, partial(merged_rows, start, stop)


def _in_dtype(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the tensor itself if it has this dtype, else its values in dtype in the thread's scratch buffer, which the
    next call overwrites."""
    return tensor if tensor.dtype == dtype else _scratch.copied(tensor, dtype)


@contextmanager
def _in_thread_pool() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Yield a function that runs an action in a thread pool. All are done at the end of the block, which raises the
    first error.

    Each action has one core: torch's own threads wait for each other at every small product, which took most of a merge
    on a busy PC. There is one more thread than cores, because another may be waiting to write.
    """
    before, cores = torch.get_num_threads(), min(MAX_CORES, psutil.cpu_count(logical=False) or 1)
    torch.set_num_threads(1)
    pool, pending = ThreadPoolExecutor(cores + 1), deque[Future[None]]()

    def submit_bounded(action: Callable[[], None]) -> None:
        """Start an action; wait for the oldest one if too many are waiting."""
        pending.append(pool.submit(action))
        # An action that waits keeps its tensor in memory.
        if len(pending) > 2 * cores:
            pending.popleft().result()

    try:
        yield submit_bounded
        while pending:
            pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


# ---- through peft --------------------------------------------------------------------------------
def _merge_with_peft(base: Base, adapter: Path, target: Path, check: Check) -> None:
    """Merge a whole model in RAM and save it to target, for adapters that `lora_pairs` refuses. Raises ExportError for
    a family whose tower cannot be loaded. Computes in float32 if there is room for it."""
    from core.engine import base_model
    from core.engine.adapter import attach
    from core.engine.device import Compute
    from core.engine.families import mended
    from core.messages import msg

    # 4 bytes a parameter for the model in float32, and one for what lies beside it.
    roomy = psutil.virtual_memory().available > 5 * base.parameters
    dtype = torch.float32 if roomy else base.dtype  # float32: each sum is rounded once
    model = base_model.load(
        base.folder, Compute(torch.device("cpu"), dtype, msg("export.merging_on_cpu")), four_bit=False, keep_towers=True
    )
    if mended.lacks_vision_tower(model):
        raise ExportError("export.tower_lacking", model_type=model.config.model_type)
    check()
    merged = attach(model, adapter).merge_and_unload(safe_merge=True).to(base.dtype)
    check()
    # base_model.load has switched it off for training; a merged model is there to answer.
    merged.config.use_cache = True
    merged.save_pretrained(target)
    copy_companions(base, adapter, target)  # save_pretrained wrote its own config; ours keeps the base's fields
