"""`python tools/release.py [FOLDER]`: builds the release archive of the last commit, for people who have no Python and
no git.

Contents: the files needed to run, and the guide; the reference pages are on the site alone. The sentences of a
language are one packed file, except those that are read before the start, as many small files take twice the bytes.
Lines of comment in Python files are empty, and docstrings of private functions. Two calls give the same bytes: order,
times and modes follow from the commit alone. Uncommitted changes are not in it.
Beside it is lora-garage.json, which `python launch.py update` reads.
Prints every file with its size, then the archive's size and SHA-256.
"""

from __future__ import annotations

import argparse
import ast
import bz2
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import time
import tokenize
import tomllib
import zipfile
from pathlib import Path
from unittest import mock

import deflate
import yaml

PROJECT = Path(__file__).resolve().parent.parent
TOP = "LoRA Garage"
CONTENTS = (
    "Start LoRA Garage.bat", "Start LoRA Garage.command", "start.sh", "launch.py", "launcher", "pyproject.toml",
    "constraints.txt", "packaging/uv.txt",
    "README.md", "SECURITY.md", "LICENSE", "NOTICE", "core", "webui", "presets", "docs/guide",
)  # fmt: skip
MAX_BYTES = 2_000_000
PACKED = ".bz2"
PACKED_TOO = ("presets/memory.yaml", "presets/models.yaml")  # as core/presets.py reads them
TOGETHER = f"together.json{PACKED}"  # as core/messages.py reads it
LAUNCHERS = ("launch.yaml", "start.yaml")  # read as lines, before there is a YAML reader


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=PROJECT, check=True, stdout=subprocess.PIPE).stdout


def version() -> str:
    return str(tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["version"])


class Smallest:
    """The compressor of a file, by libdeflate, in place of zlib: 2 % smaller, and read by every unpacker."""

    def __init__(self) -> None:
        self._content = b""

    def compress(self, part: bytes) -> bytes:
        self._content += part
        return b""

    def flush(self) -> bytes:
        return bytes(deflate.deflate_compress(self._content, 12))


def build(folder: Path) -> Path:
    """Write the archive to folder. Git applies the line ends of .gitattributes, so that cmd gets its own."""
    made = time.gmtime(int(git("log", "-1", "--format=%ct")))[:6]
    target = folder / f"lora-garage-{version()}.zip"
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tarfile.open(fileobj=io.BytesIO(git("archive", "HEAD", *CONTENTS))) as tar,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive,
        mock.patch.object(zipfile, "_get_compressor", lambda kind, _: Smallest() if kind else None),
    ):
        files = {each.name: tar.extractfile(each).read() for each in tar if each.isfile()}  # type: ignore[union-attr]
        programs = {each.name for each in tar if each.mode & 0o100}
        for name, content in sorted(with_catalogues_together(files).items()):
            info = zipfile.ZipInfo(f"{TOP}/{name}", made)
            # Unix, whose modes say what may be started
            info.create_system = 3
            info.compress_type = zipfile.ZIP_STORED if name.endswith((PACKED, ".woff2")) else zipfile.ZIP_DEFLATED
            info.external_attr = (0o100755 if name in programs else 0o100644) << 16
            archive.writestr(info, content)
    return target


def with_catalogues_together(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files with the sentences of all languages in one, packed, and PACKED_TOO packed: together they take
    half of what they do in the archive's own way, the languages of a sentence side by side, within bzip2's one block of
    900 kB. Sentences that are read before the start stay as they are."""
    kept: dict[str, bytes] = {}
    sentences: dict[str, dict[str, dict[str, str]]] = {}

    def add(language: str, section: str, entries: dict[str, str]) -> None:
        for key, sentence in entries.items():
            sentences.setdefault(section, {}).setdefault(key, {})[language] = sentence

    for name, content in sorted(files.items()):
        folder, _, file = name.rpartition("/")
        if name in PACKED_TOO:
            kept[name + PACKED] = packed(content)
        elif file in LAUNCHERS or "/locales" not in folder:
            kept[name] = without_comments(content) if name.endswith(".py") else content
        elif folder.endswith("/locales"):
            sections = re.split(rb"^(?=\w+:\s*$)", content, flags=re.MULTILINE)
            early = [each for each in sections if f"{each.split(b':')[0].decode()}.yaml" in LAUNCHERS]
            kept[name] = b"".join(early)
            for section, entries in yaml.safe_load(b"".join(each for each in sections if each not in early)).items():
                add(file.removesuffix(".yaml"), section, entries)
        else:
            add(folder.rpartition("/")[2], file.removesuffix(".yaml"), yaml.safe_load(content))
    together = json.dumps(sentences, ensure_ascii=False, separators=(",", ":"))
    return kept | {f"core/locales/{TOGETHER}": bz2.compress(together.encode())}


def without_comments(program: bytes) -> bytes:
    """Return a Python file with its lines of comment empty, but the first (#!), and with the docstrings of its private
    functions empty where something follows them: a line in an error's text keeps its number."""
    lines = program.splitlines(keepends=True)
    for token in tokenize.tokenize(io.BytesIO(program).readline):
        number, column = token.start
        if token.type == tokenize.COMMENT and number > 1 and not token.line[:column].strip():
            lines[number - 1] = b"\n"
    for node in ast.walk(ast.parse(program)):
        if not isinstance(node, ast.FunctionDef) or not re.match("_(?!_)", node.name):
            continue
        if len(node.body) > 1 and ast.get_docstring(node, clean=False):
            text = node.body[0]
            end = text.end_lineno or text.lineno
            lines[text.lineno - 1 : end] = [b"\n"] * (end - text.lineno + 1)
    return b"".join(lines)


def packed(text: bytes) -> bytes:
    """Return YAML compressed, without its lines of comment. No text of several lines may have a line that begins so."""
    lines = (line for line in text.splitlines(keepends=True) if not line.lstrip().startswith(b"#"))
    return bz2.compress(b"".join(lines))


def description(archive: Path) -> dict[str, str | int]:
    content = archive.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    return {"version": version(), "file": archive.name, "bytes": len(content), "sha256": sha256}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="the release archive of the last commit")
    parser.add_argument(
        "folder", type=Path, nargs="?", default=PROJECT / "dist", help="where it is written; default: dist"
    )
    target = build(parser.parse_args(arguments).folder)
    with zipfile.ZipFile(target) as archive:
        for info in archive.infolist():
            print(f"{info.file_size:>9,} {info.filename}")
    size = target.stat().st_size
    (target.parent / "lora-garage.json").write_text(json.dumps(description(target)) + "\n", "utf-8")
    print(f"{size:>9,} {target}\nSHA-256 {hashlib.sha256(target.read_bytes()).hexdigest()}")
    if size > MAX_BYTES:
        print(f"The archive has {size:,} bytes, at most {MAX_BYTES:,} are meant: see above what grew.", file=sys.stderr)
    return int(size > MAX_BYTES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
