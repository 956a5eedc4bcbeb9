"""`python launch.py test --changed`: which tests a change reaches, and which of them are run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.changed import FAR_S, MAX_S, NEAR, Choice
from tests.kit.reach import Change, Project

FILES = {
    "launch.py": "",
    "core/files.py": "def write(text):\n    return text\n\n\ndef read():\n    return 1\n",
    "core/folder.py": "from core import files\n\n\nclass Folder:\n    def save(self):\n        files.write('x')\n",
    "core/worker.py": "from core.folder import Folder\n\nFolder().save()\n",
    "core/table.py": "def rows():\n    return open('presets/table.yaml')\n",
    "core/test_sets.py": "from core.files import write\n\n\ndef test_sets():\n    write('')\n",  # no test
    "core/words.py": "def title():\n    return msg('page.title')\n",
    "core/locales/en/page.yaml": "title: Start\nother: End\n",
    "presets/table.yaml": "rows: 1\n",
    "tests/conftest.py": (
        "import pytest\n\nfrom core.folder import Folder\n\n\n@pytest.fixture\ndef folder():\n    return Folder()\n"
    ),
    "tests/test_files.py": (
        "from core.files import read, write\n\n\ndef test_write():\n    write('')\n\n\ndef test_read():\n    read()\n"
    ),
    "tests/test_folder.py": "def test_save(folder):\n    folder.save()\n",
    "tests/test_worker.py": "def test_start():\n    start('core.worker')\n",
    "tests/test_table.py": "from core import table\n\n\ndef test_rows():\n    table.rows()\n",
    "tests/test_words.py": "from core.words import title\n\n\ndef test_title():\n    title()\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    tmp_path = tmp_path / "checkout"
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, "utf-8")
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "Begin"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def reached(checkout: Path, path: str, old: str, new: str) -> dict[str, int]:
    file = checkout / path
    file.write_text(file.read_text("utf-8").replace(old, new), "utf-8")
    project = Project(checkout, checkout.parent / "modules.pickle")
    return {
        test.removeprefix("tests/"): distance
        for test, distance in project.tests(Change(project, "HEAD").nodes()).items()
    }


def test_a_change_reaches_the_tests_that_use_it_through_modules_fixtures_and_processes(checkout: Path) -> None:
    assert reached(checkout, "core/files.py", "return text", "return text + text") == {
        "test_files.py::test_write": 1,
        "test_folder.py::test_save": 3,  # by the fixture of tests/conftest.py
        "test_worker.py::test_start": 3,  # by the name of the module that it starts
    }


def test_a_comment_reaches_nothing_and_a_test_that_changed_reaches_itself(checkout: Path) -> None:
    assert reached(checkout, "core/files.py", "    return text", "    # why\n    return text") == {}
    assert reached(checkout, "tests/test_files.py", "read()\n", "assert read()\n") == {"test_files.py::test_read": 0}


def test_a_deleted_test_is_not_run_and_what_it_stood_beside_is(checkout: Path) -> None:
    """pytest refuses a name that it does not find, and then runs nothing."""
    file = checkout / "tests/test_files.py"
    text = file.read_text("utf-8").replace("read()\n", "assert read()\n").replace("def test_write", "def _write")
    file.write_text(text, "utf-8")
    project = Project(checkout, checkout.parent / "modules.pickle")
    assert project.tests(Change(project, "HEAD").nodes()) == {"tests/test_files.py::test_read": 0}


def test_a_new_file_counts(checkout: Path) -> None:
    (checkout / "tests/test_new.py").write_text("def test_new():\n    pass\n", "utf-8")
    assert reached(checkout, "core/files.py", "", "") == {"test_new.py::test_new": 0}


def test_a_data_file_reaches_what_names_it_and_a_sentence_what_says_it(checkout: Path) -> None:
    assert reached(checkout, "presets/table.yaml", "1", "2") == {"test_table.py::test_rows": 2}
    subprocess.run(["git", "checkout", "-q", "."], cwd=checkout, check=True)
    assert reached(checkout, "core/locales/en/page.yaml", "End", "Finish") == {}
    assert reached(checkout, "core/locales/en/page.yaml", "Start", "Begin") == {"test_words.py::test_title": 2}


def test_a_page_of_the_docs_reaches_what_names_its_file_and_not_what_holds_its_title(checkout: Path) -> None:
    (checkout / "docs").mkdir()
    (checkout / "docs/data.md").write_text("", "utf-8")
    (checkout / "tests/test_page.py").write_text(
        "def test_title():\n    show('data')\n\n\ndef test_file():\n    open('docs/data.md')\n", "utf-8"
    )
    subprocess.run(["git", "add", "."], cwd=checkout, check=True)
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "Go on"], cwd=checkout, check=True
    )
    assert reached(checkout, "docs/data.md", "", "words") == {"test_page.py::test_file": 1}


def test_the_nearest_and_quickest_are_run_within_the_budget_and_the_rest_is_said() -> None:
    near, far = {f"n.py::{n}": NEAR for n in range(3)}, {f"f.py::{n}": NEAR + 1 for n in range(4)}
    seconds = {
        "a.py::changed": 2 * MAX_S,
        "n.py::0": MAX_S - 6,
        "n.py::1": 1.0,
        "n.py::2": MAX_S,
        "f.py::0": 3.0,
        "f.py::1": 1.0,
        "f.py::2": 2.0,
        "f.py::3": FAR_S,
    }
    choice = Choice.of(near, seconds)
    assert (choice.run, choice.left, choice.seconds) == (["n.py::1", "n.py::0"], ["n.py::2"], MAX_S - 5)
    left = Choice.of(
        {"a.py::test_far": 2, "b.py::test_near": 1, "a.py::test_further": 3},
        dict.fromkeys(("a.py::test_far", "b.py::test_near", "a.py::test_further"), 2 * MAX_S),
    )
    assert left.files_left() == ": b.py (1), a.py (2)", "the nearest first"
    assert Choice.of(far, seconds).run == ["f.py::1", "f.py::2", "f.py::0"], "far ones have a budget of their own"
    further = {"a.py::near": NEAR + 1, "a.py::quick": NEAR + 4, "a.py::slow": NEAR + 1}
    lengths = {"a.py::near": 1.0, "a.py::quick": 0.1, "a.py::slow": FAR_S - 1}
    assert Choice.of(further, lengths).run == ["a.py::near", "a.py::quick"], "a quick one rather than a slow, near one"
    assert Choice.of(near | far, seconds).left == ["n.py::2", "f.py::0", "f.py::3"], "within that of all"
    assert Choice.of({"a.py::changed": 0} | near, seconds).run == ["a.py::changed"], "it is run whatever it takes"


def test_what_the_tests_of_a_file_share_counts_once() -> None:
    distances = {f"a.py::{n}": NEAR + 1 for n in range(3)} | {"b.py::0": NEAR + 1}
    seconds = dict.fromkeys(distances, 1.0) | {"a.py": FAR_S - 4, "b.py": FAR_S}
    choice = Choice.of(distances, seconds)
    assert (choice.run, choice.left) == (["a.py::0", "a.py::1", "a.py::2"], ["b.py::0"])
    assert choice.seconds == FAR_S - 1


def test_the_project_itself_is_read_and_a_worker_reaches_its_journeys(tmp_path: Path) -> None:
    from core.presets import PROJECT

    tests = Project(PROJECT, tmp_path / "modules.pickle").tests({("core.training.worker", "main"): 0})
    assert any(test.startswith("tests/process/") for test in tests)
    assert len(tests) > 50
    assert not any(test.startswith(("tests/card/", "tests/windows/")) for test in tests), "lanes of their own"


def test_the_launcher_hands_over_to_it_and_to_the_full_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    from launcher import developers

    begun: list[list[str]] = []
    monkeypatch.setattr(developers, "obtain_browser", lambda environment, run: (None, "none here"))
    monkeypatch.setattr(developers, "hand_over", lambda environment, arguments: begun.append(arguments))
    monkeypatch.setattr(developers, "LoggedRun", lambda log: None)
    monkeypatch.chdir(developers.ROOT)
    monkeypatch.setenv("LORA_GARAGE_NO_BROWSER", "kept by monkeypatch")
    monkeypatch.setenv("LORA_GARAGE_BROWSER", "kept by monkeypatch")
    environment = type("Environment", (), {"log": None})()
    developers.run_tests(environment, ["--changed", "HEAD~3", "-x"])
    developers.run_tests(environment, ["--full"])
    developers.run_tests(environment, ["--full", "-k", "words"])
    assert begun[:2] == [["-m", "tests.changed", "HEAD~3", "-x"], ["-m", "tests.full"]]
    assert begun[2][:2] == ["-m", "pytest"] and begun[2][-3:] == ["--full", "-k", "words"]
