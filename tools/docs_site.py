"""The documentation as a site: the hook that mkdocs.yml names, so that GitHub and the site read the same files.

On GitHub a page of docs/ links to a file of the project by `../LICENSE`, and README.md to a page by `docs/map.md`. The
site's root is docs/. So this hook adds the linked files of the project to the site, and takes one `../`, or `docs/`,
out of the links.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

PROJECT = Path(__file__).resolve().parent.parent
ADDED = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSE", "NOTICE", "presets/families.yaml")


def on_files(files: Files, config: Any) -> Files:
    """Add ADDED to the files of docs/, under their path in the project."""
    for name in ADDED:
        files.append(File.generated(config, name, abs_src_path=str(PROJECT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the page's text with links that are right on the site; page.file.src_uri is relative to docs/, or a name
    of ADDED."""
    depth = len(PurePosixPath(page.file.src_uri).parents)
    if page.file.src_uri in ADDED:
        return re.sub(r"\]\(docs/", "](", markdown)
    return re.sub(rf"\]\((?:\.\./){{{depth}}}", "](" + "../" * (depth - 1), markdown)
