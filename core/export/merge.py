"""W + BA: an adapter merged into its freshly read 16-bit base, as an ordinary Hugging Face folder. Never into 4 bit.

LoRA, rsLoRA and DoRA are merged from file to file, some rows of a tensor at a time: each sum is formed in float32 and rounded once, and
memory holds a few MiB for each core. What an adapter has beyond those (trained embeddings, biases, ...) goes through
peft's merge_and_unload on the loaded model: 4 bytes a parameter, 2 where memory is short. Workers only (torch).
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from core import files
from core.data.template import ChatTemplate
from core.errors import ExportError
from core.export.pairs import Pair, lora_pairs
from core.export.stored import FLOATS, Base
from core.models.adapters import TOKENIZER_FILES
from core.models.weights import INDEX, open_tensors

Progress = Callable[[float], None]  # fraction of the work, 0 to 1
Check = Callable[[], None]  # raises StopRequested
# Everything a base folder may have that belongs to the merged one too; weights, cards and our own records do not.
KEPT = ("*.json", "*.jinja", "*.txt", "*.model", "LICENSE*", "NOTICE*", "USE_POLICY*")
# chat_template.json: an older place of the template, which would stand against ours.
NOT_KEPT = {INDEX, "starter.json", "adapter_config.json", "chat_template.json"}
AT_ONCE = 1 << 20  # numbers that are merged at once: 4 MiB in float32, which the cache of a core holds and malloc keeps
MOST_CORES = 8  # a disk is no faster than they are
Maker = Callable[[], torch.Tensor]
STORED = {dtype: name for name, dtype in FLOATS.items()}


def merge(base: Base, adapter: Path, target: Path, progress: Progress, check: Check) -> None:
    """target, made new: config, tokenizer, template without our markers, weights of the types that base.written_as tells."""
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


# ---- streaming --------------------------------------------------------------------------------------------------------
def _merge_streaming(base: Base, adapter: Path, pairs: dict[str, Pair], target: Path, progress: Progress, check: Check) -> None:
    done = 0
    weight_map: dict[str, str] = {}
    with open_tensors(adapter / "adapter_model.safetensors") as lora:
        for file in sorted({t.file for t in base.tensors.values()}):
            stored = {name: t for name, t in base.tensors.items() if t.file == file}
            shapes = {
                name: (STORED[base.written_as(name)] if t.dtype in FLOATS else t.dtype, t.shape) for name, t in stored.items()
            }

            def makers(file: Path = file, names: Iterable[str] = stored) -> Iterator[Maker]:
                nonlocal done
                with open_tensors(file) as weights:
                    for name in names:
                        check()
                        yield from _makers(weights.get_tensor(name), base.written_as(name), pairs.get(name), lora)
                        done += 1
                        progress(done / len(base.tensors))

            with closing(_made(makers())) as pieces:
                write_safetensors(target / file.name, shapes, pieces)
            weight_map |= dict.fromkeys(stored, file.name)
    if len(set(weight_map.values())) > 1:
        total = sum((target / name).stat().st_size for name in set(weight_map.values()))
        files.replace_json(target / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _makers(tensor: torch.Tensor, dtype: torch.dtype, pair: Pair | None, lora: Any) -> Iterator[Maker]:
    """Of the merged tensor, some rows after others. lora: the adapter's file."""
    if pair is None:
        for part in tensor.reshape(-1).split(AT_ONCE):
            yield partial(part.to, dtype if part.is_floating_point() else part.dtype)
        return
    a, b = (lora.get_tensor(key).float() for key in (pair.a, pair.b))
    lengths = lora.get_tensor(pair.magnitude).float() if pair.magnitude else None

    def rows(start: int, stop: int) -> torch.Tensor:
        tuned = tensor[start:stop].to(torch.float32, copy=True)  # else one in float32 would be changed where it is mapped, and stay
        if pair.experts:
            tuned = torch.add(tuned, pair.product(a, b, start, stop), alpha=pair.scale)
        else:  # without B A in memory: a third of the time of a merge went into that
            tuned = tuned.addmm_(b[start:stop], a, alpha=pair.scale)
        if lengths is not None:  # DoRA: each row gets the length that was learned for it (arXiv:2402.09353)
            tuned *= lengths[start:stop, None] / torch.linalg.norm(tuned, dim=1, keepdim=True)
        return tuned.to(dtype)

    at_once = max(1, AT_ONCE // max(1, math.prod(tensor.shape[1:])))
    for start in range(0, len(tensor), at_once):
        yield partial(rows, start, min(len(tensor), start + at_once))


def _made(makers: Iterable[Maker]) -> Generator[torch.Tensor]:
    """What they make, in their order. The next ones are at work meanwhile, each on one core: torch's own threads wait for each other at
    every small product, which on a busy PC was most of a merge."""
    before, cores = torch.get_num_threads(), min(MOST_CORES, psutil.cpu_count(logical=False) or 1)
    torch.set_num_threads(1)
    pool, coming = ThreadPoolExecutor(cores), deque[Future[torch.Tensor]]()
    try:
        for maker in makers:
            coming.append(pool.submit(maker))
            if len(coming) > cores:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def write_safetensors(path: Path, shapes: dict[str, tuple[str, tuple[int, ...]]], tensors: Iterator[torch.Tensor]) -> None:
    """A safetensors file written as tensors, or pieces of them, come, in the order of shapes (name: type, shape).

    safetensors' own save_file wants all tensors of a file in memory at once, 15 GB for some 7B models. The format:
    8 bytes little-endian length of the header, the header as JSON padded with spaces to 8 bytes, the raw values.
    """
    sizes = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in shapes.items():
        start, end = end, end + math.prod(shape) * sizes[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for tensor in tensors:
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


# ---- through peft -----------------------------------------------------------------------------------------------------
def _merge_with_peft(base: Base, adapter: Path, target: Path, check: Check) -> None:
    from core.engine import base_model
    from core.engine.adapter import attach
    from core.engine.device import Compute
    from core.engine.families import mended
    from core.messages import msg

    roomy = psutil.virtual_memory().available > 5 * base.parameters
    dtype = torch.float32 if roomy else base.dtype  # float32: each sum is rounded once
    model = base_model.load(
        base.folder, Compute(torch.device("cpu"), dtype, msg("export.merging_on_cpu")), four_bit=False, whole=True
    )
    if mended.lacks_tower(model):
        raise ExportError("export.tower_lacking", model_type=model.config.model_type)
    check()
    merged = attach(model, adapter).merge_and_unload(safe_merge=True).to(base.dtype)
    check()
    merged.config.use_cache = True
    merged.save_pretrained(target)
    copy_companions(base, adapter, target)  # save_pretrained wrote a config of its own; ours keeps the base's words
