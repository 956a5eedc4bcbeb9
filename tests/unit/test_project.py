"""What a stranger meets first: licence, metadata, hooks. Each of it is true of what lies here."""

from __future__ import annotations

import re
import subprocess
import tomllib

import yaml

from core.presets import PROJECT

METADATA = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]


def test_the_licence_is_apache_2_in_full() -> None:
    said = (PROJECT / "LICENSE").read_text("utf-8")
    assert METADATA["license"] == "Apache-2.0" and METADATA["license-files"] == ["LICENSE"]
    assert "Version 2.0, January 2004" in said and "END OF TERMS AND CONDITIONS" in said and len(said.splitlines()) > 200


def test_the_metadata_is_complete_and_names_files_that_are_there() -> None:
    assert {"name", "version", "description", "authors", "keywords", "classifiers", "requires-python"} <= METADATA.keys()
    assert (PROJECT / METADATA["readme"]).is_file()


def test_hooks_clone_nothing() -> None:
    hooks = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text("utf-8"))
    assert [repo["repo"] for repo in hooks["repos"]] == ["local"] and len(hooks["repos"][0]["hooks"]) == 3
    for hook in hooks["repos"][0]["hooks"]:
        assert hook["language"] == "system", "anything else would install from a network host"
        assert all((PROJECT / word).exists() for word in hook["entry"].split() if word.startswith("tests/"))


def test_the_pages_for_contributors_link_to_files_that_are_there() -> None:
    pages = [*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md")]
    assert len(pages) > 8
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []


def test_no_line_of_text_is_stored_with_a_carriage_return() -> None:
    """A checkout on Windows would otherwise differ from one on Linux, file by file."""
    listed = subprocess.run(["git", "ls-files", "--eol"], cwd=PROJECT, capture_output=True, text=True)
    if listed.returncode:  # unpacked from an archive: nothing is stored here
        assert not (PROJECT / ".git").exists()
        return
    assert "i/lf" in listed.stdout and not re.search(r"^i/(crlf|mixed)", listed.stdout, re.MULTILINE)
