"""The recipe and the table of `test --windows`, as far as they need no Windows Python."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from core.presets import PROJECT
from tests.kit.one_by_one import Row
from tests.windows import wine
from tests.windows.__main__ import JOURNEYS, SHORT, files_asked

LOG = """collecting ... collected 4 items

tests/unit/x.py::test_a PASSED [ 25%]
tests/unit/x.py::test_b[1 - 2] FAILED [ 50%]
tests/unit/x.py::test_c SKIPPED (links need rights) [ 75%]
tests/unit/x.py::test_d ERROR [100%]
FAILED tests/unit/x.py::test_b[1 - 2] - assert 1 == 2
ERROR tests/unit/x.py::test_d - OSError: refused | twice
"""


def test_a_log_becomes_a_row_with_its_reasons() -> None:
    row = Row.of_log("tests/unit/x.py", LOG, 1, 2.4)
    assert (row.passed, row.failed, row.skipped, row.is_whole, row.is_good) == (1, 2, 1, True, False)
    assert (
        row.shown()
        == r"| `tests/unit/x.py` | 1 | 2 | 1 | 2 | test_b[1 - 2]: assert 1 == 2; test_d: OSError: refused \| twice |"
    )


@pytest.mark.parametrize(
    ("code", "said"), [(None, "cut off in test_c"), (3, "ended with 3 in test_c"), (-11, "ended with -11 in test_c")]
)
def test_a_file_that_did_not_come_to_its_end_is_not_good(code: int | None, said: str) -> None:
    log = "tests/unit/x.py::test_a PASSED [ 50%]\ntests/unit/x.py::test_c "
    row = Row.of_log("tests/unit/x.py", log, code, 900)
    assert (row.passed, row.failed, row.is_good, row.why) == (1, 0, False, said)


def test_nothing_that_ran_is_not_good_either() -> None:
    assert not Row.of_log("tests/unit/x.py", "wine: could not load\n", 1, 1).is_good
    assert Row.of_log("tests/unit/x.py", "tests/unit/x.py::test_a PASSED [100%]\n", 0, 1).is_good


def test_the_short_form_names_files_that_are_there_and_the_long_one_all_without_a_browser() -> None:
    assert set(files_asked([], full=False)) == set(SHORT)
    everything = files_asked([], full=True)
    assert set(everything) > set(SHORT) | {file for file in JOURNEYS if (PROJECT / file).exists()}
    assert not [file for file in everything if file.startswith("tests/browser/")]
    with pytest.raises(wine.NotPossible, match="test_nothing"):
        files_asked(["tests/unit/test_nothing.py"], full=False)


def test_the_uv_of_a_first_start_is_the_one_that_the_start_scripts_fetch() -> None:
    (version,) = re.findall(r"^version (\S+)$", (PROJECT / "packaging" / "uv.txt").read_text("utf-8"), re.MULTILINE)
    assert wine.UV.startswith(f"uv=={version} --hash=sha256:")


def test_every_windows_package_is_pinned_by_hash_to_the_version_that_is_tested_here() -> None:
    lines = [line for line in wine.PINS.read_text("utf-8").splitlines() if not line.startswith("#")]
    assert len(lines) > 80 and all(re.fullmatch(r"[\w.-]+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)
    held, pinned = wine.constraints(), wine.pins()
    assert {name: version for name, version in pinned.items() if held.get(name, version) != version} == {}
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    needs = {wine.normal(Requirement(need).name): Requirement(need).specifier for need in project["dependencies"]}
    assert [
        name for name, range_ in needs.items() if name != "pip" and (name not in pinned or pinned[name] not in range_)
    ] == []
    more = {wine.normal(Requirement(need).name) for part in project["optional-dependencies"].values() for need in part}
    assert more - pinned.keys() == {"ruff", "mypy", "types-pyyaml", "types-psutil", "hatchling", "mkdocs-material"}, (
        "not to run it"
    )


def test_the_program_is_copied_anew_into_a_folder_with_an_umlaut_and_an_en_dash(tmp_path: Path) -> None:
    program = wine.Wine(tmp_path).program
    assert (
        program.name
        == "Z\N{LATIN SMALL LETTER U WITH DIAERESIS}rich \N{EN DASH} LoRA \N{LATIN CAPITAL LETTER U WITH DIAERESIS}bung"
    )
    program.mkdir()
    (program / "of_yesterday.py").touch()
    wine.Wine(tmp_path).unpack()
    assert (program / "launch.py").read_bytes() == (PROJECT / "launch.py").read_bytes()
    assert not {"of_yesterday.py", ".git", ".venv", "workspace"} & {file.name for file in program.iterdir()}


def test_a_folder_for_temporary_files_of_this_side_is_not_handed_to_wine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With TMPDIR Debian's wine ended before it began, each file of a run with "free(): invalid pointer"."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert "TMPDIR" not in wine.Wine(tmp_path).environment()


def test_the_launcher_hands_over() -> None:
    """As `python launch.py test --windows FILE` would, in an environment that is complete."""
    program = (
        "from launcher import main as launch; launch.ensure_environment = lambda *a, **k: True\n"
        "launch.hand_over = lambda environment, arguments: print(arguments) or 7\n"
        "import sys; sys.exit(launch.main(['test', '--windows', 'tests/unit/test_files.py', '--full']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (
        7,
        "['-m', 'tests.windows', 'tests/unit/test_files.py', '--full']",
    )
