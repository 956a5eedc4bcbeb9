"""`python launch.py test --full` runs the short form of `test --windows` too, where Wine is or can be had."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from core.presets import PROJECT
from tests.windows.wine import NotPossible, Wine


@pytest.mark.full
@pytest.mark.spawn
@pytest.mark.skipif(os.name == "nt", reason="its files are run there as any other: python launch.py test --windows")
def test_what_windows_alone_breaks_is_well_on_a_windows_python() -> None:
    try:
        Wine().ready()
    except NotPossible as reason:
        pytest.skip(str(reason))
    done = subprocess.run([sys.executable, "-m", "tests.windows"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
