"""Combines weighted adapters of one base into one by PEFT's `add_weighted_adapter`, in a process of its own
(combine_worker): into a folder, or as a finished run. No torch.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from core import files
from core.errors import ModelError
from core.files import JsonObject
from core.models import headers
from core.models.adapters import LEAVES_BASE_ALONE, NOT_SCALABLE, TOKENIZER_FILES, check_complete, describe
from core.runs import foreign
from core.runs.folder import RunFolder
from core.runs.run_json import Combination, WeightedAdapter
from core.system import programs
from core.workspace.folder import Workspace

# Settings with which an adapter is more than B A on the base's own weights.
_REFUSED = (*NOT_SCALABLE, "rank_pattern", "alpha_pattern", "target_parameters", "layer_replication", "fan_in_fan_out")
_ENDS = ("lora_A.weight", "lora_B.weight")
# The svd ones, for any ranks, decompose each layer: minutes for the starter.
METHODS = (
    "cat", "linear", "ties", "dare_linear", "dare_ties", "svd", "ties_svd", "dare_linear_svd", "dare_ties_svd",
)  # fmt: skip
SIGNS = ("total", "frequency")  # PEFT's majority_sign_method


def uses_density(method: str) -> bool:
    """Return whether a combination type (ties..., dare...) drops part of each adapter's values, so that the setting
    `density` (the share that stays) has an effect."""
    return method.startswith(("ties", "dare"))


def write(how: Combination, target: Path) -> None:
    """Write the combined adapter to the new folder target, with tokenizer and template of the first one, completely or
    not at all. Raises ModelError for adapters or settings that cannot be combined, and for a target that exists or
    cannot be written."""
    check(how)
    if target.exists():
        raise ModelError("merge.is_there", folder=str(target))
    try:
        with files.folder_aside(target) as aside:
            aside.mkdir(parents=True)
            _fill(how, aside)
    except OSError as error:
        raise ModelError("merge.cannot_write", folder=str(target), reason=error.strerror or str(error)) from error


def _fill(how: Combination, folder: Path) -> None:
    """Write weights, config, tokenizer and template to folder. Raises ModelError if PEFT fails; OSError."""
    with tempfile.TemporaryDirectory() as work:
        request, log = Path(work) / "request.json", Path(work) / "log"
        files.replace_json(request, {"how": how.model_dump(), "target": str(folder)})
        code, tail = programs.run(["-m", "core.export.combine_worker", str(request)], log, lambda: None)
    if code:
        raise ModelError("merge.failed", method=how.combination_type, reason=programs.last_line(tail))
    for name in TOKENIZER_FILES:
        if (file := Path(how.adapters[0].folder) / name).exists():
            shutil.copyfile(file, folder / name)


def as_run(workspace: Workspace, how: Combination, base: str) -> RunFolder:
    """Combine adapters, make a finished run of the result and return it. base: the base model's id. Raises as `write`,
    and as core.runs.foreign.from_folder."""
    with tempfile.TemporaryDirectory(dir=workspace.cache) as work:
        folder = Path(work) / " + ".join(one.name for one in how.adapters).replace("/", "-")[:60]
        write(how, folder)
        return foreign.from_folder(workspace, folder, base, in_words(how), how)


def in_words(how: Combination) -> str:
    """Return a combination as one line, in PEFT's terms."""
    parts = " + ".join(f"{one.name}@{one.weight}" for one in how.adapters)
    thinned = [f"density {how.density}"] if uses_density(how.combination_type) else []
    seeded = [f"seed {how.seed}"] if how.combination_type.startswith("dare") else []
    return f"{parts} ({', '.join([how.combination_type, *thinned, *seeded])})"


def check(how: Combination) -> None:
    """Raise ModelError for adapters or settings that cannot be combined: fewer than two, one twice, of other bases,
    chat templates or shapes, an unknown method, a value out of its range."""
    method, parts = how.combination_type, how.adapters
    if len(parts) < 2:
        raise ModelError("merge.two")
    if len({one.folder for one in parts}) < len(parts):
        raise ModelError("merge.twice")
    if method not in METHODS:
        raise ModelError("merge.method", found=method[:40], known=list(METHODS))
    for one in parts:
        if not math.isfinite(one.weight) or not one.weight:
            raise ModelError("merge.weight", name=one.name, found=str(one.weight))
    if not 0 < how.density <= 1:
        raise ModelError("merge.density", found=how.density)
    if how.majority_sign_method not in SIGNS:
        raise ModelError("merge.sign", found=how.majority_sign_method[:40])
    folders = [Path(one.folder) for one in parts]
    configs = [_config(folder, one) for folder, one in zip(folders, parts, strict=True)]
    ranks, first = [int(config["r"]) for config in configs], configs[0]
    for folder, one, config in zip(folders[1:], parts[1:], configs[1:], strict=True):
        for name in ("base_model_name_or_path", "revision"):
            if first.get(name) != config.get(name):
                raise ModelError("merge.other_base", first=str(first.get(name)), second=str(config.get(name)))
        # With another template the prompts are others.
        if _text(folders[0] / "chat_template.jinja") != _text(folder / "chat_template.jinja"):
            raise ModelError("merge.other_template", first=parts[0].name, second=one.name)
    # Only cat and svd take factors of different ranks.
    if method != "cat" and not method.endswith("svd") and len(set(ranks)) > 1:
        raise ModelError(
            "merge.ranks", method=method, found=ranks, instead="cat" if method == "linear" else f"{method}_svd"
        )
    if how.svd_rank is not None and not (method.endswith("svd") and 1 <= how.svd_rank < sum(ranks)):
        raise ModelError("merge.rank", found=how.svd_rank, high=sum(ranks) - 1)
    _check_shapes(folders, ranks)


def _config(folder: Path, one: WeightedAdapter) -> JsonObject:
    """Read an adapter's config. Raises ModelError for a damaged adapter, or one with anything but plain LoRA factors on
    named modules."""
    describe(folder)
    check_complete(folder)
    config = files.read_object(folder / "adapter_config.json")
    refused = [name for name in _REFUSED if config.get(name)]
    refused += ["bias"] if config.get("bias", "none") != "none" else []
    refused += ["init_lora_weights"] if config.get("init_lora_weights", True) not in LEAVES_BASE_ALONE else []
    refused += ["target_modules"] if not isinstance(config.get("target_modules"), list) else []
    if refused:
        raise ModelError("merge.cannot", folder=one.name, found=refused)
    return config


def _check_shapes(folders: Sequence[Path], ranks: Sequence[int]) -> None:
    """Raise ModelError for weights other than lora_A and lora_B, and for layers whose shapes differ; an adapter may
    lack some."""
    sizes = dict[str, int]()
    for folder, rank in zip(folders, ranks, strict=True):
        for tensor in headers.of_file(folder / "adapter_model.safetensors"):
            if not tensor.name.endswith(_ENDS):
                raise ModelError("merge.cannot", folder=folder.name, found=[tensor.name[:80]])
            is_a = tensor.name.endswith(_ENDS[0])
            # A is (r, in), B is (out, r).
            size = tensor.shape[1 if is_a else 0]
            expected = (rank, sizes.get(tensor.name, size)) if is_a else (sizes.get(tensor.name, size), rank)
            if tensor.shape != expected:
                raise ModelError("merge.shape", layer=tensor.name, first=str(expected), second=str(tensor.shape))
            sizes[tensor.name] = size


def _text(path: Path) -> str | None:
    """Return the text of a file; None if it is missing or no UTF-8."""
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError):
        return None
