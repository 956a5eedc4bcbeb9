"""The first start of a person who unpacked it in a folder such as people in Europe and China have: everything is
installed there.

From the network, by uv where the start scripts put theirs (LORA_GARAGE_TEST_UV names its uv.exe), and by Windows' own
pip: under Wine 5 to 20 minutes each.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.models import starter
from tests.kit.files import link_or_copy
from tests.windows.place import NAME, unpack

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(os.name != "nt", reason="on a Windows Python: python launch.py test --windows --full"),
]
INSTALL_S, LIMIT_S = 2000.0, 300.0


@pytest.fixture(params=["uv", "pip"])
def tool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "pip":
        monkeypatch.setenv("LORA_GARAGE_INSTALLER", "pip")
    elif not uv():
        pytest.skip("no uv here: LORA_GARAGE_TEST_UV names one")
    return request.param


def uv() -> str | None:
    return os.environ.get("LORA_GARAGE_TEST_UV") or shutil.which("uv")


@pytest.fixture
def place(tool: str, starter_folder: Path) -> Iterator[Path]:
    """The program as it is unpacked, and the starter model, so that this test asks one host less. In the user's folder:
    pytest's own are too long by a letter or two where long paths are off, which the first start says."""
    outer = Path(tempfile.mkdtemp(dir=Path.home()))
    folder = unpack(outer / NAME / "LoRA Garage")
    target = starter.folder(folder / "workspace" / "models")
    target.mkdir(parents=True)
    for file in starter_folder.iterdir():
        link_or_copy(file, target / file.name)
    if tool == "uv":
        (folder / ".uv").mkdir()
        link_or_copy(Path(uv() or ""), folder / ".uv" / "uv.exe")
    yield folder
    shutil.rmtree(outer, ignore_errors=True)


def launch(place: Path, *arguments: str, limit_s: float = LIMIT_S) -> subprocess.CompletedProcess[str]:
    """As `py launch.py ...` in that folder, by the Python that people have."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {
        "LORA_GARAGE_LANG": "en"
    }
    return subprocess.run(
        [sys._base_executable, "launch.py", *arguments],
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=limit_s,
    )


def test_a_first_start_installs_trains_and_is_well(place: Path, tool: str) -> None:
    settings = ["--set", "train.max_steps=3", "--set", "train.sample_seconds=0"]
    done = launch(place, "train", "presets/recipes/quickstart.yaml", *settings, "--json", limit_s=INSTALL_S)
    log = place / ".venv" / "install.log"
    assert done.returncode == 0, (
        f"{done.stderr}\n{log.read_text('utf-8', errors='replace')[-3000:] if log.exists() else ''}"
    )
    assert json.loads(done.stdout)["state"] == "completed"
    assert "Ready after" in done.stderr
    assert ("No uv was found" in done.stderr) == (tool == "pip") and "uv did not finish" not in done.stderr

    again = launch(place, "runs", "--json")
    assert again.returncode == 0 and "Ready after" not in again.stderr, again.stderr
    assert [run["step"] for run in json.loads(again.stdout)["runs"]] == [3]

    well = launch(place, "doctor", "--json")
    findings = json.loads(well.stdout)["findings"]
    assert well.returncode == 0, [finding for finding in findings if not finding["ok"]]
