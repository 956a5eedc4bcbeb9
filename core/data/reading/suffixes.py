"""The kinds of data files and the suffixes of their names. A name only proposes a kind, `sniff` decides."""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal

FileKind = Literal[
    "json",
    "jsonl",
    "csv",
    "parquet",
    "arrow",
    "sqlite",
    "txt",
    "xlsx",
    "xls",
    "xlsb",
    "ods",
    "zip",
    "docx",
    "pdf",
    "epub",
    "odt",
    "html",
    "srt",
    "yaml",
    "toml",
    "ipynb",
    "code",
]
SUFFIXES: dict[str, FileKind] = {
    ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet",
    ".arrow": "arrow", ".feather": "arrow", ".db": "sqlite", ".sqlite": "sqlite", ".sqlite3": "sqlite", ".xlsx": "xlsx",
    ".xlsm": "xlsx", ".xls": "xls", ".xlsb": "xlsb", ".ods": "ods", ".zip": "zip", ".docx": "docx", ".pdf": "pdf",
    ".epub": "epub", ".odt": "odt", ".html": "html", ".htm": "html", ".xhtml": "html", ".srt": "srt", ".vtt": "srt",
    ".txt": "txt", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".ipynb": "ipynb", ".log": "txt",
}  # fmt: skip
MARKDOWN = (".md", ".markdown", ".mdown", ".mkd")
SUFFIXES |= dict.fromkeys(MARKDOWN, "txt")
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")  # suffixes around another, as in .jsonl.gz
# Source code, by the language of its suffix
CODE = {
    ".py": "Python", ".pyi": "Python", ".js": "JavaScript", ".mjs": "JavaScript", ".jsx": "JavaScript",
    ".ts": "TypeScript", ".tsx": "TypeScript", ".vue": "Vue", ".java": "Java", ".kt": "Kotlin", ".scala": "Scala",
    ".c": "C", ".h": "C", ".cc": "C++", ".cpp": "C++", ".cxx": "C++", ".hpp": "C++", ".cs": "C#", ".go": "Go",
    ".rs": "Rust", ".rb": "Ruby", ".php": "PHP", ".swift": "Swift", ".sh": "Shell", ".ps1": "PowerShell",
    ".lua": "Lua", ".jl": "Julia", ".pl": "Perl", ".hs": "Haskell", ".ml": "OCaml", ".ex": "Elixir",
    ".exs": "Elixir", ".erl": "Erlang", ".clj": "Clojure", ".dart": "Dart", ".zig": "Zig", ".nim": "Nim",
    ".f90": "Fortran", ".sql": "SQL",
}  # fmt: skip
SUFFIXES |= dict.fromkeys(CODE, "code")
SPREADSHEETS: tuple[FileKind, ...] = ("xlsx", "xls", "xlsb", "ods")
DOCUMENTS: tuple[FileKind, ...] = ("docx", "pdf", "epub", "odt", "html", "srt")
# Kinds that in a folder more often describe the data than contain it.
DOCUMENTATION_SUFFIXES = {*MARKDOWN, *CODE, ".ipynb", ".log", ".yaml", ".yml", ".toml"} | {
    ending for ending, kind in SUFFIXES.items() if kind in (*DOCUMENTS, "sqlite")
}


def data_suffix(name: str) -> str:
    """Return the suffix of a file's name in small letters; of a compressed file, that of the file inside."""
    path = PurePath(name.lower())
    return PurePath(path.stem).suffix if path.suffix in COMPRESSED else path.suffix
