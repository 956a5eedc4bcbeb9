"""What a stranger meets first: licence, metadata, hooks. Each of it is true of what lies here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from core import __version__
from core.presets import PROJECT
from core.recipe import Recipe
from core.runs.cards import model_card
from core.runs.run_json import RunFacts
from tools.size import words_of

METADATA = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
PAGES = [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")]


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub writes them: small letters, no marks, hyphens between words."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", each).lower()).strip().replace(" ", "-") for each in headings
    }


def test_the_licence_is_apache_2_in_full() -> None:
    text = (PROJECT / "LICENSE").read_text("utf-8")
    assert METADATA["license"] == "Apache-2.0" and METADATA["license-files"] == ["LICENSE", "NOTICE"]
    assert (
        "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text and len(text.splitlines()) > 200
    )


def test_the_metadata_is_complete_and_names_files_that_are_there() -> None:
    assert {
        "name",
        "version",
        "description",
        "authors",
        "keywords",
        "classifiers",
        "requires-python",
    } <= METADATA.keys()
    assert (PROJECT / METADATA["readme"]).is_file()


def test_there_is_one_version_and_the_changelog_knows_it() -> None:
    assert METADATA["version"] == __version__
    changes = (PROJECT / "CHANGELOG.md").read_text("utf-8")
    assert f"## Unreleased ({__version__})" in changes or f"## {__version__} (" in changes
    assert Version(__version__) >= Version(re.findall(r"^## ([\d.]+) \(", changes, re.MULTILINE)[0])


def test_a_file_of_ours_that_a_text_names_is_there() -> None:
    """Seen: six files that had been renamed or cut, in docstrings and in the README of the samples."""
    files = [
        file
        for kind in ("py", "md", "yaml")
        for place in ("core", "webui", "presets", "docs")
        for file in (PROJECT / place).rglob(f"*.{kind}")
    ]
    named = [
        (file, name)
        for file in files
        for name in re.findall(r"(?<![\w/.])(?:core|webui|benchmarks)/[a-z_/]+", file.read_text("utf-8"))
    ]
    lost = {
        f"{file.relative_to(PROJECT)}: {name}" for file, name in named if not list(PROJECT.glob(f"{name.rstrip('/')}*"))
    }
    assert len(named) > 100 and not lost


def test_the_launcher_says_the_version_without_an_environment() -> None:
    command = [sys.executable, "-I", "-S", str(PROJECT / "launch.py"), "--version"]
    assert subprocess.run(command, capture_output=True, text=True).stdout == f"LoRA Garage {__version__}\n"


def test_a_model_card_names_the_version_that_trained_and_none_where_the_run_does_not_say() -> None:
    recipe = Recipe.parse({"name": "Pirate", "data": {"source": "rows"}})
    assert "made with LoRA Garage 9.8.7.\n" in model_card.render(
        recipe, RunFacts(versions={"lora_garage": "9.8.7"}), []
    )
    for facts in ({}, {"versions": {"torch": "2.13"}}, {"versions": "lost"}):
        assert "made with LoRA Garage.\n" in model_card.render(recipe, RunFacts.from_json(facts), [])


def test_the_readme_begins_with_the_commands_of_the_app_and_of_its_tests_which_the_gate_ends_with() -> None:
    block = (PROJECT / "README.md").read_text("utf-8").split("```")[1].strip()
    app, tests = (line.partition("#")[0].split() for line in block.splitlines())
    assert app == ["python", "launch.py"] and tests == ["python", "launch.py", "test"]
    gate = PROJECT / ".ci" / "run"
    assert not gate.exists() or gate.read_text("utf-8").splitlines()[-1].split() == ["exec", "python3", *tests[1:]]


def test_hooks_clone_nothing() -> None:
    hooks = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text("utf-8"))
    assert [repo["repo"] for repo in hooks["repos"]] == ["local"] and len(hooks["repos"][0]["hooks"]) == 3
    for hook in hooks["repos"][0]["hooks"]:
        assert hook["language"] == "system", "anything else would install from a network host"
        assert all((PROJECT / word).exists() for word in hook["entry"].split() if word.startswith("tests/"))


def test_the_pages_for_contributors_link_to_files_that_are_there() -> None:
    """And to headings that are there, by the anchors that GitHub makes of them."""
    broken, anchored = [], 0
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text("utf-8")):
            file = page.parent / target if target else page
            if "://" in target:
                continue
            if not file.exists() or (anchor and anchor not in anchors(file)):
                broken.append(f"{page.name}: {target}#{anchor}")
            anchored += bool(anchor)
    assert broken == [] and anchored > 15


def test_the_docs_stay_short() -> None:
    """They had grown to 41,600 words, in which nobody found what holds."""
    guides = [PROJECT / "CONTRIBUTING.md", *(PROJECT / "docs").rglob("*.md")]
    readme = words_of((PROJECT / "README.md").read_text("utf-8"))
    assert readme <= 1_200 and readme + sum(words_of(page.read_text("utf-8")) for page in guides) <= 30_000


def test_every_page_of_the_guide_is_in_its_contents_and_its_chinese_twin_has_the_same_parts() -> None:
    guide = PROJECT / "docs" / "guide"
    contents = set(re.findall(r"\]\(([\w.-]+\.md)\)", (guide / "README.md").read_text("utf-8")))
    assert contents == {page.name for page in guide.glob("*.md")} - {"README.md"} and len(contents) > 12
    shape = [re.compile(each, re.MULTILINE) for each in (r"^#+ ", r"^\| *:?-", r"^!\[", r"^```")]
    for twin in guide.glob("*.zh.md"):
        chinese, english = (page.read_text("utf-8") for page in (twin, guide / twin.name.replace(".zh", "")))
        assert [len(each.findall(chinese)) for each in shape] == [len(each.findall(english)) for each in shape], (
            twin.name
        )


@pytest.mark.skipif(shutil.which("git") is None, reason="no git, as on the Windows Python under Wine")
def test_no_line_of_text_is_stored_with_a_carriage_return() -> None:
    """A checkout on Windows would otherwise differ from one on Linux, file by file."""
    listed = subprocess.run(["git", "ls-files", "--eol"], cwd=PROJECT, capture_output=True, text=True)
    if listed.returncode:  # unpacked from an archive: nothing is stored here
        assert not (PROJECT / ".git").exists()
        return
    assert "i/lf" in listed.stdout and not re.search(r"^i/(crlf|mixed)", listed.stdout, re.MULTILINE)


def test_what_code_names_as_its_source_is_in_the_repository() -> None:
    """Numbers name pages of docs/ and their sections; a page or a section that is not there cannot be read by
    anybody."""
    files = [
        each for folder in ("core", "webui", "presets", "tests", "benchmarks") for each in (PROJECT / folder).rglob("*")
    ]
    named = 0
    for file in files:
        if file.suffix not in (".py", ".yaml") or ".cache" in file.parts:
            continue
        text = file.read_text("utf-8")
        for page, section in re.findall(r"(docs/[\w/.-]+\.md)(?:, (?:section )?(\d(?:\.\d)?))?", text):
            named += 1
            assert (PROJECT / page).is_file(), f"{file.name} names {page}"
            headings = re.findall(r"^#+ (\d(?:\.\d)?)\b", (PROJECT / page).read_text("utf-8"), re.MULTILINE)
            assert not section or section in headings, f"{file.name} names section {section} of {page}"
    assert named > 30


def test_pages_name_no_module_and_no_folder_that_is_not_there() -> None:
    named = [
        (page.name, path)
        for page in PAGES
        for path in re.findall(r"`((?:core|webui|presets|tests|benchmarks|tools)/[\w./]+)`", page.read_text("utf-8"))
    ]
    assert len(named) > 60
    assert [
        (page, path) for page, path in named if not any((PROJECT / each).exists() for each in (path, f"{path}.py"))
    ] == []


def test_a_test_that_a_page_names_is_there() -> None:
    """Seen: the table of bad inputs named four files that had moved long ago."""
    files = list((PROJECT / "tests").rglob("*.py"))
    known = {file.stem for file in files} | {
        name for file in files for name in re.findall(r"def (test_\w+)", file.read_text("utf-8"))
    }
    named = [
        (page.name, *found) for page in PAGES for found in re.findall(r"\b(test_\w+)(\.\.\.)?", page.read_text("utf-8"))
    ]
    assert len(named) > 50
    gone = [one for one in named if not (any(name.startswith(one[1]) for name in known) if one[2] else one[1] in known)]
    assert not gone


def test_only_a_transformers_is_installed_that_keeps_a_layers_hooks_out_of_its_checkpoint() -> None:
    """Before 5.23 they ran again in each backward: offloaded layers were copied twice as often, in the wrong order
    (tests/model/test_streaming.py counts the copies)."""
    [allowed] = [need.specifier for need in map(Requirement, METADATA["dependencies"]) if need.name == "transformers"]
    assert allowed.contains("5.23.0") and allowed.contains("5.24.0") and not allowed.contains("5.22.2")


def test_every_dependency_is_on_its_page_with_its_range_and_its_reason() -> None:
    page = (PROJECT / "docs" / "dependencies.md").read_text("utf-8")
    to_run = dict(re.findall(r"^\| ([\w-]+) \| ([^|]*[<>=][^|]*) \| [^|]{15,} \|$", page, re.MULTILINE))
    needs = {need.name: need for need in map(Requirement, METADATA["dependencies"]) if need.marker is None}
    assert {str(need) for need in map(Requirement, METADATA["dependencies"])} - set(map(str, needs.values())) == {
        'torch!=2.13.*; sys_platform == "win32"'
    }, "what is said of a system stands in the row's words"
    assert to_run.keys() == needs.keys()
    assert all(SpecifierSet(to_run[name]) == need.specifier for name, need in needs.items())
    to_test = {
        name for row in re.findall(r"^\| ([\w, -]+) \| [^|<>]+ \|$", page, re.MULTILINE) for name in row.split(", ")
    }
    assert to_test - {"package"} == {Requirement(need).name for need in METADATA["optional-dependencies"]["test"]}
